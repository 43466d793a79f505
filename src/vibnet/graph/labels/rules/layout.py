"""Rules of calls that only move, join or repeat positions."""

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from vibnet.graph.capture.trace import Call
from vibnet.graph.labels import labels as lab
from vibnet.graph.labels.labeller import Dims, Labeller
from vibnet.graph.labels.labels import plain


def reshape(engine: Labeller, call: Call) -> Dims:
    """view, reshape, flatten, unsqueeze, squeeze: the same elements in another shape."""
    x = call.args[0]
    reason = f"{call} flattens it with another axis of units"
    dims = engine.dims(x)
    out = lab.view(dims, tuple(call.out.shape), engine.labels, reason, engine.split(x))
    engine.derive(x, call.out)
    return out


def alias(engine: Labeller, call: Call) -> Dims:
    """detach, clone, contiguous, casts: the same tensor."""
    engine.derive(call.args[0], call.out)
    return engine.dims(call.args[0])


def restride(engine: Labeller, call: Call) -> Dims | None:
    """as_strided that only says how dimensions of size one lie in memory, as pooling to 1x1 does.

    The tensor itself, written just before by a mean.
    """
    x, size, stride = call.args[:3]
    inner = [n for n, length in zip(stride, size, strict=True) if length > 1]
    maker = engine.before
    fresh = maker is not None and maker.op == "mean" and maker.out is x
    if fresh and tuple(size) == tuple(x.shape) and inner == _packed(size):
        return engine.dims(x)
    for dim in engine.dims(x):
        engine.labels.pin(dim, f"{call} picks elements by their place in memory")
    return None


def _packed(size: Sequence[int]) -> list[int]:
    """The strides of dimensions longer than one in a tensor without gaps."""
    long = [n for n in size if n > 1]
    return [math.prod(long[k + 1 :]) for k in range(len(long))]


def unsqueeze(engine: Labeller, call: Call) -> Dims:
    """A new axis of size one."""
    x, axis = call.args[:2]
    dims = list(engine.dims(x))
    dims.insert(axis % (x.ndim + 1), plain(1))
    engine.derive(x, call.out)
    return tuple(dims)


def squeeze(engine: Labeller, call: Call) -> Dims:
    """Axes of size one taken away."""
    x = call.args[0]
    axes = call.args[1] if len(call.args) > 1 else range(x.ndim)
    gone = {k % x.ndim for k in ([axes] if isinstance(axes, int) else axes)}
    gone = {k for k in gone if x.shape[k] == 1}
    dims = engine.dims(x)
    for k in gone:
        engine.labels.pin(dims[k], f"{call} takes its axis away")
    engine.derive(x, call.out)
    return tuple(d for k, d in enumerate(dims) if k not in gone)


def permute(engine: Labeller, call: Call) -> Dims:
    """permute, transpose, t: axes in another order."""
    x = call.args[0]
    order = list(range(x.ndim))
    if call.op.startswith("permute"):
        order = [k % x.ndim for k in call.args[1]]
    elif call.op.startswith("transpose"):
        a, b = call.args[1] % x.ndim, call.args[2] % x.ndim
        order[a], order[b] = order[b], order[a]
    elif x.ndim == 2:
        order.reverse()
    engine.derive(x, call.out)
    dims = engine.dims(x)
    return tuple(dims[k] for k in order)


def expand(engine: Labeller, call: Call) -> Dims:
    """Axes of size one repeated without a copy."""
    dims = engine.dims(call.args[0])
    shape = call.out.shape
    out = [plain(n) for n in shape]
    for back in range(1, len(dims) + 1):
        if dims[-back].shape[1] == shape[-back]:
            out[-back] = dims[-back]
        else:
            engine.labels.pin(dims[-back], f"{call} spreads it over another axis")
    return tuple(out)


def repeat(engine: Labeller, call: Call) -> Dims:
    """Whole axes repeated."""
    x, times = call.args[:2]
    dims = (*(plain(1) for _ in range(len(times) - x.ndim)), *engine.dims(x))
    return tuple(np.tile(d, (1, n)) for d, n in zip(dims, times, strict=True))


def cat(engine: Labeller, call: Call) -> Dims:
    """Tensors joined along an axis."""
    parts = [x for x in call.args[0] if x.numel() or x.ndim > 1]
    if not parts:  # nothing of anything
        return tuple(plain(n) for n in call.out.shape)
    axis = (call.args[1] if len(call.args) > 1 else call.kwargs.get("dim", 0)) % parts[0].ndim
    dims = [engine.dims(x) for x in parts]
    out = list(dims[0])
    out[axis] = np.concatenate([d[axis] for d in dims], axis=1)
    for other in dims[1:]:
        for k, dim in enumerate(other):
            if k != axis:
                out[k] = engine.join(out[k], dim, call)
    return tuple(out)


def stack(engine: Labeller, call: Call) -> Dims:
    """Tensors joined along a new axis: positions that come to lie together are the same unit."""
    parts = call.args[0]
    axis = (call.args[1] if len(call.args) > 1 else 0) % (parts[0].ndim + 1)
    out = list(engine.dims(parts[0]))
    for other in parts[1:]:
        for k, dim in enumerate(engine.dims(other)):
            out[k] = engine.join(out[k], dim, call)
    out.insert(axis, plain(len(parts)))
    return tuple(out)


def pixel_shuffle(engine: Labeller, call: Call) -> Dims:
    """Blocks of r*r channels become one channel of r times the height and width."""
    x, factor = call.args[:2]
    dims = engine.dims(x)
    lines = dims[-3].reshape(2, -1, factor * factor)
    for k in range(1, factor * factor):
        engine.labels.same(lines[:, :, 0], lines[:, :, k], f"{call} shuffles it")
    return (*dims[:-3], lines[:, :, 0].copy(), *(plain(n) for n in call.out.shape[-2:]))


def pixel_unshuffle(engine: Labeller, call: Call) -> Dims:
    """One channel becomes a block of r*r channels."""
    x, factor = call.args[:2]
    dims = engine.dims(x)
    out = np.repeat(dims[-3], factor * factor, axis=1)
    return (*dims[:-3], out, *(plain(n) for n in call.out.shape[-2:]))


def copy_(engine: Labeller, call: Call) -> Dims:
    """Writing into a tensor or a view of one: what is written and its place are the same units."""
    target, source = call.args[:2]
    dims = engine.dims(target)
    if isinstance(source, Tensor):
        for back in range(1, source.ndim + 1):
            dim = engine.dims(source)[-back]
            if back <= len(dims) and dim.shape[1] == dims[-back].shape[1]:
                engine.labels.same(dims[-back], dim, f"{call} writes into an axis that is no unit")
            else:
                engine.labels.pin(dim, f"{call} spreads it over another axis")
    return dims
