"""Units that are closed where they are written: those that a root-mean-square norm goes over.

Such a norm mixes its units, so closing one where it is read changes the others. Closed where they
are written they add nothing to the mean of squares, and the norm over those that stay is the same
one scaled. That needs every call between writing and reading to make zero of zero.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vibnet.graph.events import Write
from vibnet.graph.labeller import Labeller
from vibnet.graph.labels import Array
from vibnet.graph.places import KEEPS_ELEMENTS, Flow, Place, equal, laid_out
from vibnet.graph.trace import Call, Trace

Bits = npt.NDArray[np.bool_]
MOVES = KEEPS_ELEMENTS | {
    *("slice", "select", "split", "split_with_sizes", "unbind", "index", "index_select", "flip"),
    *("roll", "repeat", "flatten", "unflatten", "lift_fresh", "dropout", "native_dropout"),
    *("bernoulli", "as_strided"),
}
FIXED_ZERO = {  # functions with f(0) = 0
    *("relu", "relu6", "gelu", "silu", "tanh", "neg", "abs", "sin", "leaky_relu", "elu", "selu"),
    *("celu", "mish", "hardswish", "sqrt", "sign", "erf", "asin", "atan", "sinh", "expm1", "log1p"),
    *("prelu", "_prelu_kernel", "hardtanh", "softsign", "round", "floor", "trunc"),
    *("mean", "sum", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d"),
    *("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "_fused_rms_norm"),
}
SUMS, JOINS = {"add", "sub"}, {"cat", "stack"}
PRODUCTS = {"mul", "bmm", "mm"}
ATTENTION = "_scaled_dot_product"


@dataclass
class Written:
    """What is known of units that are closed where they are written, by label class.

    Attributes:
        roots: the classes.
        pins: those that cannot be, with the reason.
        ungated: those that can, but only by a plan, with the reason.
        stored: parameters whose entries are these units' only sources, and the dimension.
        places: of gates, at the outputs of the modules that write.
    """

    roots: Array = field(default_factory=lambda: np.arange(0))
    pins: dict[int, str] = field(default_factory=dict)
    ungated: dict[int, str] = field(default_factory=dict)
    stored: set[tuple[str, int]] = field(default_factory=set)
    places: list[Place] = field(default_factory=list)


class _Survey:
    """Follows through one trace where closed units are zero."""

    def __init__(self, engine: Labeller, trace: Trace, number: int, classes: Array) -> None:
        self.engine, self.trace, self.dims_of = engine, trace, engine.dims_of[number]
        self.classes = classes  # for every label the number of its wanted class, or -1
        self.count = int(classes.max()) + 1
        self.zero: dict[int, Bits] = {}
        self.origin = dict(trace.state)
        self.alike: dict[int, list[int]] = defaultdict(list)  # tensors by the memory they lie in
        self.maker: dict[int, Call] = {}
        self.bare: set[str] = set()  # parameters that are added as they are
        self._known: dict[int, tuple[Array, Bits]] = {}
        writes = [w for w in engine.writes if w.trace == number]
        self.writes = {w.call: w for w in writes}
        for step, call in enumerate(trace.calls):
            self._pass(step, call)

    def bits(self, dim: Array) -> Bits:
        """Which wanted classes a dimension holds."""
        found = self._known.get(id(dim))
        if found is None:
            bits = np.zeros(self.count + 1, dtype=np.bool_)
            bits[self.classes[dim[0]]] = True
            found = self._known[id(dim)] = dim, bits[:-1]
        return found[1]

    def carried(self, x: Tensor) -> Bits:
        """Which wanted classes a tensor holds."""
        out = np.zeros(self.count, dtype=np.bool_)
        for dim in self.dims_of.get(id(x), ()):
            out |= self.bits(dim)
        return out

    def zeros(self, x: Tensor) -> Bits:
        """Which wanted classes are zero in a tensor when they are closed."""
        found: Bits | None = self.zero.get(id(x))
        return np.zeros(self.count, dtype=np.bool_) if found is None else found

    def _pass(self, step: int, call: Call) -> None:
        first = call.args[0] if call.args else None
        if call.op in KEEPS_ELEMENTS and isinstance(call.out, Tensor) and id(first) in self.origin:
            self.origin[id(call.out)] = self.origin[id(first)]
        carried = [self.carried(x) for x in call.results]
        if not any(bits.any() for bits in carried):
            return
        zero = self._rule(step, call)
        for x, bits in zip(call.results, carried, strict=True):
            if (bits & ~zero).any():
                self.maker[id(x)] = call
            memory = self.alike[x.untyped_storage()._cdata]
            if call.op.endswith("_"):  # what shares the memory has been written into as well
                for other in memory:
                    self.zero[other] &= zero | ~bits
                    self.maker.setdefault(other, call)
            memory.append(id(x))
            self.zero[id(x)] = zero & bits

    def cause(self, x: Tensor, number: int) -> str:
        """The call that makes something else of zero, on the way to a tensor."""
        seen, queue, first = set[int](), [x], ""
        while queue:
            key = id(queue.pop(0))
            call = self.maker.get(key)
            if call is None or key in seen:
                continue
            seen.add(key)
            first = first or str(call)
            if any(self.zeros(y)[number] for y in call.given):
                return str(call)
            queue += [y for y in call.given if self.carried(y)[number]]
        return first or "what stands there"

    def _rule(self, step: int, call: Call) -> Bits:
        name = call.op.removesuffix("_")
        none = np.zeros(self.count, dtype=np.bool_)
        first = call.args[0] if call.args else None
        if step in self.writes:
            return self._written(self.writes[step])
        if name in JOINS:
            return self._all(call.given, foreign=True)
        if name in SUMS:
            odd = [x for x in call.args[:2] if not isinstance(x, Tensor) and x != 0]
            return none if odd else self._all(call.given, foreign=False)
        if name in PRODUCTS:
            return self._any(call.given)
        if name == "div":
            other = call.args[1]
            below = self.carried(other) if isinstance(other, Tensor) else none
            return self.zeros(call.args[0]) & ~below
        if name == "pow" and isinstance(call.args[1], (int, float)) and call.args[1] > 0:
            return self.zeros(call.args[0])
        if name.startswith(ATTENTION):
            return self.zeros(call.args[2])
        if name in MOVES | FIXED_ZERO and isinstance(first, Tensor):
            return self.zeros(first)
        return none

    def _any(self, given: Sequence[Tensor]) -> Bits:
        """Zero where one of the inputs is."""
        out = np.zeros(self.count, dtype=np.bool_)
        for x in given:
            out |= self.zeros(x)
        return out

    def _all(self, given: Sequence[Tensor], foreign: bool) -> Bits:
        """Zero where all inputs are; `foreign`: those that do not hold the units do not count."""
        out = np.ones(self.count, dtype=np.bool_)
        for x in given:
            zero = self.zeros(x)
            if (name := self.origin.get(id(x))) is not None:
                zero = self.carried(x)
                self.bare.add(name)
            out &= zero | ~self.carried(x) if foreign else zero
        return out

    def _written(self, write: Write) -> Bits:
        out = np.zeros(self.count, dtype=np.bool_)
        if write.position >= 0 and write.bias != "?":
            numbers = self.classes[write.atoms]
            out[numbers[numbers >= 0]] = True
        return out


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
    surveys = [_Survey(engine, t, k, classes) for k, t in enumerate(traces)]
    for norm in normed:
        _need(out, surveys[norm.trace], norm.found.source, norm.atoms, str(
            traces[norm.trace].calls[norm.found.call]))  # fmt: skip
        _whole(out, engine, norm.found.weight, surveys[norm.trace])
    for read in engine.reads:
        call = str(traces[read.trace].calls[read.call])
        _need(out, surveys[read.trace], read.source, read.atoms, call)
    _sources(out, engine, traces, surveys, open_)
    return out


def _need(out: Written, survey: _Survey, x: Tensor, atoms: Array, reader: str) -> None:
    """Pin what is not zero where it is read or normed."""
    for k in np.flatnonzero(survey.bits(atoms) & ~survey.zeros(x)).tolist():
        why = (
            f"a root-mean-square norm goes over it, so it must be zero at {reader} when it is "
            f"closed, but {survey.cause(x, k)} makes something else of zero; leave out what adds "
            f"to it, or norm another tensor"
        )
        out.pins.setdefault(int(out.roots[k]), why)


def _whole(out: Written, engine: Labeller, name: str, survey: _Survey) -> None:
    """Pin what is normed with a weight that has another use, which would be scaled too."""
    ours = {(n.trace, n.found.scaling) for n in engine.normed if n.found.weight == name}
    others = engine.used.get(name, set()) - ours
    if others:
        for k in np.flatnonzero(survey.bits(engine.parameters[name][0])).tolist():
            out.pins.setdefault(
                int(out.roots[k]), f"{name} weighs a root-mean-square norm over it, and has "
                "another use too, which would be scaled with it; give that one its own"
            )  # fmt: skip


def _sources(
    out: Written,
    engine: Labeller,
    traces: Sequence[Trace],
    surveys: list[_Survey],
    open_: Array,
) -> None:
    """What has to be closed, and where gates can stand."""
    closed = np.zeros(engine.labels.count, dtype=np.bool_)
    closed[[root for root in out.roots.tolist() if root not in out.pins]] = True
    only = np.where(closed[open_], open_, 0)
    calls: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for write in engine.writes:
        if only[write.atoms].any():
            out.stored.add((write.parameter, write.position))
            for name in filter(None, (write.parameter, write.bias)):
                calls[name].add((write.trace, write.call))
            if write.bias:
                out.stored.update(_holding(engine, write.bias, only))
    for name in {name: None for survey in surveys for name in survey.bare}:
        for _, dim in _holding(engine, name, only):
            out.stored.add((name, dim))
            found = only[engine.parameters[name][dim][0]]
            _note(out, found, f"{name} is added to it and is no module's output")
    for name, dim in sorted(out.stored):
        if engine.used.get(name, set()) - calls[name]:
            found = only[engine.parameters[name][dim][0]]
            _note(out, found, f"{name} is also used elsewhere, so no multiplier fits into it")
    _places(out, engine, traces, only)


def _holding(engine: Labeller, name: str, only: Array) -> list[tuple[str, int]]:
    """A parameter and every dimension of it that holds units."""
    dims = enumerate(engine.parameters[name])
    return [(name, dim) for dim, labels in dims if only[labels[0]].any()]


def _note(out: Written, roots: Array, reason: str) -> None:
    for root in np.unique(roots[roots > 0]).tolist():
        out.ungated.setdefault(root, reason)


def _places(out: Written, engine: Labeller, traces: Sequence[Trace], only: Array) -> None:
    """Gates at the outputs of the modules that write: each output is one write, as it is."""
    found: dict[str, list[Place]] = defaultdict(list)
    flows = [Flow(trace, ()) for trace in traces]
    for write in engine.writes:
        if not only[write.atoms].any():
            continue
        place = _place(engine, flows[write.trace], write, only)
        if place is None:
            call = traces[write.trace].calls[write.call]
            why = f"{call} gives it, which is no module's own output, so no gate can stand there"
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


def _place(engine: Labeller, flow: Flow, write: Write, only: Array) -> Place | None:
    call = flow.trace.calls[write.call]
    if not call.stack:
        return None
    x = flow.own_output(call.out, call.stack[-1])
    dims = engine.dims_of[write.trace].get(id(x)) if x is not None else None
    return laid_out(dims, only, call.module, -1) if dims else None
