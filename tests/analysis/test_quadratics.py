import math

import pytest
import torch

from vibnet import information
from vibnet.analysis import quadratics as module
from vibnet.analysis.quadratics import is_minimum, minimum, quadratics
from vibnet.errors import ConfigError


def problem(rank, units, seed=0):
    random = torch.Generator().manual_seed(seed)
    factor = torch.randn(rank, units, generator=random, dtype=torch.float64)
    return factor, factor @ torch.randn(units, generator=random, dtype=torch.float64), random


def cost(factor, target, gamma, mu):
    omega = gamma / factor.square().sum(0)
    penalty = information.rho(mu, omega) - torch.log(2 * omega)
    return (factor @ mu - target).square().sum(-1) + gamma * penalty.sum(-1)


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_no_small_step_goes_down_from_a_minimum(rank):
    factor, target, random = problem(rank, 8, seed=rank)
    start = torch.randn(8, generator=random, dtype=torch.float64)
    mu = minimum(factor, target, 0.1, start)
    assert is_minimum(factor, 0.1, mu)
    assert 0 < int((mu != 0).sum()) <= information.rank_bound(factor)
    here = float(cost(factor, target, 0.1, mu))
    assert here < float(cost(factor, target, 0.1, start))
    for size in (1e-2, 1e-3):
        for _ in range(200):
            step = torch.randn(8, generator=random, dtype=torch.float64)
            assert float(cost(factor, target, 0.1, mu + size * step)) > here


def test_one_unit_is_at_the_lowest_point_of_a_fine_grid():
    factor, target = torch.tensor([[2.0]]).double(), torch.tensor([3.0]).double()
    mu = minimum(factor, target, 0.5, torch.tensor([5.0]).double())
    grid = torch.linspace(0.0, 3.0, 300_001, dtype=torch.float64)
    values = (2 * grid - 3).square() + 0.5 * information.rho(grid, 0.5 / 4)
    assert float(mu) == pytest.approx(float(grid[values.argmin()]), abs=2e-5)


def test_a_saddle_is_no_minimum():
    factor = torch.tensor([[1.0, 1.0]]).double()
    assert not is_minimum(factor, 0.1, torch.tensor([0.5, 0.5]).double())
    assert is_minimum(factor, 0.1, torch.tensor([1.0, 0.0]).double())
    assert is_minimum(factor, 0.1, torch.zeros(2).double())


@pytest.mark.parametrize(("slope", "good"), [(0.3, True), (0.6, False)])
def test_the_curvature_is_that_of_the_cost(slope, good):
    """Along the direction that two leaning columns see least, by differences."""
    factor = torch.tensor([[1.0, slope], [0.0, (1 - slope**2) ** 0.5]]).double()
    mu, step = torch.tensor([0.05, 0.05]).double(), 1e-4 * torch.tensor([1.0, -1.0]).double()
    ends = torch.stack([mu - step, mu, mu + step])
    values = (ends @ factor.T).square().sum(1) + 0.2 * information.rho(ends, 0.2).sum(1)
    assert (float(values[0] + values[2] - 2 * values[1]) > 0) is good
    assert is_minimum(factor, 0.2, mu) is good


def test_what_has_no_minimum_is_refused():
    factor, target, _ = problem(2, 3)
    factor[:, 1] = 0
    with pytest.raises(ConfigError, match=r"a column of the factor is 0"):
        minimum(factor, target, 0.1, torch.ones(3).double())
    factor, target, _ = problem(2, 3)
    with pytest.raises(ConfigError, match=r"not at rest after 1 sweeps"):
        minimum(factor, target, 0.1, torch.ones(3).double(), sweeps=1)


def test_the_experiment_counts_open_units_and_their_information(monkeypatch):
    monkeypatch.setattr(module, "RANKS", (1, 3))
    monkeypatch.setattr(module, "STARTS", 3)
    monkeypatch.setattr(module, "UNITS", 6)
    said = []
    body = quadratics(said.append)
    assert len(said) == 2
    for row, rank in zip(body["rows"], (1, 3), strict=True):
        assert (row["rank"], row["bound"]) == (rank, rank + 1)
        assert 1 <= row["fewest_open"] <= row["most_open"] <= rank + 1
        assert row["most_nats_of_a_closed_unit"] == 0.0
        assert row["least_nats_of_an_open_unit"] > 0.1
    shapes = body["rho"]["shapes"]
    assert shapes["100"]["from_l1"] < 0.01
    assert shapes["1e-06"]["from_l0"] < shapes["1"]["from_l0"]
    assert all(s["values"][0] == 0 and math.isclose(s["values"][-1], 1) for s in shapes.values())
