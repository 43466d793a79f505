"""Unit labels: what every position of every dimension of every tensor stands for.

A dimension is an integer array of shape ``(2, size)``. Row 0 holds a label per position: 0 is a
position that is no unit (space, time), any other number names a unit; equal numbers are the same
unit. Row 1 holds the example a position belongs to, counted from 1, or 0.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.int64]
MIXED = -1


def plain(size: int) -> Array:
    """A dimension of ``size`` positions that are no units."""
    return np.zeros((2, size), dtype=np.int64)


@dataclass(frozen=True)
class Blocks:
    """As many units of every block must stay; `atoms` in order, blocks of equal size."""

    atoms: Array
    blocks: int
    why: str


@dataclass
class Split:
    """A view that could give the units of one axis to several: which of them carries them.

    `carrier` is the axis told to, of the new shape (the last of `axes` unless told); `axes` are
    those along which the units vary, empty where at most one is; `atoms` are the units. A view of
    a `stored` parameter is never an attention's. `runs` are how many old axes become how many new
    ones, one run after the other; where they are told, sizes alike by accident say nothing. `took`
    is the axis that units went to last.
    """

    carrier: int | None = None
    axes: tuple[int, ...] = ()
    atoms: Array = field(default_factory=lambda: np.arange(0))
    stored: bool = False
    runs: tuple[tuple[int, int], ...] = ()
    took: int | None = None


class Labels:
    """Labels made so far, which of them are the same, and which may not be cut, with reasons."""

    def __init__(self) -> None:
        self.count = 1
        self._pairs: list[tuple[Array, Array]] = []
        self._pins: list[tuple[Array, str]] = []
        self._resolved: tuple[tuple[int, ...], Array, dict[int, str]] | None = None

    def new(self, size: int) -> Array:
        """A dimension of ``size`` new units."""
        dim = plain(size)
        dim[0] = np.arange(self.count, self.count + size)
        self.count += size
        return dim

    def same(self, a: Array, b: Array, reason: str) -> None:
        """Two dimensions stand for the same units, position by position.

        Where one of them is no unit, the other may not be cut, for that reason.
        """
        if a is b:
            return
        left, right = a[0], b[0]
        both = (left != 0) & (right != 0)
        if not both.all():
            self._pin(np.concatenate([left[~both], right[~both]]), reason)
            left, right = left[both], right[both]
        if len(left):
            self._pairs.append((left, right))

    def pin(self, dim: Array, reason: str) -> None:
        """The units of a dimension may not be cut."""
        self._pin(dim[0], reason)

    def _pin(self, atoms: Array, reason: str) -> None:
        atoms = atoms[atoms != 0]
        if len(atoms):
            self._pins.append((atoms, reason))

    def resolve(self) -> tuple[Array, dict[int, str]]:
        """The class of every label (its smallest member), and the reason of every pinned class."""
        state = self.count, len(self._pairs), len(self._pins)
        if self._resolved is None or self._resolved[0] != state:
            self._resolved = (state, *self._resolve())
        return self._resolved[1:]

    def _resolve(self) -> tuple[Array, dict[int, str]]:
        parent = np.arange(self.count)
        if self._pairs:
            left = np.concatenate([a for a, _ in self._pairs])
            right = np.concatenate([b for _, b in self._pairs])
            while True:
                a, b = parent[left], parent[right]
                apart = a != b
                if not apart.any():
                    break
                left, right, a, b = left[apart], right[apart], a[apart], b[apart]
                np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
                while not np.array_equal(parent, parent[parent]):
                    parent = parent[parent]
        which = np.full(self.count, -1)
        for k in reversed(range(len(self._pins))):  # the first reason stays
            which[parent[self._pins[k][0]]] = k
        pinned = np.flatnonzero(which >= 0)
        reasons = (self._pins[k][1] for k in which[pinned].tolist())
        return parent, dict(zip(pinned.tolist(), reasons, strict=True))


def merge(dims: list[Array], labels: Labels, reason: str) -> Array:
    """The dimension that flattening several dimensions gives, in row-major order."""
    out = dims[0]
    for dim in dims[1:]:
        size = out.shape[1] * dim.shape[1]
        if not dim.any():
            out = np.repeat(out, dim.shape[1], axis=1)
            continue
        a = np.repeat(out, dim.shape[1], axis=1)
        b = np.tile(dim, (1, out.shape[1]))
        out = plain(size)
        if a[0].any() and b[0].any():
            labels.pin(a, reason)
            labels.pin(b, reason)
        else:
            out[0] = a[0] + b[0]
        out[1] = MIXED if a[1].any() and b[1].any() else a[1] + b[1]
    return out


def unmerge(
    dim: Array, sizes: list[int], labels: Labels, split: Split | None = None, first: int = 0
) -> list[Array]:
    """The dimensions that viewing one dimension as several gives.

    Where units vary along one new axis only, that axis carries them. Else the last axis does, or
    the one that `split` tells, counted from `first`; units at the same place along it become one.
    """
    split = split or Split()
    out = [plain(size) for size in sizes]
    if not dim.any():
        return out
    for row in (0, 1):
        grid = dim[row].reshape(sizes)
        if not grid.any():
            continue
        axes = [k for k in range(len(sizes)) if sizes[k] > 1]
        varies = [k for k in axes if not (grid == grid.take([0], axis=k)).all()]
        if not varies:
            varies = axes[-1:] or [len(sizes) - 1]
        if row == 1 and len(varies) > 1:
            out[varies[0]][1] = MIXED
            continue
        axis = varies[-1]
        if row == 0 and len(varies) > 1:
            split.axes, split.atoms = tuple(first + k for k in varies), dim[0]
        if row == 0 and split.carrier is not None and 0 <= split.carrier - first < len(sizes):
            axis = split.carrier - first
        if row == 0:
            split.took = first + axis
        lines = np.moveaxis(grid, axis, -1).reshape(-1, sizes[axis])
        out[axis][row] = lines[0]
        if row == 0:
            for line in lines[1:]:
                if not np.array_equal(line, lines[0]):
                    labels.same(np.stack([line, line]), out[axis], "viewed in unequal blocks")
    return out


def view(
    dims: tuple[Array, ...],
    shape: tuple[int, ...],
    labels: Labels,
    reason: str,
    split: Split | None = None,
) -> tuple[Array, ...]:
    """The dimensions of a tensor viewed in another shape with the same number of elements.

    An axis of one unit that goes is merged with the next one, or with the last one.
    """
    split = split or Split()
    if not _fit(split.runs, dims, shape):
        split.runs = tuple(_runs(dims, shape))
    out: list[Array] = []
    a = b = 0
    for before, after in split.runs:
        left, right = list(dims[a : a + before]), list(shape[b : b + after])
        if not right:
            for d in left:
                labels.pin(d, reason)
        elif len(left) == len(right) == 1:
            out.append(left[0])
        elif not left:
            out.extend(plain(n) for n in right)
        else:
            out.extend(unmerge(merge(left, labels, reason), right, labels, split, b))
        a, b = a + before, b + after
    return tuple(out)


def _runs(dims: tuple[Array, ...], shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """How many axes of one shape become how many of another, by their sizes."""
    old = [d.shape[1] for d in dims]
    i = j = 0
    while i < len(old) or j < len(shape):
        a, b = i, j
        p, q = 1, 1
        if i < len(old) and j < len(shape) and old[i] == shape[j]:
            i, j, p, q = i + 1, j + 1, old[i], shape[j]
        while i < len(old) or j < len(shape):
            lost = dims[i:] if j == len(shape) else dims[a:i] if j == b else ()
            if p == q and i + j > a + b and not _units(lost):
                break
            if (p <= q and i < len(old)) or j >= len(shape):
                p, i = p * old[i], i + 1
            else:
                q, j = q * shape[j], j + 1
        yield i - a, j - b


def _fit(
    runs: tuple[tuple[int, int], ...], dims: tuple[Array, ...], shape: tuple[int, ...]
) -> bool:
    """Whether runs of axes lead from one shape to another."""
    if not runs or tuple(map(sum, zip(*runs, strict=True))) != (len(dims), len(shape)):
        return False
    a = b = 0
    for before, after in runs:
        sizes = [d.shape[1] for d in dims[a : a + before]]
        if math.prod(sizes) != math.prod(shape[b : b + after]):
            return False
        a, b = a + before, b + after
    return True


def _units(dims: tuple[Array, ...]) -> bool:
    return any(bool(dim[0].any()) for dim in dims)
