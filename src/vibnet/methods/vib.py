"""The gate of the paper: a Gaussian multiplier per unit."""

import torch
from torch import Tensor, nn

from vibnet import information
from vibnet.methods.gate import Columns, Gate, near


class VIBGate(Gate):
    """Multipliers ``mu + eps * sigma`` of the units of one site (eq. 4).

    Attributes:
        mu: means, shape ``(units,)``, started at N(1, 0.01^2).
        log_var: ``log sigma^2``, shape ``(units,)``, started at N(-9, 0.01^2).

    Source:
        Dai et al. 2018, eq. 4; the start is that of the authors' code.
    """

    def __init__(self, units: int, like: Tensor | None = None) -> None:
        super().__init__(units, like)
        self.log_var = nn.Parameter(near(-9.0, units, like))

    def columns(self) -> Columns:
        """`mu` and `log_var`."""
        return self.mu, self.log_var

    def score(self) -> Tensor:
        """The signal-to-noise ratio."""
        return self.snr()

    def snr(self) -> Tensor:
        """Signal-to-noise ratio ``mu^2 / sigma^2`` of every unit, shape ``(units,)``."""
        return information.snr(self.mu, self.log_var)

    def rate(self) -> Tensor:
        """What every unit costs, ``0.5 * log(1 + snr)`` in nats, shape ``(units,)``."""
        return information.rate(self.mu, self.log_var)

    def closes_within(self, travel: float) -> Tensor:
        """Which means could come down to their noise."""
        left = (self.mu.detach().abs() - travel).clamp(min=0)
        return left <= (0.5 * (self.log_var.detach() + travel)).exp()

    @staticmethod
    def draw(columns: Columns, noise: Tensor) -> Tensor:
        """``mu + eps * sigma`` (eq. 4)."""
        mu, log_var = columns
        return torch.addcmul(mu, noise, torch.exp(0.5 * log_var))

    @staticmethod
    def penalty(columns: Columns, prices: Tensor, gamma: float) -> Tensor:
        """The rates at their prices (eq. 9)."""
        return gamma * torch.dot(information.rate(*columns), prices)
