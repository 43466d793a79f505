"""Every error a user can meet."""


class VibnetError(Exception):
    """The root of all errors of this package."""


class ConfigError(VibnetError, ValueError):
    """A setting or an argument that cannot be used."""
