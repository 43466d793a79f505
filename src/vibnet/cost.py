"""What a model costs: weights, multiply-adds, neurons, memory and time, by the paper's rules."""

import math
import re
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AvgPoolNd
from torch.utils._pytree import tree_leaves, tree_map

from vibnet.errors import ConfigError
from vibnet.graph.capture import Call, Trace, arguments, capture

PRODUCT = re.compile(r"_?(b?add)?(b?mm|mv)(_activation)?_?|v?dot")
FUSED = re.compile(r"_trilinear|.*(rnn|lstm|gru).*")  # rows of an input with stored matrices
POOLING = re.compile(r".*(max|avg)_pool.*")
AVERAGES = (_AdaptiveAvgPoolNd, _AvgPoolNd)  # AdaptiveAvgPool2d(1) runs as a mean
THROUGH = {"clone", "_to_copy", "_softmax", "_log_softmax"}  # a logit stays one through these


@dataclass(frozen=True)
class Cost:
    """The costs of one model, per example.

    Args:
        weights: Conv and linear weights, no biases and no norms; a shared one once.
        macs: Multiply-adds of convolutions and of products with a stored weight. Padding counts.
        attention_macs: Multiply-adds of products of two activations.
        neurons: The N of r_N: outputs of conv and linear calls but logits, of poolings, and of
            declared sites.
        parameters: All parameters.
        bytes: Of parameters and buffers.
        peak_memory: ``bytes`` and the most bytes of activations alive at once, at batch 1.
        latency: Median seconds of a forward at batch 1 and at batch 32, where measured.

    Source:
        Dai et al. 2018, tables 1 to 3.
    """

    weights: int
    macs: int
    attention_macs: int
    neurons: int
    parameters: int
    bytes: int
    peak_memory: int
    latency: tuple[float, float] | None = None

    def __str__(self) -> str:
        names = ("weights", "macs", "attention_macs", "neurons", "parameters", "bytes")
        rows = [(n.replace("_", " "), f"{getattr(self, n):,}") for n in (*names, "peak_memory")]
        for batch, seconds in zip((1, 32), self.latency or (), strict=False):
            rows.append((f"ms at batch {batch}", f"{1000 * seconds:.3f}"))
        return "\n".join(f"{name:<14} {value:>15}" for name, value in rows)


@dataclass(frozen=True)
class Ratios:
    """A small model against its base, as the paper's tables print it.

    Args:
        weights: r_W, in percent of the base.
        macs: Multiply-adds of the small model.
        neurons: r_N, in percent of the base.
    """

    weights: float
    macs: int
    neurons: float

    def __str__(self) -> str:
        millions = self.macs / 1e6
        return f"r_W {self.weights:.2f} %, {millions:.3f} M macs, r_N {self.neurons:.2f} %"


def ratios(small: Cost, base: Cost) -> Ratios:
    """r_W, multiply-adds and r_N of a small model; both must be measured with one declaration.

    Raises:
        ConfigError: The base has no weights or no neurons.
    """
    if not base.weights or not base.neurons:
        raise ConfigError("base has no weights or no neurons. Pass the cost of the uncut model.")
    share = 100 * small.weights / base.weights
    return Ratios(share, small.macs, 100 * small.neurons / base.neurons)


def measure(
    model: nn.Module, example: Any, *,
    inputs: bool = False, features: Iterable[str] = (), latency: bool = False
) -> Cost:  # fmt: skip
    """The costs of one eval forward per example; products that no input reaches are left out.

    Args:
        model: Any module; it is left untouched.
        example: A batch of any size, as you would pass it to the model.
        inputs: The model's input counts as neurons too.
        features: Names of linear modules whose input features count as neurons too.
        latency: Take the time as well.

    Raises:
        ConfigError: A name in ``features`` is not that of a linear module.
        CaptureError: The model does not run on the example.
    """
    declared = _declared(model, [features] if isinstance(features, str) else [*features])
    trace = capture(model, example)[1]
    flow = _Flow(trace)
    for call in trace.calls:
        _count(flow, call)
    entered = sum(x.numel() for x in trace.inputs) if inputs else 0
    held = {id(x): x for x in (*model.parameters(), *model.buffers())}
    stored = sum(x.numel() * x.element_size() for x in held.values())
    return Cost(
        weights=flow.weights(),
        macs=flow.macs // flow.batch,
        attention_macs=flow.attention // flow.batch,
        neurons=declared + (flow.neurons + entered) // flow.batch,
        parameters=sum(x.numel() for x in model.parameters()),
        bytes=stored,
        peak_memory=stored + _peak(flow),
        latency=(_seconds(model, example, 1), _seconds(model, example, 32)) if latency else None,
    )


def latency(
    model: nn.Module, example: Any, batch: int, threads: int | None = None, seconds: float = 0.2
) -> float:
    """Median wall seconds of one eval forward without gradients.

    Args:
        model: Any module, timed where its tensors are; its modes are restored.
        example: A batch of any size; its first row is repeated.
        batch: Rows to run on.
        threads: Threads of PyTorch while timing; as they are where not given.
        seconds: For how long to repeat the forward, after a warm-up; at least three times.

    Raises:
        ConfigError: Batch, threads or seconds are not positive.
    """
    if min(batch, seconds, 1 if threads is None else threads) <= 0:
        raise ConfigError(
            f"batch, threads and seconds must be positive, got {batch}, {threads} and {seconds}. "
            f"Pass numbers above 0."
        )
    before = torch.get_num_threads()
    modes = [(module, module.training) for module in model.modules()]
    rows = _batch(_tensors(arguments(example)))
    wide = {id(x) for x in _tensors(arguments(example)) if x.ndim and x.shape[0] == rows}
    repeat = lambda x: x[[0] * batch] if id(x) in wide else x  # noqa: E731 - used once, below
    args, kwargs = tree_map(repeat, arguments(example))
    cuda = any(x.is_cuda for x in (*model.parameters(), *_tensors(args, kwargs)))
    times: list[float] = []
    try:
        torch.set_num_threads(threads or before)
        model.eval()
        with torch.no_grad():
            model(*args, **kwargs)
            end = time.perf_counter() + seconds
            while len(times) < 3 or time.perf_counter() < end:
                start = time.perf_counter()
                model(*args, **kwargs)
                if cuda:
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
        for module, mode in modes:
            module.training = mode
    return statistics.median(times)


_seconds = latency  # `measure` has an argument of that name


def _tensors(*trees: Any) -> Iterator[Tensor]:
    return (x for x in tree_leaves(trees) if isinstance(x, Tensor))


def _batch(tensors: Iterable[Tensor]) -> int:
    return next((x.shape[0] for x in tensors if x.ndim and x.shape[0]), 1)


def _declared(model: nn.Module, names: Iterable[str]) -> int:
    linear = {n: m.in_features for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    for name in names:
        if name not in linear:
            raise ConfigError(
                f"features names {name!r}, which is no linear module of {type(model).__name__}. "
                f"There are: {', '.join(linear) or 'none'}."
            )
    return sum(linear[name] for name in set(names))


def _place(x: Tensor) -> int:
    return int(x.untyped_storage()._cdata)


def _places(*trees: Any) -> set[int]:
    return {_place(x) for x in _tensors(trees)}


class _Flow:
    """Which storages an input reaches, which hold stored numbers, and the running counts."""

    def __init__(self, trace: Trace) -> None:
        self.trace, self.batch = trace, _batch(trace.inputs)
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

    def weights(self) -> int:
        """Stored numbers that products read, by what they were made of."""
        whole = {roots: sum(parts.values()) for roots, parts in self.read.items()}
        return sum(min([n, *(self.sizes[p] for p in r if len(r) == 1)]) for r, n in whole.items())


def _count(flow: _Flow, call: Call) -> None:
    args, owner = call.args, flow.trace.model.get_submodule(call.module)
    out = next(_tensors(call.out), torch.empty(0))
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
        for weight in _tensors(args[1:]):
            if _place(weight) not in flow.reached and weight.ndim > 1:
                outputs = rows * weight.shape[0]
                flow.product(args[0], weight, rows * weight.numel(), outputs, _place(out))


def _peak(flow: _Flow) -> int:
    """The most bytes alive at once at batch 1: from the call that makes them to the last use."""
    calls, inputs = flow.trace.calls, flow.trace.inputs
    sizes = {_place(x): x.numel() * x.element_size() for x in inputs}
    first = dict.fromkeys(sizes, 0)
    last = dict(first)
    for step, call in enumerate(calls):
        for x in _tensors(call.args, call.kwargs, call.out):
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
