import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from states import set_snr
from torch import nn
from training import SHORT, Toy, mlp, same, told

import vibnet
from vibnet.config import Settings
from vibnet.errors import ConfigError
from vibnet.layers import Constant
from vibnet.surgery.gated import Gated
from vibnet.train import budget as budgets
from vibnet.train.budget import Budget
from vibnet.train.evaluate import validate
from vibnet.train.loop import fit
from vibnet.train.objective import classification
from vibnet.train.steer import INTEGRAL, PROPORTIONAL, Steering

LONG = dataclasses.replace(SHORT, dense_epochs=5, gate_epochs=20, gate_lr=0.05, gamma=1e-3)


def steering(text, **changes):
    settings = Settings(**changes)
    return Steering(Budget.parse(text), settings, 10_000)


def whole(gated):
    return np.ones(gated.graph.total, dtype=np.bool_)


def gated():
    return vibnet.attach(mlp(), Toy().example)


def test_the_wanted_cost_falls_evenly_on_a_logarithmic_scale():
    made = steering("weights=1%")
    made.begin(gated())
    assert made.base == 6 * 16 + 16 * 12 + 12 * 3
    lag = 3 / (0.01 * 10_000)
    assert made.wanted(0.0) == made.wanted(lag) == made.base
    half = made.wanted((lag + 0.65) / 2)
    assert half == pytest.approx(0.1 * made.base)
    assert made.wanted(0.65) == made.wanted(1.0) == pytest.approx(made.limit)


def test_gamma_follows_the_stated_rule():
    made, model = steering("weights=10%", gamma=0.5), gated()
    made.begin(model)
    assert made.gamma == 0.5
    total, before = 0.0, 0.0
    for progress, closed in ((0.1, 0), (0.2, 2), (0.22, 12)):
        set_snr(model, "0", [0.1] * closed + [9.0] * (16 - closed))
        wanted = made.wanted(progress)
        made.look(model, progress, whole=True)
        cost = 6 * (16 - closed) + (16 - closed) * 12 + 36
        gap = math.log(cost / wanted) / math.log(10)
        total += INTEGRAL * gap * (progress - before)
        expected = 0.5 * math.exp(total + PROPORTIONAL * gap)
        assert made.gamma == pytest.approx(expected)
        before = progress


def test_the_cost_is_to_fall_from_where_it_is_when_it_fell_below():
    made, model = steering("weights=10%"), gated()
    made.begin(model)
    set_snr(model, "0", [0.1] * 10 + [9.0] * 6)
    made.look(model, 0.2, whole=True)
    braked = made.gamma
    cost = 6 * 6 + 6 * 12 + 36
    assert made.wanted(0.2) == pytest.approx(cost)
    assert made.wanted((0.2 + 0.65) / 2) == pytest.approx((cost * made.limit) ** 0.5)
    assert made.wanted(0.65) == pytest.approx(made.limit)
    made.look(model, 0.21, whole=True)  # nothing has changed: it brakes no longer
    assert braked < made.gamma < made.settings.gamma
    for k in range(22, 60):
        made.look(model, k / 100, whole=True)
    assert made.gamma > made.settings.gamma  # for nothing fell since


def test_below_the_limit_gamma_falls_until_units_come_back():
    made, model = steering("weights=50%"), gated()
    made.begin(model)
    set_snr(model, "0", [0.1] * 15 + [9.0])
    gammas = []
    for k in range(1, 60):
        made.look(model, k / 100, whole=True)
        gammas.append(made.gamma)
    assert made.start == made.limit
    assert gammas == sorted(gammas, reverse=True)


def test_gamma_stays_within_bounds():
    made, model = steering("weights=10%", gamma=1.0), gated()
    made.begin(model)
    for k in range(1, 400):
        made.look(model, k / 400)
    assert made.gamma == pytest.approx(math.exp(12))
    made.budget = Budget.parse("weights=100%")
    made.look(model, 1.0, whole=True)
    assert made.gamma == pytest.approx(math.exp(-12))


def test_an_error_is_approached_from_below():
    made = steering("error=2", gamma=1.0)
    made.begin(gated())
    assert made.gamma == pytest.approx(0.25)
    made.judge(1.0, 0.2, 10)  # far below: a whole step
    assert made.gamma == pytest.approx(0.25 * math.exp(0.8))
    made.judge(1.8, 0.2, 10)  # half a standard error below what is aimed at
    assert made.gamma == pytest.approx(0.25 * math.exp(0.8 + 0.4))
    made.judge(9.0, 0.2, 10)  # far above: back, twice as fast
    assert made.gamma == pytest.approx(0.25 * math.exp(0.8 + 0.4 - 1.6))


@pytest.mark.parametrize("text", ["weights=15%", "macs=100", "memory=60%", "weights=100%"])
@pytest.mark.parametrize("changes", [{}, {"shrink": False}, {"ema": 0.5}, {"tune_epochs": 2}])
@pytest.mark.parametrize("gamma", [1e-6, 1e-1])
def test_a_run_keeps_its_budget_and_is_one_unit_below_it_at_most(text, changes, gamma):
    settings = dataclasses.replace(LONG, budget=text, gamma=gamma, **changes)
    fitted = fit(mlp(), Toy(), None, settings)
    budget = Budget.parse(text)
    dense = gated()
    limit = budget.limit(budget.cost(dense, whole(dense)))
    cost = vibnet.measure(fitted.small, Toy().example)
    reached = {"macs": cost.macs, "weights": cost.weights, "memory": cost.peak_memory}[budget.kind]
    coarsest = {"macs": 12 + 6, "weights": 12 + 6, "memory": 4 * (12 + 6 + 1) + 8}[budget.kind]
    assert limit - coarsest < reached <= limit
    assert fitted.budget["asked"] == text
    assert fitted.budget["limit"] == limit
    assert 0 < fitted.budget["unit"] <= coarsest + 1
    assert limit - fitted.budget["unit"] - 8 < reached


def test_widths_stay_after_the_cut():
    fitted = fit(mlp(), Toy(), None, dataclasses.replace(LONG, budget="weights=20%"))
    widths = [r.kept for r in fitted.history if r.phase == "gate"]
    assert len({str(w) for w in widths[16:]}) == 1  # after 85 % of 20 epochs
    assert widths[16] != widths[0]
    assert [r.gamma for r in fitted.history[:5]] == [0.0] * 5
    assert len({r.gamma for r in fitted.history[5:]}) > 5


def test_units_are_left_for_the_budget_while_shrinking():
    """A gamma that closes all at once: what is physically there stays above the limit."""
    settings = dataclasses.replace(LONG, budget="weights=60%", gamma=100.0, gate_lr=0.5)
    fitted = fit(mlp(), Toy(), None, settings)
    weights = vibnet.measure(fitted.small, Toy().example).weights
    assert 0.6 * 324 - 18 < weights <= 0.6 * 324


@pytest.mark.parametrize("text", ["weights=20%", "error=20"])
@pytest.mark.parametrize("moment", [7, 20, 23])
def test_a_run_with_a_budget_goes_on_as_it_would_have(text, moment, tmp_path):
    settings = dataclasses.replace(LONG, budget=text, ema=0.9 if moment == 20 else 0.0)
    straight = fit(mlp(), Toy(), None, settings)
    seen = []

    class Stop(Exception):
        pass

    def stop(record):
        seen.append(record)
        if len(seen) == moment:
            raise Stop

    with pytest.raises(Stop):
        fit(mlp(), Toy(), None, settings, folder=tmp_path, save_every=0, on_epoch=stop)
    resumed = fit(mlp(), Toy(), None, settings, folder=tmp_path, resume=True, save_every=0)
    assert same(told(resumed), told(straight))
    assert resumed.budget == straight.budget


def test_an_error_that_is_kept_costs_what_units_can_be_spared():
    toy = Toy()
    loose = fit(mlp(), toy, None, dataclasses.replace(LONG, budget="error=60"))
    strict = fit(mlp(), toy, None, dataclasses.replace(LONG, budget="error=3"))
    sizes = [vibnet.measure(f.small, toy.example).weights for f in (loose, strict)]
    errors = [validate(f.small, toy.validation(), classification()) for f in (loose, strict)]
    assert sizes[0] < sizes[1]
    assert errors[1] <= 3
    assert errors[0] <= 60


def test_units_go_by_their_scores_while_the_error_allows():
    model = gated()
    set_snr(model, "0", [0.5] * 4 + [2.0] * 4 + [50.0] * 8)
    set_snr(model, "4", [3.0] * 6 + [80.0] * 6)
    made = steering("error=10")
    made.begin(model)
    asked = []

    def error_of(gate):
        asked.append(int(gate.kept().sum()))
        return 5.0 if asked[-1] >= 14 + 6 - 6 else 50.0

    kept = made.final(model, error_of, 0.0)
    assert kept.sum() == 14  # the four of 2.0 and the six of 3.0 have gone
    assert model.threshold == 1.0
    assert (made.trimmed, made.live, made.left) == (True, 10, 14)


def test_many_units_in_use_that_are_cut_are_a_warning():
    settings = dataclasses.replace(LONG, budget="weights=10%", gate_lr=1e-4)
    fitted = fit(mlp(), Toy(), None, settings)
    assert any("units that were in use have been cut" in text for text in fitted.warnings)
    settings = dataclasses.replace(LONG, budget="weights=100%")
    assert not fit(mlp(), Toy(), None, settings).warnings


def test_a_dense_model_above_the_error_is_a_warning_before_the_gates():
    said = []
    settings = dataclasses.replace(LONG, budget="error=0.5", dense_epochs=1, gate_epochs=30)
    fit(mlp(), Toy(), None, settings, on_warning=said.append)
    assert "the budget allows an error of 0.5, but the dense model has" in said[0]


def test_too_few_epochs_to_steer_to_an_error_are_a_warning_and_none_are_refused():
    said, toy = [], Toy()
    settings = dataclasses.replace(LONG, budget="error=50", gate_epochs=5, gate_lr=0.5)
    fit(mlp(), toy, None, settings, on_warning=said.append)
    assert "with 5 gate epochs gamma moves fast and may overshoot. Give it 30 or more" in said[0]
    toy.epochs.clear()
    for text in ("error=50", "macs=50%"):
        settings = dataclasses.replace(LONG, budget=text, gate_epochs=0)
        with pytest.raises(ConfigError, match=r"kept by epochs with gates, and gate_epochs is 0"):
            fit(mlp(), toy, None, settings)
    assert toy.epochs == []


def test_what_cannot_be_kept_is_refused_before_training():
    toy = Toy()
    for text, said in (("weights=9", "with one unit left"), ("macs=0.1", "less than one")):
        with pytest.raises(ConfigError, match=said):
            fit(mlp(), toy, None, dataclasses.replace(LONG, budget=text))
    assert toy.epochs == []


def test_a_latency_is_steered_to(monkeypatch):
    """With a clock that goes by the weights, for a real one is too coarse for a small network."""

    def clock(model, *_, **__):
        return 1e-6 * vibnet.measure(model, Toy().example).weights

    monkeypatch.setattr(budgets, "latency", clock)
    fitted = fit(mlp(), Toy(), None, dataclasses.replace(LONG, budget="latency=25%"))
    weights = vibnet.measure(fitted.small, Toy().example).weights
    assert 0.25 * 324 - 18 < weights <= 0.25 * 324


def test_the_state_is_that_of_the_run_alone():
    made = steering("weights=10%")
    made.begin(gated())
    made.look(gated(), 0.5, whole=True)
    other = steering("weights=10%")
    other.restore(copy.deepcopy(made.state()))
    assert other == made
    numbers = [value for value in made.state().values() if not isinstance(value, list)]
    assert torch.tensor(numbers).isfinite().all()


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.down(self.up(x).relu()))


@pytest.mark.parametrize("text", ["macs=20%", "weights=20%"])
def test_a_budget_is_kept_where_a_whole_branch_goes(text):
    model = vibnet.attach(Residual(), Toy().example, remove_branches=True)
    made = Steering(Budget.parse(text), Settings(), 10_000)
    made.begin(model)
    model.gate("up").log_var.data.fill_(5.0)
    kept = made.final(model.eval(), lambda _: 0.0, 0.0)
    assert not kept[next(s.units for s in model.sites if s.name == "up")].any()
    assert made.budget.cost(model, kept) <= made.limit


def test_what_a_branch_leaves_is_costed_without_its_layers(monkeypatch):
    seen = []
    monkeypatch.setattr(budgets, "latency", lambda m, *_, **__: seen.append(m) or 1.0)
    model = vibnet.attach(Residual(), Toy().example, remove_branches=True)
    kept = whole(model)
    kept[next(s.units for s in model.sites if s.name == "up")] = False
    Budget.parse("latency=1ms").cost(model, kept)
    assert isinstance(seen[0].down, Constant)
    assert isinstance(seen[0].up, Constant)


WHOLE = {"remove_branches": True}


@pytest.mark.parametrize("tune_epochs", [0, 2])
def test_a_run_keeps_its_budget_where_a_whole_branch_goes_and_resumes_to_the_last_bit(
    tune_epochs, tmp_path, monkeypatch
):
    def scored(gated, score=Gated.score):
        """The branch's units matter least."""
        found = score(gated)
        found[next(s.units for s in gated.sites if s.name == "up")] *= 1e-6
        return found

    monkeypatch.setattr(Gated, "score", scored)
    torch.manual_seed(0)
    model = Residual()
    settings = SHORT.replaced(budget="macs=20%", tune_epochs=tune_epochs, ema=0.5)
    straight = fit(model, Toy(), None, settings, options=WHOLE)
    assert isinstance(straight.small.up, Constant)
    cost = vibnet.measure(straight.small, Toy().example).macs
    assert 0.5 * straight.budget["limit"] < cost <= straight.budget["limit"]
    if not tune_epochs:
        assert straight.gated.shut == {"up"}
        straight.gated.train()(Toy().x)
        drawn = straight.gated._sample(straight.gated._noise(8))
        zero = [s.name for s, z in zip(straight.gated.sites, drawn, strict=False) if not z.any()]
        assert zero == ["up"]
    part = None
    while part is None or not part.done:
        given = model, Toy(), None, settings
        part = fit(*given, options=WHOLE, folder=tmp_path, resume=True, seconds=0)
    assert told(part) == told(straight)


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv1d(6, 16, 1), nn.Conv1d(16, 16, 1, groups=4)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.second(self.first(x[..., None]).relu()).relu().flatten(1))


@pytest.mark.parametrize(
    ("network", "options", "together"),
    [(mlp, {}, 1), (mlp, {"multiple": 4}, 4), (Grouped, {}, 4)],
)
def test_a_unit_costs_what_the_dearest_least_step_saves(network, options, together):
    made = steering("macs=75%")
    model = vibnet.attach(network(), Toy().example, **options)
    made.begin(model)
    for k, site in enumerate(model.sites):  # the first site's units go first
        set_snr(model, site.name, [9.0 * (k + 2) - 0.1 * n for n in range(site.size)])
    kept = made.final(model.eval(), lambda _: 0.0, 0.0)
    now, saved = made.budget.cost(model, kept), []
    for site in model.sites:
        stays = site.units[kept[site.units]]
        less = kept.copy()
        less[stays[np.argsort(model.score()[stays])[:together]]] = False
        if network is Grouped:  # the lowest of every group
            less = kept.copy()
            groups = np.array_split(stays, 4)
            less[[group[np.argmin(model.score()[group])] for group in groups]] = False
        assert (model.legal(less) == less).all()
        saved.append(now - made.budget.cost(model, less))
    assert len(set(saved)) > 1
    assert made.unit == max(saved)


def test_a_budget_is_checked_once_before_training_and_not_again(monkeypatch, tmp_path):
    seen = []
    check = Budget.check
    monkeypatch.setattr(Budget, "check", lambda self, g: seen.append(1) or check(self, g))
    settings = SHORT.replaced(budget="weights=50%")
    fit(mlp(), Toy(), None, settings, folder=tmp_path, seconds=0)
    assert len(seen) == 1
    fit(mlp(), Toy(), None, settings, folder=tmp_path, resume=True)
    assert len(seen) == 1


def test_a_budget_without_a_gamma_to_steer_is_refused():
    with pytest.raises(ConfigError, match=r"kept by a multiple of gamma, and gamma is 0"):
        fit(mlp(), Toy(), None, SHORT.replaced(budget="weights=50%", gamma=0.0))


def test_the_path_begins_at_three_tenths_at_the_latest():
    made = steering("weights=1%", gate_lr=1e-6)
    made.begin(gated())
    assert made.wanted(0.3) == made.base
    assert made.wanted(0.31) < made.base


def test_once_cut_the_cost_is_looked_at_no_more():
    made, model = steering("weights=10%"), gated()
    made.begin(model)
    made.trimmed = True
    before = copy.deepcopy(made.state())
    made.look(model, 0.9, whole=True)
    assert made.state() == before


def test_the_integral_turns_round_at_its_bound():
    made, model = steering("weights=10%", gamma=1.0), gated()
    made.begin(model)
    for k in range(1, 400):
        made.look(model, k / 400)
    assert made.total == 12.0
    set_snr(model, "0", [0.1] * 15 + [9.0])
    set_snr(model, "4", [0.1] * 11 + [9.0])
    made.look(model, 1.0, whole=True)
    assert made.log < 12.0  # at once, not after all that was summed up has gone


def test_the_cut_comes_when_the_whole_of_its_share_is_over():
    made = steering("weights=10%")
    assert [epoch for epoch in range(1, 11) if made.due(epoch, 10)] == [9, 10]
    made.trimmed = True
    assert not made.due(10, 10)
