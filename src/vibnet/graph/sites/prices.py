"""What one unit of a site costs: the map it is written on, its multiply-adds, weights and bytes."""

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from vibnet.graph.capture.trace import Trace
from vibnet.graph.labels.labeller import Labeller
from vibnet.graph.sites.constraints import Mask
from vibnet.graph.sites.structure import Graph, Site

RELATIVE = ("macs", "params", "memory")
ABSOLUTE = ("uniform", "width", "area")
PRICES = (*ABSOLUTE, *RELATIVE)


def price(graph: Graph, engine: Labeller, traces: Sequence[Trace]) -> Graph:
    """The graph with the costs of one unit at every site, per example and at present widths.

    `width` and `area` are those of the largest map that a writer of the site gives, 1 for a linear
    layer and for single features. `macs` and `params` count what would go with a unit of mean cost
    if it alone went; `memory` adds the numbers of its map to those of its weights.
    """
    maps, uses = _maps(engine, traces[-1])
    sites = [replace(s, costs=_written(s, maps)) for s in graph.sites]
    stored = {name for name, _ in traces[-1].model.named_parameters()}
    return counted(replace(graph, sites=sites, uses=uses), stored)


def counted(graph: Graph, stored: Collection[str]) -> Graph:
    """The graph with what its parameters say of the costs of a unit, at the widths it has.

    Args:
        graph: with `uses`, and the maps of its sites in their costs.
        stored: names of the model's parameters.
    """
    sizes = {k: math.prod(len(u) for u in dims) for k, dims in graph.parameters.items()}
    shares: dict[str, np.ndarray] = {name: np.zeros(graph.total) for name in ("params", "macs")}
    for name, dims in graph.parameters.items():
        if name not in stored:
            continue
        for units in dims:
            own = units[units >= 0]
            if not len(own):
                continue
            first = int(own.min())
            each = np.bincount(own - first) / len(units) * sizes[name]
            near = slice(first, first + len(each))
            shares["params"][near] += each
            shares["macs"][near] += each * graph.uses.get(name, 0.0)
    sites = [replace(s, costs={**s.costs, **_counted(s, shares)}) for s in graph.sites]
    return replace(graph, sites=sites, cuttable=cuttable(graph))


def totals(graph: Graph, kept: Mask) -> tuple[int, int]:
    """Weights of convolutions and linear layers, and their multiply-adds an example, after a cut.

    Source:
        Dai et al. 2018, section 5: what r_W and FLOP count.
    """
    weights, macs = 0, 0.0
    stays = np.append(kept, True)  # the last entry serves positions that are no unit
    for name, uses in graph.uses.items():
        sizes = [int(stays[u].sum()) for u in graph.parameters[name]]
        if name in graph.within_group:
            units, groups = graph.within_group[name]
            sizes[1] = int(stays[units].sum()) // groups
        weights += math.prod(sizes)
        macs += math.prod(sizes) * uses
    return weights, round(macs)


def by_layer(graph: Graph) -> dict[str, tuple[int, float, float]]:
    """Weights, multiply-adds an example and the share of them in sites, by the layer's name.

    Of convolutions and linear layers; a weight of the model itself stands under "".
    """
    rows: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    every = np.ones(graph.total, dtype=np.bool_)
    for name, uses in graph.uses.items():
        alone = replace(graph, uses={name: uses})
        weights, macs = totals(alone, every)
        rows[name.rpartition(".")[0]].append((weights, macs, macs - totals(alone, ~every)[1]))
    sums = {name: np.sum(found, 0).tolist() for name, found in rows.items()}
    return {k: (round(w), m, saved / m if m else 0.0) for k, (w, m, saved) in sums.items()}


def cuttable(graph: Graph) -> dict[str, float]:
    """The shares of weights and multiply-adds in rows or columns that sites can give up.

    Of convolutions and linear layers, from 0 to 1; the most that any cut could save.
    """
    all_units = np.ones(graph.total, dtype=np.bool_)
    names = ("weights", "macs")
    pairs = zip(names, totals(graph, ~all_units), totals(graph, all_units), strict=True)
    return {name: 1 - left / whole if whole else 0.0 for name, left, whole in pairs}


def _written(site: Site, maps: dict[str, tuple[int, ...]]) -> dict[str, float]:
    """The costs that the maps of its writers tell."""
    names = () if site.nested else (n for w in site.writers for n in (w, f"{w}.weight"))
    largest = max((maps.get(n, ()) for n in names), key=math.prod, default=())
    width = float(largest[-1]) if largest else 1.0
    return {"uniform": 1.0, "width": width, "area": float(math.prod(largest))}


def _counted(site: Site, shares: dict[str, np.ndarray]) -> dict[str, float]:
    """The costs that parameters tell."""
    params, macs = (float(shares[name][site.units].mean()) for name in ("params", "macs"))
    return {"macs": macs, "params": params, "memory": params + site.costs["area"]}


def _maps(engine: Labeller, trace: Trace) -> tuple[dict[str, tuple[int, ...]], dict[str, float]]:
    """The map that every stored weight writes, and how often an example uses each of its numbers.

    Of the last trace that was labelled.
    """
    maps: dict[str, tuple[int, ...]] = {}
    uses: dict[str, float] = defaultdict(float)
    for call in trace.calls:
        if call.op == "convolution":
            name = engine.origin(call.args[1])
            if name is not None:
                swept = (call.args[0] if call.args[6] else call.out).shape[2:]
                maps[name] = max(maps.get(name, ()), tuple(call.out.shape[2:]), key=math.prod)
                uses[name] += math.prod(swept)
    batch = max((int(d[1].max(initial=0)) for d in engine.dims(trace.inputs[0])), default=1) or 1
    for read in engine.reads:
        if read.trace == len(engine.dims_of) - 1 and read.parameter not in maps:
            rows = read.source.numel() // read.source.shape[read.source_dim]
            uses[read.parameter] += rows / batch
    return maps, dict(uses)
