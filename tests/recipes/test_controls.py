import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from training import SHORT, FlatConv, Toy, mlp, same

import vibnet
from vibnet.errors import ConfigError
from vibnet.recipes.controls import CONTROLS, DRAWS, _largest, control, sampled, trained
from vibnet.recipes.run import Job, fingerprint_of_weights
from vibnet.train.evaluate import validate
from vibnet.train.loop import fit
from vibnet.train.shrink import shrink


class WithTest(Toy):
    """Toy data with a test set, and a note of what was opened."""

    opened = 0

    def test(self):
        self.opened += 1
        return [(self.x[32:] - 0.1, self.y[32:])]


LIGHT = SHORT.replaced(gamma=0.01, gate_epochs=10, lr=1e-2, weight_decay=0.0)


def made(settings=LIGHT, options=None):
    job = Job("toy", mlp(norm=True), WithTest(examples=96), settings, options=options or {})
    return job, fit(job.model, job.data, job.objective, job.settings, options=job.options)


@pytest.fixture(scope="module")
def finished():
    return made()


def widths(model):
    return [m.out_features for m in model.modules() if isinstance(m, nn.Linear)]


@pytest.mark.parametrize("name", [name for name in CONTROLS if name != "second-round"])
def test_every_control_is_of_the_runs_widths_and_leaves_the_run_alone(name, finished):
    job, fitted = finished
    before = [fingerprint_of_weights(m) for m in (job.model, fitted.small, fitted.gated)]
    random, opened = torch.get_rng_state(), job.data.opened
    found = control(name, job, fitted)
    assert job.data.opened == opened + 1
    assert torch.equal(torch.get_rng_state(), random)
    assert before == [fingerprint_of_weights(m) for m in (job.model, fitted.small, fitted.gated)]
    cost = vibnet.measure(fitted.small, job.data.example)
    sizes = cost.weights, cost.macs, cost.neurons
    assert (found["weights"], found["macs"], found["neurons"]) == sizes
    assert same(found, control(name, job, fitted))
    assert all(0 <= found[k] <= 60 for k in ("test", "validation"))  # chance is 67


@pytest.mark.parametrize(("gates", "tune", "tuning"), [(7, 0, 1), (20, 0, 2), (7, 3, 3)])
def test_controls_take_the_epochs_and_rates_that_they_say(
    gates, tune, tuning, finished, monkeypatch
):
    job, fitted = finished
    settings = LIGHT.replaced(gate_epochs=gates, tune_epochs=tune, lr=2e-3, tune_lr=1e-3)
    dense, whole, rates = settings.dense_epochs, settings.dense_epochs + gates + tune, []

    def spied(model, job, epochs, lr, first=0):
        rates.append(lr)
        return trained(model, job, epochs, lr, first)

    monkeypatch.setitem(control.__globals__, "trained", spied)
    for name, epochs, lr in (
        ("scratch", range(whole), 2e-3),
        ("tuned", range(whole, whole + tuning), 1e-3),
        ("tuned-with-noise", range(whole, whole + tuning), 1e-3),
        ("magnitude", range(dense, whole), 2e-3),
    ):
        job.data.epochs.clear()
        rates.clear()
        control(name, Job("toy", job.model, job.data, settings), fitted)
        assert (job.data.epochs, rates) == (list(epochs), [lr]), name


def test_closed_units_are_gone_before_a_control_trains_or_draws(finished, monkeypatch):
    job, closed = finished[0], copy.copy(finished[1])
    closed.gated = copy.deepcopy(closed.gated).train()
    with torch.no_grad():
        for _, gate in closed.gated.all_gates():
            gate.mu[0] = 0.0
    small, seen = widths(vibnet.prune(closed.gated)[0]), []
    assert small != widths(closed.gated)

    def spied(model, *_):
        seen.append((widths(model), model.training, any(m.training for m in model.model.modules())))
        return torch.zeros(32, 3)

    for name in ("trained", "call"):
        monkeypatch.setitem(control.__globals__, name, spied)
    CONTROLS["tuned-with-noise"](job, closed)
    sampled(job, closed, job.data.validation(), 1)
    assert seen[0][0] == small
    assert seen[1] == (small, True, False)  # gates draw, the model's own layers are in evaluation


def test_a_control_draws_by_the_runs_seed_and_nothing_before_it(finished, monkeypatch):
    job, fitted = finished
    torch.manual_seed(job.settings.seed)
    wanted, seen = torch.rand(32, 3), []

    def drawn(*_):
        seen.append(torch.rand(32, 3))
        return seen[-1]

    monkeypatch.setitem(CONTROLS, "tuned", lambda *_: (drawn(), fitted.small)[1])
    monkeypatch.setitem(sampled.__globals__, "call", drawn)
    control("tuned", job, fitted)
    sampled(job, fitted, job.data.validation(), 1)
    assert [torch.equal(found, wanted) for found in seen] == [True, True]


def test_training_a_model_as_it_is_is_plain_adam_under_a_cosine():
    job, _ = made()
    model = mlp(norm=True)
    other = copy.deepcopy(model)
    trained(model, job, 2, 0.01)
    assert model.training is False
    steps = torch.optim.Adam(other.parameters(), 0.01, fused=True)
    batches = [b for epoch in range(2) for b in Toy(examples=96).train(epoch)]
    other.train()
    for k, (x, y) in enumerate(batches):
        steps.param_groups[0]["lr"] = 0.01 * 0.5 * (1 + math.cos(math.pi * k / len(batches)))
        steps.zero_grad()
        nn.functional.cross_entropy(other(x), y).backward()
        steps.step()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_runs_weight_decay_holds_in_its_controls_too():
    job, _ = made()
    heavy = Job("toy", job.model, job.data, LIGHT.replaced(weight_decay=1.0))
    sizes = []
    for one in (job, heavy):
        model = trained(copy.deepcopy(mlp(norm=True)), one, 5, 0.01)
        sizes.append(float(model[0].weight.detach().norm()))
    assert sizes[1] < 0.7 * sizes[0]


def test_noise_stays_as_it_is_while_tuning_and_the_weights_move(finished):
    job, fitted = finished
    gated = copy.deepcopy(fitted.gated)
    shrink(gated)
    before = copy.deepcopy(gated)
    trained(gated, job, 1, 0.01)
    assert fingerprint_of_weights(gated.gates) == fingerprint_of_weights(before.gates)
    assert fingerprint_of_weights(gated.model) != fingerprint_of_weights(before.model)


def test_new_weights_are_not_the_old_ones(finished):
    job, fitted = finished
    model = CONTROLS["scratch"](Job("toy", job.model, job.data, LIGHT.replaced(lr=1e-12)), fitted)
    assert widths(model) == widths(fitted.small)
    assert (model[0].weight - fitted.small[0].weight).abs().mean() > 0.05


def test_new_weights_are_not_those_that_the_run_began_with(monkeypatch, finished):
    job, fitted = finished
    seeds, seeded = [], torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda n: seeds.append(n) or seeded(n))
    CONTROLS["scratch"](Job("toy", job.model, job.data, LIGHT.replaced(lr=1e-12)), fitted)
    assert seeds == [job.settings.seed + 10_000]


def test_the_largest_weights_stay(finished):
    job, fitted = finished
    still = Job("toy", job.model, job.data, LIGHT.replaced(lr=1e-12))
    model = CONTROLS["magnitude"](still, fitted)
    size = fitted.dense[0].weight.abs().mean(1)
    best = size.argsort(descending=True)[: len(model[0].weight)].sort().values
    torch.testing.assert_close(model[0].weight, fitted.dense[0].weight[best])


def test_features_stay_in_channels_that_stay():
    torch.manual_seed(0)
    model, x = FlatConv(), torch.randn(40, 1, 3, 3)
    with torch.no_grad():
        model.conv.weight.copy_(
            torch.tensor([5.0, 3.0, 1.0]).reshape(3, 1, 1, 1).expand(3, 1, 2, 2)
        )
        model.fc.weight.copy_(torch.arange(12.0).expand(5, 12))  # the third channel's are largest
    gated = vibnet.attach(model, x[:2], features=["fc"])
    wanted = {"conv": 2, "fc:features": 3, "fc": 4}
    kept = gated.legal(_largest(gated, wanted))
    names = {s.name: s.positions[kept[s.units]].tolist() for s in gated.sites}
    assert names["conv"] == [0, 1]
    assert names["fc:features"] == [3, 6, 7]  # one of every channel, then the largest
    assert len(names["fc"]) == 4
    assert np.count_nonzero(kept) == 9


def test_a_second_round_gates_the_small_network_anew_and_cuts_what_it_closes(finished):
    job, fitted = finished
    before = [fingerprint_of_weights(m) for m in (job.model, fitted.small, fitted.gated)]
    job.data.epochs.clear()
    heavier = Job("toy", job.model, job.data, LIGHT.replaced(gamma=0.03))
    model = CONTROLS["second-round"](heavier, fitted)
    assert job.data.epochs == list(range(LIGHT.gate_epochs))
    assert before == [fingerprint_of_weights(m) for m in (job.model, fitted.small, fitted.gated)]
    assert not model.training
    assert 1 <= widths(model)[0] < widths(fitted.small)[0]
    assert validate(model, job.data.validation(), job.objective) <= 60  # chance is 67
    budget = Job("toy", job.model, job.data, LIGHT.replaced(gamma=0.03, budget="macs=50%"))
    other = CONTROLS["second-round"](budget, fitted)
    assert fingerprint_of_weights(other) == fingerprint_of_weights(model)


def test_a_second_round_draws_other_noise_than_the_first(monkeypatch, finished):
    job, fitted = finished
    seen = []

    def spied(model, data, objective, settings, *, options):
        seen.append((settings, options))
        return fitted

    monkeypatch.setitem(CONTROLS["second-round"].__globals__, "fit", spied)
    CONTROLS["second-round"](Job("toy", job.model, job.data, LIGHT, options={"a": 1}), fitted)
    assert seen == [(LIGHT.replaced(seed=LIGHT.seed + 10_000, dense_epochs=0), {"a": 1})]


def test_a_second_round_of_what_has_nothing_left_to_gate_is_that_network():
    job, fitted = made(options={"min_units": 16})
    assert fitted.small[0].out_features < 16
    model = CONTROLS["second-round"](job, fitted)
    assert model is not fitted.small
    assert fingerprint_of_weights(model) == fingerprint_of_weights(fitted.small)


@pytest.mark.parametrize("options", [{"inputs": True}, {"features": ["4"]}])
def test_neurons_of_a_control_count_inputs_and_features_where_those_of_the_run_did(options):
    job, fitted = made(options=options)
    found = control("tuned", job, fitted)
    assert found["neurons"] == vibnet.measure(fitted.small, job.data.example, **options).neurons
    assert found["neurons"] > vibnet.measure(fitted.small, job.data.example).neurons


def test_sampling_without_noise_is_the_mean_and_noise_makes_it_another(finished):
    job, fitted = finished
    batches = job.data.validation()
    quiet = copy.deepcopy(fitted)
    with torch.no_grad():
        for _, gate in quiet.gated.all_gates():
            gate.log_var.fill_(-60.0)
    error = validate(quiet.gated, batches, job.objective)
    assert sampled(job, quiet, batches, 3) == error
    with torch.no_grad():
        for _, gate in quiet.gated.all_gates():
            gate.log_var.fill_(0.9 * math.log(float(gate.mu.abs().min()) ** 2))
    one, many = (sampled(job, quiet, batches, n) for n in (1, 400))
    assert many <= one


def test_draws_are_averaged_as_probabilities(finished, monkeypatch):
    """One draw that is sure of a class by far does not outvote two that are nearly as sure."""
    job, fitted = finished
    answers = iter([[40.0, 0.0, 0.0], [0.0, 8.0, 0.0], [0.0, 8.0, 0.0]])

    class Drawn(nn.Module):
        def forward(self, x):
            return torch.tensor(next(answers)).expand(len(x), 3)

    monkeypatch.setitem(sampled.__globals__, "shrink", lambda _gated: None)
    several = copy.copy(fitted)
    several.gated = Drawn()
    x, y = torch.zeros(4, 6), torch.ones(4, dtype=torch.int64)
    assert sampled(job, several, [(x, y)], 3) == 0.0


def test_held_out_images_and_the_test_set_are_sampled_each_by_itself(finished, monkeypatch):
    job, fitted = finished
    monkeypatch.setitem(
        control.__globals__, "sampled", lambda _j, _f, batches, _n: sum(len(y) for _, y in batches)
    )
    found = control("sampled", job, fitted)
    sizes = [sum(len(y) for _, y in b) for b in (job.data.test(), job.data.validation())]
    assert sizes[0] != sizes[1]
    assert [found["test"]["1"], found["validation"]["1"]] == sizes


def test_sampling_says_the_error_by_draws(finished):
    found = control("sampled", *finished)
    assert set(found["test"]) == set(found["validation"]) == {str(n) for n in DRAWS}


def test_what_is_not_there_is_refused_by_name(finished):
    job, fitted = finished
    with pytest.raises(ConfigError, match=r"no control 'x'. There are: scratch, tuned"):
        control("x", job, fitted)
    with pytest.raises(ConfigError, match="needs a run that is over"):
        control("scratch", job, fit(mlp(), Toy(), None, SHORT, seconds=0))
    _, tuned = made(LIGHT.replaced(tune_epochs=1))
    for name in ("tuned-with-noise", "sampled"):
        with pytest.raises(ConfigError, match="ended without gates"):
            control(name, job, tuned)
