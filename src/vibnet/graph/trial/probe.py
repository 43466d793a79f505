"""Trial cuts without storage: a site stays cuttable only if the cut model runs as predicted."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vibnet.graph.capture import capture as cap
from vibnet.graph.capture.shadow import shadow
from vibnet.graph.capture.trace import Call, Trace
from vibnet.graph.labels.labeller import Labeller
from vibnet.graph.labels.labels import Array
from vibnet.graph.labels.splits import label
from vibnet.graph.sites import branches
from vibnet.graph.sites.constraints import Mask
from vibnet.graph.sites.nested import nest
from vibnet.graph.sites.numbers import Numbers, candidates
from vibnet.graph.sites.pinning import unstuck, without
from vibnet.graph.sites.prices import price
from vibnet.graph.sites.sites import build
from vibnet.graph.sites.stock import explained, refuse_nested
from vibnet.graph.sites.structure import NO_REQUEST, Graph, Request, Site
from vibnet.graph.sites.unread import unread
from vibnet.graph.trial import picked, steps
from vibnet.graph.trial.compare import PLACED, alike, different, failure, places, remedy
from vibnet.graph.trial.culprits import Complaint, culprits
from vibnet.graph.trial.cut import cut, shape_only, take
from vibnet.graph.trial.replay import Replay


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
        made = next((x for call in traces[0].calls for x in call.results), None)
        self.fake = "Fake" in type(made).__name__
        self.replay = Replay(engine, graph, self.fake)
        self.modes = [0] if alike(traces[0], traces[-1]) else [0, 1]

    def complaint(self, sites: Sequence[Site]) -> Complaint | None:
        """Why the cut model does not run as predicted; None if it does.

        Where attributes of modules follow the cut, a second cut has to run too: one might count
        what has the same number of units after the first cut only.
        """
        why = self._complaint(steps.third(self.graph, sites))
        if why is None and self.graph.numbers:
            why = self._complaint(steps.unequal(self.graph, sites))
        return why

    def narrow(self) -> dict[str, str]:
        """The sites that do not run as predicted when two units of each are left.

        Code that compares a width with a length, which is less, takes its other way then. Ways,
        numbers and shapes tell that; labels are left out, for time.
        """

        def complaint(sites: Sequence[Site]) -> Complaint | None:
            return self._complaint(steps.two(self.graph, sites), labels=False)

        why = complaint(self.graph.sites)
        return {} if why is None else culprits(complaint, self.graph.sites, why)

    def _complaint(self, kept: Mask, labels: bool = True) -> Complaint | None:
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
                cap.run(copied, trace.example, trace.training, mode, again, trace)
            except Exception as error:
                found = self._compare(number, trace, again, kept)
                return found or self._told(number, failure(error, again), len(again.way))
            if found := self._compare(number, trace, again, kept):
                return found
            lengths = {len(trace.way), len(again.way)}
            if len(lengths) > 1 and self.replay.last(number, trace) >= min(lengths):
                why = "after a trial cut the model takes another path at its end"
                return self._told(number, why, len(trace.way))
            if labels:
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
        touched = np.zeros(self.graph.total + 1, dtype=np.bool_)  # the last: no unit
        for dim in dims:
            touched[self.replay.units[dim[0]]] = True
        return frozenset(s.name for s in self.graph.sites if touched[s.units].any())

    def bad(self) -> dict[str, str]:
        """The sites without which all others pass together, with the complaint."""
        why = self.complaint(self.graph.sites)
        if why is None or (why := self.numbered(why)) is None:
            return {}
        return culprits(self.complaint, self.graph.sites, why)

    def numbered(self, why: Complaint | None) -> Complaint | None:
        """What is left of a complaint when modules' attributes follow their widths.

        As few attributes as will do: each alone, then all that could, less those not needed. The
        numbers that a split is handed as one list follow together: a trial may leave a part whole.
        What helped in a layer of the same class is tried first, and does where it helps again.
        """
        helped: set[tuple[type[nn.Module], str]] = set()
        while why is not None and why.call is not None:
            engine, before = self.replay.engine, self.graph.numbers
            found = candidates(engine, self.traces, self.replay.units, self.model, why.call)
            found = {key: units for key, units in found.items() if key not in before}
            groups = {key: self._group(why.call, *key) for key in found}
            names = list(dict.fromkeys(groups.values()))
            best: tuple[float, Complaint | None, Numbers] = why.step, why, before
            kind = type(self.model.get_submodule(why.call.module))
            for name in sorted(names, key=lambda name: (kind, name) not in helped):
                tried = self._with(found, groups, [name])
                if tried[0] > best[0]:
                    best, first = tried, (kind, name)
                if best[1] is not why and (kind, name) in helped:
                    break
            if best[1] is not why:
                helped.add(first)
            if best[1] is why and len(names) > 1:  # none alone helps
                best = self._with(found, groups, names)
                for name in list(names):  # which of them are not needed?
                    fewer = self._with(found, groups, [n for n in names if n != name])
                    if fewer[0] >= best[0]:
                        best, names = fewer, [n for n in names if n != name]
                best = best if best[0] > why.step else (why.step, why, before)
            self.graph = replace(self.graph, numbers=best[2])
            if best[1] is why:
                break
            why = best[1]
        return why

    def _group(self, call: Call, module: str, attribute: str) -> str:
        """What a number follows with: itself, or the list that is what a split is told."""
        owner = attribute.partition("[")[0]
        held = getattr(self.model.get_submodule(module), owner, None)
        split = call.op.endswith("split_with_sizes") and isinstance(held, (list, tuple))
        return owner if split and [*(held or ())] == [*call.args[1]] else attribute

    def _with(
        self, found: Numbers, groups: dict[tuple[str, str], str], names: list[str]
    ) -> tuple[float, Complaint | None, Numbers]:
        """How far a trial comes with more attributes following, its complaint, and them all."""
        graph, more = self.graph, {k: units for k, units in found.items() if groups[k] in names}
        self.graph = replace(graph, numbers=graph.numbers | more)
        why = self.complaint(graph.sites)
        numbers, self.graph = self.graph.numbers, graph
        return (math.inf if why is None else why.step), why, numbers

    def _compare(self, number: int, before: Trace, after: Trace, kept: Mask) -> Complaint | None:
        """The first call of a trial, complete or broken off, that differs from the prediction."""
        dims_of, known = self.replay.engine.dims_of[number], dict[int, int]()
        ways = zip(before.way[: self.replay.last(number, before) + 1], after.way, strict=False)
        for step, (old, new) in enumerate(ways):
            if old.kind != new.kind:
                why = f"after a trial cut the model takes another path at {old}; {remedy(old.op)}"
                return self._told(number, why, step)
            holds = self.replay.holds(number, old.args[0]) if old.op in PLACED else None
            where = (places(call, holds) for call in (old, new))
            now = self.replay.unscaled(number, old, new, kept)
            if numbers := different(old.numbers, now) or different(*where):
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


def analyse(model: nn.Module, example: Any, request: Request = NO_REQUEST, batch: int = 0) -> Graph:
    """What may be cut in a model: capture, label, find sites, try a cut, nest features in them.

    Raises:
        CaptureError: the model does not run on the example.
        NoSitesError: single features or inputs cannot be cut where asked.
    """
    names = picked.asked(model, request)
    while names:
        graph = followed(picked.whole(model, names), example, request, batch)[0]
        with_site = [n for n in names if n in {nested.module for nested in graph.nested}]
        if with_site == names:
            return picked.narrowed(graph, model)
        names = with_site
    return followed(model, example, request, batch)[0]


@cap.uncollected()
def followed(
    model: nn.Module, example: Any, request: Request = NO_REQUEST, batch: int = 0
) -> tuple[Graph, Labeller, list[Trace]]:
    """As `analyse`, with what it looked at: the traces in train and in eval mode, and their labels.

    Raises:
        CaptureError: the model does not run on the example.
        NoSitesError: single features or inputs cannot be cut where asked.
    """
    traces = cap.capture(model, example)
    refuse_nested(model, traces)
    engine = label(traces, batch, whole_numbers(model), request.inexact)
    graph = build(engine, traces, model)
    graph = replace(without(graph, unread(graph, model, request.ignore)), request=request)
    graph = unstuck(graph)
    if graph.sites:
        probe = Probe(model, engine, traces, graph)
        found = probe.bad()
        graph = unstuck(without(probe.graph, found))
        probe = Probe(model, engine, traces, graph) if found else probe
        graph = unstuck(without(graph, probe.narrow()))
    graph = explained(graph, model)
    graph = nest(graph, engine, traces, model, request)
    if request.branches:
        graph = replace(graph, branches=branches.find(graph, traces[-1], model))
    return price(graph, engine, traces), engine, traces


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
