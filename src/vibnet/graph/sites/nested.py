"""Sites of single features: what one linear layer reads, feature by feature, over other sites."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from vibnet.errors import NoSitesError
from vibnet.graph.capture.trace import Trace
from vibnet.graph.labels.events import Read
from vibnet.graph.labels.labeller import Labeller
from vibnet.graph.sites.constraints import Nesting
from vibnet.graph.sites.places import Flow, Place, rows
from vibnet.graph.sites.structure import Graph, Nested, Request, Site
from vibnet.layers import SelectedLinear

_PICKS = (
    "picks what it reads by an index whose numbers are not known (on the meta device) or not in "
    "order, or shares its weight, so it is not cut a second time"
)
REORDERS = {"permute", "transpose", "t", "expand"}
INPUTS = "inputs"


@dataclass(frozen=True)
class _Input:
    """Where a linear layer reads: its module, its own input's place, the way from the model's."""

    module: str
    place: Place
    first: int
    operators: tuple[str, ...]


def nest(
    graph: Graph,
    engine: Labeller,
    traces: Sequence[Trace],
    model: nn.Module,
    request: Request,
) -> Graph:
    """The graph with a site for the features of each named layer, and for the model's inputs.

    Raises:
        NoSitesError: a name is no plain linear layer, it does not read its own input, or no
            linear layer reads the model's inputs.
    """
    features, inputs = request.features, request.inputs
    for name in features:
        _check_name(name, model)
    if len(set(features)) < len(features):
        raise NoSitesError(f"features names a layer twice: {', '.join(features)}. Name each once.")
    wanted: list[tuple[str, list[_Input]]] = []
    if inputs:
        wanted.append((INPUTS, _readers_of_inputs(engine, traces, model)))
    for name in features:
        if inputs and any(name == r.module for r in wanted[0][1]):
            raise NoSitesError(
                f"{name} reads the model's inputs, so inputs=True makes its site. "
                f"Take it out of features."
            )
        found = _own_input(engine, traces, name)
        if found is None:
            raise NoSitesError(
                f"features names {name!r}, whose own input does not go straight into its weight "
                f"(or whose weight has another use), so no single feature can be cut there."
            )
        wanted.append((f"{name}:features", [found]))
    late = np.concatenate([np.arange(0), *(s.units for s in graph.sources)])
    for site, readers in wanted:
        for reader in readers:
            units = graph.parameters[f"{reader.module}.weight"][1]
            if np.isin(units[units >= 0], late).any():
                raise NoSitesError(
                    f"{site} would be single features of {reader.module}, which reads units that "
                    f"a root-mean-square norm goes over: those close where they are written, all "
                    f"readers at once. Leave {reader.module} out."
                )
        graph = _with_site(graph, site, readers)
    return graph


def _check_name(name: str, model: nn.Module) -> None:
    linear = [n for n, m in model.named_modules() if type(m) is nn.Linear]
    if name not in linear:
        found = dict(model.named_modules()).get(name)
        what = "no module" if found is None else f"a {type(found).__name__}"
        if type(found) is SelectedLinear:
            raise NoSitesError(
                f"features names {name!r} of {type(model).__name__}, which {_PICKS}."
            )
        raise NoSitesError(
            f"features names {name!r}, which is {what} of {type(model).__name__}, not a plain "
            f"nn.Linear. There are: {', '.join(linear) or 'none'}."
        )


def _own_input(engine: Labeller, traces: Sequence[Trace], name: str) -> _Input | None:
    """Where a layer reads its own input, if every one of its calls does, in both modes."""
    parameter = f"{name}.weight"
    found: _Input | None = None
    for number, trace in enumerate(traces):
        reads = [r for r in engine.reads if r.trace == number and r.parameter == parameter]
        calls = [m for m in trace.modules if m.name == name]
        uses = engine.used.get(parameter, set())
        if len(reads) != len(calls) or not {(r.trace, r.call) for r in engine.reads} >= uses:
            return None
        flow = Flow(trace, [r for r in engine.reads if r.trace == number])
        for read in reads:
            one = _input(flow, read, engine, number)
            if one is None or one.module != name or (found and one.place.dim != found.place.dim):
                return None
            found = one
    return found


def _input(flow: Flow, read: Read, engine: Labeller, number: int) -> _Input | None:
    dims = engine.dims_of[number]
    for _, argument, x in flow.own_inputs(read):
        repeat = rows(dims[id(x)])
        if x.shape[-1] != read.source.shape[read.source_dim] or repeat is None:
            continue
        chain = flow.chain(x)
        operators = tuple(flow.maker_of(step) for step in chain[:-1])
        inputs = [id(i) for i in flow.trace.inputs]
        first = inputs.index(id(chain[-1])) if id(chain[-1]) in inputs else -1
        name = read.parameter.rpartition(".")[0]
        place = Place(name, argument, x.ndim - 1, np.arange(0), x.ndim, repeat)
        return _Input(name, place, first, operators)
    return None


def _readers_of_inputs(engine: Labeller, traces: Sequence[Trace], model: nn.Module) -> list[_Input]:
    linear = [n for n, m in model.named_modules() if type(m) is nn.Linear]
    found = [r for n in linear if (r := _own_input(engine, traces, n)) and r.first >= 0]
    picked = [n for n, m in model.named_modules() if isinstance(m, SelectedLinear)]
    if not found and picked:
        raise NoSitesError(
            f"inputs=True, but {', '.join(picked)} of {type(model).__name__} {_PICKS}. Leave "
            f"inputs out."
        )
    if not found:
        raise NoSitesError(
            f"inputs=True, but no linear layer of {type(model).__name__} reads its inputs as they "
            f"are. Leave inputs out, or name a linear layer in features."
        )
    if len({r.first for r in found}) > 1 or (
        len(found) > 1 and any(REORDERS & set(r.operators) for r in found)
    ):
        names = ", ".join(r.module for r in found)
        raise NoSitesError(
            f"inputs=True, but {names} read different inputs, or the same in different orders. "
            f"Name one of them in features."
        )
    return found


def _with_site(graph: Graph, name: str, readers: list[_Input]) -> Graph:
    sizes = {len(graph.parameters[f"{r.module}.weight"][1]) for r in readers}
    if len(sizes) > 1:
        raise NoSitesError(
            f"inputs=True, but {', '.join(r.module for r in readers)} view the inputs in "
            f"different shapes. Name one of them in features."
        )
    units = np.arange(graph.total, graph.total + sizes.pop())
    parameters, nested, places = dict(graph.parameters), list(graph.nested), list(graph.places)
    weights = {f"{r.module}.weight" for r in readers}
    for reader in readers:
        weight = f"{reader.module}.weight"
        nested.append(Nested(reader.module, units, parameters[weight][1]))
        parameters[weight] = (parameters[weight][0], units)
        places.append(replace(reader.place, units=units))
    above = np.concatenate([n.parents for n in nested[-len(readers) :]])
    over = [k for k, s in enumerate(graph.sites) if np.isin(s.units, above).any()]
    writers = tuple(graph.sites[k].name for k in over)
    site = Site(name, len(units), units, writers, tuple(r.module for r in readers), nested=True)
    at = max(over, default=-1) + 1
    others = [r for r in graph.readers if r.parameter not in weights]
    mine = [replace(r, units=units) for r in graph.readers if r.parameter in weights]
    return replace(
        graph,
        sites=[*graph.sites[:at], site, *graph.sites[at:]],
        parameters=parameters,
        readers=[*others, *mine],
        places=places,
        nested=nested,
        total=graph.total + len(units),
    )


def nesting(graph: Graph) -> Nesting:
    """Which units live only with which others."""
    pairs = [np.stack([n.units, n.parents]) for n in graph.nested]
    joined = np.concatenate([p[:, (p >= 0).all(0)] for p in pairs], axis=1) if pairs else None
    if joined is None:
        return Nesting(np.arange(0), np.arange(0), np.arange(0))
    weights = {f"{n.module}.weight" for n in graph.nested}
    elsewhere = [r.units for r in graph.readers if r.parameter not in weights]
    read = np.unique(np.concatenate([*elsewhere, np.arange(0)]))
    return Nesting(joined[0], joined[1], np.setdiff1d(joined[1], read))
