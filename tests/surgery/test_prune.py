import copy
import dataclasses

import pytest
import torch
from laws import close_units, law_one
from networks import NETWORKS, lively
from torch import nn
from torch.utils._pytree import tree_map

import vibnet
from vibnet import attach, plan, prune
from vibnet.errors import PlanError


def three():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))


X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def closed(model, example, seed=0):
    gated = attach(model.double(), tree_map(lambda x: x.double(), example))
    close_units(gated, 0.5, seed)
    return gated


def modules_of_ours(model):
    return [m for m in model.modules() if type(m).__module__.startswith("vibnet.")]


@pytest.mark.parametrize("name", ["mlp", "cnn", "grouped", "tied_parameter", "frozen_norm"])
def test_the_small_model_answers_as_the_gated_one(name):
    found = law_one(*NETWORKS[name](0))
    assert found is not None
    assert found[0].weights[1] < found[0].weights[0]


@pytest.mark.parametrize("name", ["mlp", "cnn", "unet", "frozen_norm", "tied_parameter"])
def test_nothing_of_ours_is_left_in_the_small_model(name):
    model, example = NETWORKS[name](0)
    lively(model, example, 0)
    small, _ = prune(closed(model, example))
    assert type(small) is type(model)
    assert [n for n, _ in small.named_modules()] == [n for n, _ in model.named_modules()]
    for old, new in zip(model.modules(), small.modules(), strict=True):
        assert type(old) is type(new)
        assert not new._forward_hooks
        assert not new._forward_pre_hooks
    assert not modules_of_ours(small)
    assert small.state_dict().keys() == model.state_dict().keys()


def test_flags_types_and_modes_are_kept():
    model = three()
    model[2].weight.requires_grad_(False)
    model.eval()
    small, _ = prune(closed(model, X))
    assert [p.requires_grad for p in small.parameters()] == [
        p.requires_grad for p in model.parameters()
    ]
    assert {p.dtype for p in small.parameters()} == {torch.float64}
    assert [m.training for m in small.modules()] == [m.training for m in model.modules()]
    assert small[2].weight.numel() < model[2].weight.numel()


@pytest.mark.parametrize("name", ["tied_parameter"])
def test_tied_weights_stay_tied(name):
    model, example = NETWORKS[name](0)
    gated = closed(model, example)
    small, report = prune(gated)
    assert report.weights[1] < report.weights[0]

    def ties(m):
        state = [p for _, p in m.named_parameters(remove_duplicate=False)]
        return [[p is q for q in state] for p in state]

    assert ties(small) == ties(model)
    assert any(sum(row) > 1 for row in ties(small))


def test_with_every_unit_open_an_equal_copy_comes_back_and_says_so():
    model = three()
    small, report = prune(model, plan(model, X), X)
    assert report.unchanged
    assert report.difference == 0
    assert "every unit is open: an equal copy" in str(report)
    assert small is not model
    for (a, p), (b, q) in zip(model.named_parameters(), small.named_parameters(), strict=True):
        assert a == b
        assert p is not q
        assert torch.equal(p, q)


def test_a_plan_cuts_a_plain_model_as_zeroed_columns_would():
    model = three().double()
    made = plan(model, X)
    kept = [0, 2, 5]
    small, report = prune(model, dataclasses.replace(made, kept={"0": kept}), X)
    with torch.no_grad():
        model[2].weight[:, [1, 3, 4]] = 0
    torch.testing.assert_close(small(X.double()), model(X.double()))
    assert torch.equal(small[0].weight, model[0].weight[kept])
    assert (small[0].out_features, small[2].in_features) == (3, 3)
    assert report.tensors["0.weight"] == [kept, [0, 1, 2, 3]]
    assert report.tensors["2.weight"] == [[0, 1, 2, 3, 4], kept]
    assert report.weights == (6 * 4 + 6 + 5 * 6 + 5 + 12, 3 * 4 + 3 + 5 * 3 + 5 + 12)
    assert not report.unchanged


def test_the_gated_model_is_left_untouched():
    gated = closed(three(), X).train()
    before, state = copy.deepcopy(gated.state_dict()), torch.get_rng_state()
    prune(gated)
    assert all(torch.equal(v, before[k]) for k, v in gated.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert gated.training
    torch.manual_seed(0)
    assert not torch.equal(gated(X.double()), gated(X.double()))


def test_the_users_hooks_stay_in_the_small_model():
    seen = []
    model = three()
    model[2].register_forward_hook(lambda *_: seen.append(1) and None)
    small, _ = prune(closed(model, X))
    seen.clear()
    small(X.double())
    assert seen == [1]
    assert len(small[2]._forward_hooks) == 1
    assert not small[2]._forward_pre_hooks


def test_a_plain_model_needs_a_plan_and_an_example():
    with pytest.raises(PlanError, match=r"needs an example"):
        prune(three(), plan(three(), X))
    with pytest.raises(PlanError, match=r"needs a plan"):
        prune(three(), None, X)


def test_modules_in_eval_mode_stay_in_eval_mode():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    model[1].eval()
    gated = vibnet.attach(model, torch.randn(3, 4))
    small, _ = vibnet.prune(gated)
    assert [m.training for m in gated.model] == [m.training for m in small]
    assert not small[1].training
    assert small[0].training


def test_tensors_of_an_earlier_forward_are_named():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            self.last = self.a(x)
            return self.b(self.last)

    example = torch.randn(3, 4)
    gated = attach(Keeps(), example)
    gated(example)
    with pytest.raises(PlanError, match=r"holds tensors of an earlier forward, .*: last\. Delete"):
        prune(gated)
    del gated.model.last
    assert prune(gated)[1].unchanged


def test_a_model_on_the_meta_device_gives_its_shapes_alone():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    x = torch.ones(2, 4)
    wanted = vibnet.plan(model, x)
    wanted.kept["0"] = [1, 4]
    with pytest.raises(PlanError, match=r"4 tensors of Sequential are on the meta.*prune_files"):
        vibnet.prune(model, wanted, x)
    small, report = vibnet.prune(model, wanted, x, verify=False)
    assert (small[0].weight.shape, small[2].weight.shape) == ((2, 4), (2, 2))
    assert report.difference is None
    assert vibnet.plan(model, x.to("meta")) == vibnet.plan(model, x)
