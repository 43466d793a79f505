import copy
import dataclasses
import math

import pytest
import torch
from laws import close_units
from torch import nn

import vibnet
from vibnet import attach, plan, prune
from vibnet.errors import VerificationError
from vibnet.graph.rules import TABLE
from vibnet.surgery import verify
from vibnet.surgery.verify import answers, difference


def three():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))


X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def closed(model, example, seed=0):
    gated = attach(model.double(), example.double())
    close_units(gated, 0.5, seed)
    return gated


class Flipped(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.b(self.a(x).relu().flip(1))


def test_a_wrong_rule_is_caught_and_changes_nothing(monkeypatch):
    torch.manual_seed(0)
    model = Flipped()
    monkeypatch.setitem(TABLE, "flip", lambda engine, call: engine.dims(call.args[0]))
    made = dataclasses.replace(plan(model, X), kept={"a": [0, 1]})
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(VerificationError, match=r"answers differently.*Nothing was changed"):
        prune(model, made, X)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    gated = attach(model, X)
    close_units(gated, 0.5, 1)
    state = copy.deepcopy(gated.state_dict())
    with pytest.raises(VerificationError, match=r"answers differently"):
        prune(gated)
    assert all(torch.equal(v, state[k]) for k, v in gated.state_dict().items())


def test_without_verification_the_report_says_so():
    _, report = prune(closed(three(), X), verify=False)
    assert report.difference is None
    assert "not verified" in str(report)
    _, report = prune(closed(three(), X))
    assert report.difference is not None
    assert "not verified" not in str(report)


def test_differences_are_parts_of_the_largest_output():
    a, b = [torch.tensor([4.0, 0.0])], [torch.tensor([4.0, 1.0])]
    assert difference(a, b) == 0.25
    assert difference(a, a) == 0
    assert difference(a, [torch.zeros(3)]) == float("inf")
    assert math.isnan(difference(a, [torch.tensor([float("nan"), 0.0])]))


def test_answers_are_those_in_evaluation_and_leave_the_model_alone():
    model = nn.Sequential(three(), nn.Dropout(0.5)).train()
    (first,), (second,) = (answers(model, X, torch.float64) for _ in range(2))
    assert torch.equal(first, second)
    assert model.training
    assert next(model.parameters()).dtype == torch.float32


def test_a_float32_model_with_means_other_than_one_is_cut_and_verified_in_its_own_type():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 3)
    )
    example = torch.randn(4, 8)
    gated = vibnet.attach(model, example)
    close_units(gated, 0.5, 0)
    small, report = vibnet.prune(gated)
    assert report.difference < 1e-10
    assert report.weights[1] < report.weights[0]
    assert {p.dtype for p in small.parameters()} == {torch.float32}
    torch.testing.assert_close(small(example), gated.eval()(example), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_of_half_precision_is_cut_and_verified(dtype):
    model = three().to(dtype)
    gated = attach(model, X.to(dtype))
    close_units(gated, 0.5, 0)
    small, report = prune(gated)
    assert report.difference < 1e-10
    assert {p.dtype for p in small.parameters()} == {dtype}
    assert report.weights[1] < report.weights[0]


def test_a_model_too_large_for_float64_is_compared_in_its_own_type(monkeypatch):
    monkeypatch.setattr(verify, "LARGEST_DOUBLE", 0)
    gated = attach(three(), X)
    close_units(gated, 0.5, 0)
    _, report = prune(gated)
    assert 0 <= report.difference < 1e-5
    monkeypatch.setattr(verify, "difference", lambda *_: 1e-3)
    with pytest.raises(VerificationError, match=r"1.0e-03 of their scale"):
        prune(gated)


def test_a_difference_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setattr(verify, "difference", lambda *_: float("nan"))
    with pytest.raises(VerificationError, match="moved by nan"):
        prune(closed(three(), X))
