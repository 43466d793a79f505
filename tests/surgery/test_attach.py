import copy

import pytest
import torch
from networks import NETWORKS
from torch import nn

from vibnet import attach, parameter_groups, penalty
from vibnet.errors import CaptureError, ConfigError, NoSitesError


def three():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))


X = torch.ones(3, 4)


def names(gated):
    return [s.name for s in gated.sites]


def test_every_site_that_can_be_gated_has_a_gate():
    gated = attach(three(), X)
    assert [(s.name, s.size) for s in gated.sites] == [("0", 6), ("2", 5)]
    assert [len(g.mu) for _, g in gated.all_gates()] == [6, 5]


def test_an_example_of_the_wrong_shape_is_named():
    with pytest.raises(CaptureError, match=r"Sequential does not run on the example \(\(3, 5\)\)"):
        attach(three(), torch.ones(3, 5))


def test_an_output_that_cannot_be_followed_is_named():
    class Strange(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x):
            return self.a(x), object()

    with pytest.raises(CaptureError, match=r"output holds a object, which cannot be followed"):
        attach(Strange(), X)


@pytest.mark.parametrize("example", [None, 3, {}])
def test_an_example_without_a_tensor_is_refused(example):
    with pytest.raises(ConfigError, match=r"at least one tensor"):
        attach(three(), example)


def test_patterns_select_and_exclude():
    assert names(attach(three(), X, include=["0"])) == ["0"]
    assert names(attach(three(), X, exclude=["0"])) == ["2"]
    assert names(attach(three(), X, include=["*"], exclude=["2"])) == ["0"]


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"include": ["0", "x.*"]}, "x.*"),
        ({"exclude": ["y"]}, "y"),
        ({"include": ["*"], "exclude": ["4"]}, "4"),
    ],
)
def test_every_pattern_must_hit(options, pattern):
    with pytest.raises(NoSitesError, match=r"selects none of the 2 gateable sites.*0, 2") as caught:
        attach(three(), X, **options)
    assert repr(pattern) in str(caught.value)


def test_a_model_with_nothing_to_gate_says_why():
    with pytest.raises(NoSitesError, match=r"no site that can be gated.*0: it is an output"):
        attach(nn.Sequential(nn.Linear(4, 2)), X)


def test_small_sites_are_left_alone():
    assert names(attach(three(), X, min_units=6)) == ["0"]


@pytest.mark.parametrize("name", ["min_units", "multiple"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "2", None])
def test_counts_must_be_whole_and_positive(name, value):
    with pytest.raises(ConfigError, match=f"{name} must be a whole number"):
        attach(three(), X, **{name: value})


@pytest.mark.parametrize(
    "weights", [{"9": 1.0}, {"0": -1.0}, {"0": float("nan")}, {"0": float("inf")}]
)
def test_prices_must_be_of_gated_sites_finite_and_not_negative(weights):
    with pytest.raises(ConfigError, match=r"weights must map gated sites to finite numbers"):
        attach(three(), X, weights=weights)


def test_the_penalty_is_the_priced_sum_of_rates():
    gated = attach(three(), X, weights={"2": 3.0})
    total = 0.0
    for site, gate in gated.all_gates():
        price = 3.0 if site.name == "2" else 1.0
        for mu, log_var in zip(gate.mu.tolist(), gate.log_var.tolist(), strict=True):
            total += (
                price
                * 0.5
                * torch.log1p(torch.tensor(mu * mu) / torch.tensor(log_var).exp()).item()
            )
    assert penalty(gated, 0.25).item() == pytest.approx(0.25 * total, rel=1e-5)
    assert penalty(gated, 0).item() == 0
    assert penalty(nn.Sequential(gated), 0.25).item() == penalty(gated, 0.25).item()


@pytest.mark.parametrize("gamma", [-1e-9, float("nan"), float("inf"), "1", None])
def test_gamma_must_be_finite_and_not_negative(gamma):
    with pytest.raises(ConfigError, match=r"gamma must be a finite number >= 0"):
        penalty(attach(three(), X), gamma)


def test_a_plain_model_has_no_penalty():
    with pytest.raises(ConfigError, match=r"Sequential holds no gated model"):
        penalty(three(), 1.0)


def test_groups_share_out_all_parameters():
    gated = attach(three(), X)
    weights, gates = parameter_groups(nn.Sequential(gated), 0.1, 0.01, 1e-4)
    assert (weights["lr"], weights["weight_decay"]) == (0.1, 1e-4)
    assert (gates["lr"], gates["weight_decay"]) == (0.01, 0.0)
    assert [id(p) for p in gates["params"]] == [id(p) for p in gated.gates.parameters()]
    assert {id(p) for p in weights["params"]} == {id(p) for p in gated.model.parameters()}
    assert not {id(p) for p in weights["params"]} & {id(p) for p in gates["params"]}


@pytest.mark.parametrize("name", ["cnn", "tied_module", "dropout"])
def test_the_caller_keeps_his_model_untouched(name):
    model, example = NETWORKS[name](0)
    before = copy.deepcopy(model.state_dict())
    tensors = [id(p) for p in model.parameters()]
    gated = attach(model, example)
    with torch.no_grad():
        for p in gated.parameters():
            p.add_(1)
    assert [id(p) for p in model.parameters()] == tensors
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_modes_are_those_of_the_model():
    model = three().eval()
    assert not attach(model, X).training
    assert not attach(model, X).model[0].training
    assert attach(three().train(), X).training


def test_the_hooks_of_the_user_are_kept_and_called():
    seen = []
    model = three()
    model[2].register_forward_hook(lambda *_: seen.append(1) and None)
    gated = attach(model, X)
    seen.clear()
    gated(X)
    assert seen == [1]


def test_the_state_of_the_weights_keeps_its_names():
    model = three()
    gated = attach(model, X)
    state = gated.state_dict()
    ours = {k for k in state if k.startswith("gates.")}
    assert set(state) - ours == {f"model.{k}" for k in model.state_dict()}
    assert ours == {f"gates.{n}.{p}" for n in ("0", "2") for p in ("mu", "log_var")}
