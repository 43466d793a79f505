"""What the functions of this package ask of their arguments, said once."""

import math

from torch import Tensor

from vibnet.errors import ConfigError


def same_shape(function: str, mu: Tensor, log_var: Tensor) -> None:
    """Refuse means and log-variances that would broadcast against each other."""
    if mu.shape != log_var.shape:
        raise ConfigError(
            f"{function}: mu has shape {tuple(mu.shape)} and log_var has shape "
            f"{tuple(log_var.shape)}. Every unit has one mean and one log-variance: "
            f"give both the same shape."
        )


def activations(function: str, f: Tensor) -> None:
    """Refuse activations that are not a ``(samples, units)`` table of floats with a row."""
    if f.ndim != 2 or f.shape[0] == 0 or not f.is_floating_point():
        raise ConfigError(
            f"{function}: f has shape {tuple(f.shape)} and dtype {f.dtype}. It must be a "
            f"floating-point table (samples, units) with at least one sample: flatten "
            f"other axes into samples."
        )


def one_column_per_unit(function: str, mu: Tensor, f: Tensor) -> None:
    """Refuse activations of another number of units than there are gates."""
    if mu.shape != f.shape[1:]:
        raise ConfigError(
            f"{function}: mu has shape {tuple(mu.shape)} and f has shape {tuple(f.shape)}. "
            f"f must be (samples, units) with one column for each entry of mu."
        )


def at_least_zero(function: str, **values: float | Tensor) -> None:
    """Refuse a negative, infinite or NaN number; the keyword is the argument's name."""
    for name, value in values.items():
        _within(function, name, value, positive=False)


def above_zero(function: str, **values: float | Tensor) -> None:
    """Refuse a number that is not positive and finite; the keyword is the argument's name."""
    for name, value in values.items():
        _within(function, name, value, positive=True)


def _within(function: str, name: str, value: float | Tensor, *, positive: bool) -> None:
    good = (value > 0 if positive else value >= 0) & (value < math.inf)  # also refuses NaN
    if not (good.all() if isinstance(good, Tensor) else good):
        raise ConfigError(
            f"{function}: {name} must be finite and {'above' if positive else 'at least'} 0, "
            f"found {value!r}. Give a {'positive' if positive else 'non-negative'} number."
        )
