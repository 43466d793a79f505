"""Trial cuts without storage: a site stays cuttable only if the cut model runs as predicted."""

import cmath
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vibnet.graph import capture as cap
from vibnet.graph.constraints import Mask, legal
from vibnet.graph.culprits import Complaint, culprits
from vibnet.graph.cut import cut, shape_only, take
from vibnet.graph.labeller import Dims, Labeller
from vibnet.graph.labels import Array
from vibnet.graph.nested import nest
from vibnet.graph.numbers import Numbers, candidates
from vibnet.graph.pinning import unstuck, without
from vibnet.graph.prices import price
from vibnet.graph.replay import Replay
from vibnet.graph.rules import TABLE
from vibnet.graph.shadow import shadow
from vibnet.graph.sites import NO_REQUEST, Graph, Request, Site, build
from vibnet.graph.splits import label
from vibnet.graph.stock import explained
from vibnet.graph.trace import Call, Trace
from vibnet.graph.unread import unread

Scores = npt.NDArray[np.float64]
VIEWS = {"view", "_unsafe_view", "reshape", "_reshape_alias", "unflatten", "expand"}
NORMS = {op for op, rule in TABLE.items() if rule is TABLE["native_batch_norm"]}
DROPS = {"native_dropout", "dropout"}
PARTS = {"split", "split_with_sizes", "slice"}


class Probe:
    """Cuts some units of some sites of a shadow of the model and compares every call."""

    def __init__(
        self,
        model: nn.Module,
        engine: Labeller,
        traces: list[Trace],
        graph: Graph,
    ) -> None:
        self.model, self.traces, self.graph = model, traces, graph
        self.replay = Replay(engine, graph)
        self.modes = [0] if _alike(traces[0], traces[-1]) else [0, 1]
        self.fake = bool(traces[0].calls) and "Fake" in type(traces[0].outputs[0]).__name__

    def step(self, sites: Sequence[Site]) -> Mask:
        """A legal cut of about a third of the units of some sites; more where less is illegal."""
        score = np.random.default_rng(0).random(self.graph.total)
        wanted = np.ones(self.graph.total, dtype=np.bool_)
        every = [s.units for s in self.graph.sites]
        rank = self._ranks(score)
        kept = wanted
        uncut = [s.units for s in sites]
        for share in (1 / 3, 2 / 3, 1.0):
            for units in uncut:
                wanted[units[rank[units] <= share]] = False
            kept = legal(wanted, score, every, self.graph.blocks)
            uncut = [units for units in uncut if kept[units].all()]
        return kept

    def _ranks(self, score: Scores) -> Scores:
        """The place of every unit in its site or block by score, from 0 (first) to 1."""
        rank = np.zeros_like(score)
        blocks = sorted(self.graph.blocks, key=lambda block: block.blocks)
        rows = [s.units for s in self.graph.sites]
        for units in (*rows, *(row for b in blocks for row in b.units.reshape(b.blocks, -1))):
            if not len(own := np.unique(units[units >= 0])):
                continue
            order = np.arange(len(own))
            rank[own[np.argsort(score[own])]] = np.where(order > 0, (order + 1) / len(own), 0)
        return rank

    def complaint(self, sites: Sequence[Site]) -> Complaint | None:
        """Why the cut model does not run as predicted; None if it does."""
        kept = self.step(sites)
        if kept.all():
            return None
        trials: list[tuple[int, Trace]] = []
        for number in self.modes:
            trace = self.traces[number]
            mode = FakeTensorMode(allow_non_fake_inputs=True) if self.fake else None
            copied = shadow(self.model, mode)
            cut(copied, self.graph, kept, shape_only if self.fake else take)
            if not trace.training:
                copied.eval()
            elif not self.model.training:
                copied.train()
            again = Trace(trace.training, copied)
            try:
                cap.run(copied, trace.example, trace.training, mode, again)
            except Exception as error:
                found = self._compare(number, trace, again, kept)
                return found or self._told(number, _failure(error, again), len(again.way))
            if found := self._compare(number, trace, again, kept):
                return found
            if len(trace.way) != len(again.way):
                why = "after a trial cut the model takes another path at its end"
                return self._told(number, why, len(trace.way))
            trials.append((number, again))
        for number, again in trials:
            text, step = self.replay.complaint(number, self.traces[number], again, kept)
            if text:
                return self._told(number, text, step)
        return None

    def _told(self, number: int, text: str, step: int) -> Complaint:
        """A complaint of a call, counted on its trace's way, with the sites it leads to."""
        way = self.traces[number].way
        if not 0 <= step < len(way):
            return Complaint(text, step)
        call = way[step]
        kind = self._kind(call)
        alike: dict[str, str] = {}
        for other in way:
            if other.kind == call.kind and other.line == call.line and self._kind(other) == kind:
                text_of = text.replace(str(call), str(other))
                alike |= dict.fromkeys(self._sites(number, other) - set(alike), text_of)
        line = f"{call.kind} {call.line} {kind}"
        return Complaint(text, step, call, line, self._sites(number, call), tuple(alike.items()))

    def _kind(self, call: Call) -> str:
        """The class of the module that makes a call."""
        return type(self.model.get_submodule(call.module)).__qualname__

    def _sites(self, number: int, call: Call) -> frozenset[str]:
        """The sites whose units a call is given, or gives."""
        dims_of = self.replay.engine.dims_of[number]
        dims = [d for x in (*call.given, *call.results) for d in dims_of.get(id(x), ())]
        units = {u for d in dims for u in self.replay.units[np.unique(d[0])].tolist() if u >= 0}
        return frozenset(s.name for s in self.graph.sites if not units.isdisjoint(s.units.tolist()))

    def bad(self) -> dict[str, str]:
        """The sites without which all others pass together, with the complaint."""
        why = self.complaint(self.graph.sites)
        if why is None or (why := self.numbered(why)) is None:
            return {}
        return culprits(self.complaint, self.graph.sites, why)

    def numbered(self, why: Complaint | None) -> Complaint | None:
        """What is left of a complaint when modules' attributes follow their widths.

        As few attributes as will do: each alone, then all that could.
        """
        while why is not None and why.call is not None:
            engine, before = self.replay.engine, self.graph.numbers
            found = candidates(engine, self.traces, self.replay.units, self.model, why.call)
            found = {key: units for key, units in found.items() if key not in before}
            names = list(dict.fromkeys(attribute for _, attribute in found))
            best: tuple[float, Complaint | None, Numbers] = why.step, why, before
            for chosen in [*([name] for name in names), names][: len(names) + (len(names) > 1)]:
                if len(chosen) > 1 and best[1] is not why:
                    break  # one alone has helped
                mine = {key: units for key, units in found.items() if key[1] in chosen}
                self.graph = replace(self.graph, numbers=before | mine)
                after = self.complaint(self.graph.sites)
                step = math.inf if after is None else after.step
                if step > best[0]:
                    best = step, after, before | mine
                if after is None:
                    break
            self.graph = replace(self.graph, numbers=best[2])
            if best[1] is why:
                break
            why = best[1]
        return why

    def _compare(self, number: int, before: Trace, after: Trace, kept: Mask) -> Complaint | None:
        """The first call of a trial, complete or broken off, that differs from the prediction."""
        dims_of, known = self.replay.engine.dims_of[number], dict[int, int]()
        for step, (old, new) in enumerate(zip(before.way, after.way, strict=False)):
            if old.kind != new.kind:
                why = f"after a trial cut the model takes another path at {old}; {remedy(old.op)}"
                return self._told(number, why, step)
            first = dims_of.get(id(old.args[0])) if old.args else None
            places = (_places(call, first) for call in (old, new))
            if numbers := _different(old.numbers, new.numbers) or _different(*places):
                why = (
                    f"{old} computes with a number that depends on the width ({numbers[0]}, after "
                    f"a trial cut {numbers[1]}); write it out, or keep it in the module"
                )
                return self._told(number, why, step)
            for a, b in zip(old.results, new.results, strict=True):
                if id(a) not in dims_of:
                    continue
                shape = self.replay.shape(dims_of[id(a)], kept, known)
                if shape != tuple(b.shape):
                    why = (
                        f"{old} has a size written into it: after a trial cut it gives "
                        f"{tuple(b.shape)} instead of {shape}; {remedy(old.op)}"
                    )
                    return self._told(number, why, step)
        return None


def _places(call: Call, dims: Dims | None) -> list[int]:
    """Numbers of positions on axes that hold no units: on others the labels are compared."""
    if dims is None or call.op not in ("slice", "select", "roll"):
        return []
    if call.op != "roll":
        axis = call.args[1] if len(call.args) > 1 else 0
        return [] if dims[axis][0].any() else list(call.args[2:])
    shifts, axes = call.args[1], call.args[2] if len(call.args) > 2 else []
    return [n for n, axis in zip(shifts, axes, strict=False) if not dims[axis][0].any()]


def _different(before: list[Any], after: list[Any]) -> tuple[Any, Any] | None:
    """The first numbers, or constants, that differ; constants without storage do not."""
    for a, b in zip(before, after, strict=True):
        if isinstance(a, Tensor) or isinstance(b, Tensor):
            if "Fake" not in type(a).__name__ + type(b).__name__ and not torch.equal(a, b):
                return a.tolist(), b.tolist()
        elif a != b and not (cmath.isnan(a) and cmath.isnan(b)):
            return a, b
    return None


def _alike(training: Trace, evaluation: Trace) -> bool:
    """Whether both modes make the same calls on the same lines, so that one trial shows both.

    Dropout and the counting of batches are made in training only.
    """

    def way(trace: Trace) -> list[tuple[str, str, str]]:
        calls = (c for c in trace.calls if c.op not in DROPS and not _counts(c))
        return [("norm" if c.op in NORMS else c.op, c.module, c.line) for c in calls]

    return way(training) == way(evaluation)


def _counts(call: Call) -> bool:
    """Whether a call adds one to a batch norm's number of batches."""
    return call.op == "add_" and isinstance(call.out, Tensor) and not call.out.ndim


def remedy(op: str) -> str:
    """What a person can write where a number in the code stands in the way."""
    if op in VIEWS:
        return "write x.flatten(1), or -1 or a size of x.shape, instead of the number"
    if op in PARTS:
        return "write x.chunk(n, dim), or a size of x.shape, instead of the number"
    return "take sizes from tensors (x.shape) or layers instead of writing numbers"


def _failure(error: Exception, trace: Trace) -> str:
    if trace.failed is not None and trace.failed[0] is error:
        call = trace.failed[1]
        return f"after a trial cut {call} fails: {_short(error)}; {remedy(call.op)}"
    module = next((m.name for m in reversed(trace.modules) if m.output is None), "")
    op = "reshape" if "is invalid for input of size" in str(error) else ""
    where = f"{op} in {module or 'the model itself'}" if op else module or "the model itself"
    return f"after a trial cut {where} ({cap.place_of(error)}) fails: {_short(error)}; {remedy(op)}"


def _short(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:160]


@cap.uncollected()
def analyse(model: nn.Module, example: Any, request: Request = NO_REQUEST, batch: int = 0) -> Graph:
    """What may be cut in a model: capture, label, find sites, try a cut, nest features in them.

    Raises:
        CaptureError: the model does not run on the example.
        NoSitesError: single features or inputs cannot be cut where asked.
    """
    traces = cap.capture(model, example)
    engine = label(traces, batch, whole_numbers(model))
    graph = explained(build(engine, traces, model), model)
    graph = replace(without(graph, unread(graph, model, request.ignore)), request=request)
    graph = unstuck(graph)
    if graph.sites:
        probe = Probe(model, engine, traces, graph)
        found = probe.bad()
        graph = explained(unstuck(without(probe.graph, found)), model)
    return price(nest(graph, engine, traces, model, request), engine, traces)


def whole_numbers(model: nn.Module) -> dict[str, Array]:
    """The saved one-dimensional buffers of whole numbers, by name."""
    saved = model.state_dict()
    return {
        name: value.cpu().numpy().astype(np.int64)
        for name, value in model.named_buffers()
        if name in saved
        and value.ndim == 1
        and value.dtype in (torch.int64, torch.int32)
        and value.device.type != "meta"
    }
