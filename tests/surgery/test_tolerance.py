"""How small a wrong answer is still refused."""

import dataclasses

import pytest
import torch
from torch import nn

from vibnet import attach, plan, prune
from vibnet.errors import VerificationError
from vibnet.graph.labels.rules import TABLE

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Flipped(nn.Module):
    """An answer of which a small part comes from units in reverse order."""

    def __init__(self, part):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(4, 2)
        self.part = part

    def forward(self, x):
        return self.c(x) + self.part * self.b(self.a(x).relu().flip(1))


def with_a_wrong_rule(monkeypatch):
    """Flipped units keep their places: a cut takes the wrong columns."""
    monkeypatch.setitem(TABLE, "flip", lambda engine, call: engine.dims(call.args[0]))


@torch.no_grad()
def moved_by_a_wrong_cut(part):
    """How far the outputs move, of their scale, when units 0 and 1 stay for 5 and 4."""
    model = Flipped(part).double()
    units = model.a(X.double()).relu()
    moved = part * (units[:, [5, 4]] - units[:, [1, 0]]) @ model.b.weight[:, :2].T
    return float(moved.abs().max() / model(X.double()).abs().max())


@pytest.mark.parametrize("part", [1e-2, 1e-4, 1e-6, 1e-8])
def test_a_wrong_cut_that_moves_the_answers_a_little_is_refused(part, monkeypatch):
    assert part / 100 < moved_by_a_wrong_cut(part) < part
    with_a_wrong_rule(monkeypatch)
    model = Flipped(part)
    made = dataclasses.replace(plan(model, X), kept={"a": [0, 1]})
    with pytest.raises(VerificationError, match="answers differently"):
        prune(model, made, X)


@pytest.mark.parametrize("part", [1e-4, 1e-8])
def test_a_wrong_cut_of_a_gated_model_is_refused(part, monkeypatch):
    with_a_wrong_rule(monkeypatch)
    gated = attach(Flipped(part), X)
    gated.gate("a").log_var.data[[2, 3, 5]] = 5.0
    with pytest.raises(VerificationError, match="answers differently"):
        prune(gated)


@pytest.mark.parametrize("part", [1, 1e-8])
def test_the_same_cut_by_the_right_rule_is_accepted(part):
    model = Flipped(part)
    made = dataclasses.replace(plan(model, X), kept={"a": [0, 1]})
    small, report = prune(model, made, X)
    assert small.a.out_features == 2
    assert report.difference < 1e-10
