"""Fill in a template: one HTML file that needs nothing else, and runs nothing."""

from collections.abc import Callable
from typing import Any

from vibnet.errors import ArtefactError, ConfigError
from vibnet.report.rows import duration, number


def check_extra() -> None:
    """Refuse to go on without what pages are made with.

    Raises:
        ConfigError: the extra `report` is not installed.
    """
    try:
        import jinja2 as _jinja2  # noqa: F401 - looked for
        import matplotlib as _matplotlib  # noqa: F401 - said here, not from inside a chart
    except ImportError as error:
        raise ConfigError(
            f"report: {error.name} is not installed. Install the extra: "
            f"pip install 'vibnet[report]'."
        ) from error


def render(template: str, content: Callable[[], dict[str, Any]], where: str) -> str:
    """The page as text. Everything that is filled in is escaped.

    Args:
        template: a file of this package.
        content: what is filled in; called once matplotlib is known to be there.
        where: the folder of the records, for errors.

    Raises:
        ConfigError: the extra `report` is not installed.
        ArtefactError: a record has wrong fields.
    """
    check_extra()
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from jinja2.exceptions import UndefinedError

    environment = Environment(
        loader=PackageLoader("vibnet.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "number": number}
    try:
        return environment.get_template(template).render(content())
    except (KeyError, TypeError, ValueError, AttributeError, UndefinedError) as error:
        raise ArtefactError(
            f"the record in {where} has wrong fields ({error!r}). Run it again."
        ) from error
