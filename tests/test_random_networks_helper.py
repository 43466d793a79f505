"""Random networks are what fuzzing needs: runnable, reproducible, lively, various, shrinkable."""

import copy
import random
from collections import Counter
from functools import cache

import hypothesis
import pytest
import torch
from networks import another, call, lively, liveness, tensors
from random_networks import CONSTRUCTS, STEPS, Spec, build, random_networks, random_spec
from random_program import Program

COUNT = 150
each_seed = pytest.mark.parametrize("seed", range(COUNT))


@cache
def constructs_of(count):
    """How many of the first networks are made with each construct."""
    return Counter(
        c for k in range(count) for c in build(random_spec(random.Random(k)))[0].constructs
    )


def lines(model):
    """All lines of a network's program, those of nested programs included."""
    return [op for m in model.modules() if isinstance(m, Program) for op in m.program]


def outputs(model, example, seed):
    torch.manual_seed(seed)
    return [x.detach().clone() for x in tensors(call(model, example))]


@each_seed
def test_a_random_network_runs_twice_alike_in_both_modes_and_bears_a_backward_pass(seed):
    model, example = build(random_spec(random.Random(seed)))
    original = example[0].clone()
    for mode in (True, False):
        twin = copy.deepcopy(model.train(mode))
        first, second = outputs(model, example, seed), outputs(twin, example, seed)
        assert all(map(torch.equal, first, second))
        assert all(x.isfinite().all() for x in first)
        sum(x.sum() for x in tensors(call(model, example))).backward()
        assert any(p.grad is not None for p in model.parameters())
        assert torch.equal(example[0], original)


@each_seed
def test_a_random_network_is_a_function_of_its_spec(seed):
    spec = random_spec(random.Random(seed))
    state = torch.get_rng_state()
    model, example = build(spec)
    twin, same = build(eval(repr(spec), {"Spec": Spec}))
    assert torch.equal(state, torch.get_rng_state())
    assert model.source() == twin.source()
    assert torch.equal(example[0], same[0])
    ours, theirs = model.state_dict(), twin.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_nine_of_ten_random_networks_are_lively():
    alive = 0
    for seed in range(COUNT):
        model, example = build(random_spec(random.Random(seed)))
        lively(model, example, seed)
        alive += liveness(model, example, another(example, seed + 1)) >= 1e-3
    assert alive >= 0.9 * COUNT


def test_every_construct_occurs_in_400_random_networks():
    assert set(constructs_of(400)) == CONSTRUCTS


@pytest.mark.parametrize("construct", ["add", "conv", "cat", "batch_norm", "block", "activation"])
def test_what_is_usual_in_networks_is_usual_here(construct):
    assert constructs_of(400)[construct] > 60


def test_random_networks_are_small_and_neither_trivial_nor_all_alike():
    lengths = []
    for seed in range(COUNT):
        model, _ = build(random_spec(random.Random(seed)))
        lengths.append(len(lines(model)))
        assert sum(p.numel() for p in model.parameters()) < 10_000
    assert max(lengths) < 80
    assert 10 < sum(lengths) / COUNT < 30


def test_writes_in_place_are_mostly_real_ones():
    """A write that autograd forbids goes to a clone; that must be the exception."""
    writes = clones = 0
    for seed in range(COUNT):
        model, _ = build(random_spec(random.Random(seed)))
        names = [getattr(op.call, "__name__", "") for op in lines(model)]
        inplace = [m for m in model.modules() if getattr(m, "inplace", False)]
        writes += sum(n in {"halve", "shift_up", "add_assign"} for n in names) + len(inplace)
        clones += names.count("clone")
    assert writes > 1.5 * clones > 0


@pytest.mark.parametrize("kind", STEPS)
def test_every_kind_of_step_does_what_it_declares(kind):
    seen = set()
    for seed in range(60):
        seen |= build(Spec(1 + seed % 3, ((kind, seed),), seed))[0].constructs
    done = {c for c in seen if not c.startswith(("output_", "unused"))}
    assert done
    assert done <= set(STEPS[kind].constructs)


def test_a_network_without_steps_is_a_convolution_and_a_head():
    model, example = build(Spec(1, (), 3))
    assert [type(m).__name__ for m in model.layers.values()] == ["Conv1d", "Linear"]
    assert tensors(call(model, example))[0].shape == (3, 4)


def test_steps_between_open_and_close_are_a_module_of_their_own():
    steps = (("open", 1), ("conv", 2), ("batch_norm", 3), ("close", 4))
    model, _ = build(Spec(2, steps, 0))
    blocks = [m for m in model.modules() if isinstance(m, Program)][1:]
    assert len(blocks) == 1
    assert len(blocks[0].program) == 2
    unclosed, _ = build(Spec(2, steps[:3], 0))
    assert unclosed.source().count("conv2d") == model.source().count("conv2d")


def test_hypothesis_shrinks_to_a_few_steps():
    settings = hypothesis.settings(max_examples=300, database=None, deadline=None, derandomize=True)
    spec = hypothesis.find(
        random_networks(), lambda s: "tied" in build(s)[0].constructs, settings=settings
    )
    assert len(spec.steps) <= 3


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True, database=None)
@hypothesis.given(random_networks())
def test_networks_drawn_by_hypothesis_run(spec):
    model, example = build(spec)
    for mode in (True, False):
        assert all(x.isfinite().all() for x in tensors(call(model.train(mode), example)))
