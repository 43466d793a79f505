"""Which sets of units may stay: the floor, the multiple, and equal numbers per block."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vibnet.graph.labels import Array

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class EqualBlocks:
    """Every block of positions keeps as many; `units` holds a unit per position, or -1."""

    units: Array
    blocks: int
    why: str

    def counts(self, kept: Mask) -> Array:
        """How many positions of every block stay."""
        stay = np.where(self.units < 0, True, kept[self.units])
        counts: Array = stay.reshape(self.blocks, -1).sum(axis=1)
        return counts

    def broken(self, kept: Mask) -> bool:
        """Whether a set of kept units breaks the constraint."""
        counts = self.counts(kept)
        return bool((counts != counts[0]).any() or counts[0] == 0)

    def repair(self, kept: Mask, score: npt.NDArray[np.float64]) -> None:
        """Open the best closed units of the short blocks, in place."""
        counts = self.counts(kept)
        target = max(int(counts.max()), 1)
        blocks = self.units.reshape(self.blocks, -1)
        for row in np.flatnonzero(counts < target):
            units = np.unique(blocks[row][blocks[row] >= 0])
            closed = units[~kept[units]]
            order = closed[np.argsort(-score[closed], kind="stable")]
            kept[order[: target - int(counts[row])]] = True


def legal(
    wanted: Mask,
    score: npt.NDArray[np.float64],
    sites: Sequence[Array],
    blocks: Sequence[EqualBlocks],
    floor: int = 1,
    multiple: int = 1,
) -> Mask:
    """The smallest set found that holds every wanted unit and that all constraints allow.

    Args:
        wanted: bool, one per unit of the model.
        score: one per unit; where units must be opened, the highest come first.
        sites: the unit numbers of every site.
        blocks: the equal-block constraints.
        floor: fewest units of a site.
        multiple: the number of units of a site is a multiple of this, or all of them.
    """
    kept = wanted.copy()
    while True:
        before = int(kept.sum())
        for units in sites:
            count = int(kept[units].sum())
            target = -(-max(count, floor) // multiple) * multiple
            if count < target:
                closed = units[~kept[units]]
                order = closed[np.argsort(-score[closed], kind="stable")]
                kept[order[: target - count]] = True
        for block in blocks:
            if block.broken(kept):
                block.repair(kept, score)
        if int(kept.sum()) == before:
            return kept
