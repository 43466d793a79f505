"""Steps of random networks that share or bare their weights: ties, second and functional calls."""

import copy

import torch.nn.functional as F
from random_modules import (
    CONVS,
    INSTANCE,
    TRANSPOSED,
    BareConv,
    BareLinear,
    RootMeanSquare,
)
from random_program import TOKENS, VECTOR, Program, Skip, table_of
from random_steps_layers import WIDTHS
from torch import nn

STEPS = {}
step = table_of(STEPS)


def linear_with(x, weight):
    return F.linear(x, weight)


def linear_transposed(x, weight):
    return F.linear(x, weight.t())


@step(4, "bare_conv", "bare_linear", "bare_elsewhere")
def bare(b, rng):
    kind = rng.choice(["bare_conv", "bare_linear", "bare_linear", "bare_elsewhere"])
    if kind == "bare_conv":
        x = b.pick(rng)
        b.layer(BareConv(b.channels(x), rng.choice(WIDTHS), b.dims), x)
    else:
        x = b.pick(rng, rng.choice([TOKENS, VECTOR]))
        module = BareLinear(
            b.channels(x), rng.choice(WIDTHS), rng.choice(["linear", "matmul", "einsum"])
        )
        if kind == "bare_linear":
            b.layer(module, x)
        else:  # the weight of a module that is never called
            name = f"bare{len(b.layers)}"
            b.layers[name] = module = BareLinear(b.channels(x), 4, "linear")
            b.call(linear_with, x, parameters=[f"layers.{name}.w"])
    b.constructs.add(kind)


def may_read(b, op, x):
    """Whether the layer that a line calls could read this tensor too."""
    layer, first = b.layers[op.call], op.sources[0]
    if b.layouts[x] != b.layouts[first] or b.channels(x) != b.channels(first):
        return False
    if isinstance(layer, Program | nn.LayerNorm | nn.RMSNorm | RootMeanSquare):
        return b.shape(x) == b.shape(first)
    if isinstance(layer, tuple(INSTANCE.values())):
        return min(b.space(x)) >= 2
    return not isinstance(layer, tuple(TRANSPOSED.values())) or max(b.space(x)) <= 4


@step(5, "called_twice", "called_by_two_names")
def call_again(b, rng):
    """A layer that is there already reads another tensor, or its own result."""
    called = [op for op in b.program if isinstance(op.call, str)]
    called = [op for op in called if any(True for _ in b.layers[op.call].parameters())]
    pairs = [(op, x) for op in called for x in range(len(b.values)) if may_read(b, op, x)]
    if not pairs:
        raise Skip
    op, x = rng.choice(pairs)
    if not isinstance(b.layers[op.call], Program) and rng.random() < 0.3:
        alias = f"again{len(b.layers)}"
        b.layers[alias] = b.layers[op.call]
        b.call(alias, x)
        b.constructs.add("called_by_two_names")
    else:
        call_block(b, op.call, x, [b.layouts[i] for i in b.results_of(op)])
        b.constructs.add("called_twice")


def call_block(b, name, x, layouts):
    """Call a layer that may have several results and may write into what it reads."""

    def write(source):
        first = b.call(name, source)
        b.layouts[first : first + len(layouts)] = layouts

    if b.writes_in_place:
        b.in_place(write, x)
    else:
        write(x)


@step(3, "tied", "tied_transposed")
def tied(b, rng):
    """A layer of its own that owns another's weight, or reads it transposed."""
    layers = [
        (op.call, op.sources[0])
        for op in b.program
        if isinstance(op.call, str) and type(b.layers[op.call]) in (nn.Linear, *CONVS.values())
    ]
    pairs = [
        (name, i)
        for name, source in layers
        for i in range(len(b.values))
        if b.layouts[i] == b.layouts[source] and b.channels(i) == b.channels(source)
    ]
    if not pairs:
        raise Skip
    name, x = rng.choice(pairs)
    layer = b.layers[name]
    if isinstance(layer, nn.Linear) and rng.random() < 0.5:
        back = b.find(b.layouts[x], lambda i: b.channels(i) == layer.out_features)
        if not back:
            raise Skip
        b.call(linear_transposed, rng.choice(back), parameters=[f"layers.{name}.weight"])
        b.constructs.add("tied_transposed")
    else:
        other = copy.deepcopy(layer)
        other.weight = layer.weight
        b.layer(other, x)
        b.constructs.add("tied")
