"""One walk through a trace: products, neurons, and the memory that is alive at once."""

import math
import re
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AvgPoolNd

from vibnet.cost.tensors import batch_of, tensors
from vibnet.graph.capture.trace import Call, Trace
from vibnet.layers import SelectedLinear

PRODUCT = re.compile(r"_?(b?add)?(b?mm|mv)(_activation)?_?|v?dot")
FUSED = re.compile(r"_trilinear|.*(rnn|lstm|gru).*")  # rows of an input with stored matrices
POOLING = re.compile(r".*(max|avg)_pool.*")
AVERAGES = (_AdaptiveAvgPoolNd, _AvgPoolNd)  # AdaptiveAvgPool2d(1) runs as a mean
VIEWS = {"view", "_unsafe_view", "reshape", "_reshape_alias", "alias", "detach"}
THROUGH = {"clone", "_to_copy", "_softmax", "_log_softmax"}  # a logit stays one through these


def _place(x: Tensor) -> int:
    return int(x.untyped_storage()._cdata)


def _places(*trees: Any) -> set[int]:
    return {_place(x) for x in tensors(trees)}


class Flow:
    """Which storages an input reaches, which hold stored numbers, and the running counts."""

    def __init__(self, trace: Trace) -> None:
        self.trace, self.batch = trace, batch_of(trace.inputs)
        self.macs = self.attention = self.neurons = 0
        self.read: dict[frozenset[int], dict[int, int]] = {}
        held = {_place(x): x for x in (*trace.model.parameters(), *trace.model.buffers())}
        self.sizes = {p: x.untyped_storage().nbytes() // x.element_size() for p, x in held.items()}
        self.roots = {place: frozenset([place]) for place in held}
        self.reached = _places(trace.inputs)
        for call in trace.calls:
            given = _places(call.args, call.kwargs)
            roots = frozenset[int]().union(*(self.roots.get(p, frozenset()) for p in given))
            for place in _places(call.out):
                self.roots.setdefault(place, roots)
                if given & self.reached:
                    self.reached.add(place)
        self.logits = _places(trace.outputs)
        for call in reversed(trace.calls):
            given = self.reached & _places(call.args, call.kwargs)
            one = len(given) == 1 and (call.pointwise or call.op in THROUGH)
            if one and self.logits & _places(call.out):
                self.logits |= given

    def product(self, left: Tensor, right: Tensor, macs: int, outputs: int, place: int) -> None:
        """Count one product of two factors by what they are: activations or stored numbers."""
        active = [x for x in (left, right) if _place(x) in self.reached]
        if len(active) == 2:
            self.attention += macs
        elif active:
            self.macs += macs
            weight = right if active[0] is left else left
            roots = self.roots.get(_place(weight))
            if roots:
                sides = zip(weight.shape, weight.stride(), strict=True)
                numbers = math.prod(size for size, stride in sides if stride)  # expanded: once
                parts, offset = self.read.setdefault(roots, {}), int(weight.storage_offset())
                parts[offset] = max(parts.get(offset, 0), numbers)
                self.neurons += 0 if place in self.logits else outputs

    def entered(self, model: nn.Module) -> int:
        """Numbers of the inputs that are read: all, or those that selected layers pick."""
        places = {_place(x): x.numel() for x in self.trace.inputs}
        picked: dict[int, set[int]] = {}
        for call in self.trace.calls:
            if call.op in VIEWS:
                continue
            for place in _places(call.args, call.kwargs) & set(places):
                owner = model.get_submodule(call.module)
                if not isinstance(owner, SelectedLinear) or call.op != "index_select":
                    return sum(places.values())
                picked.setdefault(place, set()).update(owner.index.tolist())
        rows = {place: self.batch * len(index) for place, index in picked.items()}
        return sum((places | rows).values())

    def weights(self) -> int:
        """Stored numbers that products read, by what they were made of."""
        whole = {roots: sum(parts.values()) for roots, parts in self.read.items()}
        return sum(min([n, *(self.sizes[p] for p in r if len(r) == 1)]) for r, n in whole.items())


def count(flow: Flow, call: Call) -> None:
    """Add one call to the counts."""
    args, owner = call.args, flow.trace.model.get_submodule(call.module)
    out = next(tensors(call.out), torch.empty(0))
    if "scaled_dot_product" in call.op:
        query, key, value = args[:3]
        rows = query.numel() // query.shape[-1]
        flow.attention += rows * key.shape[-2] * (query.shape[-1] + value.shape[-1])
    elif POOLING.fullmatch(call.op) or (call.op == "mean" and isinstance(owner, AVERAGES)):
        flow.neurons += out.numel()
    elif call.op in ("convolution", "_convolution"):
        sites = args[0] if args[6] else out  # a transposed one spreads each of its inputs
        macs = sites.numel() * args[1][0].numel()
        flow.product(args[0], args[1], macs, out.numel(), _place(out))
    elif PRODUCT.fullmatch(call.op):
        left, right = args[1:3] if "add" in call.op else args[:2]
        macs = left.numel() * (right.shape[-1] if right.ndim > 1 else 1)
        flow.product(left, right, macs, out.numel(), _place(out))
    elif FUSED.fullmatch(call.op):
        rows = args[0].numel() // args[0].shape[-1]
        if call.op == "_trilinear":
            rows = flow.batch
        for weight in tensors(args[1:]):
            if _place(weight) not in flow.reached and weight.ndim > 1:
                outputs = rows * weight.shape[0]
                flow.product(args[0], weight, rows * weight.numel(), outputs, _place(out))


def peak(flow: Flow) -> int:
    """The most bytes alive at once at batch 1: from the call that makes them to the last use."""
    calls, inputs = flow.trace.calls, flow.trace.inputs
    sizes = {_place(x): x.numel() * x.element_size() for x in inputs}
    first = dict.fromkeys(sizes, 0)
    last = dict(first)
    for step, call in enumerate(calls):
        for x in tensors(call.args, call.kwargs, call.out):
            sizes.setdefault(_place(x), x.untyped_storage().nbytes())
            first.setdefault(_place(x), step)
            last[_place(x)] = step
    last |= dict.fromkeys(_places(flow.trace.outputs) & set(first), len(calls))
    change = [0] * (len(calls) + 2)
    for place in set(sizes) - set(flow.sizes):
        alone = -(-sizes[place] // flow.batch) if place in flow.reached else sizes[place]
        change[first[place]] += alone
        change[last[place] + 1] -= alone
    return max(accumulate(change))
