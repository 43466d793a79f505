"""Rules of calls that take some positions of an axis, or all in another order."""

import math

import numpy as np
import torch
from torch import Tensor

from vibnet.graph.capture.trace import Call
from vibnet.graph.labels.labeller import Dims, Labeller
from vibnet.graph.labels.labels import Array, Blocks, plain

MASKS = torch.bool, torch.uint8


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
    whole = engine if engine.like is None else engine.like
    sizes = {part.shape[axis] for part in call.out}
    if dims[axis][0].any() and len(call.out) > 1 and str(call) not in whole.unequal:
        if len(sizes) == 1:
            engine.blocks.append(Blocks(dims[axis], len(call.out), f"the parts of {call}"))
        elif call.op == "split_with_sizes":  # a trial shows whether the sizes follow
            engine.unequal.add(str(call))
        else:
            engine.labels.pin(dims[axis], f"{call} cuts it into unequal parts")
    for part in call.out:
        stop = start + part.shape[axis]
        if str(call) in engine.unequal and dims[axis][0, start:stop].any():
            engine.blocks.append(Blocks(dims[axis][:, start:stop], 1, f"every part of {call}"))
        out.append((*dims[:axis], dims[axis][:, start:stop], *dims[axis + 1 :]))
        start = stop
    return out


def glu(engine: Labeller, call: Call) -> Dims:
    """One half of an axis, opened and closed by the other."""
    x = call.args[0]
    axis = (call.args[1] if len(call.args) > 1 else -1) % x.ndim
    dims = list(engine.dims(x))
    half = x.shape[axis] // 2
    if dims[axis][0].any():
        engine.blocks.append(Blocks(dims[axis], 2, f"the halves of {call}"))
    dims[axis] = engine.join(dims[axis][:, :half], dims[axis][:, half:], call)
    return tuple(dims)


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
    if len(picked) == 1 and places[picked[0]].dtype not in MASKS:
        k = picked[0]
        if (found := _pick(engine, call, x, k, places)) is not None:
            return (*dims[:k], found, *dims[k + 1 :])
    rest, first, count = _picked(engine, call, dims, places)
    wide = [plain(n) for n in call.out.shape[first : first + count]]
    return (*rest[:first], *wide, *rest[first:])


def index_put(engine: Labeller, call: Call) -> Dims:
    """Values written at positions picked by numbers, or by a mask: those axes stay whole."""
    x, places, values = call.args[:3]
    dims, given = engine.dims(x), engine.dims(values)
    rest, first, count = _picked(engine, call, dims, places)
    where = [*rest[:first], *[None] * count, *rest[first:]]
    for back, dim in enumerate(reversed(given), 1):
        met = where[-back] if back <= len(where) else None
        if met is not None and dim.shape == met.shape:
            engine.join(met, dim, call)
        else:
            engine.labels.pin(dim, f"{call} spreads it over another axis")
    return dims


def index_add(engine: Labeller, call: Call) -> Dims:
    """A tensor added, or copied, to positions of one axis picked by numbers."""
    x, axis, _, source = call.args[:4]
    dims, others = engine.dims(x), engine.dims(source)
    if len(dims) != len(others):
        for dim in (*dims, *others):  # a single number for a place
            engine.labels.pin(dim, f"{call} picks positions by number")
        return dims
    for k, (dim, other) in enumerate(zip(dims, others, strict=True)):
        if k == axis % x.ndim:
            for gone in (dim, other):
                engine.labels.pin(gone, f"{call} picks positions by number")
        else:
            engine.join(dim, other, call)
    return dims


def _picked(
    engine: Labeller, call: Call, dims: Dims, places: list[Tensor | None]
) -> tuple[Dims, int, int]:
    """The axes that stay when positions by number, or masks, pick from the others.

    Those stay whole. Also the place among the axes that stay where what is picked comes, and the
    number of its axes: where the picked axes were, if they stand side by side, else first.
    """
    rest, at, k = list[Array](), dict[int, int](), 0
    for number, place in enumerate(places):
        if place is None:
            rest.append(dims[k])
            k += 1
            continue
        at[number] = len(rest)
        gone = place.ndim if place.dtype in MASKS else 1
        for dim in (*dims[k : k + gone], *engine.dims(place)):
            engine.labels.pin(dim, f"{call} picks positions by number")
        k += gone
    counts = [1 if p.dtype in MASKS else p.ndim for p in places if p is not None]
    beside = max(at) - min(at) == len(at) - 1
    return (*rest, *dims[k:]), at[min(at)] if beside else 0, max(counts)


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
