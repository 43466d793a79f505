"""Rules of calls that compute: elementwise, convolution, products, norms, pools, reductions."""

from typing import Any

import numpy as np
from torch import Tensor

from vibnet.graph.capture.trace import Call
from vibnet.graph.labels import groups as groups_of
from vibnet.graph.labels import mixing
from vibnet.graph.labels.labeller import Dims, Labeller
from vibnet.graph.labels.labels import Array, Blocks, plain

OVER = "takes a statistic over it"


def pointwise(engine: Labeller, call: Call) -> Dims:
    """Elementwise with broadcasting: positions that meet are the same unit."""
    shape = tuple(call.out.shape if isinstance(call.out, Tensor) else call.out[0].shape)
    out: list[Array | None] = [None] * len(shape)
    for x in call.given:
        dims = engine.dims(x)
        for dim in dims[: max(0, len(dims) - len(shape))]:
            engine.labels.pin(dim, f"{call} takes its axis away")
        for back in range(1, min(len(dims), len(shape)) + 1):
            dim, size = dims[-back], shape[-back]
            if dim.shape[1] != size:
                engine.labels.pin(dim, f"{call} spreads it over another axis")
                continue
            before = out[-back]
            out[-back] = dim if before is None else engine.join(before, dim, call)
    return tuple(plain(n) if d is None else d for d, n in zip(out, shape, strict=True))


def first(engine: Labeller, call: Call) -> Any:
    """Everything keeps the labels of the first argument (dropout, copies)."""
    return engine.dims(call.args[0])


def convolution(engine: Labeller, call: Call) -> Dims:
    """Any convolution: dense, grouped, depthwise, transposed, in 1-3 dimensions."""
    x, weight, bias, _, _, _, transposed, _, groups = call.args[:9]
    dims, w = engine.dims(x), engine.dims(weight)
    for dim in (*dims[2:], *w[2:]):
        engine.labels.pin(dim, f"{call} slides over it")
    channels, columns = dims[1].shape[1], call.out.shape[1]
    if engine.keeps_channels(weight, groups, channels):
        out = np.repeat(dims[1], columns // channels, axis=1)
        engine.labels.same(w[0], dims[1] if transposed else out, f"{call} keeps its channels")
        if transposed or w[1].shape[1] > 1:
            engine.labels.pin(w[1], f"{call} has several columns a channel")
        if (name := engine.origin(weight)) is not None:
            engine.depthwise.add(name)
    elif groups == 1:
        engine.read(x, 1, weight, 0 if transposed else 1, call)
        out = w[1] if transposed else w[0]
        engine.write(weight, out, call, bias)
    elif transposed:
        engine.read(x, 1, weight, 0, call)
        engine.blocks.append(Blocks(dims[1], groups, f"the {groups} groups of {call}"))
        out = groups_of.write(engine, weight, groups, call)
    else:
        groups_of.read(engine, x, weight, groups, call)
        out = w[0]
        engine.write(weight, out, call, bias)
        engine.blocks.append(Blocks(out, groups, f"the {groups} groups of {call}"))
    if bias is not None:
        engine.labels.same(engine.dims(bias)[0], out, f"the bias of {call}")
    return (dims[0], out, *(plain(n) for n in call.out.shape[2:]))


def _product(
    engine: Labeller, call: Call, a: Tensor, b: Tensor, bias: Tensor | None = None
) -> Dims:
    left, right = engine.dims(a), engine.dims(b)
    if engine.origin(b) is not None and b.ndim == 2:
        engine.read(a, a.ndim - 1, b, 0, call)
        engine.write(b, right[1], call, bias)
    elif engine.origin(a) is not None and a.ndim == 2:
        engine.read(b, b.ndim - 2 if b.ndim > 1 else 0, a, 1, call)
        engine.write(a, left[0], call, bias)
    else:
        engine.crossed.extend((*left, *right))
        for dim in (left[-1], right[-2 if b.ndim > 1 else 0]):
            engine.labels.pin(dim, f"{call} mixes it without a weight")
        if a.ndim == b.ndim == 3:
            return (engine.join(left[0], right[0], call), left[1], right[2])
    return (*left[:-1], *(right[-1:] if b.ndim > 1 else ()))


def attention(engine: Labeller, call: Call) -> list[Dims | None]:
    """softmax(q k^T) v over heads, in one call: heads are kept apart, all else is mixed."""
    q, k, v = (engine.dims(x) for x in call.args[:3])
    engine.crossed.extend((*q, *k, *v))
    for dim in (q[3], k[3], k[2], v[2]):
        engine.labels.pin(dim, f"{call} mixes it without a weight")
    for axis in (0, 1):
        for other in (k, v):  # a head of keys may serve several heads of queries
            times = q[axis].shape[1] // other[axis].shape[1]
            engine.join(q[axis], np.repeat(other[axis], times, axis=1), call)
    for x in call.given[3:]:
        mask = engine.dims(x)
        for back in range(1, len(mask) + 1):
            scores = (q[0], q[1], q[2], k[2])[-back]
            if mask[-back].shape[1] == scores.shape[1]:
                engine.join(scores, mask[-back], call)
            else:
                engine.labels.pin(mask[-back], f"{call} spreads it over another axis")
    outputs = call.results
    return [(*q[:3], v[3]), *(q[:3] if x.ndim == 3 else None for x in outputs[1:])]


def matmul(engine: Labeller, call: Call) -> Dims:
    """mm, bmm, mv, dot: a sum over the last axis of the first and the first of the second."""
    return _product(engine, call, *call.args[:2])


def addmm(engine: Labeller, call: Call) -> Dims:
    """addmm, baddbmm, addmv: a product plus a bias."""
    bias, a, b = call.args[:3]
    out = _product(engine, call, a, b, bias)
    dims = engine.dims(bias)
    for back in range(1, len(dims) + 1):
        if dims[-back].shape[1] == out[-back].shape[1]:
            engine.labels.same(dims[-back], out[-back], f"the bias of {call}")
        else:
            engine.labels.pin(dims[-back], f"{call} spreads it over another axis")
    return out


def linear(engine: Labeller, call: Call) -> Dims:
    """linear, where it is not taken apart into products."""
    x, weight = call.args[:2]
    bias = call.args[2] if len(call.args) > 2 else None
    w = engine.dims(weight)
    engine.read(x, x.ndim - 1, weight, 1, call)
    engine.write(weight, w[0], call, bias)
    if bias is not None:
        engine.labels.same(engine.dims(bias)[0], w[0], f"the bias of {call}")
    return (*engine.dims(x)[:-1], w[0])


def batch_norm(engine: Labeller, call: Call) -> list[Dims | None]:
    """Batch norm keeps its channels; weight, bias and statistics belong to them."""
    dims = engine.dims(call.args[0])
    for x in call.args[1:5]:
        if isinstance(x, Tensor):
            engine.labels.same(engine.dims(x)[0], dims[1], f"{call} normalises it")
    outputs = [x for x in call.out if isinstance(x, Tensor)]
    channels = dims[1].shape[1]
    return [dims, *((dims[1],) if tuple(x.shape) == (channels,) else None for x in outputs[1:])]


def statistics(engine: Labeller, call: Call) -> list[Dims | None]:
    """Layer norms, and root-mean-square norms of one call: a statistic over the last axes."""
    x, shape, *parameters = call.args
    dims = engine.dims(x)
    for dim in dims[-len(shape) :]:
        mixing.statistic(engine, dim, call, OVER, alone=len(shape) == 1)
    for value in parameters[:2]:
        if isinstance(value, Tensor):
            for own, dim in zip(engine.dims(value), dims[-len(shape) :], strict=True):
                engine.labels.same(own, dim, f"{call} normalises it")
    rest = (*dims[: -len(shape)], *(plain(1) for _ in shape))  # of the statistics
    return [dims, *([rest] * (len(call.results) - 1))]


def group_norm(engine: Labeller, call: Call) -> list[Dims | None]:
    """Group norm: a statistic over each group, so whole groups go, and others stay as they are."""
    x, weight, bias, _, channels, _, groups = call.args[:7]
    dims = engine.dims(x)
    for dim in dims[2:]:
        engine.labels.pin(dim, f"{call} takes a statistic over it")
    if mixing.one_group(engine, weight, groups):
        mixing.statistic(engine, dims[1], call, OVER, alone=weight is not None)
        for value in (weight, bias):
            if value is not None:
                engine.labels.same(engine.dims(value)[0], dims[1], f"{call} normalises it")
        return [dims, *([None] * (len(call.results) - 1))]
    grid = dims[1].reshape(2, groups, channels // groups)
    first = grid[:, :, 0]
    for place in range(1, channels // groups):
        engine.labels.same(first, grid[:, :, place], f"{call} takes a statistic over each group")
    for value in (weight, bias):
        if value is not None:
            engine.labels.same(engine.dims(value)[0], dims[1], f"{call} normalises it")
    if weight is None:
        engine.labels.pin(dims[1], f"{call} has no weights that tell how wide it is")
    return [dims, (dims[0], first), (dims[0], first)]


def spatial(engine: Labeller, call: Call) -> Any:
    """Pools, interpolation, reflecting pads: work on the last axes, keep the others."""
    x = call.args[0]
    rank = next((k for k in (1, 2, 3) if f"{k}d" in call.op), x.ndim - 2)
    dims = engine.dims(x)
    for dim in dims[-rank:]:
        engine.labels.pin(dim, f"{call} slides over it")
    out = call.out if isinstance(call.out, Tensor) else call.out[0]
    return (*dims[:-rank], *(plain(n) for n in out.shape[-rank:]))


def _axes(call: Call, x: Tensor) -> list[int]:
    place = 2 if call.op in ("linalg_vector_norm", "norm") else 1  # after the order of the norm
    given = call.args[place] if len(call.args) > place else call.kwargs.get("dim")
    axes = [given] if isinstance(given, int) else given
    if not isinstance(axes, (list, tuple)) or not axes:
        return list(range(x.ndim))
    return [axis % x.ndim for axis in axes]


def reduction(engine: Labeller, call: Call) -> Any:
    """mean, sum, max and the like: the reduced units are mixed without a weight."""
    x = call.args[0]
    dims, axes = engine.dims(x), _axes(call, x)
    if not x.ndim:
        return ()
    for axis in axes:
        mixing.mix(engine, dims[axis], call)
    out = call.out if isinstance(call.out, Tensor) else call.out[0]
    if out.ndim == x.ndim:
        return tuple(plain(1) if k in axes else d for k, d in enumerate(dims))
    return tuple(d for k, d in enumerate(dims) if k not in axes)


def softmax(engine: Labeller, call: Call) -> Dims:
    """Softmax, cumulative sums, sorting: mix along one axis and keep the shape."""
    x = call.args[0]
    dims = engine.dims(x)
    axis = call.args[1] if len(call.args) > 1 else -1
    if "softmax" in call.op:
        mixing.statistic(engine, dims[axis], call)
    else:
        mixing.mix(engine, dims[axis], call)
    return dims


def factory(engine: Labeller, call: Call) -> Dims:
    """A tensor of one value everywhere: it takes the labels of whatever it meets."""
    return tuple(engine.labels.new(n) if n > 1 else plain(n) for n in call.out.shape)


def like(engine: Labeller, call: Call) -> Dims:
    """A tensor made in the shape of another."""
    return engine.dims(call.args[0])


def embedding(engine: Labeller, call: Call) -> Dims:
    """A table read by row number: rows stay, columns are units."""
    table, index = call.args[:2]
    rows, columns = engine.dims(table)
    engine.labels.pin(rows, f"{call} numbers its rows")
    engine.write(table, columns, call)
    return (*engine.dims(index), columns)
