"""The labels of a cut model's trace, laid beside those of the whole one.

Sizes can agree by accident where positions do not: `roll(x, 4, 1)` runs on any width. So the trace
of a trial cut is labelled too, its parameters starting with the labels of the positions that stay,
and every position must come out as the unit that was predicted for it.
"""

from typing import Any

import numpy as np
from torch import Tensor

from vibnet.graph.capture.trace import Call, Trace
from vibnet.graph.labels.labeller import Dims, Labeller
from vibnet.graph.labels.labels import Array, Labels
from vibnet.graph.labels.norms import close
from vibnet.graph.sites.constraints import Mask
from vibnet.graph.sites.following import by_weight
from vibnet.graph.sites.structure import Graph
from vibnet.graph.trial.cut import renumber


class _Watched(Labels):
    """Labels that know their units, and remember the first call that joins different ones."""

    def __init__(self, units: Array) -> None:
        super().__init__()
        self.units, self.count = units, len(units)
        self.engine: Labeller | None = None
        self.clash: Call | None = None

    def same(self, a: Array, b: Array, reason: str) -> None:
        if self.clash is None and self.engine is not None and a is not b:
            left, right = a[0], b[0]
            known = (left < len(self.units)) & (right < len(self.units))
            if not np.array_equal(self.units[left[known]], self.units[right[known]]):
                self.clash = self.engine.call
        super().same(a, b, reason)


class Replay:
    """Labels traces of cut models; `units` holds the unit of every label, or -1."""

    def __init__(self, engine: Labeller, graph: Graph, fake: bool = True) -> None:
        self.engine, self.graph, self.fake = engine, graph, fake
        self.roots, _ = engine.labels.resolve()
        self.units = np.full(engine.labels.count, -1, dtype=np.int64)
        for name, dims in engine.parameters.items():
            for dim, units in zip(dims, graph.parameters[name], strict=True):
                self._number(dim, units)
        for (name, _), (dim, _) in engine.within_group.items():
            self._number(dim, graph.within_group[name][0])
        norms = by_weight(graph.norms)
        self.adding = {
            (n.trace, id(n.adding)): norms[n.found.weight]
            for n in engine.normed
            if n.found.weight in norms
        }
        self._last: dict[int, int] = {}
        self.units[0] = -1
        self.units = self.units[self.roots]

    def _number(self, dim: Array, units: Array) -> None:
        self.units[self.roots[dim[0]]] = units  # a root stands for one unit

    def last(self, number: int, trace: Trace) -> int:
        """The last step of a trace that is given units, or gives some.

        What a model does with its answers after that, as picking the best boxes, may take another
        way for other answers. Without storage there are none: then it is the last of all.
        """
        if self.fake:
            return len(trace.way)
        if number not in self._last:
            known, holds = self.engine.dims_of[number], dict[int, bool]()
            self._last[number] = -1
            for step, call in enumerate(trace.way):
                for dim in (d for x in (*call.given, *call.results) for d in known.get(id(x), ())):
                    if id(dim) not in holds:
                        holds[id(dim)] = bool((self.units[dim[0]] >= 0).any())
                    if holds[id(dim)]:
                        self._last[number] = step
        return self._last[number]

    def unscaled(self, number: int, old: Call, new: Call, kept: Mask) -> list[Any]:
        """The numbers of a cut model's call, with the eps of a norm as it was if it followed."""
        norm = self.adding.get((number, id(old)))
        if norm is None or len(new.numbers) != 1:
            return new.numbers
        right = close(new.numbers[0], norm.eps_of(kept))
        return old.numbers if right else new.numbers

    def holds(self, number: int, x: Tensor) -> list[bool] | None:
        """Which dimensions of a tensor hold units; None of one that is not known."""
        dims = self.engine.dims_of[number].get(id(x))
        return None if dims is None else [bool((self.units[d[0]] >= 0).any()) for d in dims]

    def shape(self, dims: Dims, kept: Mask, known: dict[int, int]) -> tuple[int, ...]:
        """The shape that a tensor has after a cut; `known` holds the sizes of dimensions so far."""
        for dim in dims:
            if id(dim) not in known:
                known[id(dim)] = len(self._stay(self.units[dim[0]], kept))
        return tuple(known[id(dim)] for dim in dims)

    def _seed(self, dim: Array, kept: Mask) -> Array:
        stay = self._stay(self.units[dim[0]], kept)
        return np.stack([self.roots[dim[0, stay]], dim[1, stay]])

    @staticmethod
    def _stay(units: Array, kept: Mask) -> Array:
        return np.flatnonzero(np.where(units < 0, True, kept[units]))

    def label(self, number: int, trace: Trace, kept: Mask) -> tuple[Labeller, _Watched]:
        """A labeller that has seen the trace of a cut model, the trial of one by number."""
        watched = _Watched(self.units)
        splits = {(0, k): s for (n, k), s in self.engine.splits.items() if n == number}
        carriers = {key: split.took for key, split in splits.items() if split.took is not None}
        out = Labeller(self.engine.table, watched, like=self.engine, carriers=carriers)
        out.runs = {key: split.runs for key, split in splits.items()}
        out.inexact = self.engine.inexact
        watched.engine = out
        for name, dims in self.engine.parameters.items():
            out.parameters[name] = tuple(self._seed(dim, kept) for dim in dims)
        for (name, axis), (dim, groups) in self.engine.within_group.items():
            seed = self._seed(dim, kept)
            out.within_group[name, axis] = (seed, groups)
            columns = list(out.parameters[name])
            size = seed.shape[1] // groups
            columns[axis] = columns[axis][:, :size]
            out.parameters[name] = tuple(columns)
        for name, dim in self.engine.remaps.items():
            out.remaps[name] = self._seed(dim, kept)
            values = self.engine.values[name]
            out.values[name] = renumber(values, self.units[dim[0]], kept)
        out.add(trace, self.engine.batch)
        return out, watched

    def complaint(self, number: int, before: Trace, after: Trace, kept: Mask) -> tuple[str, int]:
        """Why the trace of a cut model does not hold the predicted units, and the step.

        An empty text if it does; a step of -1 where no one call is the cause.
        """
        out, watched = self.label(number, after, kept)
        parent, pins = watched.resolve()
        size = len(self.units)
        roots = parent[size:]
        made = np.where(roots < size, self.units[np.minimum(roots, size - 1)], -1)
        units = np.concatenate([self.units, made])
        found = self._differing(number, before, after, kept, out.dims_of[0], units)
        if found is not None:
            why = (
                f"after a trial cut {before.way[found]} gives other units than those predicted; a "
                f"number in it, or before it, depends on the width"
            )
            return why, found
        if watched.clash is not None:
            step = next((k for k, call in enumerate(after.way) if call is watched.clash), -1)
            return f"after a trial cut {watched.clash} joins units that were apart", step
        for root, reason in pins.items():
            if root < size and self.units[root] >= 0:
                return f"after a trial cut {reason}", -1
        if not np.array_equal(self.units[parent[:size]], self.units):
            return "after a trial cut the model joins units that were apart", -1
        return "", -1

    def _differing(
        self,
        number: int,
        before: Trace,
        after: Trace,
        kept: Mask,
        now: dict[int, Dims],
        units: Array,
    ) -> int | None:
        """The first step of which a result holds other units than those predicted."""
        was = self.engine.dims_of[number]
        checked: set[tuple[int, int]] = set()
        ways = zip(before.way[: self.last(number, before) + 1], after.way, strict=False)
        for step, (old, new) in enumerate(ways):
            for a, b in zip(old.results, new.results, strict=True):
                if id(a) not in was:
                    continue
                for left, right in zip(was[id(a)], now[id(b)], strict=True):
                    if (id(left), id(right)) in checked:
                        continue
                    checked.add((id(left), id(right)))
                    if not self._agree(left, right, units, kept):
                        return step
        return None

    def _agree(self, left: Array, right: Array, units: Array, kept: Mask) -> bool:
        if not left.any() and not right.any():
            return True
        want = self.units[left[0]]
        stay = self._stay(want, kept)
        return np.array_equal(want[stay], units[right[0]]) and np.array_equal(
            left[1, stay], right[1]
        )
