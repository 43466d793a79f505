"""The paper's own foil, eq. 16: the same multipliers without noise, under a sparse penalty."""

import torch
from torch import Tensor

from vibnet import information
from vibnet.methods.gate import Columns, Gate

CLOSED = 0.02  # a multiplier below this share of where it started counts as zero


class Twin(Gate):
    """Multipliers without noise; a unit stays while its multiplier is above 0.02.

    Gradient steps do not reach an exact zero: where the penalty wins, a multiplier swings around
    zero by about the learning rate of the gates.

    Source:
        Dai et al. 2018, eq. 16.
    """

    def score(self) -> Tensor:
        """``(mu / 0.02)^2``."""
        return (self.mu / CLOSED).square()

    def closes_within(self, travel: float) -> Tensor:
        """Which multipliers could come down to 0.02."""
        return self.mu.detach().abs() - travel <= CLOSED

    @staticmethod
    def draw(columns: Columns, noise: Tensor) -> Tensor:
        """`mu` for every example."""
        return columns[0].expand_as(noise)


class L1Twin(Twin):
    """The penalty is ``|mu|``, the tightest convex one.

    Source:
        Dai et al. 2018, eq. 16 with pi(mu) = |mu|.
    """

    def columns(self) -> Columns:
        """`mu`."""
        return (self.mu,)

    @staticmethod
    def penalty(columns: Columns, prices: Tensor, gamma: float) -> Tensor:
        """``|mu|`` at the prices: gamma is loss per unit of a multiplier instead of per nat."""
        return gamma * torch.dot(columns[0].abs(), prices)


class RhoTwin(Twin):
    """The penalty is what is left of VIB's once sigma is at its best, without the noise.

    ``0.5 * g * (rho(mu; omega) - rho(0; omega))`` with ``omega = g / (2 * curvature)``, g being
    gamma times the price. The curvature, half of the loss's second derivative in a multiplier, is
    measured while training: half of the mean square of an example's gradient (the Fisher
    information), averaged over steps.

    Attributes:
        curvature: shape ``(units,)``, loss per unit of variance, 0 before the first step.

    Source:
        Dai et al. 2018, eq. 16 with pi of eq. 18.
    """

    curvature: Tensor
    observes = True
    decay = 0.99
    least = 1e-12  # a smaller curvature counts as this: omega stays finite

    def __init__(self, units: int, like: Tensor | None = None) -> None:
        super().__init__(units, like)
        self.register_buffer("curvature", torch.zeros_like(self.mu))

    def columns(self) -> Columns:
        """`mu` and `curvature`."""
        return self.mu, self.curvature

    def observe(self, gradient: Tensor) -> None:
        """Take in the gradient of a mean loss in every example's multipliers, (examples, units)."""
        now = 0.5 * len(gradient) * gradient.detach().double().square().sum(0)
        self.curvature.lerp_(now.to(self.curvature), 1 - self.decay)

    @staticmethod
    def penalty(columns: Columns, prices: Tensor, gamma: float) -> Tensor:
        """Eq. 18 at the prices."""
        mu, curvature = columns
        omega = (gamma * prices / (2 * curvature.clamp(min=RhoTwin.least))).clamp(min=RhoTwin.least)
        left = information.rho(mu, omega) - information.rho(torch.zeros_like(mu), omega)
        return 0.5 * gamma * torch.dot(left, prices)
