"""The gate of the paper: a Gaussian multiplier per unit."""

import torch
from torch import Tensor, nn

from vibnet import information


class VIBGate(nn.Module):
    """Multipliers ``mu + eps * sigma`` of the units of one site (eq. 4).

    Attributes:
        mu: means, shape ``(units,)``, started at N(1, 0.01^2).
        log_var: ``log sigma^2``, shape ``(units,)``, started at N(-9, 0.01^2).

    Source:
        Dai et al. 2018, eq. 4; the start is that of the authors' code.
    """

    def __init__(self, units: int, like: Tensor | None = None) -> None:
        super().__init__()
        dtype = like.dtype if like is not None else None
        device = like.device if like is not None else None
        self.mu = nn.Parameter(1 + 0.01 * torch.randn(units, dtype=dtype, device=device))
        self.log_var = nn.Parameter(-9 + 0.01 * torch.randn(units, dtype=dtype, device=device))

    def snr(self) -> Tensor:
        """Signal-to-noise ratio ``mu^2 / sigma^2`` of every unit, shape ``(units,)``."""
        return information.snr(self.mu, self.log_var)

    def rate(self) -> Tensor:
        """What every unit costs, ``0.5 * log(1 + snr)`` in nats, shape ``(units,)``."""
        return information.rate(self.mu, self.log_var)

    def extra_repr(self) -> str:
        """The number of units."""
        return f"{len(self.mu)} units"
