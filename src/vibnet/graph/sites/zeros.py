"""Where in a trace units that are closed at their writers are zero."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vibnet.graph.capture.trace import Call, Trace
from vibnet.graph.labels.events import Write
from vibnet.graph.labels.labeller import Labeller
from vibnet.graph.labels.labels import Array
from vibnet.graph.sites.places import KEEPS_ELEMENTS

Bits = npt.NDArray[np.bool_]
MOVES = KEEPS_ELEMENTS | {
    *("slice", "select", "split", "split_with_sizes", "unbind", "index", "index_select", "flip"),
    *("roll", "repeat", "flatten", "unflatten", "lift_fresh", "dropout", "native_dropout"),
    *("bernoulli", "as_strided"),
}
FIXED_ZERO = {  # functions with f(0) = 0
    *("relu", "relu6", "gelu", "silu", "tanh", "neg", "abs", "sin", "leaky_relu", "elu", "selu"),
    *("celu", "mish", "hardswish", "sqrt", "sign", "erf", "asin", "atan", "sinh", "expm1", "log1p"),
    *("prelu", "_prelu_kernel", "cumsum", "softsign", "round", "floor", "trunc"),
    *("mean", "sum", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d"),
    *("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "_fused_rms_norm"),
    *("max_pool2d_with_indices", "max_pool3d_with_indices", "upsample_nearest2d"),
    *("upsample_bilinear2d", "upsample_nearest1d", "upsample_linear1d", "upsample_bicubic2d"),
}
NOTHING = {"zeros", "zeros_like", "new_zeros"}
SUMS, JOINS = {"add", "sub"}, {"cat", "stack"}
PRODUCTS = {"mul", "bmm", "mm"}
FILLS = {"masked_fill", "constant_pad_nd"}  # with the number that is their third argument
ATTENTION = "_scaled_dot_product"


class Zeros:
    """Follows through one trace where closed units are zero."""

    def __init__(self, engine: Labeller, trace: Trace, number: int, classes: Array) -> None:
        self.engine, self.trace, self.dims_of = engine, trace, engine.dims_of[number]
        self.classes = classes  # for every label the number of its wanted class, or -1
        self.count = int(classes.max()) + 1
        self.zero: dict[int, Bits] = {}
        self.origin = dict(trace.state)
        self.alike: dict[int, list[int]] = defaultdict(list)  # tensors by the memory they lie in
        self.maker: dict[int, Call] = {}
        self.spoiled: dict[int, str] = {}  # tensors that another call has written into
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
            if (
                call.op.endswith("_") or "out" in call.kwargs
            ):  # what shares the memory has been written into as well
                was = {other: self.zero[other] for other in memory}
                for other in memory:
                    self.zero[other] = self.zero[other] & (zero | ~bits)
                    if (self.zero[other] != was[other]).any():
                        self.spoiled[other] = str(call)
            memory.append(id(x))
            self.zero[id(x)] = zero & bits

    def cause(self, x: Tensor, number: int) -> str:
        """The call that makes something else of zero, on the way to a tensor."""
        seen, queue, first = set[int](), [x], ""
        while queue:
            key = id(queue.pop(0))
            if key in self.spoiled:
                return self.spoiled[key]
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
        if name in NOTHING:
            return np.ones(self.count, dtype=np.bool_)
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
        if (bounds := _bounds(name, call)) is not None:
            return self.zeros(call.args[0]) if bounds[0] <= 0 <= bounds[1] else none
        if name in FILLS:
            value = call.args[2] if len(call.args) > 2 else 0
            return self.zeros(call.args[0]) if not isinstance(value, Tensor) and not value else none
        if name in ("maximum", "minimum"):
            return self._all(call.given, foreign=False)
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


def _bounds(name: str, call: Call) -> tuple[float, float] | None:
    """Between which numbers a call holds its values, None where it does not."""
    if name not in ("hardtanh", "clamp", "clamp_min", "clamp_max"):
        return None
    low, high = (*call.args[1:3], None, None)[:2]
    if name == "clamp_max":
        low, high = None, low
    low, high = call.kwargs.get("min", low), call.kwargs.get("max", high)
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        return 1.0, 0.0  # between what nobody knows: nothing is in there
    least, most = (-1.0, 1.0) if name == "hardtanh" else (-np.inf, np.inf)
    return least if low is None else low, most if high is None else high
