import dataclasses
import json

import pytest
import torch
from networks import NETWORKS
from torch import nn

from vibnet import Plan, attach, plan, prune
from vibnet.errors import PlanError


def three(width=6):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 5), nn.ReLU(), nn.Linear(5, 2)
    )


X = torch.ones(3, 4)


def edited(made, **kept):
    return dataclasses.replace(made, kept={**made.kept, **kept})


def test_the_plan_of_a_plain_model_keeps_everything():
    made = plan(three(), X)
    assert made.sizes == {"0": 6, "2": 5}
    assert made.kept == {"0": list(range(6)), "2": list(range(5))}
    assert made.writers == {"0": ("0",), "2": ("2",)}
    assert made.readers == {"0": ("2",), "2": ("4",)}
    assert made.pinned == {"4": "it is an output of the model"}


def test_the_plan_of_a_gated_model_keeps_what_its_gates_keep():
    gated = attach(three().double(), X.double())
    gated.gate("0").log_var.data[[1, 4]] = 5.0
    made = plan(gated)
    assert made.kept == {"0": [0, 2, 3, 5], "2": list(range(5))}
    assert prune(gated)[1].plan == made


def test_a_plain_model_needs_an_example():
    with pytest.raises(PlanError, match=r"needs an example: plan\(model, example\)"):
        plan(three())


def test_json_gives_the_plan_back():
    made = edited(plan(three(), X), **{"0": [1, 3]})
    assert Plan.from_json(made.to_json()) == made
    body = json.loads(made.to_json())
    assert (body["schema"], body["version"]) == ("vibnet.plan", 1)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated_json_is_refused(share):
    text = plan(three(), X).to_json()
    with pytest.raises(PlanError, match=r"not a complete plan"):
        Plan.from_json(text[: int(share * len(text))])


@pytest.mark.parametrize("text", ["{}", "3", "[]", "null", '"text"', '{"schema": 1}'])
def test_json_of_something_else_is_refused(text):
    with pytest.raises(PlanError, match=r"not a complete plan, a dict with schema and version: "):
        Plan.from_json(text)


@pytest.mark.parametrize("text", [None, 3, b"\xff", "[" * 100_000])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(PlanError, match=r"not a complete plan \("):
        Plan.from_json(text)


def without_digest(**changes):
    body = json.loads(plan(three(), X).to_json())
    del body["digest"]
    return {**body, **changes}


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("source", 3, "source must be str, got 3"),
        ("kept", [], r"kept must be dict\[str, list\[int\]\], got \[\]"),
        ("kept", {"0": [0, 1.5]}, r"kept\['0'\]\[1\] must be int, got 1.5"),
        ("sizes", {"0": True}, r"sizes\['0'\] must be int, got True"),
        ("writers", {"0": "abc"}, r"writers\['0'\] must be tuple\[str, ...\], got 'abc'"),
        ("readers", {"0": [1]}, r"readers\['0'\]\[0\] must be str, got 1"),
        ("pinned", {"4": None}, r"pinned\['4'\] must be str, got None"),
        ("ungated", None, r"ungated must be dict\[str, str\], got None"),
        ("unused", "weight", r"unused must be tuple\[str, ...\], got 'weight'"),
        ("features", {"a": 1}, r"features must be tuple\[str, ...\], got \{'a': 1\}"),
        ("inputs", 1, "inputs must be bool, got 1"),
        ("ignore", [None], r"ignore\[0\] must be str, got None"),
        ("extra", 1, "there is no field 'extra'"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(name, value, match):
    with pytest.raises(PlanError, match=f"this plan has wrong fields: {match}"):
        Plan.from_json(json.dumps(without_digest(**{name: value})))


YOUNGER = {"cuttable", "replace_attention", "allow_inexact", "inexact", "remove_branches"}


@pytest.mark.parametrize("name", sorted({f.name for f in dataclasses.fields(Plan)} - YOUNGER))
def test_a_missing_field_is_named(name):
    body = without_digest()
    del body[name]
    with pytest.raises(PlanError, match=f"wrong fields: there must be {name}"):
        Plan.from_json(json.dumps(body))


def test_altered_json_is_refused():
    body = json.loads(plan(three(), X).to_json())
    body["kept"]["0"] = [0]
    with pytest.raises(PlanError, match=r"was altered after it was written"):
        Plan.from_json(json.dumps(body))


@pytest.mark.parametrize(("name", "value"), [("schema", "other"), ("version", 2)])
def test_another_schema_or_version_is_refused(name, value):
    body = json.loads(plan(three(), X).to_json())
    body[name] = value
    with pytest.raises(PlanError, match=r"this program reads 1"):
        Plan.from_json(json.dumps(body))


def test_a_plan_of_another_model_is_refused():
    with pytest.raises(PlanError, match=r"made for another model"):
        prune(three(), plan(three(7), X), X)


@pytest.mark.parametrize(
    ("kept", "match"),
    [
        ({"9": [0]}, "names sites that this model cannot cut: 9. It can cut: 0, 2"),
        ({"4": [0]}, "names sites that this model cannot cut: 4"),
        ({"0": [0, 6]}, "which has units 0 to 5"),
        ({"0": [-1]}, "which has units 0 to 5"),
        ({"0": [1, 1]}, "Name each kept unit once"),
        ({"0": [10**30]}, "which has units 0 to 5"),
        ({"0": [0.5]}, r"kept\['0'\]\[0\] must be int, got 0.5"),
        ({"0": [0, True]}, r"kept\['0'\]\[1\] must be int, got True"),
        ({"0": [[0]]}, r"kept\['0'\]\[0\] must be int, got \[0\]"),
        ({"0": ["0"]}, r"kept\['0'\]\[0\] must be int, got '0'"),
        ({"0": "0"}, r"kept\['0'\] must be list\[int\], got '0'"),
        ({"0": None}, r"kept\['0'\] must be list\[int\], got None"),
        ({"0": 3}, r"kept\['0'\] must be list\[int\], got 3"),
        ({"0": []}, "keeps no unit of 0. Keep at least one"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_with_the_site(kept, match):
    model = three()
    with pytest.raises(PlanError, match=match):
        prune(model, edited(plan(model, X), **kept), X)


def test_a_plan_that_leaves_groups_unequal_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 2, 1))
    x = torch.randn(2, 3, 4, 4)
    made = plan(model, x)
    with pytest.raises(PlanError, match=r"the 2 groups of convolution in 1.*but keep \[2, 1\]"):
        prune(model, edited(made, **{"0": [0, 1, 2]}), x)
    with pytest.raises(PlanError, match=r"breaks a constraint"):
        prune(model, edited(made, **{"0": [0, 1]}), x)
    small, _ = prune(model, edited(made, **{"0": [1, 2]}), x)
    assert small[1].weight.shape == (4, 1, 1, 1)


def test_sites_that_a_plan_leaves_out_stay_whole():
    model = three()
    made = plan(model, X)
    partial = dataclasses.replace(made, kept={"2": [0]})
    small, _ = prune(model, partial, X)
    assert (small[0].out_features, small[2].out_features) == (6, 1)
    assert [line.split()[:3] for line in str(partial).splitlines()[1:3]] == [
        ["0", "6", "6"],
        ["2", "1", "5"],
    ]


def test_a_plan_is_a_table_one_can_read():
    made = edited(plan(three(), X), **{"0": [1, 3]})
    lines = str(made).splitlines()
    assert lines[1].split() == ["0", "2", "6", "0", "->", "2"]
    assert "4" in lines[3]
    assert "whole: it is an output of the model" in lines[3]


def test_a_plan_that_leaves_out_who_writes_can_still_be_read():
    made = dataclasses.replace(plan(three(), X), writers={}, readers={})
    assert str(made).splitlines()[1].split() == ["0", "6", "6", "->"]


def test_weights_the_example_never_uses_are_listed():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.spare = three(), nn.Linear(3, 3)

        def forward(self, x):
            return self.body(x)

    made = plan(Spare(), X)
    assert made.unused == ("spare.bias", "spare.weight")
    assert "never used by the example: spare.bias, spare.weight" in str(made)


def test_plans_of_all_test_networks_survive_json():
    for name in ("cnn", "unet", "grouped"):
        made = plan(*NETWORKS[name](0))
        assert Plan.from_json(made.to_json()) == made


def test_a_plan_edited_by_hand_is_taken_without_its_digest():
    model = three()
    body = json.loads(plan(model, X).to_json())
    body["kept"]["0"] = [0, 5]
    del body["digest"]
    small, _ = prune(model, Plan.from_json(json.dumps(body)), X)
    assert small[0].out_features == 2


class Tied(nn.Module):
    """The second layer's weight is the first one's, turned round: no multiplier fits into it."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 4, bias=False), nn.Linear(6, 2)

    def forward(self, x):
        return self.c(torch.relu(torch.nn.functional.linear(self.b(self.a(x)), self.b.weight.t())))


def test_a_site_without_a_gate_says_why_and_can_be_cut_by_a_plan():
    model = Tied()
    made = plan(model, X)
    assert made.ungated
    name, reason = next(iter(made.ungated.items()))
    assert f"has no gate: {reason}" in str(made)
    small, report = prune(model, edited(made, **{name: [0, 2]}), X)
    assert report.difference < 1e-10
    assert report.weights[1] < report.weights[0]
    assert small(X).shape == (3, 2)


def test_a_plan_states_what_its_sites_could_give_up_at_most():
    found = plan(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), torch.randn(3, 4))
    assert found.cuttable == {"weights": 1.0, "macs": 1.0}
    assert "100.0 % of the weights, 100.0 % of the macs" in str(found)


def test_a_plan_of_before_shares_were_stated_is_read():
    made = plan(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2)), torch.randn(3, 4))
    body = json.loads(made.to_json())
    for name in (*YOUNGER, "digest"):
        del body[name]
    again = Plan.from_json(json.dumps(body))
    assert again == dataclasses.replace(made, cuttable={})
