"""Steps of random networks without parameters: joining, pooling, reducing, elementwise work."""

import torch
import torch.nn.functional as F
from random_modules import ADAPTIVE, AVG_POOLS, CONVS, LINEAR_MODES, MAX_POOLS
from random_program import MAP, MAX_CHANNELS, TOKENS, VECTOR, mean_space, table_of
from torch import nn

STEPS = {}
step = table_of(STEPS)


def partner(b, rng, x):
    """Another tensor of the same shape; where there is none, a 1x1 layer makes one."""
    layout = b.layouts[x]
    same = b.find(layout, lambda i: i != x and b.shape(i) == b.shape(x))
    if same and rng.random() < 0.9:
        return rng.choice(same)
    if layout == MAP:
        y = b.pick(rng, MAP, lambda i: b.space(i) == b.space(x))
        return b.layer(CONVS[b.dims](b.channels(y), b.channels(x), 1), y)
    y = b.pick(rng, layout, lambda i: b.shape(i)[:-1] == b.shape(x)[:-1])
    return b.layer(nn.Linear(b.channels(y), b.channels(x)), y)


def add_half(x, y):
    return torch.add(x, y, alpha=0.5)


def add_assign(x, y):
    x += y
    return x


def maximum(x, y):
    return torch.maximum(x, y)


@step(10, "add", "add_in_place")
def add(b, rng):
    x = b.pick(rng, rng.choice([MAP, MAP, MAP, VECTOR, TOKENS]))
    y = partner(b, rng, x)
    if rng.random() < 0.3:
        b.in_place(lambda i: b.call(add_assign, i, y), x)
        b.constructs.add("add_in_place")
    else:
        b.call(rng.choice([torch.add, torch.add, torch.sub, add_half, maximum]), x, y)
        b.constructs.add("add")


def mul_tanh(x, y):
    return x * torch.tanh(y)


def mul_sigmoid(x, y):
    return torch.sigmoid(y) * x


@step(4)
def mul(b, rng):
    x = b.pick(rng, rng.choice([MAP, MAP, VECTOR]))
    b.call(rng.choice([torch.mul, mul_tanh, mul_sigmoid]), x, partner(b, rng, x))
    b.constructs.add("mul")


def broadcast_mul(x, v):
    return x * torch.sigmoid(v).view(*v.shape, *[1] * (x.ndim - 2))


def broadcast_add(x, v):
    return x + v[(...,) + (None,) * (x.ndim - 2)].expand_as(x)


@step(4)
def broadcast_gate(b, rng):
    """A vector of one number a channel, spread over space."""
    x = b.pick(rng)
    vectors = b.find(VECTOR, lambda i: b.channels(i) == b.channels(x))
    if vectors and rng.random() < 0.7:
        v = rng.choice(vectors)
    else:
        v = b.pick(rng, VECTOR)
        v = b.layer(nn.Linear(b.channels(v), b.channels(x)), v)
    b.call(rng.choice([broadcast_mul, broadcast_add]), x, v)
    b.constructs.add("broadcast_gate")


def cat(*tensors, dim):
    return torch.cat(tensors, dim)


def fits(b, x, room):
    return lambda i: b.space(i) == b.space(x) and b.channels(i) <= room


@step(8, "cat", "cat_vectors", "cat_with_itself")
def concatenate(b, rng):
    layout = rng.choice([MAP, MAP, MAP, VECTOR])
    x = b.pick(rng, layout, lambda i: b.channels(i) < MAX_CHANNELS // 2)
    room, parts = MAX_CHANNELS - b.channels(x), [x]
    if rng.random() < 0.2:
        parts, kind = [x, x], "cat_with_itself"
    else:
        kind = "cat" if layout == MAP else "cat_vectors"
        for _ in range(rng.choice([1, 1, 2])):
            parts.append(b.pick(rng, layout, fits(b, x, room)))
            room -= b.channels(parts[-1])
    rng.shuffle(parts)
    b.call(cat, *parts, dim=1)
    b.constructs.add(kind)


@step(4, "stack_sum", "stack_mean")
def stack_reduce(b, rng):
    x = b.pick(rng)
    kind = rng.choice(["stack_sum", "stack_mean"])
    parts = [x, *(partner(b, rng, x) for _ in range(rng.choice([1, 2])))]
    b.call(stack_then, *parts, dim=rng.choice([0, 1, 2, -1]), reduce=kind.removeprefix("stack_"))
    b.constructs.add(kind)


def stack_then(*tensors, dim, reduce):
    return getattr(torch.stack(tensors, dim), reduce)(dim)


@step(5, "max_pool", "avg_pool", "adaptive_pool")
def pool(b, rng):
    kind = rng.choice(["max_pool", "avg_pool", "adaptive_pool"])
    x = b.pick(rng, where=lambda i: min(b.space(i)) >= 2)
    if kind == "adaptive_pool":
        b.layer(rng.choice(ADAPTIVE[b.dims])(rng.choice([1, 2])), x)
    else:
        make = (MAX_POOLS if kind == "max_pool" else AVG_POOLS)[b.dims]
        options = [{"kernel_size": 2}, {"kernel_size": 3, "stride": 1, "padding": 1}]
        options = rng.choice(options[: min(b.space(x)) - 1])
        b.layer(make(**options), x)
    b.constructs.add(kind)


def max_space(x):
    return torch.amax(x, dim=tuple(range(2, x.ndim)))


def sum_space(x):
    return x.sum(tuple(range(2, x.ndim))) * 0.1


def mean_space_kept(x):
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


@step(7, "global_pool", "global_pool_kept", "mean_one_axis")
def reduce_space(b, rng):
    x = b.pick(rng)
    kind = rng.choice(["global_pool"] * 4 + ["global_pool_kept", "mean_one_axis"])
    if kind == "global_pool":
        b.call(rng.choice([mean_space, mean_space, max_space, sum_space]), x, layout=VECTOR)
    elif kind == "global_pool_kept":
        b.call(mean_space_kept, x)
    else:
        b.call(torch.mean, x, dim=2, keepdim=True)
    b.constructs.add(kind)


def over_channels(x, reduce):
    return x * torch.sigmoid(getattr(x, reduce)(1, keepdim=True))


@step(1)
def reduce_channels(b, rng):
    """What all channels say together, spread back over them."""
    x = b.pick(rng)
    b.call(over_channels, x, reduce=rng.choice(["mean", "sum", "amax"]))
    b.constructs.add("reduce_channels")


def affine_scalar(x):
    return 2 * x + 1


def one_minus(x):
    return 1 - x


def absolute(x):
    return x.abs()


def bell(x):
    return torch.exp(-(x**2))


def clamped(x):
    return x.clamp(-1, 2)


def where_positive(x):
    return torch.where(x > 0, x, 0.1 * x)


@step(4)
def pointwise(b, rng):
    x = b.pick(rng, rng.choice([MAP, MAP, VECTOR, TOKENS]))
    b.call(rng.choice([affine_scalar, one_minus, absolute, bell, clamped, where_positive]), x)
    b.constructs.add("pointwise")


def halve(x):
    x.mul_(0.5)
    return ()


def shift_up(x):
    x.add_(0.25)
    return ()


@step(3)
def write_whole(b, rng):
    """Scalar arithmetic in place, the result thrown away: the tensor itself has changed."""
    x = b.pick(rng, rng.choice([MAP, MAP, VECTOR]))
    function = rng.choice([halve, shift_up])
    unread = x not in b.read

    def write(i):
        b.call(function, i)
        if unread or i != x:
            b.read.discard(i)

    b.in_place(write, x)
    b.constructs.add("write_whole")


def add_to_first(y, z):
    k = min(y.shape[1], z.shape[1])
    y[:, :k] += z[:, :k]
    return y


def add_to_every_second(y, z):
    y[:, ::2] += z[:, : y[:, ::2].shape[1]]
    return y


def scale_last_column(y, z):
    y[..., -1] *= 0.5
    y.narrow(1, 0, min(y.shape[1], z.shape[1])).add_(z[:, : y.shape[1]])
    return y


@step(4)
def write_view(b, rng):
    """Some channels of one tensor changed in place, through a view, by another's."""
    y = b.pick(rng, where=lambda i: b.channels(i) > 1)
    half = (b.channels(y) + 1) // 2
    z = b.pick(rng, where=lambda i: b.space(i) == b.space(y) and b.channels(i) >= half and i != y)
    function = rng.choice([add_to_first, add_to_every_second, scale_last_column])
    b.in_place(lambda i: b.call(function, i, z), y)
    b.constructs.add("write_view")


@step(3, "interpolate", "upsample")
def interpolate(b, rng):
    x = b.pick(rng, where=lambda i: max(b.space(i)) <= 4)
    mode = rng.choice(["nearest", LINEAR_MODES[b.dims]])
    if rng.random() < 0.5:
        b.layer(nn.Upsample(scale_factor=2, mode=mode), x)
        b.constructs.add("upsample")
    else:
        b.call(F.interpolate, x, scale_factor=2, mode=mode)
        b.constructs.add("interpolate")
