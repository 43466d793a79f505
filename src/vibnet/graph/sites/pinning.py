"""Sites that may not be cut after all: without them the graph is numbered anew."""

from dataclasses import replace

import numpy as np

from vibnet.graph.sites.constraints import EqualBlocks, Mask, legal
from vibnet.graph.sites.structure import Graph


def stuck(graph: Graph) -> dict[str, str]:
    """The sites of which constraints let no unit go, with the constraint."""
    bound = np.zeros(graph.total + 1, dtype=np.bool_)
    for block in graph.blocks:
        bound[block.units] = True
    if not any(s.size == 1 or bound[s.units].any() for s in graph.sites):
        return {}
    every = [s.units for s in graph.sites]
    scores = [np.random.default_rng(seed).random(graph.total) for seed in range(3)]

    def whole(blocks: list[EqualBlocks]) -> Mask:
        nothing = np.zeros(graph.total, dtype=np.bool_)
        out: Mask = np.logical_and.reduce([legal(nothing, s, every, blocks) for s in scores])
        return out

    stays, out = whole(graph.blocks), {}
    for site in graph.sites:
        if not stays[site.units].all():
            continue
        mine = [b for b in graph.blocks if np.isin(b.units, site.units).any()]
        alone = [b for b in mine if whole([b])[site.units].all()]
        named = " and ".join(dict.fromkeys(b.why for b in alone[:1] or mine))
        why = f"{named} must keep as many units each, at least one"
        if site.size == 1:
            why = "it has one unit, and one must stay"
        out[site.name] = f"no legal cut: {why}"
    return out


def unstuck(graph: Graph) -> Graph:
    """The graph without the sites of which constraints let no unit go."""
    while failed := stuck(graph):
        graph = without(graph, failed)
    return graph


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
    norms = [replace(n, units=index[n.units]) for n in graph.norms]
    late = index[graph.late]
    late = late[late >= 0]
    sources = [replace(s, units=index[s.units]) for s in graph.sources]
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
        remaps={k: index[u] for k, u in graph.remaps.items()},
        numbers={k: index[u] for k, u in graph.numbers.items() if (index[u] >= 0).any()},
        norms=[n for n in norms if (n.units >= 0).any()],
        sources=[s for s in sources if np.isin(s.units, late).any()],
        late=late,
    )
