"""A gated model after a cut in place: its prices, its modes, and what it keeps."""

import pytest
import torch
from torch import nn

from vibnet import attach, penalty, prune
from vibnet.train.shrink import shrink


def three():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def close(gated, site, units):
    gated.gate(site).log_var.data[units] = 5.0


@pytest.mark.parametrize("weights", [{"0": 3.0, "2": 0.5}, "params"])
def test_a_cut_in_place_leaves_the_prices_as_they_were(weights):
    gated = attach(three(), X, weights=weights)
    before = {s.name: s.weight for s in gated.sites}
    close(gated, "0", [1, 2])
    assert shrink(gated)
    assert {s.name: s.weight for s in gated.sites} == before
    assert len(set(before.values())) == 2
    expected = sum(
        0.5 * before[site.name] * torch.log1p(gate.mu**2 / gate.log_var.exp()).sum()
        for site, gate in gated.all_gates()
    )
    torch.testing.assert_close(penalty(gated, 1.0), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("training", [False, True])
def test_a_cut_in_place_leaves_every_mode_as_it_was(training):
    gated = attach(three(), X).train(training)
    close(gated, "0", [1, 2])
    assert shrink(gated)
    assert {m.training for m in gated.modules()} == {training}


@pytest.mark.parametrize("training", [False, True])
def test_the_wrapper_and_its_gates_have_the_mode_of_the_model(training):
    model = three().train(training)
    gated = attach(model, X)
    ours = [gated, gated.gates, *gated.gates.values(), gated.places, *gated.places]
    assert len(ours) == 7
    assert {m.training for m in ours} == {training}


def test_parts_in_another_mode_stay_in_it_through_gates_and_both_cuts():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    model[1].eval()
    model[2].eval()
    gated = attach(model, X)
    modes = [m.training for m in model.modules()]
    assert modes == [True, True, False, False, True]
    assert [m.training for m in gated.model.modules()] == modes
    close(gated, "0", [1, 2])
    small, _ = prune(gated)
    assert [m.training for m in small.modules()] == modes
    assert shrink(gated)
    assert [m.training for m in gated.model.modules()] == modes


@pytest.mark.parametrize(("multiple", "left"), [(1, 5), (2, 6), (4, 8), (3, 6)])
def test_what_stays_is_a_multiple_of_what_was_asked_for(multiple, left):
    gated = attach(three().double(), X.double(), include=["0"], multiple=multiple).eval()
    gate = gated.gate("0")
    gate.mu.data[:] = torch.tensor([1.0, 0.2, 0.3, 1.0, 1.0, 0.1, 1.0, 1.0])
    close(gated, "0", [1, 2, 5])
    small, report = prune(gated)
    best = {5: [0, 3, 4, 6, 7], 6: [0, 2, 3, 4, 6, 7], 8: list(range(8))}
    assert report.plan.kept["0"] == best[left]
    assert small[0].out_features == left
    torch.testing.assert_close(small(X.double()), gated(X.double()))
