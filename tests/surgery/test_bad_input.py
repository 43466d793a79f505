"""What cannot be meant is refused by name, with what was asked, what was found and what to do."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import vibnet
from vibnet.errors import CaptureError, ConfigError, NoSitesError, PlanError


def three():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))


X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def gated():
    made = vibnet.attach(three(), X)
    made.gate("0").log_var.data[:3] = 5.0
    return made


def state(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("name", ["include", "exclude", "features", "ignore"])
@pytest.mark.parametrize("value", [None, 3, [None]])
def test_names_are_a_list_of_strings(name, value):
    match = re.escape(f"{name} must be a list of names, got {value!r}")
    with pytest.raises(ConfigError, match=match):
        vibnet.attach(three(), X, **{name: value})


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_inputs_is_true_or_false(value):
    for call in (vibnet.attach, vibnet.plan, vibnet.measure):
        with pytest.raises(ConfigError, match=f"inputs must be True or False, got {value!r}"):
            call(three(), X, inputs=value)


@pytest.mark.parametrize("value", [None, 3, ["0"], True])
def test_prices_are_a_word_or_a_mapping(value):
    with pytest.raises(ConfigError, match=r"one of uniform, .* or a mapping from sites to numbers"):
        vibnet.attach(three(), X, weights=value)


@pytest.mark.parametrize("value", [{"0": True}, {"0": None}, {"0": 10**400}, {0: 1.0, "9": 1.0}])
def test_a_price_is_a_finite_number_of_a_gated_site(value):
    with pytest.raises(
        ConfigError, match=r"gated sites to finite numbers .* gated sites are: 0, 2"
    ):
        vibnet.attach(three(), X, weights=value)


@pytest.mark.parametrize("name", ["min_units", "multiple"])
@pytest.mark.parametrize("value", [True, False])
def test_a_count_is_no_flag(name, value):
    with pytest.raises(ConfigError, match=f"{name} must be a whole number of at least 1"):
        vibnet.attach(three(), X, **{name: value})


@pytest.mark.parametrize("value", [6, 64, 10**30])
def test_a_multiple_with_which_nothing_goes_is_refused(value):
    match = f"multiple is {value}, but the largest gated site has 6 units, so nothing could be cut"
    with pytest.raises(ConfigError, match=match):
        vibnet.attach(three(), X, multiple=value)
    assert vibnet.attach(three(), X, multiple=5).multiple == 5


def test_a_single_input_is_not_gated_and_that_is_said():
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2))
    with pytest.raises(NoSitesError, match=r"inputs: no legal cut: it has one unit, and one must"):
        vibnet.attach(model, X[:, :1], inputs=True)


def test_more_units_asked_than_any_site_has_is_the_reason_given():
    match = (
        r"no site that can be gated\. 4: it is an output of the model; "
        r"0: it has 6 units, fewer than min_units, 7; 2: it has 5 .*, 7\. Change"
    )
    with pytest.raises(NoSitesError, match=match):
        vibnet.attach(three(), X, min_units=7)
    with pytest.raises(NoSitesError, match=r"Without a gate are 0: it has 6 units, fewer than"):
        vibnet.attach(three(), X, min_units=7, include=["0"])


def test_sites_that_are_all_left_out_are_told_as_such():
    with pytest.raises(
        NoSitesError, match=r"; 0: include or exclude leaves it out; 2: .* out\. Ch"
    ):
        vibnet.attach(three(), X, exclude=["*"])


def test_several_reasons_are_told_apart():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 4)

        def forward(self, x):
            return torch.softmax(self.a(x), -1), self.b(self.a(x))

    with pytest.raises(NoSitesError, match=r"gated\. a: [^;]+; b: [^;.]+\. Change what is named"):
        vibnet.attach(Two(), X)


@pytest.mark.parametrize("wrap", [lambda m: m, nn.Sequential])
def test_a_gated_model_is_not_gated_again(wrap):
    with pytest.raises(ConfigError, match=r"attach: this model is already gated\. Pass the model"):
        vibnet.attach(wrap(gated()), X)


CALLS = {
    "attach": lambda model, folder: vibnet.attach(model, X),
    "plan": lambda model, folder: vibnet.plan(model, X),
    "prune": lambda model, folder: vibnet.prune(model, vibnet.plan(three(), X), X),
    "measure": lambda model, folder: vibnet.measure(model, X),
    "save": vibnet.save,
    "load": lambda model, folder: vibnet.load(folder, model),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("model", "found"),
    [(None, "NoneType"), (len, "builtin"), (nn.Linear, "the class Linear. Make")],
)
def test_what_is_no_model_is_refused_by_every_function(name, model, found, tmp_path):
    with pytest.raises(ConfigError, match=f"{name}: the model must be .*Module, got {found}"):
        CALLS[name](model, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model", [None, len, nn.Linear])
def test_what_is_no_model_holds_no_gates(model):
    with pytest.raises(
        ConfigError, match=r"holds no gated model. Pass what vibnet.attach returned"
    ):
        vibnet.penalty(model, 1.0)
    with pytest.raises(
        ConfigError, match=r"holds no gated model. Pass what vibnet.attach returned"
    ):
        vibnet.parameter_groups(model, 0.1, 0.1)


@pytest.mark.parametrize("gamma", [True, 10**400])
def test_gamma_is_a_number_that_fits(gamma):
    with pytest.raises(ConfigError, match=r"penalty: gamma must be a finite number >= 0"):
        vibnet.penalty(gated(), gamma)


@pytest.mark.parametrize("name", ["lr", "gate_lr", "weight_decay"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, True, "0.1", None])
def test_rates_are_finite_and_not_negative(name, value):
    given = {"lr": 0.1, "gate_lr": 0.1, "weight_decay": 0.0, name: value}
    with pytest.raises(ConfigError, match=f"parameter_groups: {name} must be a finite number >= 0"):
        vibnet.parameter_groups(gated(), **given)


@pytest.mark.parametrize("make", [three, gated])
@pytest.mark.parametrize("wanted", [{"0": [1]}, "plan.json", Path("plan.json"), 3])
def test_a_plan_is_a_plan(make, wanted):
    with pytest.raises(PlanError, match=rf"must be a vibnet\.Plan, got {type(wanted).__name__}"):
        vibnet.prune(make(), wanted, X)


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("features", None, "features must be tuple"),
        ("inputs", "yes", "inputs must be bool, got 'yes'"),
        ("kept", None, "kept must be dict"),
        ("kept", {0: [1]}, "a key of kept must be str, got 0"),
        ("kept", {"0": [None]}, r"kept\['0'\]\[0\] must be int, got None"),
    ],
)
@pytest.mark.parametrize("make", [three, gated])
def test_a_field_of_the_wrong_type_is_named(field, value, match, make):
    model = make()
    made = dataclasses.replace(vibnet.plan(model, X), **{field: value})
    with pytest.raises(PlanError, match=f"the plan has wrong fields: {match}"):
        vibnet.prune(model, made, X)


def test_a_model_that_was_cut_is_not_cut_again_by_its_old_plan():
    made = gated()
    small, report = vibnet.prune(made)
    match = r"made for another model, or for this one before it was cut"
    for again in (small, vibnet.attach(small, X)):
        with pytest.raises(PlanError, match=match):
            vibnet.prune(again, report.plan, X)


def test_an_old_plan_is_refused_before_its_features_are_looked_for():
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Flatten(), nn.Linear(12, 5), nn.Linear(5, 2))
    image = torch.randn(2, 1, 2, 2)
    made = vibnet.attach(model, image, features=["2"])
    made.gate("2:features").log_var.data[:5] = 5.0
    small, report = vibnet.prune(made)
    with pytest.raises(PlanError, match=r"before it was cut"):
        vibnet.prune(small, report.plan, image)


@pytest.mark.parametrize(
    "example", [torch.ones(3, 5), torch.ones(3, 4).long(), (X, X), {"other": X}]
)
def test_an_example_that_the_model_does_not_take_is_named(example):
    model, made = three(), gated()
    before = state(model), state(made)
    match = r"Sequential does not run on the example \(\(3, [45]\).* \(at .*\)\. Pass an example"
    with pytest.raises(CaptureError, match=match):
        vibnet.prune(made, None, example)
    with pytest.raises(CaptureError, match=match):
        vibnet.prune(model, vibnet.plan(model, X), example)
    assert same(before[0], state(model))
    assert same(before[1], state(made))


@pytest.mark.parametrize("example", [3, "x", ()])
@pytest.mark.parametrize("verify", [True, False])
def test_an_example_without_a_tensor_is_refused(example, verify):
    with pytest.raises(ConfigError, match=r"example must hold at least one tensor"):
        vibnet.prune(gated(), None, example, verify=verify)


def test_a_measured_name_is_a_name():
    with pytest.raises(ConfigError, match=r"measure: features must be a list of names, got None"):
        vibnet.measure(three(), X, features=None)
    with pytest.raises(ConfigError, match=r"measure: latency must be True or False, got 'no'"):
        vibnet.measure(three(), X, latency="no")


def test_a_long_list_of_reasons_is_cut_short():
    class Sorted(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(12))

        def forward(self, x):
            for layer in self.layers:
                x = layer(x).sort(-1)[0]
            return x

    with pytest.raises(
        NoSitesError, match=r"and 4 more, which vibnet\.plan lists\. Change"
    ) as seen:
        vibnet.attach(Sorted(), torch.randn(3, 4))
    assert str(seen.value).count("there is no rule for sort") == 8


def test_a_plan_of_what_may_not_be_cut_is_refused():
    model, x = nn.Sequential(nn.Linear(6, 4)), torch.randn(2, 6)
    with pytest.raises(PlanError, match=r"nothing of Sequential may go\. vibnet\.plan"):
        vibnet.prune(model, vibnet.plan(model, x), x)
