"""What every method is to the engine: a multiplier per unit, its price, and a score that keeps."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

Columns = tuple[Tensor, ...]


class Gate(nn.Module):
    """Multipliers of the units of one site.

    The gates of a model are all of one kind. What happens in every step is computed for all of
    them at once, from their joined `columns`.

    Attributes:
        mu: what evaluation multiplies a kept unit with, shape ``(units,)``, started at
            N(1, 0.01^2).
        observes: whether `observe` is to be called.
    """

    observes: ClassVar[bool] = False

    def __init__(self, units: int, like: Tensor | None = None) -> None:
        super().__init__()
        self.mu = nn.Parameter(near(1.0, units, like))

    def columns(self) -> Columns:
        """The numbers of every unit, each of shape ``(units,)``, `mu` first."""
        raise NotImplementedError

    def score(self) -> Tensor:
        """How much a unit matters, shape ``(units,)``; those above 1 stay."""
        raise NotImplementedError

    def closes_within(self, travel: float) -> Tensor:
        """Which units could come to a score of 1 if every parameter moved by `travel` at most."""
        raise NotImplementedError

    def observe(self, gradient: Tensor) -> None:
        """Take in the gradient of the loss in a step's multipliers, ``(examples, units)``."""

    @staticmethod
    def draw(columns: Columns, noise: Tensor) -> Tensor:
        """The multipliers of a training step, of the shape of the noise, ``(examples, units)``."""
        raise NotImplementedError

    @staticmethod
    def penalty(columns: Columns, prices: Tensor, gamma: float) -> Tensor:
        """What is added to the loss: gamma a nat, times a price at every unit, ``(units,)``."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """The number of units."""
        return f"{len(self.mu)} units"


def near(centre: float, units: int, like: Tensor | None) -> Tensor:
    """Starting values: normal round a centre with deviation 0.01, of the type of `like`."""
    dtype = like.dtype if like is not None else None
    device = like.device if like is not None else None
    return centre + 0.01 * torch.randn(units, dtype=dtype, device=device)


def joined(gates: Sequence[Gate]) -> Columns:
    """The columns of all gates, one after the other."""
    return tuple(torch.cat(parts) for parts in zip(*(g.columns() for g in gates), strict=True))
