"""Trial cuts without storage: a site stays cuttable only if the cut model runs as predicted."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from vibnet.graph import capture as cap
from vibnet.graph.constraints import Mask, legal
from vibnet.graph.cut import cut, shape_only, take
from vibnet.graph.labeller import Labeller
from vibnet.graph.nested import nest
from vibnet.graph.prices import price
from vibnet.graph.rules import TABLE
from vibnet.graph.sites import NO_REQUEST, Graph, Request, Site, build
from vibnet.graph.unread import unread


class Probe:
    """Cuts some units of some sites of a shadow of the model and compares every call."""

    def __init__(
        self,
        model: nn.Module,
        example: Any,
        engine: Labeller,
        traces: list[cap.Trace],
        graph: Graph,
    ) -> None:
        self.model, self.example = model, example
        self.traces, self.graph = traces, graph
        roots, _ = engine.labels.resolve()
        index = np.full(engine.labels.count, -1, dtype=np.int64)
        for name, dims in engine.parameters.items():
            for dim, units in zip(dims, graph.parameters[name], strict=True):
                index[roots[dim[0]]] = np.maximum(index[roots[dim[0]]], units)
        index[0] = -1
        self.expected = [
            {key: [index[roots[d[0]]] for d in dims] for key, dims in known.items()}
            for known in engine.dims_of
        ]
        self.fake = bool(traces[0].calls) and "Fake" in type(traces[0].outputs[0]).__name__

    def step(self, sites: list[Site]) -> Mask:
        """A legal cut of about a third of the units of some sites; more where less is illegal."""
        random = np.random.default_rng(0)
        score = random.random(self.graph.total)
        wanted = np.ones(self.graph.total, dtype=np.bool_)
        every = [s.units for s in self.graph.sites]
        kept = wanted
        uncut = [s.units for s in sites]
        for share in (1 / 3, 2 / 3, 1.0):
            for units in uncut:
                low = units[np.argsort(score[units])]
                wanted[low[: max(1, int(len(low) * share))]] = False
            kept = legal(wanted, score, every, self.graph.blocks)
            uncut = [units for units in uncut if kept[units].all()]
        return kept

    def complaint(self, sites: list[Site]) -> str:
        """Why the cut model does not run as predicted; empty if it does."""
        kept = self.step(sites)
        if kept.all():
            return ""
        for number, trace in enumerate(self.traces):
            mode = FakeTensorMode(allow_non_fake_inputs=True) if self.fake else None
            copied = cap.shadow(self.model, mode)
            if mode is not None:
                with mode:
                    cut(copied, self.graph, kept, shape_only)
            else:
                cut(copied, self.graph, kept, take)
            if not trace.training:
                copied.eval()
            elif not self.model.training:
                copied.train()
            quiet = logging.getLogger("torch._subclasses.fake_tensor")
            level = quiet.level
            quiet.setLevel(logging.CRITICAL)
            try:
                again = cap.run(copied, self.example, trace.training, mode)
            except Exception as error:
                return (
                    f"after a trial cut the model fails at {cap.place_of(error)}: {_short(error)}"
                )
            finally:
                quiet.setLevel(level)
            if found := self._compare(number, trace, again, kept):
                return found
        return ""

    def _compare(self, number: int, before: cap.Trace, after: cap.Trace, kept: Mask) -> str:
        if [c.op for c in before.calls] != [c.op for c in after.calls]:
            return "after a trial cut the model takes another path"
        expected = self.expected[number]
        for old, new in zip(before.calls, after.calls, strict=True):
            for a, b in zip(tree_leaves(old.out), tree_leaves(new.out), strict=True):
                if not isinstance(a, Tensor) or id(a) not in expected:
                    continue
                shape = tuple(int(np.where(u < 0, True, kept[u]).sum()) for u in expected[id(a)])
                if shape != tuple(b.shape):
                    return (
                        f"{old} has a size written into it: after a trial cut it gives "
                        f"{tuple(b.shape)} instead of {shape}"
                    )
        return ""

    def bad(self, sites: list[Site]) -> dict[str, str]:
        """The sites that fail, by bisection, with the complaint."""
        why = self.complaint(sites)
        if not why:
            return {}
        if len(sites) == 1:
            return {sites[0].name: why}
        half = len(sites) // 2
        found = {**self.bad(sites[:half]), **self.bad(sites[half:])}
        return found or {site.name: why for site in sites}


def _short(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:160]


def analyse(model: nn.Module, example: Any, request: Request = NO_REQUEST, batch: int = 0) -> Graph:
    """What may be cut in a model: capture, label, find sites, try a cut, nest features in them.

    Raises:
        CaptureError: the model does not run on the example.
        NoSitesError: single features or inputs cannot be cut where asked.
    """
    traces = cap.capture(model, example)
    inputs = cap.at_least_two(example)
    engine = Labeller(dict(TABLE))
    engine.add_model(traces[0].model)
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
    failed: dict[str, str] = {}
    if graph.sites:
        probe = Probe(model, inputs, engine, traces, graph)
        failed = probe.bad(graph.sites)
    graph = without(graph, failed)
    return price(nest(graph, engine, traces, model, request), engine, traces)


def without(graph: Graph, failed: dict[str, str]) -> Graph:
    """The graph with some sites pinned."""
    if not failed:
        return graph
    index = np.full(graph.total + 1, -1, dtype=np.int64)
    good, total = [], 0
    pinned = list(graph.pinned)
    for site in graph.sites:
        if site.name in failed:
            pinned.append(replace(site, units=np.arange(0), reason=failed[site.name]))
            continue
        units = np.arange(total, total + site.size)
        index[site.units] = units
        total += site.size
        good.append(replace(site, units=units))
    blocks = [replace(b, units=index[b.units]) for b in graph.blocks]
    places = [replace(p, units=index[p.units]) for p in graph.places]
    return replace(
        graph,
        sites=good,
        pinned=pinned,
        total=total,
        parameters={k: tuple(index[u] for u in v) for k, v in graph.parameters.items()},
        readers=[replace(r, units=index[r.units]) for r in graph.readers],
        blocks=[b for b in blocks if (b.units >= 0).any()],
        within_group={k: (index[u], g) for k, (u, g) in graph.within_group.items()},
        places=[p for p in places if (p.units >= 0).any()],
        widths={k: index[u] for k, u in graph.widths.items()},
    )
