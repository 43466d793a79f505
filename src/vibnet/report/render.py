"""Fill in a template: one HTML file that needs nothing else, and runs nothing."""

from collections.abc import Callable
from typing import Any

from vibnet.errors import ArtefactError
from vibnet.report.extra import check_extra
from vibnet.report.rows import duration, number

NEEDED = "jinja2", "matplotlib"  # of the extra


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
    check_extra("report", *NEEDED)
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
