"""How root-mean-square norms follow a cut: their weights and their eps.

``x * w / sqrt(mean(x^2) + eps)`` over `d` units of which only `k` are not zero is the same norm
over those `k`, with weights ``w * sqrt(d / k)`` and ``eps * d / k``.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from vibnet.errors import PlanError
from vibnet.graph.labels.labels import Array
from vibnet.graph.labels.norms import close
from vibnet.graph.sites.constraints import Mask


@dataclass(frozen=True)
class Norm:
    """What a cut does to a norm: see `Found`.

    `units` are those of its weight, -1 for none; `eps` belongs to the `first` width it had. An
    `inverse` one takes multipliers back, for its reader's weight is where they were folded.
    """

    weight: str
    units: Array
    offset: float
    eps: float
    module: str
    attribute: str
    first: int
    inverse: bool = False

    def share(self, kept: Mask) -> float:
        """How many times as many units there are as stay."""
        return len(self.units) / self._left(kept)

    def eps_of(self, kept: Mask) -> float:
        """What has to be under the root of the smaller norm."""
        return self.eps * self.first / self._left(kept)

    def divided(self, weight: Tensor, scale: Tensor) -> Tensor:
        """The weight that gives results smaller by a factor each, float64 of the weight's shape."""
        return ((weight.detach().double() + self.offset) / scale - self.offset).to(weight)

    def _left(self, kept: Mask) -> int:
        return int(np.where(self.units < 0, True, kept[self.units]).sum())

    def scaled(self, weight: Tensor, kept: Mask) -> Tensor:
        """The weight of the smaller norm, of the numbers that stay."""
        share = self.share(kept)
        if share == 1:
            return weight
        wide = weight.detach().double()
        return ((wide + self.offset) * math.sqrt(share) - self.offset).to(weight)


def eps_of(norms: Iterable[Norm], kept: Mask) -> dict[str, float]:
    """The attributes that are others than at first after a cut, by dotted name, with values."""
    return {
        f"{n.module}.{n.attribute}".lstrip("."): n.eps_of(kept)
        for n in norms
        if n.attribute and n.eps_of(kept) != n.eps
    }


def check(model: nn.Module, norms: Iterable[Norm]) -> None:
    """Refuse norms whose eps is another than when the model was looked at.

    Raises:
        PlanError: one of them.
    """
    for norm in norms:
        if not norm.attribute:
            continue
        found = getattr(model.get_submodule(norm.module), norm.attribute, None)
        wanted = norm.eps * norm.first / len(norm.units)
        if not isinstance(found, float) or not close(found, wanted):
            raise PlanError(
                f"{norm.module}.{norm.attribute} is {found}, but was {wanted:g} when the model was "
                f"looked at, so the norm cannot follow its width. Attach again, or leave it as it "
                f"was."
            )


def by_weight(norms: Sequence[Norm]) -> dict[str, Norm]:
    """The norms by the name of their parameter."""
    return {norm.weight: norm for norm in norms}
