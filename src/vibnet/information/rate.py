"""What a noisy multiplier lets through: signal-to-noise ratio and rate (eq. 7, 9, 10)."""

import torch
from torch import Tensor

from vibnet.information import checks

__all__ = ["rate", "snr"]


def _signal_over_noise(mu: Tensor, log_var: Tensor) -> Tensor:
    """``mu / sigma``: squaring last keeps twice the exponent range of ``mu^2 / sigma^2``."""
    return mu * torch.exp(-0.5 * log_var)


def snr(mu: Tensor, log_var: Tensor) -> Tensor:
    """Signal-to-noise ratio ``mu^2 / sigma^2`` of every unit: alpha of eq. 10.

    Zero means "nothing gets through". The authors' released code gives the name alpha to
    the *inverse* of this ratio; we keep the paper's direction and never use the name.

    Args:
        mu: Mean of every multiplier, shape ``(units,)`` or any other, no unit.
        log_var: ``log sigma^2``, the shape of ``mu``; finite, above -170 in float32.

    Returns:
        A ratio per unit, the shape of ``mu``, no unit; ``inf`` where the dtype cannot hold it.

    Raises:
        ConfigError: The two shapes differ.

    Source:
        Dai et al. 2018, eq. 10.

    >>> snr(torch.tensor([2.0, 0.0]), torch.zeros(2))
    tensor([4., 0.])
    """
    checks.same_shape("snr(mu, log_var)", mu, log_var)
    return _signal_over_noise(mu, log_var).square()


def rate(mu: Tensor, log_var: Tensor) -> Tensor:
    """Nats every unit pays for in the penalty: ``0.5 * log(1 + mu^2 / sigma^2)``.

    It is the smallest KL divergence from the multiplier ``N(mu, sigma^2)`` to any
    zero-mean normal. It is *not* the information in the unit, see `kl_to_best_prior` and
    `unit_information`.

    Finite, with a finite gradient, wherever ``|mu| / sigma`` is: in float32 with
    ``log_var`` -80 that is every ``|mu|`` up to 1e21. The gradients are
    ``mu / (mu^2 + sigma^2)`` and ``-0.5 * snr / (1 + snr)``: at a large snr the second is
    a steady push of one half towards more noise.

    Args:
        mu: Mean of every multiplier, shape ``(units,)`` or any other, no unit.
        log_var: ``log sigma^2``, the shape of ``mu``; finite, above -170 in float32.

    Returns:
        Nats per unit, the shape of ``mu``, never negative. Summing is the caller's.

    Raises:
        ConfigError: The two shapes differ.

    Source:
        Dai et al. 2018, eq. 7 without psi; eq. 9 folds our 0.5 into its gamma.

    >>> rate(torch.tensor([1.0, 0.0]), torch.zeros(2))  # 0.5 * log 2, and a closed unit
    tensor([0.3466, 0.0000])
    """
    checks.same_shape("rate(mu, log_var)", mu, log_var)
    ratio = _signal_over_noise(mu, log_var)
    # log(1 + r^2) is taken as log r^2 + log(1 + 1/r^2) where r > 1, so that no square
    # overflows. Both branches divide by a number that is safe where they are not used:
    # torch.where would otherwise multiply its zero gradient by infinity.
    loud = ratio.abs() > 1
    above_one = torch.where(loud, ratio.abs(), torch.ones_like(ratio))
    below_one = torch.where(loud, above_one.reciprocal(), ratio)
    return above_one.log() + 0.5 * torch.log1p(below_one.square())
