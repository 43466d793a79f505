"""Steps of random networks that cut, reorder and reshape: what is where, and literal sizes."""

from math import prod

import torch
import torch.nn.functional as F
from random_modules import Permute, SplitByAttribute
from random_program import MAP, MAX_CHANNELS, TOKENS, VECTOR, Skip, table_of, to_tokens
from random_steps_shapes import partner
from torch import nn

STEPS = {}
step = table_of(STEPS)


def even(b):
    return lambda i: b.channels(i) % 2 == 0


def split_even(x, parts):
    return torch.split(x, x.shape[1] // parts, 1)


def slice_halves(x):
    c = x.shape[1]
    return x[:, : c // 2], x[:, c // 2 :]


def slice_every_second(x):
    return x[:, ::2], x[:, 1::2]


def chunk(x, parts):
    return x.chunk(parts, dim=1)


@step(8, "chunk", "split_even", "slice_halves", "slice_every_second", "split_uneven", "glu")
def split(b, rng):
    kind = rng.choice(STEPS["split"].constructs)
    layout = rng.choice([MAP, MAP, MAP, VECTOR])
    if kind in ("chunk", "split_even"):
        parts = rng.choice([2, 2, 3])
        x = b.pick(rng, layout, lambda i: b.channels(i) % parts == 0)
        b.call(chunk if kind == "chunk" else split_even, x, parts=parts)
    elif kind == "split_uneven":
        x = b.pick(rng, layout, lambda i: b.channels(i) > 2)
        first = rng.randrange(1, b.channels(x))
        b.layer(SplitByAttribute([first, b.channels(x) - first]), x)
    elif kind == "glu":
        b.call(F.glu, b.pick(rng, layout, even(b)), dim=1)
    else:
        b.call(globals()[kind], b.pick(rng, layout, lambda i: b.channels(i) > 1))
    b.constructs.add(kind)


def shuffle(x, groups):
    b, c, *space = x.shape
    x = x.view(b, groups, c // groups, *space) if x.is_contiguous() else grouped(x, groups)
    return x.transpose(1, 2).reshape(b, c, *space)


def grouped(x, groups):
    b, c, *space = x.shape
    return x.reshape(b, groups, c // groups, *space)


def interleave(x, groups):
    return grouped(x, groups).transpose(1, 2).contiguous().flatten(1, 2)


@step(4)
def channel_shuffle(b, rng):
    x = b.pick(rng, where=lambda i: b.channels(i) % 2 == 0 and b.channels(i) > 2)
    b.call(rng.choice([shuffle, interleave]), x, groups=2)
    b.constructs.add("channel_shuffle")


def there_and_back_flat(x):
    return x.flatten(2).reshape(x.shape)


def there_and_back_last(x):
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def there_and_back_permuted(x):
    order = [0, *range(2, x.ndim), 1]
    return torch.relu(x.permute(order)).permute(0, x.ndim - 1, *range(1, x.ndim - 1))


def there_and_back_vector(x):
    return x.reshape(x.shape[0], -1).view(x.shape)


def there_and_back_squeezed(x):
    return x.unsqueeze(2).squeeze(2)


def there_and_back_unflattened(x):
    return grouped(x, x.shape[1]).flatten(1, 2)


ROUND_TRIPS = (
    there_and_back_flat,
    there_and_back_last,
    there_and_back_permuted,
    there_and_back_vector,
    there_and_back_squeezed,
    there_and_back_unflattened,
)


@step(4)
def round_trip(b, rng):
    b.call(rng.choice(ROUND_TRIPS), b.pick(rng))
    b.constructs.add("round_trip")


def to_tokens_permuted(x):
    return x.movedim(1, -1).reshape(x.shape[0], -1, x.shape[1])


def to_map(tokens, like):
    return tokens.permute(0, 2, 1).reshape(tokens.shape[0], tokens.shape[2], *like.shape[2:])


def mean_tokens(x):
    return x.mean(1)


@step(7, "to_tokens", "to_map", "mean_tokens")
def tokens(b, rng):
    kind = rng.choice(STEPS["tokens"].constructs) if b.find(TOKENS) else "to_tokens"
    if kind == "to_tokens":
        b.call(rng.choice([to_tokens, to_tokens_permuted]), b.pick(rng), layout=TOKENS)
    elif kind == "mean_tokens":
        b.call(mean_tokens, b.pick(rng, TOKENS), layout=VECTOR)
    else:
        x = b.pick(rng, TOKENS)
        like = b.pick(rng, where=lambda i: prod(b.space(i)) == b.shape(x)[1])
        b.call(to_map, x, like, layout=MAP)
    b.constructs.add(kind)


def flatten_view(x):
    return x.contiguous().view(x.size(0), -1)


@step(6)
def flatten(b, rng):
    x = b.pick(rng, where=lambda i: prod(b.shape(i)[1:]) <= 64)
    how = rng.choice(["module", torch.flatten, flatten_view])
    if how == "module":
        x = b.layer(nn.Flatten(), x, layout=VECTOR)
    else:
        x = b.call(how, x, layout=VECTOR, **({"start_dim": 1} if how is torch.flatten else {}))
    if b.channels(x) > MAX_CHANNELS:
        b.layer(nn.Linear(b.channels(x), rng.choice([3, 5, 8])), x)
    b.constructs.add("flatten")


def literal_flatten(x, size):
    return x.reshape(-1, size)


def literal_map(x, sizes):
    return torch.relu(x.reshape(-1, *sizes))


def literal_groups(x, groups, width):
    return x.reshape(x.shape[0], groups, width, -1).mean(2)


@step(1, "literal_flatten", "literal_map", "literal_groups")
def literal(b, rng):
    """Sizes written as numbers: after a cut these lines fail, or merge two examples."""
    kind = rng.choice(STEPS["literal"].constructs)
    x = b.pick(rng, where=lambda i: prod(b.shape(i)[1:]) <= 64)
    if kind == "literal_flatten":
        x = b.call(literal_flatten, x, size=prod(b.shape(x)[1:]), layout=VECTOR)
        b.layer(nn.Linear(b.channels(x), rng.choice([3, 5])), x)
    elif kind == "literal_map":
        b.call(literal_map, x, sizes=b.shape(x)[1:])
    else:
        x = b.pick(rng, where=even(b))
        x = b.call(literal_groups, x, groups=2, width=b.channels(x) // 2, layout=TOKENS)
    b.constructs.add(kind)


@step(4, "flip_channels", "flip_space", "roll_channels", "roll_space", "transpose_space")
def reorder(b, rng):
    kind = rng.choice(STEPS["reorder"].constructs)
    x = b.pick(rng)
    if kind == "transpose_space":
        if b.dims == 1:
            raise Skip
        b.call(torch.transpose, x, dim0=2, dim1=3)
    else:
        dim = 1 if "channels" in kind else rng.choice([2, -1])
        if "flip" in kind:
            b.call(torch.flip, x, dims=[dim])
        else:
            b.call(torch.roll, x, shifts=rng.choice([1, -1]), dims=dim)
    b.constructs.add(kind)


def take_list(x, order):
    return x[:, order]


@step(3, "permute_buffer", "select_buffer", "permute_list")
def permute(b, rng):
    kind = rng.choice(STEPS["permute"].constructs)
    x = b.pick(rng, rng.choice([MAP, VECTOR]), lambda i: b.channels(i) > 1)
    if kind == "permute_list":
        order = list(range(b.channels(x)))
        rng.shuffle(order)
        b.call(take_list, x, order=order)
    else:
        b.layer(Permute(b.channels(x), kind == "select_buffer"), x)
    b.constructs.add(kind)


def cat_zeros(x, channels):
    return torch.cat([x, x.new_zeros(x.shape[0], channels, *x.shape[2:])], 1)


@step(3, "pad_space", "pad_space_circular", "pad_channels", "cat_zeros", "crop_space")
def pad(b, rng):
    kinds = ["pad_space"] * 3 + list(STEPS["pad"].constructs)
    kind, x = rng.choice(kinds), b.pick(rng, where=lambda i: max(b.space(i)) <= 6)
    if kind == "pad_space":
        b.call(F.pad, x, pad=(1, 0), value=rng.choice([0.0, 0.5]))
    elif kind == "pad_space_circular":
        mode = rng.choice(["circular", "replicate"])
        b.call(F.pad, x, pad=(1, 1) + (0, 0) * (b.dims - 1), mode=mode)
    elif kind == "pad_channels":
        b.call(F.pad, x, pad=(0, 0) * b.dims + (1, 1))
    elif kind == "cat_zeros":
        b.call(cat_zeros, x, channels=2)
    else:
        b.call(crop, x)
    b.constructs.add(kind)


def crop(x):
    return x[..., ::2]


def halves(b):
    def fits(i):
        return 4 * b.channels(i) <= MAX_CHANNELS and all(size % 2 == 0 for size in b.space(i))

    return fits


@step(3, "pixel_shuffle", "pixel_unshuffle")
def pixels(b, rng):
    if b.dims != 2:
        raise Skip
    if rng.random() < 0.5:
        x = b.pick(rng, where=lambda i: b.channels(i) % 4 == 0 and max(b.space(i)) <= 4)
        b.layer(nn.PixelShuffle(2), x)
        b.constructs.add("pixel_shuffle")
    else:
        x = b.pick(rng, where=halves(b))
        b.call(F.pixel_unshuffle, x, downscale_factor=2)
        b.constructs.add("pixel_unshuffle")


def pool_in_batch(x):
    b, c = x.shape[:2]
    y = x.reshape(b * c, 1, *x.shape[2:])
    y = F.avg_pool1d(y.flatten(2), 3, stride=1, padding=1)
    return y.reshape(b, c, *x.shape[2:])


def add_ramp(x):
    ramp = torch.linspace(-1, 1, x.shape[1], dtype=x.dtype, device=x.device)
    return x + ramp.view(-1, *[1] * (x.ndim - 2))


@step(1, "channels_in_batch", "constant")
def unusual(b, rng):
    """Channels merged into the batch; a constant that is made in the forward."""
    kind = rng.choice(STEPS["unusual"].constructs)
    b.call(pool_in_batch if kind == "channels_in_batch" else add_ramp, b.pick(rng))
    b.constructs.add(kind)


def turn(x, axis):
    return x[(*[slice(None)] * axis, torch.arange(x.shape[axis]).flip(0))]


def put_first(x, y, axis):
    x = x * 1
    places = (*[slice(None)] * axis, torch.tensor([0]))
    x[places] = y[(*[slice(None)] * axis, torch.tensor([-1]))]
    return x


def add_to_last(x, y, axis):
    return x.index_add(axis, torch.tensor([x.shape[axis] - 1]), y.narrow(axis, 0, 1), alpha=0.5)


def mask_positions(x, axis):
    x = x * 1
    mask = torch.arange(x.shape[axis]) % 2 == 0
    x[(*[slice(None)] * axis, mask)] = 0.25
    return x


@step(4)
def index_positions(b, rng):
    """Positions in space, or tokens, by number: read, written, added to, or masked."""
    x = b.pick(rng, rng.choice([MAP, TOKENS]))
    axis = 2 if b.layouts[x] == MAP else 1
    function = rng.choice([turn, put_first, add_to_last, mask_positions])
    if function in (turn, mask_positions):
        b.call(function, x, axis=axis)
    else:
        b.call(function, x, partner(b, rng, x), axis=axis)
    b.constructs.add("index_positions")
