"""Trial cuts without storage: a site stays cuttable only if the cut model runs as predicted."""

import cmath
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vibnet.graph import capture as cap
from vibnet.graph.constraints import Mask, legal
from vibnet.graph.cut import cut, shape_only, take
from vibnet.graph.labeller import Dims, Labeller
from vibnet.graph.labels import Array
from vibnet.graph.nested import nest
from vibnet.graph.pinning import unstuck, without
from vibnet.graph.prices import price
from vibnet.graph.replay import Replay
from vibnet.graph.rules import TABLE
from vibnet.graph.shadow import shadow
from vibnet.graph.sites import NO_REQUEST, Graph, Request, Site, build
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
        traces: list[cap.Trace],
        graph: Graph,
    ) -> None:
        self.model, self.traces, self.graph = model, traces, graph
        self.replay = Replay(engine, graph)
        self.numbers = [0] if _alike(traces[0], traces[-1]) else [0, 1]
        self.fake = bool(traces[0].calls) and "Fake" in type(traces[0].outputs[0]).__name__

    def step(self, sites: list[Site]) -> Mask:
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

    def complaint(self, sites: list[Site]) -> str:
        """Why the cut model does not run as predicted; empty if it does."""
        kept = self.step(sites)
        if kept.all():
            return ""
        trials: list[tuple[int, cap.Trace]] = []
        for number in self.numbers:
            trace = self.traces[number]
            mode = FakeTensorMode(allow_non_fake_inputs=True) if self.fake else None
            copied = shadow(self.model, mode)
            cut(copied, self.graph, kept, shape_only if self.fake else take)
            if not trace.training:
                copied.eval()
            elif not self.model.training:
                copied.train()
            again = cap.Trace(trace.training, copied)
            try:
                cap.run(copied, trace.example, trace.training, mode, again)
            except Exception as error:
                return self._compare(number, trace, again, kept) or _failure(error, again)
            if found := self._compare(number, trace, again, kept):
                return found
            if len(trace.calls) != len(again.calls):
                return "after a trial cut the model takes another path at its end"
            trials.append((number, again))
        for number, again in trials:
            if found := self.replay.complaint(number, self.traces[number], again, kept):
                return found
        return ""

    def _compare(self, number: int, before: cap.Trace, after: cap.Trace, kept: Mask) -> str:
        """The first call of a trial, complete or broken off, that differs from the prediction."""
        dims_of, known = self.replay.engine.dims_of[number], dict[int, int]()
        for old, new in zip(before.calls, after.calls, strict=False):
            if old.op != new.op:
                return f"after a trial cut the model takes another path at {old}; {remedy(old.op)}"
            first = dims_of.get(id(old.args[0])) if old.args else None
            places = (_places(call, first) for call in (old, new))
            if numbers := _different(old.numbers, new.numbers) or _different(*places):
                return (
                    f"{old} computes with a number that depends on the width ({numbers[0]}, after "
                    f"a trial cut {numbers[1]}); write it out, or keep it in the module"
                )
            for a, b in zip(old.results, new.results, strict=True):
                if id(a) not in dims_of:
                    continue
                shape = self.replay.shape(dims_of[id(a)], kept, known)
                if shape != tuple(b.shape):
                    return (
                        f"{old} has a size written into it: after a trial cut it gives "
                        f"{tuple(b.shape)} instead of {shape}; {remedy(old.op)}"
                    )
        return ""

    def bad(self, sites: list[Site]) -> dict[str, str]:
        """The sites without which all others pass together, by bisection, with the complaint."""
        why = self.complaint(sites)
        return self._culprits([], sites, why) if why else {}

    def _culprits(self, passed: list[Site], sites: list[Site], why: str) -> dict[str, str]:
        """Which of some sites fail beside those that have passed together."""
        if len(sites) == 1:
            return {sites[0].name: why}
        half, found = len(sites) // 2, dict[str, str]()
        if reason := self.complaint([*passed, *sites[:half]]):
            found = self._culprits(passed, sites[:half], reason)
            passed = [*passed, *(s for s in sites[:half] if s.name not in found)]
            why = self.complaint([*passed, *sites[half:]])
        else:
            passed = [*passed, *sites[:half]]
        return {**found, **self._culprits(passed, sites[half:], why)} if why else found


def _places(call: cap.Call, dims: Dims | None) -> list[int]:
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


def _alike(training: cap.Trace, evaluation: cap.Trace) -> bool:
    """Whether both modes make the same calls on the same lines, so that one trial shows both.

    Dropout and the counting of batches are made in training only.
    """

    def way(trace: cap.Trace) -> list[tuple[str, str, str]]:
        calls = (c for c in trace.calls if c.op not in DROPS and not _counts(c))
        return [("norm" if c.op in NORMS else c.op, c.module, c.line) for c in calls]

    return way(training) == way(evaluation)


def _counts(call: cap.Call) -> bool:
    """Whether a call adds one to a batch norm's number of batches."""
    return call.op == "add_" and isinstance(call.out, Tensor) and not call.out.ndim


def remedy(op: str) -> str:
    """What a person can write where a number in the code stands in the way."""
    if op in VIEWS:
        return "write x.flatten(1), or -1 or a size of x.shape, instead of the number"
    if op in PARTS:
        return "write x.chunk(n, dim), or a size of x.shape, instead of the number"
    return "take sizes from tensors (x.shape) or layers instead of writing numbers"


def _failure(error: Exception, trace: cap.Trace) -> str:
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
    engine = Labeller(dict(TABLE))
    engine.add_model(traces[0].model)
    engine.values = whole_numbers(model)
    for trace in traces:
        trace_of = trace.model
        if trace_of is not traces[0].model:
            trace.state = {
                id(v): k
                for k, v in (
                    *trace_of.named_parameters(remove_duplicate=True),
                    *trace_of.named_buffers(remove_duplicate=True),
                )
            }
        engine.add(trace, batch)
    graph = build(engine, traces, model)
    graph = replace(without(graph, unread(graph, model, request.ignore)), request=request)
    graph = unstuck(graph)
    if graph.sites:
        probe = Probe(model, engine, traces, graph)
        graph = unstuck(without(graph, probe.bad(graph.sites)))
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
