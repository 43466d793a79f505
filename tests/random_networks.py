"""Random networks for fuzzing: short programs over a pool of live tensors.

A `Spec` is a list of steps, each a kind and a number; the number decides all that the step
leaves open: which tensors it reads, how wide it is, how it is spelled. A step for which no
tensor fits is left out, so every list of steps is a network, and a failing network shrinks by
dropping steps. `build(spec)[0].source()` is the program as text.

    spec = random_spec(random.Random(3))      # or drawn by hypothesis: random_networks()
    model, example = build(spec)
"""

import random
from dataclasses import dataclass

import random_steps_attention as attention
import random_steps_layers as layers
import random_steps_places as places
import random_steps_shapes as shapes
import random_steps_shared as shared
import torch
from hypothesis import strategies as st
from random_modules import CONVS
from random_program import MAP, TOKENS, VECTOR, Builder, Program, Skip, mean_space
from torch import nn

__all__ = ["CONSTRUCTS", "Spec", "build", "random_networks", "random_spec"]

STEPS = {**layers.STEPS, **shared.STEPS, **shapes.STEPS, **places.STEPS, **attention.STEPS}
CONSTRUCTS = {"block", "output_tensor", "output_tuple", "output_dict", "output_map", "unused"}
CONSTRUCTS |= {construct for step in STEPS.values() for construct in step.constructs}
KINDS = [kind for kind, step in STEPS.items() for _ in range(step.weight)]
KINDS += ["open"] * 9 + ["close"] * 9
MAX_STEPS = 16
MAX_DEPTH = 2
BATCH = 3
SPACE = {1: (8,), 2: (6, 4), 3: (3, 4, 2)}
NUMBERS = 2**20


@dataclass(frozen=True)
class Spec:
    """A random network: its dimensions, its steps, and the seed of its weights and its end.

    Steps between "open" and "close" make a module of their own, called with one tensor.
    """

    dims: int
    steps: tuple[tuple[str, int], ...]
    seed: int


def random_spec(rng, size=None):
    """A spec of `size` steps, 3 to 16 where it is not given; a function of `rng` alone."""
    size = rng.randint(3, MAX_STEPS) if size is None else size
    steps = tuple((rng.choice(KINDS), rng.randrange(NUMBERS)) for _ in range(size))
    return Spec(rng.choice([1, 2, 2, 2, 3]), steps, rng.randrange(NUMBERS))


def random_networks(max_steps=MAX_STEPS):
    """The strategy of specs; it shrinks by dropping steps and by smaller numbers."""
    numbers = st.integers(0, NUMBERS - 1)
    steps = st.lists(st.tuples(st.sampled_from(KINDS), numbers), min_size=1, max_size=max_steps)
    return st.builds(Spec, st.sampled_from([2, 1, 3]), steps.map(tuple), numbers)


def build(spec):
    """The network of a spec, in training mode and float32, and its example.

    `model.constructs` is the set of what it is made of. The global random state stays.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        rng = random.Random(spec.seed)
        example = torch.randn(BATCH, 3, *SPACE[spec.dims])
        builder = Builder([example], [MAP], spec.dims)
        builder.layer(CONVS[spec.dims](3, rng.choice([4, 6, 8]), 3, padding=1), 0)
        stack = [builder]
        for kind, number in spec.steps:
            _advance(stack, kind, random.Random(number))
        while len(stack) > 1:
            _advance(stack, "close", rng)
        model = _finish(builder, rng)
    for norm in model.modules():  # the builder's trial runs leave no trace
        if isinstance(norm, nn.modules.batchnorm._NormBase):
            norm.reset_running_stats()
    model.constructs = builder.constructs
    return model.train(), (example,)


def _advance(stack, kind, rng):
    """One step; those for which nothing fits are left out."""
    builder = stack[-1]
    try:
        if kind == "open":
            if len(stack) <= MAX_DEPTH:
                x = builder.pick(rng)
                builder.entry = x
                stack.append(Builder([builder.values[x]], [MAP], builder.dims, nested=True))
        elif kind == "close":
            if len(stack) > 1:
                stack.pop()
                _call_nested(stack[-1], builder, rng)
        else:
            STEPS[kind].run(builder, rng)
    except Skip:
        return


def _call_nested(builder, nested, rng):
    block, layouts = nested.close(rng)
    builder.writes_in_place |= nested.writes_in_place
    name = f"block{len(builder.layers)}"
    builder.layers[name] = block
    shared.call_block(builder, name, builder.entry, layouts)
    builder.constructs |= {*nested.constructs, "block"}


def _finish(builder, rng):
    """Heads: what nothing has read yet goes to the logits, out of the network, or nowhere."""
    *others, last = builder.unread()
    logits, outputs = _head(builder, last), []
    for x in others[-5:]:
        fate = rng.random()
        if fate < 0.7:
            logits = builder.call(torch.add, logits, _head(builder, x))
        elif fate < 0.85:
            outputs.append(x)
            builder.constructs.add("output_map")
        else:
            builder.constructs.add("unused")
    form = rng.choice(["tuple", "dict"]) if outputs or rng.random() < 0.2 else "tensor"
    builder.constructs.add(f"output_{form}")
    if form == "tuple" and not outputs:
        outputs = [logits]
    return Program(builder.layers, builder.program, [logits, *outputs], form, builder.frozen)


def _head(builder, x):
    if builder.layouts[x] == MAP:
        x = builder.call(mean_space, x, layout=VECTOR)
    elif builder.layouts[x] == TOKENS:
        x = builder.call(places.mean_tokens, x, layout=VECTOR)
    return builder.layer(nn.Linear(builder.channels(x), 4), x)
