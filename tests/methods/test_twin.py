import math

import pytest
import torch
from torch import nn

import vibnet
from vibnet.information import best_variance
from vibnet.methods import L1Twin, RhoTwin
from vibnet.train.shrink import shrink


def wide(kind, mu):
    gate = kind(len(mu), torch.empty(1, dtype=torch.float64))
    with torch.no_grad():
        gate.mu.copy_(torch.tensor(mu, dtype=torch.float64))
    return gate


def test_a_unit_stays_while_its_multiplier_is_above_a_fiftieth():
    gate = wide(L1Twin, [0.0201, -0.0201, 0.0199, -0.0199, 0.0])
    assert (gate.score() > 1).tolist() == [True, True, False, False, False]
    assert gate.closes_within(0.0).tolist() == [False, False, True, True, True]
    assert gate.closes_within(0.01).tolist() == [True] * 5
    assert wide(L1Twin, [0.5]).closes_within(0.47).tolist() == [False]


def test_the_penalty_of_the_first_twin_is_the_size_of_the_multipliers():
    gate = wide(L1Twin, [0.5, -2.0])
    price = torch.tensor([1.0, 3.0], dtype=torch.float64)
    assert L1Twin.penalty(gate.columns(), price, 0.1).item() == pytest.approx(0.1 * (0.5 + 6))


def test_the_penalty_of_the_second_twin_is_vibs_at_the_best_variance():
    """min over s of a s + g / 2 log(1 + mu^2 / s), by eq. 17: from the loss, not from rho."""
    mu, a, gamma = 0.7, 0.02, 3e-3
    gate = wide(RhoTwin, [mu])
    gate.curvature.fill_(a)
    ours = RhoTwin.penalty(gate.columns(), torch.ones(1, dtype=torch.float64), gamma).item()
    s = float(best_variance(torch.tensor(mu, dtype=torch.float64), gamma / 2 / a))
    grid = [s * f for f in (0.5, 0.9, 1.0, 1.1, 2.0)]
    costs = [a * v + gamma / 2 * math.log1p(mu * mu / v) for v in grid]
    assert min(costs) == costs[2] == pytest.approx(ours, rel=1e-9)


def test_a_twin_whose_loss_is_flat_pays_nothing_and_stays_finite():
    gate = wide(RhoTwin, [0.0, 1.0])
    value = RhoTwin.penalty(gate.columns(), torch.ones(2, dtype=torch.float64), 1e-3)
    value.backward()
    assert 0 <= value.item() < 1e-6
    assert gate.mu.grad.isfinite().all()


def test_curvature_is_half_the_mean_square_gradient_of_the_examples():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1, bias=False)).double()
    x, y = torch.randn(64, 3).double(), torch.randn(64, 1).double()
    gated = vibnet.attach(model, x[:2], method="twin-rho").train()
    (0.5 * (gated(x) - y).square().mean()).backward()
    h = torch.tanh(model[0](x))
    mu = gated.gate("0").mu.detach()
    out = (mu * h) @ model[2].weight[0]
    each = (out - y[:, 0])[:, None] * model[2].weight[0] * h  # of an example, in a multiplier
    expected = 0.01 * 0.5 * each.square().mean(0)
    torch.testing.assert_close(gated.gate("0").curvature, expected.detach())


@pytest.mark.parametrize("method", ["twin-l1", "twin-rho"])
def test_a_twin_trains_shrinks_and_prunes_exactly(method):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2)).double()
    x = torch.randn(200, 6).double()
    y = (x[:, :1] * x[:, 1:2] > 0).long()[:, 0]
    gated = vibnet.attach(model, x[:2], method=method)
    optimizer = torch.optim.Adam(vibnet.parameter_groups(gated, 1e-2, 1e-2))
    for step in range(600):
        loss = nn.functional.cross_entropy(gated(x), y) + vibnet.penalty(gated, 1e-2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in (300, 450):
            shrink(gated, optimizer)
    small, _ = vibnet.prune(gated.eval())
    assert 0 < small[0].out_features < 16
    torch.testing.assert_close(small.eval()(x), gated(x), rtol=0, atol=1e-12)


def test_an_unknown_method_is_refused():
    with pytest.raises(vibnet.errors.ConfigError, match="method must be one of vib, twin-l1"):
        vibnet.attach(
            nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), torch.zeros(1, 2), method="x"
        )
