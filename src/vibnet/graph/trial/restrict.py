"""The graph of a model after a cut, from the graph before it: nothing is traced again."""

from dataclasses import replace

import numpy as np

from vibnet.graph.labels.labels import Array
from vibnet.graph.sites.constraints import Mask
from vibnet.graph.sites.places import Place
from vibnet.graph.sites.structure import Graph, Nested


def restrict(graph: Graph, kept: Mask) -> Graph:
    """What `graph` says, of the model that is left when only `kept` units stay.

    Sites remember the positions that their units had at first.
    """
    index = np.full(graph.total + 1, -1, dtype=np.int64)  # the last entry serves unit -1
    index[:-1][kept] = np.arange(int(kept.sum()))

    def left(units: Array) -> Array:
        stay = np.where(units < 0, True, kept[units])
        numbers: Array = index[units[stay]]
        return numbers

    sites = []
    for site in graph.sites:
        stay = kept[site.units]
        units = index[site.units[stay]]
        sites.append(
            replace(
                site,
                units=units,
                size=len(units),
                original=site.positions[stay],
                first=site.first or site.size,
            )
        )
    nested = [_nested(n, kept, index) for n in graph.nested]
    places = []
    for place in graph.places:
        twin = next((k for k, n in enumerate(graph.nested) if _same(place, n)), None)
        units = left(place.units) if twin is None else nested[twin].units
        places.append(replace(place, units=units))
    within = {k: (left(u), groups) for k, (u, groups) in graph.within_group.items()}
    parameters = {k: tuple(left(u) for u in v) for k, v in graph.parameters.items()}
    for name, (units, groups) in within.items():
        rows, columns, *others = parameters[name]
        parameters[name] = (rows, columns[: len(units) // groups], *others)
    return replace(
        graph,
        sites=sites,
        parameters=parameters,
        readers=[replace(r, units=left(r.units)) for r in graph.readers],
        blocks=[replace(b, units=left(b.units)) for b in graph.blocks],
        within_group=within,
        places=places,
        total=int(kept.sum()),
        widths={k: left(u) for k, u in graph.widths.items()},
        nested=nested,
        remaps={k: left(u) for k, u in graph.remaps.items()},
        numbers={k: left(u) for k, u in graph.numbers.items()},
        norms=[replace(n, units=left(n.units)) for n in graph.norms],
        sources=[replace(s, units=left(s.units)) for s in graph.sources],
        late=index[graph.late[kept[graph.late]]],
    )


def _nested(nested: Nested, kept: Mask, index: Array) -> Nested:
    """The features that the layer is given now: those whose parents stay, cut ones as -1."""
    present = np.where(nested.parents < 0, True, kept[nested.parents])
    return replace(
        nested, units=index[nested.units][present], parents=index[nested.parents][present]
    )


def _same(place: Place, nested: Nested) -> bool:
    return place.module == nested.module and np.array_equal(place.units, nested.units)
