"""The noisy multiplier (eq. 4), with its randomness passed in."""

import torch
from torch import Tensor

from vibnet.errors import ConfigError
from vibnet.information import checks

__all__ = ["draw"]


def draw(mu: Tensor, log_var: Tensor, noise: Tensor) -> Tensor:
    """Multipliers ``mu + noise * sigma``, one for every example and unit.

    Pure: the same noise gives the same multipliers, and gradients reach ``mu`` and
    ``log_var``. Draw the noise *once* per site, example and unit and share it over space
    and over readers: a reader of n independent draws can average them, and then sees
    ``0.5 * log(1 + n * snr)`` nats where `rate` charges for one.

    Args:
        mu: Mean of every multiplier, shape ``(units,)``, no unit.
        log_var: ``log sigma^2``, shape ``(units,)``; ``-inf`` means no noise.
        noise: Standard normal numbers, shape ``(examples, units)``.

    Returns:
        Multipliers, shape ``(examples, units)``, no unit.

    Raises:
        ConfigError: ``mu`` and ``log_var`` differ in shape, or ``noise`` is not a row of
            numbers like them for each example.

    Source:
        Dai et al. 2018, eq. 4.

    >>> draw(torch.ones(2), torch.zeros(2), torch.tensor([[0.5, -1.0]]))
    tensor([[1.5000, 0.0000]])
    """
    checks.same_shape("draw(mu, log_var, noise)", mu, log_var)
    if noise.shape[1:] != mu.shape:
        raise ConfigError(
            f"draw(mu, log_var, noise): noise has shape {tuple(noise.shape)} and mu has "
            f"shape {tuple(mu.shape)}. Give noise of shape (examples, *mu.shape): one "
            f"number per example and unit."
        )
    return mu + noise * torch.exp(0.5 * log_var)
