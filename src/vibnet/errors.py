"""Every error a user can meet."""


class VibnetError(Exception):
    """The root of all errors of this package."""


class ConfigError(VibnetError, ValueError):
    """A setting or an argument that cannot be used."""


class CaptureError(VibnetError, RuntimeError):
    """The model does not run on the example, or its outputs cannot be followed."""


class NoSitesError(VibnetError, ValueError):
    """Nothing in the model can be gated, or a pattern selects nothing."""


class PlanError(VibnetError, ValueError):
    """A plan that does not fit the model or breaks a constraint."""


class FoldError(VibnetError, ValueError):
    """A multiplier cannot be moved into the weights without changing the answers."""


class VerificationError(VibnetError, RuntimeError):
    """The small model does not answer as the gated one; nothing has been changed."""


class TrainingError(VibnetError, RuntimeError):
    """Training cannot go on: a number is not finite, or a target cannot be met."""


class ArtefactError(VibnetError, ValueError):
    """A saved folder that is incomplete, altered, or of another model."""


class DataError(VibnetError, ValueError):
    """A data set that is missing, damaged, or not the published one."""
