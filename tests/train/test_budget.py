import numpy as np
import pytest
import torch
from laws import close_units
from states import set_snr
from torch import nn
from training import Toy, mlp

import vibnet
from vibnet.errors import ConfigError
from vibnet.train import budget as budgets
from vibnet.train.budget import Budget, least_kept, shown


@pytest.mark.parametrize(
    ("text", "kind", "amount", "percent"),
    [
        ("macs=5%", "macs", 5.0, True),
        ("macs=115k", "macs", 115_000.0, False),
        ("weights=3k", "weights", 3000.0, False),
        ("weights=.5M", "weights", 500_000.0, False),
        ("memory=200kB", "memory", 200_000.0, False),
        ("memory=2MiB", "memory", 2.0 * 2**20, False),
        ("latency=2ms", "latency", 0.002, False),
        ("latency=50%", "latency", 50.0, True),
        ("error=1.6", "error", 1.6, False),
    ],
)
def test_budgets_are_read_as_they_are_written(text, kind, amount, percent):
    found = Budget.parse(text)
    assert (found.kind, found.percent, found.text) == (kind, percent, text)
    assert found.amount == pytest.approx(amount)
    assert found.limit(1000.0) == pytest.approx(10 * amount if percent else amount)
    assert Budget.parse("") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("macs", "is not a kind, '=', and a number. Kinds are macs, weights, memory"),
        ("size=5%", "is not a kind"),
        ("macs=five", "is not a kind"),
        ("macs=-5%", "is not a kind"),
        ("macs=1e5", "is not a kind"),
        ("macs=0", "'macs=0' must be above 0."),
        ("error=0", "'error=0' must be above 0."),
        ("weights=\u0663k", "is not a kind, '=', and a number"),
        ("macs=101%", "must be above 0, and at most 100 %"),
        ("macs=0.05", "less than one. For a share of the dense model write 'macs=5%'"),
        ("weights=3q", "has no unit of weights. Write 'k' or 'M' or 'G' or '%'"),
        ("memory=200", "has no unit of memory. Write 'B' or 'kB'"),
        ("latency=2", "has no unit of latency. Write 'us' or 'ms' or 's' or '%'"),
        ("error=5%", "has no unit of error. Write the number alone"),
    ],
)
def test_what_is_no_budget_is_refused(text, said):
    with pytest.raises(ConfigError, match="budget: ") as found:
        Budget.parse(text)
    assert said in str(found.value)


def test_one_unit_of_a_size_and_all_of_it_are_budgets():
    assert Budget.parse("weights=1").amount == 1.0
    assert Budget.parse("macs=100%").limit(50.0) == 50.0


def test_units_without_a_gate_stay_however_little_is_allowed():
    model = vibnet.attach(mlp(), torch.randn(2, 6), include=["0"])
    kept = Budget.parse("weights=1").fitting(model.eval(), 1.0)
    gated_only = next(s.units for s in model.sites)
    assert kept[gated_only].sum() == 1
    assert np.delete(kept, gated_only).all()


def gated():
    torch.manual_seed(0)
    return vibnet.attach(mlp(norm=True).double(), torch.randn(2, 6).double())


@pytest.mark.parametrize("kind", ["macs", "weights", "memory"])
def test_a_cost_is_that_of_the_model_that_is_really_cut(kind):
    made = gated()
    close_units(made, 0.5, seed=3)
    small, _ = vibnet.prune(made.eval())
    cost = vibnet.measure(small, made.example)
    expected = {"macs": cost.macs, "weights": cost.weights, "memory": cost.peak_memory}[kind]
    budget = Budget.parse(f"{kind}=50%")
    assert budget.cost(made, made.kept()) == expected
    assert budget.cost(made, np.ones(made.graph.total, dtype=np.bool_)) > expected


def test_a_latency_is_that_of_a_really_smaller_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 3000), nn.ReLU(), nn.Linear(3000, 3000), nn.ReLU())
    model.append(nn.Linear(3000, 2))
    made = vibnet.attach(model, torch.randn(1, 64))
    budget = Budget.parse("latency=10ms")
    whole = budget.cost(made, np.ones(made.graph.total, dtype=np.bool_))
    assert 0 < 5 * budget.cost(made, least_kept(made)) < whole


@pytest.mark.parametrize("kind", ["macs", "weights", "memory"])
@pytest.mark.parametrize("percent", [37, 64, 90, 100])
def test_what_fits_is_at_most_one_unit_below_the_limit(kind, percent):
    made = gated()
    torch.manual_seed(percent)
    for site, _ in made.all_gates():
        set_snr(made, site.name, (9 * torch.rand(site.size)).tolist())
    budget = Budget.parse(f"{kind}={percent}%")
    limit = budget.limit(budget.cost(made, np.ones(made.graph.total, dtype=np.bool_)))
    kept = budget.fitting(made, limit)
    assert budget.cost(made, kept) <= limit
    score = made.score()
    if percent == 100:
        assert kept.all()
        return
    more = kept.copy()
    more[np.argmax(np.where(kept, -np.inf, score))] = True  # the best unit that went
    assert made.legal(more).sum() == kept.sum() + 1
    assert budget.cost(made, more) > limit
    assert score[kept].min() > score[~kept].max()


def test_units_that_evaluation_closes_come_back_where_the_budget_has_room():
    made = gated()
    for site, _ in made.all_gates():
        set_snr(made, site.name, np.linspace(0.01, 0.9, site.size).tolist())
    budget = Budget.parse("weights=50%")
    limit = budget.limit(budget.cost(made, np.ones(made.graph.total, dtype=np.bool_)))
    assert budget.cost(made, made.kept()) < 0.3 * limit
    assert 0.8 * limit < budget.cost(made, budget.fitting(made, limit)) <= limit


def test_a_budget_below_what_one_unit_a_site_costs_is_refused_with_both_numbers():
    made = gated()
    least = Budget.parse("weights=1k").cost(made, least_kept(made))
    assert least == 6 + 1 + 3
    Budget.parse("weights=10").check(made)
    with pytest.raises(ConfigError, match=r"allows 9 weights, but with one unit left at every"):
        Budget.parse("weights=9").check(made)
    Budget.parse("error=0.1").check(made)


def test_amounts_are_shown_with_their_units():
    assert shown("macs", 93930) == "93,930 multiply-adds"
    assert shown("memory", 2500) == "2.5 kB"
    assert shown("latency", 0.00123) == "1.23 ms"
    assert shown("error", 1.6) == "1.6"


def test_a_latency_is_the_least_of_three(monkeypatch):
    times = [3.0, 1.0, 2.0, 9.0]
    monkeypatch.setattr(budgets, "latency", lambda *_, **__: times.pop(0))
    gated = vibnet.attach(mlp(), Toy().example)
    kept = np.ones(gated.graph.total, dtype=np.bool_)
    assert Budget.parse("latency=50%").cost(gated, kept) == 1.0
    assert times == [9.0]


def test_a_latency_is_refused_by_the_least_of_turns(monkeypatch):
    gated = vibnet.attach(mlp(), Toy().example)
    small = least_kept(gated)

    def timed(costs):
        left = {True: list(costs[0]), False: list(costs[1])}
        monkeypatch.setattr(Budget, "cost", lambda _s, _g, m: left[(m == small).all()].pop(0))

    timed([(9.0, 4.9, 9.0), (10.0, 10.0, 30.0)])
    Budget.parse("latency=50%").check(gated)
    timed([(9.0, 5.1, 9.0), (30.0, 10.0, 30.0)])
    with pytest.raises(ConfigError, match="with one unit left at every gated site"):
        Budget.parse("latency=50%").check(gated)
