"""The test networks are what the tests of laws need: reproducible, trainable, lively."""

import copy

import pytest
import torch
from networks import NETWORKS, another, call, lively, liveness, tensors
from torch import nn

each_network = pytest.mark.parametrize("name", NETWORKS)


@each_network
@pytest.mark.parametrize("seed", range(3))
def test_every_network_is_lively(name, seed):
    model, example = NETWORKS[name](seed)
    lively(model, example, seed)
    assert liveness(model, example, another(example, seed + 1)) >= 1e-3
    assert all(x.dtype == torch.float64 for x in tensors(call(model, example)))


@each_network
def test_every_network_is_small_and_reproducible_and_learns_everywhere(name):
    state = torch.get_rng_state()
    model, example = NETWORKS[name](0)
    assert torch.equal(state, torch.get_rng_state())
    twin, _ = NETWORKS[name](0)
    other, _ = NETWORKS[name](1)
    # a norm or a scale begins at a constant, whatever the seed
    assert all(map(torch.equal, model.parameters(), twin.parameters()))
    assert not all(map(torch.equal, model.parameters(), other.parameters()))
    assert all(size <= 40 for p in model.parameters() for size in p.shape)
    outputs = tensors(call(lively(model, example, 0).train(), example))
    sum((x * torch.randn_like(x)).sum() for x in outputs).backward()
    for parameter in model.parameters():
        assert (parameter.grad is not None) == parameter.requires_grad


@each_network
def test_every_parameter_of_a_lively_network_moves_its_outputs(name):
    model, example = NETWORKS[name](0)
    lively(model, example, 0)
    before = [x.detach().clone() for x in tensors(call(model, example))]
    for key, parameter in model.named_parameters():
        changed = copy.deepcopy(model)
        with torch.no_grad():
            changed.get_parameter(key).add_(torch.randn_like(parameter).abs() * 0.1)
            after = tensors(call(changed, example))
        assert any((x - y).abs().max() > 1e-6 for x, y in zip(before, after, strict=True)), key


def test_lively_keeps_flags_ties_and_random_state():
    state = torch.get_rng_state()
    model, example = NETWORKS["tied_parameter"](0)
    lively(model, example, 0)
    assert model.left.weight is model.right.weight
    frozen, example = NETWORKS["frozen_norm"](0)
    lively(frozen, example, 0)
    assert [p.requires_grad for p in frozen.norms()[0].parameters()] == [False, False]
    assert frozen.norms()[0].momentum == 0.1
    assert torch.equal(state, torch.get_rng_state())


def test_lively_wakes_a_zero_head_an_untrained_norm_and_a_constant_scale():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    nn.init.zeros_(model[3].weight)
    lively(model, torch.zeros(5, 3, 4, 4), 0)
    assert model[3].weight.abs().min() > 0
    assert model[1].running_var.min() > 0
    assert model[1].running_mean.abs().min() > 0
    assert model[1].weight.abs().min() >= 0.5
    assert model[1].weight.abs().max() <= 1.5
    assert model[1].weight.std() > 0.1
    assert model[1].bias.abs().min() > 0


def test_lively_draws_bare_parameters_of_one_number_a_channel():
    model, example = NETWORKS["prelu"](0)
    lively(model, example, 0)
    for parameter in (model.scale, model.shift, model.prelu.weight):
        assert parameter.std() > 0.1


def test_lively_scales_a_layer_that_would_explode():
    model = nn.Sequential(*(nn.Linear(6, 6) for _ in range(12)))
    for layer in model:
        nn.init.constant_(layer.weight, 1e4)
        layer.weight.data[0, 0] = -1e4
    lively(model, torch.zeros(8, 6), 0)
    assert call(model, torch.randn(8, 6)).abs().max() < 1e3


def test_liveness_is_the_largest_gap_over_the_largest_output():
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 2.0)
    a, b = torch.tensor([[4.0]]), torch.tensor([[3.0]])
    assert liveness(model, a, b) == 0.25
    assert liveness(model, a, a) == 0.0


def test_another_example_keeps_integers_and_their_values():
    first = (torch.zeros(2, 3), {"ids": torch.arange(6).reshape(2, 3), "n": 4})
    second = another(first, 0)
    assert second[0].shape == (2, 3)
    assert second[0].abs().min() > 0
    assert second[1]["n"] == 4
    assert sorted(second[1]["ids"].flatten().tolist()) == list(range(6))
    assert not torch.equal(second[1]["ids"], first[1]["ids"])
