"""Rules of calls that only move, join, cut or repeat positions."""

import math

import numpy as np
from torch import Tensor

from vibnet.graph import labels as lab
from vibnet.graph.capture import Call
from vibnet.graph.labeller import Dims, Labeller
from vibnet.graph.labels import Array, Blocks, plain


def reshape(engine: Labeller, call: Call) -> Dims:
    """view, reshape, flatten, unsqueeze, squeeze: the same elements in another shape."""
    x = call.args[0]
    reason = f"{call} flattens it with another axis of units"
    dims = engine.dims(x)
    out = lab.view(dims, tuple(call.out.shape), engine.labels, reason)
    engine.derive(x, call.out)
    return out


def alias(engine: Labeller, call: Call) -> Dims:
    """detach, clone, contiguous, casts: the same tensor."""
    engine.derive(call.args[0], call.out)
    return engine.dims(call.args[0])


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
    axis = (call.args[1] if len(call.args) > 1 else call.kwargs.get("dim", 0)) % parts[0].ndim
    dims = [engine.dims(x) for x in parts]
    out = list(dims[0])
    out[axis] = np.concatenate([d[axis] for d in dims], axis=1)
    for other in dims[1:]:
        for k, dim in enumerate(other):
            if k != axis:
                engine.labels.same(out[k], dim, f"{call} joins it with an axis that is no unit")
    return tuple(out)


def stack(engine: Labeller, call: Call) -> Dims:
    """Tensors joined along a new axis: positions that come to lie together are the same unit."""
    parts = call.args[0]
    axis = (call.args[1] if len(call.args) > 1 else 0) % (parts[0].ndim + 1)
    out = list(engine.dims(parts[0]))
    for other in parts[1:]:
        for k, dim in enumerate(engine.dims(other)):
            engine.labels.same(out[k], dim, f"{call} joins it with an axis that is no unit")
    out.insert(axis, plain(len(parts)))
    return tuple(out)


def _range(engine: Labeller, call: Call, dim: Array, start: int, stop: int, step: int) -> Array:
    size = dim.shape[1]
    part = dim[:, start:stop:step]
    if part.shape[1] == size or not dim[0].any():
        return part
    length = stop - start
    if step == 1 and length and size % length == 0 and start % length == 0:
        engine.blocks.append(Blocks(dim, size // length, f"the parts of {call}"))
    else:
        engine.labels.pin(dim, f"{call} cuts it at a fixed place")
    return part


def slice_(engine: Labeller, call: Call) -> Dims:
    """A range of one axis."""
    x = call.args[0]
    rest = [*call.args[1:], *(0, None, None, None)[len(call.args) - 1 :]]
    axis = rest[0] % x.ndim
    start, stop, step = slice(*rest[1:]).indices(x.shape[axis])
    dims = list(engine.dims(x))
    dims[axis] = _range(engine, call, dims[axis], start, stop, step)
    return tuple(dims)


def split(engine: Labeller, call: Call) -> list[Dims]:
    """An axis cut into parts."""
    x = call.args[0]
    axis = (call.args[2] if len(call.args) > 2 else call.kwargs.get("dim", 0)) % x.ndim
    dims, out, start = engine.dims(x), [], 0
    sizes = {part.shape[axis] for part in call.out}
    if dims[axis][0].any() and len(call.out) > 1:
        if len(sizes) == 1:
            engine.blocks.append(Blocks(dims[axis], len(call.out), f"the parts of {call}"))
        else:
            engine.labels.pin(dims[axis], f"{call} cuts it into unequal parts")
    for part in call.out:
        stop = start + part.shape[axis]
        out.append((*dims[:axis], dims[axis][:, start:stop], *dims[axis + 1 :]))
        start = stop
    return out


def select(engine: Labeller, call: Call) -> Dims:
    """One position of an axis."""
    x, axis = call.args[:2]
    dims = engine.dims(x)
    engine.labels.pin(dims[axis % x.ndim], f"{call} picks one position by number")
    return tuple(d for k, d in enumerate(dims) if k != axis % x.ndim)


def unbind(engine: Labeller, call: Call) -> list[Dims]:
    """Every position of an axis as a tensor of its own."""
    x = call.args[0]
    axis = (call.args[1] if len(call.args) > 1 else 0) % x.ndim
    dims = engine.dims(x)
    engine.labels.pin(dims[axis], f"{call} takes its axis apart")
    return [tuple(d for k, d in enumerate(dims) if k != axis)] * len(call.out)


def flip(engine: Labeller, call: Call) -> Dims:
    """Axes in reverse order."""
    x, axes = call.args[:2]
    gone = {k % x.ndim for k in axes}
    return tuple(d[:, ::-1] if k in gone else d for k, d in enumerate(engine.dims(x)))


def roll(engine: Labeller, call: Call) -> Dims | None:
    """Axes turned round: whole blocks move, if the step is that of the width (a trial shows it)."""
    x, steps = call.args[:2]
    axes = call.args[2] if len(call.args) > 2 else []
    dims = list(engine.dims(x))
    if not axes:
        for dim in dims:
            engine.labels.pin(dim, f"{call} turns it by a fixed step")
        return None
    steps = [steps] if isinstance(steps, int) else steps
    for k, step in zip([axes] if isinstance(axes, int) else axes, steps, strict=True):
        size = dims[k].shape[1]
        block = math.gcd(step, size)
        if block == 1:
            engine.labels.pin(dims[k], f"{call} turns it by a fixed step")
        elif block < size and dims[k][0].any():
            engine.blocks.append(Blocks(dims[k], size // block, f"the parts of {call}"))
        dims[k] = np.roll(dims[k], step, axis=1)
    return tuple(dims)


def index(engine: Labeller, call: Call) -> Dims | None:
    """Positions picked by numbers: a buffer of them is cut too, else the axis stays whole."""
    x, places = call.args[:2]
    if call.op == "index_select":
        places = [None] * (places % x.ndim) + [call.args[2]]
    dims = engine.dims(x)
    picked = [k for k, place in enumerate(places) if place is not None]
    if len(picked) == 1 and (found := _pick(engine, call, x, picked[0], places)) is not None:
        return (*dims[: picked[0]], found, *dims[picked[0] + 1 :])
    for k in picked:
        engine.labels.pin(dims[k], f"{call} picks positions by number")
    if len(picked) == 1 and places[picked[0]].ndim == 1:
        k = picked[0]
        return (*dims[:k], plain(call.out.shape[k]), *dims[k + 1 :])
    for dim in dims:
        engine.labels.pin(dim, f"{call} picks positions by number")
    return None


def _pick(engine: Labeller, call: Call, x: Tensor, axis: int, places: list[Tensor]) -> Array | None:
    """The positions of an axis of units that a buffer names, where the buffer can be cut too."""
    name, dim = engine.origin(places[axis]), engine.dims(x)[axis]
    if name is None or name not in engine.values or not dim[0].any() or engine.origin(x):
        return None
    values = engine.values[name]
    before, size = engine.remaps.setdefault(name, dim), dim.shape[1]
    if before.shape != dim.shape or not ((-size <= values) & (values < size)).all():
        engine.labels.pin(before, f"{call} picks positions by number")
        return None
    engine.labels.same(before, dim, f"{call} picks it by the numbers of {name}")
    found = before[:, values]
    engine.relabel(name, found)
    engine.only_use(name)
    engine.blocks.append(Blocks(found, 1, f"the positions that {name} picks"))
    return found


def pad(engine: Labeller, call: Call) -> Dims:
    """Constant padding: new positions hold one value everywhere; negative widths cut."""
    x, widths = call.args[:2]
    dims = list(engine.dims(x))
    for k in range(len(widths) // 2):
        before, after = widths[2 * k], widths[2 * k + 1]
        dim = dims[-1 - k]
        if min(before, after) < 0:
            engine.labels.pin(dim, f"{call} cuts it at a fixed place")
            dim = dim[:, max(-before, 0) : dim.shape[1] - max(-after, 0)]
        units = dim[0].any()
        ends = [
            engine.labels.new(max(n, 0)) if units else plain(max(n, 0)) for n in (before, after)
        ]
        dims[-1 - k] = np.concatenate([ends[0], dim, ends[1]], axis=1)
    return tuple(dims)


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
