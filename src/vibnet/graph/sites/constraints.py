"""Which sets of units may stay: the floor, the multiple, and equal numbers per block."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vibnet.graph.labels.labels import Array

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


@dataclass(frozen=True)
class Nesting:
    """Units that live only with others: `children[i]` needs `parents[i]`.

    `dependent` are the parents that nothing but their children reads: each needs one of them.
    """

    children: Array
    parents: Array
    dependent: Array

    def close(self, kept: Mask) -> None:
        """Close children without a parent and dependent parents without a child, in place."""
        self._close_parents(kept)
        kept[self.children] &= kept[self.parents]

    def _close_parents(self, kept: Mask) -> None:
        alive = np.zeros_like(kept)
        alive[self.parents[kept[self.children]]] = True
        kept[self.dependent] &= alive[self.dependent]

    def open(self, kept: Mask, score: npt.NDArray[np.float64]) -> None:
        """Open the parents of open children, and the best child of a childless parent."""
        kept[self.parents[kept[self.children]]] = True
        wanting = kept.copy()
        self._close_parents(wanting)
        for unit in self.dependent[kept[self.dependent] & ~wanting[self.dependent]].tolist():
            mine = self.children[self.parents == unit]
            kept[mine[np.argmax(score[mine])]] = True

    def broken(self, kept: Mask) -> Array:
        """The children that are kept without their parent."""
        return self.children[kept[self.children] & ~kept[self.parents]]


NOTHING_NESTED = Nesting(np.arange(0), np.arange(0), np.arange(0))


def legal(
    wanted: Mask,
    score: npt.NDArray[np.float64],
    sites: Sequence[Array],
    blocks: Sequence[EqualBlocks],
    floor: int = 1,
    multiple: int = 1,
    nesting: Nesting = NOTHING_NESTED,
) -> Mask:
    """The smallest set found that holds every wanted unit and that all constraints allow.

    Wanted units that cannot live, for what they are nested in is closed, are closed first.

    Args:
        wanted: bool, one per unit of the model.
        score: one per unit; where units must be opened, the highest come first.
        sites: the unit numbers of every site.
        blocks: the equal-block constraints.
        floor: fewest units of a site.
        multiple: the number of units of a site is a multiple of this, or all of them.
        nesting: which units live only with others.
    """
    kept = wanted.copy()
    nesting.close(kept)
    inner = set(nesting.children.tolist())
    sites = sorted(sites, key=lambda units: not inner.issuperset(units[:1].tolist()))
    while True:
        before = int(kept.sum())
        for units in sites:
            count = int(kept[units].sum())
            target = -(-max(count, floor) // multiple) * multiple
            if count < target:
                closed = units[~kept[units]]
                order = closed[np.argsort(-score[closed], kind="stable")]
                kept[order[: target - count]] = True
            nesting.open(kept, score)
        for block in blocks:
            if block.broken(kept):
                block.repair(kept, score)
                nesting.open(kept, score)
        if int(kept.sum()) == before:
            return kept
