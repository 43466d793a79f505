"""Where a reader's multipliers can go when its own weight has another use."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from vibnet.graph.capture.trace import Call, Trace
from vibnet.graph.labels.events import Read
from vibnet.graph.labels.labeller import Labeller
from vibnet.graph.labels.labels import Array
from vibnet.graph.sites.places import KEEPS_ELEMENTS

LINEAR = {
    *KEEPS_ELEMENTS,
    *("native_dropout", "dropout", "avg_pool1d", "avg_pool2d", "avg_pool3d", "mean"),
    *("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d"),
}
HOMOGENEOUS = {
    *("relu", "leaky_relu", "prelu", "_prelu_kernel"),
    *("max_pool2d_with_indices", "max_pool3d_with_indices", "amax"),
}
NORMS = {
    *("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm"),
    *("_native_batch_norm_legit_no_training", "_batch_norm_with_update"),
}


@dataclass(frozen=True)
class Detour:
    """Stored numbers in front of a reader that only it sees, and what a multiplier must be there.

    Attributes:
        scaled: names of parameters, and the dimension that holds the units.
        positive: the operation that lets positive multipliers through only, or "".
    """

    scaled: tuple[tuple[str, int], ...]
    positive: str = ""


class _Walk:
    """From a read back to what makes it, as long as nothing else sees what lies between."""

    def __init__(self, engine: Labeller, trace: Trace, roots: Array, read: Read) -> None:
        self.engine, self.roots, self.read = engine, roots, read
        self.users: dict[int, list[int]] = {}
        self.maker: dict[int, int] = {}
        for k, call in enumerate(trace.calls):
            for key in {id(x) for x in call.given}:
                self.users.setdefault(key, []).append(k)
            for x in call.results:
                self.maker.setdefault(id(x), k)
        self.calls = trace.calls
        self.units = set(np.unique(roots[read.atoms[0]]).tolist())
        self.scaled: list[tuple[str, int]] = []
        self.uses: dict[str, set[int]] = {}

    def detour(self) -> Detour | None:
        x, user, positive = self.read.source, self.read.call, ""
        while self._seen_by(x) == [user]:
            user = self.maker.get(id(x), -1)
            if user < 0:
                return None
            call = self.calls[user]
            if call.op in LINEAR or call.op in HOMOGENEOUS:
                positive = positive or (str(call) if call.op in HOMOGENEOUS else "")
                x = call.args[0]
                continue
            further = self._stored(call, user)
            if further is None:
                return None
            if further is not call:
                x = further
                continue
            return Detour(tuple(self.scaled), positive) if self._alone() else None
        return None

    def _seen_by(self, x: Tensor) -> list[int]:
        """The calls that use a tensor; a view that nothing uses is no use."""
        return [
            k
            for k in self.users.get(id(x), [])
            if self.calls[k].op not in KEEPS_ELEMENTS or id(self.calls[k].out) in self.users
        ]

    def _stored(self, call: Call, k: int) -> Any:
        """The tensor to go on from, the call itself where the way ends well, or None."""
        if call.op in ("add", "mul") and len(call.args) > 1 and not call.kwargs:
            for x, other in (call.args[:2], call.args[1::-1]):
                if isinstance(other, Tensor) and self._scale(other, k):
                    return call if call.op == "mul" else x
            return None
        if call.op in {*NORMS, "convolution", "linear"}:
            stored = call.args[1:3]
        elif call.op == "addmm":
            stored = (call.args[2], call.args[0])
        elif call.op == "mm":
            stored = call.args[1:2]
        else:
            return None
        given = [x for x in stored if isinstance(x, Tensor)]
        if call.op in NORMS and len(given) < 2:
            return None
        fits = [self._scale(x, k) for x in given]
        return call if fits and all(fits) else None

    def _scale(self, x: Tensor, k: int) -> bool:
        name = self.engine.origin(x)
        if name is None:
            return False
        dims = self.engine.parameters[name]
        mine = [d for d, dim in enumerate(dims) if set(self.roots[dim[0]].tolist()) == self.units]
        if len(mine) != 1:
            return False
        self.scaled.append((name, mine[0]))
        self.uses.setdefault(name, set()).add(k)
        return True

    def _alone(self) -> bool:
        """Whether the stored numbers have no other use, in either mode."""
        for name, found in self.uses.items():
            uses = self.engine.used.get(name, set())
            if {k for trace, k in uses if trace == self.read.trace} != found:
                return False
            if len(uses) != len(found) * len(self.engine.dims_of):
                return False
        return True


def detour(engine: Labeller, traces: list[Trace], roots: Array, read: Read) -> Detour | None:
    """Where the multipliers of a read of the last trace go instead of into its weight.

    In this order: an elementwise affine (a norm's, a scale) that only this read sees; the weight
    that writes the units, where all between is positively homogeneous. None: nowhere.
    """
    if read.trace != len(traces) - 1:
        return None
    return _Walk(engine, traces[-1], roots, read).detour()
