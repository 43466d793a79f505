"""Steps of random networks that have parameters or mix channels: layers, norms, activations."""

import torch
import torch.nn.functional as F
from random_modules import (
    CONVS,
    DROPOUTS,
    INSTANCE,
    NORMS,
    TRANSPOSED,
    Attention,
    Scale,
    Shift,
    SqueezeExcite,
    Standardise,
    root_mean_square,
)
from random_program import MAP, MAX_CHANNELS, TOKENS, VECTOR, table_of
from torch import nn

STEPS = {}
step = table_of(STEPS)
WIDTHS = (2, 3, 4, 6, 8)


def space_at_least(b, size):
    return lambda i: min(b.space(i)) >= size


def even(b):
    return lambda i: b.channels(i) % 2 == 0


@step(14, "conv", "conv_strided", "conv_dilated")
def conv(b, rng):
    x = b.pick(rng)
    kind = rng.choice(["conv", "conv", "conv_strided", "conv_dilated"])
    stride = 2 if kind == "conv_strided" and max(b.space(x)) >= 4 else 1
    dilation = 2 if kind == "conv_dilated" else 1
    kernel = 3 if dilation > 1 else rng.choice([1, 3])
    make = CONVS[b.dims]
    options = {"padding": dilation * (kernel // 2), "stride": stride, "dilation": dilation}
    outputs = rng.choice(WIDTHS)
    b.layer(make(b.channels(x), outputs, kernel, bias=rng.random() < 0.6, **options), x)
    b.constructs.add("conv_strided" if stride > 1 else "conv_dilated" if dilation > 1 else "conv")


@step(4, "conv_grouped")
def conv_grouped(b, rng):
    x = b.pick(rng, where=lambda i: b.channels(i) in (4, 6, 8, 9, 12, 16))
    groups = rng.choice([g for g in (2, 3, 4) if b.channels(x) % g == 0])
    outputs = groups * rng.choice([1, 2, 3])
    b.layer(CONVS[b.dims](b.channels(x), outputs, 3, padding=1, groups=groups), x)
    b.constructs.add("conv_grouped")


@step(5, "depthwise", "depthwise_multiplier")
def depthwise(b, rng):
    times = rng.choice([1, 1, 2])
    x = b.pick(rng, where=lambda i: 1 < b.channels(i) <= MAX_CHANNELS // times)
    c = b.channels(x)
    b.layer(CONVS[b.dims](c, c * times, 3, padding=1, groups=c, bias=rng.random() < 0.5), x)
    b.constructs.add("depthwise_multiplier" if times > 1 else "depthwise")


@step(4, "transposed", "transposed_grouped", "transposed_depthwise")
def transposed(b, rng):
    x = b.pick(rng)
    c, outputs = b.channels(x), rng.choice(WIDTHS)
    kind, groups = "transposed", 1
    if c % 2 == 0 and rng.random() < 0.5:
        kind, groups, outputs = "transposed_grouped", 2, 2 * rng.choice([1, 2, 3])
        if c > 2 and rng.random() < 0.3:
            kind, groups, outputs = "transposed_depthwise", c, c
    if max(b.space(x)) <= 4 and rng.random() < 0.7:
        options = {"kernel_size": 2, "stride": 2}
    else:
        options = {"kernel_size": 3, "padding": 1}
    b.layer(TRANSPOSED[b.dims](c, outputs, groups=groups, **options), x)
    b.constructs.add(kind)


@step(8, "linear_vector", "linear_tokens")
def linear(b, rng):
    layout = rng.choice([VECTOR, TOKENS])
    x = b.pick(rng, layout)
    b.layer(nn.Linear(b.channels(x), rng.choice(WIDTHS), bias=rng.random() < 0.7), x)
    b.constructs.add("linear_tokens" if b.layouts[x] == TOKENS else "linear_vector")


@step(10, "batch_norm", "batch_norm_plain", "batch_norm_untracked", "batch_norm_frozen")
def batch_norm(b, rng):
    x = b.pick(rng, MAP) if rng.random() < 0.8 else b.pick(rng, VECTOR)
    kinds = ["batch_norm"] * 4 + ["batch_norm_plain", "batch_norm_untracked", "batch_norm_frozen"]
    kind = rng.choice(kinds)
    norm = NORMS[len(b.space(x))](
        b.channels(x),
        affine=kind != "batch_norm_plain",
        track_running_stats=kind != "batch_norm_untracked",
    )
    if kind == "batch_norm_frozen":
        norm.requires_grad_(False)
        b.frozen.append(b.next_name(norm))
    b.layer(norm, x)
    b.constructs.add(kind)


@step(2, "group_norm", "layer_norm", "instance_norm", "rms_norm", "softmax", "normalize")
def other_norm(b, rng):
    kind = rng.choice(STEPS["other_norm"].constructs)
    if kind in ("layer_norm", "rms_norm"):
        x = b.pick(rng, rng.choice([TOKENS, MAP]))
        size = b.shape(x)[2:] if b.layouts[x] == TOKENS else b.shape(x)[1:]
        rms = root_mean_square(size[-1:], rng)
        b.layer(nn.LayerNorm(size) if kind == "layer_norm" else rms, x)
    elif kind == "group_norm":
        x = b.pick(rng, where=lambda i: even(b)(i) and space_at_least(b, 2)(i))
        b.layer(nn.GroupNorm(rng.choice([1, 2]), b.channels(x)), x)
    elif kind == "instance_norm":
        x = b.pick(rng, where=space_at_least(b, 2))
        b.layer(INSTANCE[b.dims](b.channels(x), affine=rng.random() < 0.5), x)
    else:
        x = b.pick(rng, where=lambda i: b.channels(i) > 2)
        b.call(F.softmax if kind == "softmax" else F.normalize, x, dim=1)
    b.constructs.add(kind)


@step(3, "scale", "shift", "buffer")
def one_a_channel(b, rng):
    kind = rng.choice(["scale", "scale", "shift", "buffer"])
    x = b.pick(rng)
    make = {"scale": Scale, "shift": Shift, "buffer": Standardise}[kind]
    b.layer(make(b.channels(x), b.dims), x)
    b.constructs.add(kind)


@step(3, "prelu", "prelu_channels")
def prelu(b, rng):
    x = b.pick(rng, rng.choice([MAP, MAP, VECTOR]))
    one = rng.random() < 0.3
    b.layer(nn.PReLU(1 if one else b.channels(x)), x)
    b.constructs.add("prelu" if one else "prelu_channels")


@step(3)
def squeeze_excite(b, rng):
    x = b.pick(rng)
    b.layer(SqueezeExcite(b.channels(x), rng.choice([2, 3]), b.dims, rng.random() < 0.5), x)
    b.constructs.add("squeeze_excite")


@step(2)
def attention(b, rng):
    x = b.pick(rng, TOKENS)
    b.layer(Attention(b.channels(x), rng.choice([3, 4]), rng.random() < 0.5), x)
    b.constructs.add("attention")


@step(3, "dropout", "dropout_channels")
def dropout(b, rng):
    x = b.pick(rng)
    if rng.random() < 0.5:
        b.layer(nn.Dropout(0.3), x)
        b.constructs.add("dropout")
    else:
        b.layer(DROPOUTS[b.dims](0.3), x)
        b.constructs.add("dropout_channels")


ACTIVATIONS = (
    (nn.ReLU, torch.relu),
    (nn.ReLU, F.relu),
    (nn.GELU, F.gelu),
    (nn.SiLU, F.silu),
    (nn.Tanh, torch.tanh),
    (nn.Sigmoid, torch.sigmoid),
    (nn.LeakyReLU, F.leaky_relu),
    (nn.Hardswish, F.hardswish),
    (nn.ELU, F.elu),
    (nn.Softplus, F.softplus),
    (nn.Hardsigmoid, F.hardsigmoid),
)
CAN_WRITE = (nn.ReLU, nn.SiLU, nn.LeakyReLU, nn.Hardswish, nn.ELU)


@step(12, "activation", "activation_function", "activation_in_place")
def activation(b, rng):
    x = b.pick(rng, rng.choice([MAP, MAP, MAP, VECTOR, TOKENS]))
    make, function = rng.choice(ACTIVATIONS)
    if make in CAN_WRITE and rng.random() < 0.4:
        b.in_place(lambda i: b.layer(make(inplace=True), i), x)
        b.constructs.add("activation_in_place")
    elif rng.random() < 0.5:
        b.layer(make(), x)
        b.constructs.add("activation")
    else:
        b.call(function, x)
        b.constructs.add("activation_function")
