import copy
import dataclasses

import pytest
import torch
from states import X, gate_state, set_snr, step
from torch import nn
from training import SHORT, Toy, mlp, same

from vibnet.config import Settings
from vibnet.cost import measure
from vibnet.errors import ConfigError
from vibnet.graph.sites.prices import totals
from vibnet.surgery.gated import Gated
from vibnet.surgery.prune import prune
from vibnet.surgery.verify import answers, difference
from vibnet.train.loop import fit
from vibnet.train.phases import Record, State


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_groups_have_their_own_rates_and_gates_no_decay(optimizer):
    state = gate_state(optimizer=optimizer, lr=0.1, gate_lr=0.2, weight_decay=0.3, momentum=0.7)
    weights, gates = state.optimizer.param_groups
    assert (weights["base"], weights["lr"], weights["weight_decay"]) == (0.1, 0.1, 0.3)
    assert (gates["base"], gates["lr"], gates["weight_decay"]) == (0.2, 0.2, 0.0)
    assert {id(p) for p in gates["params"]} == {id(p) for p in state.model.gates.parameters()}
    assert {id(p) for p in weights["params"]} == {id(p) for p in state.model.model.parameters()}
    assert type(state.optimizer).__name__.lower() == optimizer
    if optimizer == "sgd":
        assert {g["momentum"] for g in state.optimizer.param_groups} == {0.7}


def test_frozen_parameters_are_not_given_to_the_optimiser():
    model = mlp()
    model[0].requires_grad_(False)
    state = gate_state(model)
    given = {id(p) for g in state.optimizer.param_groups for p in g["params"]}
    assert id(state.model.model[0].weight) not in given
    assert len(given) == 4 + 4
    model.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"no parameter of the model requires a gradient"):
        State(Settings(), X, {}, model)
    assert [len(g["params"]) for g in gate_state(_frozen()).optimizer.param_groups] == [4]


def _frozen():
    """Its head alone learns until the gates come; then gates alone may."""
    model = mlp().requires_grad_(False)
    model[6].bias.requires_grad_(True)
    return _HeadFreezes(model)


class _HeadFreezes(nn.Sequential):
    def __init__(self, model):
        super().__init__(*model)

    def __deepcopy__(self, memo):
        copied = nn.Sequential(*(copy.deepcopy(m, memo) for m in self))
        return copied.requires_grad_(False)


def test_phases_follow_each_other():
    state = State(Settings(dense_epochs=3, gate_epochs=2, tune_epochs=1, tune_lr=0.5), X, {}, mlp())
    assert (state.phase, state.epochs, state.last_phase, state.finished) == ("dense", 3, "tune", 0)
    state.epoch = 3
    assert not state.finished
    state.advance()
    assert (state.phase, state.epochs, state.epoch) == ("gate", 2, 0)
    assert isinstance(state.model, Gated)
    assert all(
        torch.equal(a, b)
        for a, b in zip(state.dense.parameters(), state.model.model.parameters(), strict=True)
    )
    set_snr(state.model, "0", [0.1] * 6 + [9.0] * 10)
    state.advance()
    assert (state.phase, state.epochs) == ("tune", 1)
    assert state.model[0].out_features == 10
    assert state.optimizer.param_groups[0]["lr"] == 0.5
    assert not state.finished
    state.epoch = 1
    assert state.finished


def test_the_average_is_what_is_evaluated_and_handed_on():
    torch.manual_seed(0)
    state = State(Settings(ema=0.5), X, {}, mlp(norm=True))
    step(state)
    first = copy.deepcopy(state.model.state_dict())
    step(state)
    assert state.result is state.average.module
    for name, value in state.result.named_parameters():
        expected = 0.5 * first[name] + 0.5 * state.model.get_parameter(name)
        torch.testing.assert_close(value, expected)
    before = copy.deepcopy(state.result.state_dict())
    state.advance()
    assert same(dict(state.dense.state_dict()), dict(before))
    assert same(dict(state.model.model.state_dict()), dict(before))


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_shrinking_moves_no_answer_of_what_is_evaluated(ema):
    state = gate_state(ema=ema, patience=2, margin=2.0, shrink=True)
    step(state)
    for gated in {state.model, state.result}:
        set_snr(gated, "0", [0.3] * 5 + [0.7] * 3 + [4.0] * 8)
    if ema:  # late to close: the average still keeps what the weights have closed
        set_snr(state.result, "0", [4.0] + [0.3] * 4 + [0.7] * 3 + [4.0] * 8)
    before = answers(state.result, X, torch.float64)
    assert not state.shrink()
    assert state.shrink()
    assert difference(before, answers(state.result, X, torch.float64)) < 1e-12
    left = [0, *range(5, 16)] if ema else list(range(5, 16))
    for gated in (state.model, state.result):
        assert gated.sites[0].positions.tolist() == left
        assert gated.model[0].out_features == len(left)
    assert len(state.patience.counts["0"]) == len(left)
    step(state)


def test_a_dead_unit_that_a_constraint_holds_open_stays():
    state = gate_state(options={"multiple": 4}, patience=2)
    alive = [4.0] * 6
    # Of the ten that are dead, evaluation keeps the two best: to eight, a multiple of four.
    set_snr(state.model, "0", alive + [0.45, 0.44] + [0.1] * 6 + [0.9] * 2)
    assert not state.shrink()
    set_snr(state.model, "0", alive + [0.45, 0.44] + [0.1] * 6 + [0.3] * 2)
    before = answers(state.model, X, torch.float64)
    state.shrink()
    assert difference(before, answers(state.model, X, torch.float64)) < 1e-12
    assert {0, 1, 2, 3, 4, 5, 6, 7} <= set(state.model.sites[0].positions.tolist())


def test_a_record_says_what_evaluation_keeps():
    state = gate_state()
    set_snr(state.model, "0", [0.1] * 4 + [9.0] * 12)
    state.epoch = 7
    record = state.record(0.5, 2.0, 12.5)
    kept = state.model.kept()
    weights = 12 * 6 + 12 * 12 + 12 * 3
    assert state.settings.gamma > 0
    gamma = state.settings.gamma
    assert record == Record("gate", 7, 0.5, 2.0, 12.5, {"0": 12, "4": 12}, weights, weights, gamma)
    assert totals(state.model.graph, kept) == (weights, weights)
    assert state.history == [record]


def test_modes_are_put_back():
    model = mlp(norm=True).eval()
    model[3].train()
    state = gate_state(model, tune_epochs=1)
    state.model.train()
    state.dense.train()
    state.put_modes_back()
    expected = [m.training for m in model]
    assert [m.training for m in state.model.model] == [m.training for m in state.dense] == expected
    small, _ = prune(state.result)
    assert [m.training for m in small] == expected
    assert not state.model.training
    assert not state.model.places.training


def test_every_unit_leaves_its_signal_to_noise_ratio():
    for changes in ({}, {"shrink": False}, {"tune_epochs": 1}, {"ema": 0.5}):
        fitted = fit(mlp(), Toy(), None, dataclasses.replace(SHORT, **changes))
        found = {name: len(snr) for name, snr in fitted.snr.items()}
        assert found == fitted.report.plan.sizes
    fitted = fit(mlp(), Toy(), None, SHORT)
    above = {name: max(1, sum(x > 1 for x in snr)) for name, snr in fitted.snr.items()}
    assert above == {name: len(kept) for name, kept in fitted.report.plan.kept.items()}


def test_weights_are_written_down_in_every_phase():
    fitted = fit(mlp(), Toy(), None, dataclasses.replace(SHORT, tune_epochs=1))
    dense, small = (measure(m, Toy().example) for m in (fitted.dense, fitted.small))
    first, last = fitted.history[0], fitted.history[-1]
    assert (first.phase, first.weights, first.macs) == ("dense", dense.weights, dense.macs)
    assert (last.phase, last.weights, last.macs) == ("tune", small.weights, small.macs)
    assert small.weights < dense.weights


@pytest.mark.parametrize("tune", [0, 1])
def test_the_report_is_against_the_dense_model_though_units_left_before(tune):
    fitted = fit(mlp(), Toy(), None, dataclasses.replace(SHORT, tune_epochs=tune))
    counts = tuple(sum(p.numel() for p in m.parameters()) for m in (fitted.dense, fitted.small))
    assert fitted.report.weights == counts
    assert counts[1] < counts[0]
    assert not fitted.report.unchanged
