"""Units that are closed where they are written: those that a root-mean-square norm goes over.

Such a norm mixes its units, so closing one where it is read changes the others. Closed where they
are written they add nothing to the mean of squares, and the norm over those that stay is the same
one scaled. That needs every call between writing and reading to make zero of zero.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from vibnet.graph.capture.trace import Trace
from vibnet.graph.labels.events import Normed, Write
from vibnet.graph.labels.labeller import Labeller
from vibnet.graph.labels.labels import Array
from vibnet.graph.sites.places import Flow, Place, equal, laid_out
from vibnet.graph.sites.ties import taken_back
from vibnet.graph.sites.zeros import Zeros


@dataclass
class Written:
    """What is known of units that are closed where they are written, by label class.

    Attributes:
        roots: the classes.
        pins: those that cannot be, with the reason.
        ungated: those that can, but only by a plan, with the reason.
        stored: parameters whose entries are these units' only sources, and the dimension.
        inverse: weights of norms that take back what a stored one multiplies too much.
        places: of gates, at the outputs of the modules that write.
    """

    roots: Array = field(default_factory=lambda: np.arange(0))
    pins: dict[int, str] = field(default_factory=dict)
    ungated: dict[int, str] = field(default_factory=dict)
    stored: set[tuple[str, int]] = field(default_factory=set)
    inverse: set[str] = field(default_factory=set)
    places: list[Place] = field(default_factory=list)


def survey(engine: Labeller, traces: Sequence[Trace], roots: Array, open_: Array) -> Written:
    """Which classes are closed where they are written, and how; `open_` as in `places.find`."""
    normed = [n for n in engine.normed if open_[roots[n.atoms[0]]].any()]
    out = Written()
    if not normed:
        return out
    wanted = np.unique(np.concatenate([open_[n.atoms[0]] for n in normed]))
    out.roots = wanted = wanted[wanted > 0]
    number = np.full(engine.labels.count, -1, dtype=np.int64)
    number[wanted] = np.arange(len(wanted))
    classes = number[roots]
    _alike(out, normed, open_, engine)
    surveys = [Zeros(engine, t, k, classes) for k, t in enumerate(traces)]
    for norm in normed:
        call = str(traces[norm.trace].calls[norm.found.call])
        _need(out, surveys[norm.trace], norm.found.source, norm.atoms, call)
        _whole(out, engine, norm.found.weight, surveys[norm.trace])
    for read in engine.reads:
        call = str(traces[read.trace].calls[read.call])
        _need(out, surveys[read.trace], read.source, read.atoms, call)
    _sources(out, engine, traces, surveys, open_)
    return out


def _alike(out: Written, normed: list[Normed], open_: Array, engine: Labeller) -> None:
    """Pin units of norms that share a weight or an eps, and differ in what it is to become."""
    kinds: dict[tuple[str, ...], dict[object, list[Normed]]] = defaultdict(dict)
    for norm in normed:
        found = norm.found
        units = open_[engine.parameters[found.weight][0][0]].tobytes()
        if found.attribute:
            kinds[found.module, found.attribute].setdefault(units, []).append(norm)
        kinds[(found.weight,)].setdefault(found.offset, []).append(norm)
    for key, different in kinds.items():
        if len(different) < 2:
            continue
        why = (
            f"{'.'.join(key).lstrip('.')} belongs to root-mean-square norms that would need "
            f"different values after a cut; give each its own"
        )
        for norm in (n for norms in different.values() for n in norms):
            for root in np.unique(open_[norm.atoms[0]]).tolist():
                if root:
                    out.pins.setdefault(root, why)


def _need(out: Written, survey: Zeros, x: Tensor, atoms: Array, reader: str) -> None:
    """Pin what is not zero where it is read or normed."""
    for k in np.flatnonzero(survey.bits(atoms) & ~survey.zeros(x)).tolist():
        why = (
            f"a root-mean-square norm goes over it, so it must be zero at {reader} when it is "
            f"closed, but {survey.cause(x, k)} makes something else of zero; do that elsewhere, or "
            f"norm another tensor"
        )
        out.pins.setdefault(int(out.roots[k]), why)


def _whole(out: Written, engine: Labeller, name: str, survey: Zeros) -> None:
    """Pin what is normed with a weight that has another use, which would be scaled too."""
    ours = {(n.trace, n.found.scaling) for n in engine.normed if n.found.weight == name}
    if not engine.used.get(name, set()) - ours:
        return
    why = (
        f"{name} weighs a root-mean-square norm over it, and has another use too, which would be "
        f"scaled with it; give that one its own"
    )
    for k in np.flatnonzero(survey.bits(engine.parameters[name][0])).tolist():
        out.pins.setdefault(int(out.roots[k]), why)


def _sources(
    out: Written,
    engine: Labeller,
    traces: Sequence[Trace],
    surveys: list[Zeros],
    open_: Array,
) -> None:
    """What has to be closed, and where gates can stand."""
    closed = np.zeros(engine.labels.count, dtype=np.bool_)
    closed[[root for root in out.roots.tolist() if root not in out.pins]] = True
    only = np.where(closed[open_], open_, 0)
    calls: dict[tuple[str, int], set[tuple[int, int]]] = defaultdict(set)
    for write in engine.writes:
        if only[write.atoms].any():
            held = [(write.parameter, write.position)]
            held += _holding(engine, write.bias, only) if write.bias else []
            for key in held:
                out.stored.add(key)
                calls[key].add((write.trace, write.call))
    for name in {name: None for survey in surveys for name in survey.bare}:
        for _, dim in _holding(engine, name, only):
            out.stored.add((name, dim))
            found = only[engine.parameters[name][dim][0]]
            _note(out, found, f"{name} is added to it and is no module's output")
    for name, dim in sorted(out.stored):
        if more := engine.used.get(name, set()) - calls[name, dim]:
            found = only[engine.parameters[name][dim][0]]
            if weight := taken_back(engine, traces, name, dim, more):
                out.inverse.add(weight)
                continue
            _note(out, found, f"{name} is also used elsewhere, so no multiplier fits into it")
    _places(out, engine, traces, only, open_)


def _holding(engine: Labeller, name: str, only: Array) -> list[tuple[str, int]]:
    """A parameter and every dimension of it that holds units."""
    dims = enumerate(engine.parameters[name])
    return [(name, dim) for dim, labels in dims if only[labels[0]].any()]


def _note(out: Written, roots: Array, reason: str) -> None:
    for root in np.unique(roots[roots > 0]).tolist():
        out.ungated.setdefault(root, reason)


def _places(
    out: Written, engine: Labeller, traces: Sequence[Trace], only: Array, every: Array
) -> None:
    """Gates at the outputs of the modules that write: each output is one write, as it is."""
    found: dict[str, list[Place]] = defaultdict(list)
    flows = [Flow(trace, ()) for trace in traces]
    for write in engine.writes:
        if not only[write.atoms].any():
            continue
        place = _place(engine, flows[write.trace], write, only, every)
        if place is None:
            call = traces[write.trace].calls[write.call]
            why = (
                f"{call} gives it, which is no module's own output with one example after the "
                f"other, or the module keeps it or uses it for something else too, so no gate can "
                f"stand there"
            )
            _note(out, only[write.atoms], why)
        else:
            found[place.module].append(place)
    for name, places in found.items():
        calls = sum(module.name == name for trace in traces for module in trace.modules)
        if calls == len(places) and all(equal(places[0], other) for other in places):
            out.places.append(places[0])
            continue
        for place in places:
            _note(out, place.units, f"{name} gives other units in other calls")


def _place(engine: Labeller, flow: Flow, write: Write, only: Array, every: Array) -> Place | None:
    call = flow.trace.calls[write.call]
    if not call.stack:
        return None
    x = flow.own_output(call.out, call.stack[-1])
    dims = engine.dims_of[write.trace].get(id(x)) if x is not None else None
    place = laid_out(dims, only, call.module, -1, every) if dims else None
    return replace(place, late=True) if place else None
