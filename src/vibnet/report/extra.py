"""What the extra `report` brings, and who cannot do without it."""

from importlib import import_module

from vibnet.errors import ConfigError


def check_extra(who: str, *modules: str) -> None:
    """Refuse to go on without modules of the extra.

    Args:
        who: wants them, for the error.
        modules: their names.

    Raises:
        ConfigError: one of them is not installed.
    """
    try:
        for module in modules:
            import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{who}: {error.name} is not installed. Install the extra: "
            f"pip install 'vibnet[report]'."
        ) from error
