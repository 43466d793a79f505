import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training import SHORT, Toy, mlp, same, told

from vibnet import attach, penalty
from vibnet.config import Settings
from vibnet.errors import ConfigError, NoSitesError
from vibnet.surgery.gated import Gated
from vibnet.train import loop
from vibnet.train.loop import fit
from vibnet.train.objective import classification, regression

PLAIN = Settings(batch=16, dense_epochs=2, gate_epochs=0, optimizer="sgd", momentum=0.0, lr=0.1)


def test_runs_shrink_while_they_train_and_shrinking_is_a_choice():
    seen = {}
    for shrink in (True, False):
        settings = dataclasses.replace(SHORT, shrink=shrink)
        seen[shrink] = fit(mlp(), Toy(), None, settings)
    assert sum(s.size for s in seen[True].gated.sites) < 28
    assert sum(s.size for s in seen[False].gated.sites) == 28
    assert {s.first for s in seen[True].gated.sites} == {16, 12}


def test_nothing_that_was_given_is_changed():
    model, toy = mlp(dropout=0.2, norm=True).eval(), Toy()
    state, x = copy.deepcopy(model.state_dict()), toy.x.clone()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    done = fit(model, toy, None, SHORT)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(dict(model.state_dict()), dict(state))
    assert torch.equal(toy.x, x)
    assert not any(m.training for m in (*model.modules(), *done.small.modules()))
    assert not any(m.training for m in done.dense.modules())


def test_without_an_epoch_with_gates_the_small_model_is_the_dense_one():
    fitted = fit(mlp(norm=True), Toy(), None, dataclasses.replace(SHORT, gate_epochs=0))
    assert {r.phase for r in fitted.history} == {"dense"}
    assert fitted.warnings == []
    assert fitted.report.unchanged
    x = Toy().x
    assert torch.equal(fitted.small(x), fitted.dense(x))


def test_the_seed_is_the_run():
    a, b, c = (fit(mlp(), Toy(), None, dataclasses.replace(SHORT, seed=s)) for s in (0, 0, 1))
    assert told(a) == told(b)
    assert told(a)["small"] != told(c)["small"]


def test_epochs_are_counted_over_all_phases():
    toy = Toy()
    settings = dataclasses.replace(SHORT, gate_epochs=2, tune_epochs=2)
    fitted = fit(mlp(), toy, None, settings)
    assert toy.epochs == [0, 1, 2, 3, 4, 5]
    assert [(r.phase, r.epoch) for r in fitted.history] == [
        *[("dense", 1), ("dense", 2), ("gate", 1), ("gate", 2), ("tune", 1), ("tune", 2)]
    ]


def by_hand(model, toy, epochs, size, lr, clip=0.0):
    """Gradient descent on batches of `size`, each the mean of its batches of the toy."""
    for epoch in range(epochs):
        batches = toy.train(epoch)
        for first in range(0, len(batches), size):
            group = batches[first : first + size]
            model.zero_grad()
            sum(F.cross_entropy(model(x), y) for x, y in group).div(len(group)).backward()
            grads = [p.grad for p in model.parameters()]
            norm = torch.cat([g.flatten() for g in grads]).norm()
            factor = min(1.0, clip / (float(norm) + 1e-6)) if clip else 1.0
            with torch.no_grad():
                for p in model.parameters():
                    p.sub_(lr * factor * p.grad)
    return model


@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize("accumulate", [1, 2, 3, 5])
def test_dense_training_is_gradient_descent(accumulate, clip):
    toy = Toy(examples=64, batch=16)  # four batches: three leave one over, five are too many
    toy.x, toy.example = toy.x.double(), toy.example.double()
    model = mlp().double()
    settings = dataclasses.replace(PLAIN, accumulate=accumulate, clip=clip)
    found = fit(model, toy, None, settings).dense
    expected = by_hand(copy.deepcopy(model), toy, 2, accumulate, 0.1, clip)
    for a, b in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def only_the_penalty(_output, _target):
    return _output.sum() * 0.0


@pytest.mark.parametrize("accumulate", [1, 2, 3])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_penalty_pulls_with_gamma_at_every_step(accumulate, share):
    """The loss is 0, so gates go down the penalty alone; the same is done here by hand."""
    settings = dataclasses.replace(
        PLAIN,
        dense_epochs=0,
        gate_epochs=2,
        gate_lr=0.1,
        gamma=0.3,
        gamma_rise=share,
        accumulate=accumulate,
        shrink=False,
    )
    toy = Toy()
    fitted = fit(mlp(), toy, only_the_penalty, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        gated = attach(mlp_again(), toy.example)
    nats = []
    for epoch in range(2):
        for first in range(0, 4, accumulate):
            steps = range(first, min(first + accumulate, 4))
            progress = [(epoch + s / 4) / 2 for s in steps]
            gammas = [0.3 * (min(1.0, p / share) if share else 1.0) for p in progress]
            gated.zero_grad()
            price = penalty(gated, 1.0)
            nats += [float(price.detach())] * len(steps)
            (price * sum(gammas) / len(steps)).backward()
            lr = 0.1 * 0.5 * (1 + torch.cos(torch.pi * torch.tensor(progress[-1], dtype=float)))
            with torch.no_grad():
                for p in gated.gates.parameters():
                    p.sub_(float(lr) * p.grad)
    for a, b in zip(fitted.gated.gates.parameters(), gated.gates.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    records = [r.nats for r in fitted.history]
    assert records == pytest.approx([sum(nats[:4]) / 4, sum(nats[4:]) / 4], rel=1e-5)


def mlp_again():
    """The same network, made without touching the random state."""
    with torch.random.fork_rng(devices=[]):
        return mlp()


def test_rates_follow_their_schedules(monkeypatch):
    seen, real = [], loop._step

    def watched(state, clip):
        seen.append([g["lr"] for g in state.optimizer.param_groups])
        real(state, clip)

    monkeypatch.setattr(loop, "_step", watched)
    settings = Settings(
        batch=16, dense_epochs=5, gate_epochs=1, tune_epochs=1, lr=1.0, gate_lr=2.0, tune_lr=0.5,
        dense_schedule="halving", gate_schedule="cosine", optimizer="adam", gamma=0.0,
    )  # fmt: skip
    fit(mlp(), Toy(), lambda y, _t: y.sum() * 0, settings)
    halved = [[0.5 ** (10 * k // 20)] for k in range(20)]
    assert seen[:20] == halved
    cosine = [0.5 * (1 + torch.cos(torch.tensor(torch.pi * k / 4)).item()) for k in range(4)]
    for (a, b), c in zip(seen[20:24], cosine, strict=True):
        assert (a, b) == (pytest.approx(c, abs=1e-6), pytest.approx(2 * c, abs=1e-6))
    assert [x for (x,) in seen[24:]] == pytest.approx([0.5 * c for c in cosine], abs=1e-6)


class Line(Toy):
    """y = A x + b + noise of deviation 0.1, of which least squares knows the best fit."""

    def __init__(self):
        random = torch.Generator().manual_seed(0)
        self.x = torch.randn(64, 3, generator=random, dtype=torch.float64)
        slope = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], dtype=torch.float64)
        noise = 0.1 * torch.randn(64, 2, generator=random, dtype=torch.float64)
        self.y = self.x @ slope.T + 0.7 + noise
        self.batch, self.example, self.steps, self.epochs = 64, self.x[:2].clone(), 1, []

    def validation(self):
        return [(self.x, self.y)]


class TwoLinear(nn.Sequential):
    """A line in two steps."""


def test_regression_finds_the_least_squares_and_the_likelihood_of_its_residual():
    line = Line()
    torch.manual_seed(0)
    model = TwoLinear(nn.Linear(3, 8), nn.Linear(8, 2)).double()
    settings = dataclasses.replace(PLAIN, dense_epochs=3000, lr=0.005)
    fitted = fit(model, line, regression(0.1), settings)
    columns = torch.cat([line.x, torch.ones(64, 1, dtype=torch.float64)], 1)
    best = torch.linalg.lstsq(columns, line.y).solution
    residual = (columns @ best - line.y).square()
    with torch.no_grad():
        torch.testing.assert_close(fitted.dense(line.x), columns @ best, rtol=0, atol=1e-6)
    last = fitted.history[-1]
    assert last.validation == pytest.approx(float(residual.mean()), rel=1e-6)
    nats = residual.sum(1).mean() / 0.2 + torch.log(torch.tensor(2 * torch.pi * 0.1))
    assert last.loss == pytest.approx(float(nats), rel=1e-6)


def test_a_function_is_an_objective():
    fitted = fit(mlp(), Toy(), F.cross_entropy, SHORT)
    expected = fit(mlp(), Toy(), classification(), SHORT)
    assert told(fitted)["small"] == told(expected)["small"]
    with torch.no_grad():
        loss = float(F.cross_entropy(expected.dense(Toy().x[:32] + 0.1), Toy().y[:32]))
    assert fitted.history[1].validation == pytest.approx(loss, rel=1e-6)


def test_distillation_is_towards_the_dense_model():
    settings = dataclasses.replace(
        SHORT, gate_epochs=1, distil=1.0, gamma=0.0, gate_lr=1e-9, lr=1e-9, dense_epochs=0
    )
    model = mlp()
    first = fit(model, Toy(), None, settings).history[0].loss
    truth = fit(model, Toy(), None, dataclasses.replace(settings, distil=0.0)).history[0].loss
    assert first < 0.01
    assert truth > 0.5
    half = fit(model, Toy(), None, dataclasses.replace(settings, distil=0.5)).history[0].loss
    assert half == pytest.approx(0.5 * (first + truth), rel=1e-3)


def test_the_teacher_answers_in_evaluation_and_learns_nothing():
    settings = dataclasses.replace(SHORT, gate_epochs=2, distil=0.5, dense_epochs=0)
    model = mlp(norm=True)
    before = copy.deepcopy(model.state_dict())
    dense = fit(model, Toy(), None, settings).dense
    assert same(dict(dense.state_dict()), dict(before))
    assert all(p.grad is None for p in dense.parameters())


def test_autocast_is_for_the_forward_only():
    kinds = []
    model = mlp()
    model[6].register_forward_hook(lambda _m, _i, y: kinds.append(y.dtype))
    settings = dataclasses.replace(SHORT, autocast="bfloat16", gate_epochs=1, dense_epochs=1)
    fitted = fit(model, Toy(), None, settings)
    assert torch.bfloat16 in kinds
    assert {p.dtype for p in fitted.small.parameters()} == {torch.float32}
    kinds.clear()
    fit(model, Toy(), None, dataclasses.replace(settings, autocast=""))
    assert torch.bfloat16 not in kinds


@pytest.mark.parametrize(("given", "stated"), [(0, 4), (3, 4), (5, 4), (0, 0)])
def test_batches_are_as_many_as_stated(given, stated):
    toy = Toy()
    batches = [(toy.x, toy.y)] * given
    toy.train, toy.steps = lambda _epoch: batches, stated
    with pytest.raises(ConfigError, match=r"fit: data.train gave .* batches"):
        fit(mlp(), toy, None, PLAIN)


def test_a_model_without_sites_says_so():
    with pytest.raises(NoSitesError, match=r"Linear has no site that can be gated"):
        fit(nn.Linear(6, 3), Toy(), None, SHORT)


def test_what_is_handed_out_before_the_end_is_what_there_is():
    first = fit(mlp(), Toy(), None, SHORT, seconds=0)
    assert (first.gated, first.small, first.report, first.done) == (None, None, None, False)
    assert [r.phase for r in first.history] == ["dense"]
    whole = fit(mlp(), Toy(), None, SHORT)
    assert isinstance(whole.gated, Gated)
    assert type(whole.small) is nn.Sequential


def test_what_attach_refuses_is_refused_before_training():
    toy = Toy()
    with pytest.raises(ConfigError, match="weights must be one of"):
        fit(mlp(), toy, None, SHORT, options={"weights": "nothing"})
    assert toy.epochs == []


def test_a_run_that_goes_on_takes_away_what_a_stop_left(tmp_path):
    fit(mlp(), Toy(), None, SHORT, folder=tmp_path)
    folder = tmp_path / "checkpoint"
    there = sorted(p.name for p in folder.iterdir())
    (folder / "000000.safetensors").write_bytes(b"of a checkpoint whose JSON went")
    fit(mlp(), Toy(), None, SHORT, folder=tmp_path, resume=True)
    assert sorted(p.name for p in folder.iterdir()) == there
