"""psi, the KL of eq. 7, and eq. 17 and 18 against decimals, minimisers and torch.distributions."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.distributions import Normal, kl_divergence

from vibnet.errors import ConfigError
from vibnet.information import (
    best_variance,
    kl_to_best_prior,
    penalised_curvature,
    psi,
    rank_bound,
    rho,
)

EXACT = {"rtol": 1e-12, "atol": 1e-14}
MEANS = [0.0, 1e-12, -1e-3, 0.3, -1.0, 5.0, 1e4, -1e8]
OMEGAS = [1e-12, 1e-4, 0.7, 30.0, 1e9]


def activations(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def decimal_rho(mu: float, omega: float) -> float:
    with localcontext() as context:
        context.prec = 60
        size, weight = abs(Decimal(mu)), Decimal(omega)
        root = (size**2 + 4 * weight).sqrt()
        return float(2 * size / (size + root) + (2 * weight + size**2 + size * root).ln())


def decimal_best_variance(mu: float, omega: float) -> float:
    with localcontext() as context:
        context.prec = 60
        size, weight = abs(Decimal(mu)), Decimal(omega)
        return float((size * (size**2 + 4 * weight).sqrt() - size**2) / 2)


@pytest.mark.parametrize("delta", [0.0, 1e-3, 2.0])
def test_psi_is_the_log_of_the_mean_less_the_mean_of_the_log(delta):
    f = activations(7, 3)
    expected = []
    for unit in f.T.tolist():
        powers = [value**2 + delta**2 for value in unit]
        logs = [math.log(power) for power in powers]
        expected.append(math.log(math.fsum(powers) / 7) - math.fsum(logs) / 7)
    torch.testing.assert_close(
        psi(f, delta=delta), torch.tensor(expected, dtype=torch.float64), **EXACT
    )


@pytest.mark.parametrize("delta", [1e-30, 1e-3, 1.0])
def test_psi_of_a_unit_that_is_half_the_time_zero_is_as_by_hand(delta):
    f = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    by_hand = math.log((1 + 2 * delta**2) / 2) - math.log(delta) - 0.5 * math.log1p(delta**2)
    assert psi(f, delta=delta).item() == pytest.approx(by_hand, rel=1e-12)


def test_psi_is_zero_for_one_magnitude_and_for_a_dead_unit_and_else_positive():
    f = torch.tensor([[2.0, 0.0, 1.0], [-2.0, 0.0, 1.5], [2.0, 0.0, -1.0]], dtype=torch.float64)
    for delta in (0.0, 1e-6, 1.0):
        constant, dead, varying = psi(f, delta=delta).tolist()
        assert constant == pytest.approx(0.0, abs=1e-15)
        assert dead == 0.0
        assert varying > 0.01


def test_psi_without_delta_is_infinite_where_and_only_where_a_live_unit_has_a_zero():
    f = torch.tensor([[0.0, 1.0, 0.0], [1.0, 2.0, 0.0]])
    assert psi(f, delta=0.0).isinf().tolist() == [True, False, False]
    assert psi(f, delta=1e-30).isfinite().all()


def test_psi_depends_neither_on_scale_nor_on_signs_nor_on_order():
    f = activations(50, 2)
    expected = psi(f, delta=1e-3)
    torch.testing.assert_close(psi(-1e9 * f, delta=1e6), expected, **EXACT)
    torch.testing.assert_close(psi(f.abs().flip(0), delta=1e-3), expected, **EXACT)


def test_psi_holds_in_float32_where_squares_overflow_or_vanish():
    f = activations(20, 2)
    f[0] = 0
    for scale in (1e-25, 1.0, 1e25):
        got = psi((f * scale).float(), delta=1e-3 * scale)
        torch.testing.assert_close(got.double(), psi(f, delta=1e-3), rtol=1e-5, atol=0.0)


def test_psi_has_the_gradient_of_its_formula():
    f = activations(5, 2)
    f[0, 0] = 0
    f.requires_grad_()
    assert torch.autograd.gradcheck(lambda g: psi(g, delta=0.1), f)


def test_psi_of_one_sample_is_zero_and_of_no_unit_is_empty():
    assert psi(activations(1, 4), delta=0.0).abs().max() < 1e-15
    assert psi(activations(4, 0), delta=0.0).shape == (0,)


@pytest.mark.parametrize("delta", [-1.0, math.nan, math.inf])
def test_psi_refuses_a_delta_that_is_no_floor(delta):
    with pytest.raises(ConfigError, match=r"psi\(f, delta=...\): delta must be finite"):
        psi(activations(3, 2), delta=delta)


def test_psi_refuses_a_single_row_without_axes():
    with pytest.raises(ConfigError, match=r"psi\(f, delta=...\): f has shape \(3,\)"):
        psi(activations(3), delta=0.0)


def test_equation_7_is_the_least_mean_kl_over_all_zero_mean_priors():
    mu, log_var = torch.tensor([0.8, 0.0, -2.0]).double(), torch.tensor([-2.4, 0.5, 1.0]).double()
    f = activations(9, 3)
    posterior = Normal(mu * f, (0.5 * log_var).exp() * f.abs())

    def mean_kl(unit: int, log_xi: float) -> float:
        return kl_divergence(posterior, Normal(0.0, math.exp(log_xi / 2)))[:, unit].mean().item()

    for unit, got in enumerate(kl_to_best_prior(mu, log_var, f, delta=0.0).tolist()):
        best = minimize_scalar(lambda log_xi, unit=unit: mean_kl(unit, log_xi), bracket=(-1, 1))
        assert got == pytest.approx(best.fun, rel=1e-12)


def test_the_kl_needs_a_column_for_every_unit():
    with pytest.raises(ConfigError, match=r"kl_to_best_prior.*mu has shape \(1,\) and f"):
        kl_to_best_prior(torch.ones(1), torch.ones(1), torch.ones(5, 2), delta=0.0)


@pytest.mark.parametrize("omega", OMEGAS)
def test_rho_and_the_best_variance_agree_with_sixty_digits(omega):
    mu = torch.tensor(MEANS, dtype=torch.float64)
    rhos = torch.tensor([decimal_rho(m, omega) for m in MEANS], dtype=torch.float64)
    variances = [decimal_best_variance(m, omega) for m in MEANS]
    torch.testing.assert_close(rho(mu, omega), rhos, rtol=1e-12, atol=1e-12)
    expected = torch.tensor(variances, dtype=torch.float64)
    torch.testing.assert_close(best_variance(mu, omega), expected, rtol=1e-12, atol=0.0)
    tensor_omega = torch.full_like(mu, omega)
    assert torch.equal(rho(mu, tensor_omega), rho(mu, omega))
    assert torch.equal(best_variance(mu, tensor_omega), best_variance(mu, omega))


@pytest.mark.parametrize("mu", [1e-3, -0.4, 3.0])
@pytest.mark.parametrize(("curvature", "gamma"), [(0.01, 2.0), (1.0, 1.0), (50.0, 1e-2)])
def test_equation_17_is_the_minimum_over_a_grid_of_variances(mu, curvature, gamma):
    grid = np.logspace(-12, 6, 2_000_001)
    costs = curvature * grid + gamma * np.log1p(mu**2 / grid)
    omega, mean = gamma / curvature, torch.tensor(mu, dtype=torch.float64)
    # neighbours on the grid differ by 2e-5: the place is known to that, the value to its square
    found = best_variance(mean, omega).item()
    assert found == pytest.approx(grid[costs.argmin()], rel=1e-4)
    least = gamma * (rho(mean, omega).item() - math.log(2 * omega))
    assert least == pytest.approx(costs.min(), rel=1e-8)
    at_best = penalised_curvature(mean, best_variance(mean, omega), curvature, gamma)
    assert at_best.item() == pytest.approx(least, rel=1e-12, abs=1e-13)


def test_the_penalised_curvature_is_its_formula_and_broadcasts():
    mu, variance = torch.tensor([0.0, 0.3, -2.0]).double(), torch.tensor([0.5, 1e-8, 4.0]).double()
    curvature = torch.tensor([0.0, 3.0, 1.0], dtype=torch.float64)
    expected = [
        a * s + 0.7 * math.log1p(m * m / s)
        for m, s, a in zip(mu.tolist(), variance.tolist(), curvature.tolist(), strict=True)
    ]
    got = penalised_curvature(mu, variance, curvature, 0.7)
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), **EXACT)


def test_no_noise_costs_nothing_for_a_closed_unit_and_infinity_for_an_open_one():
    mu = torch.tensor([0.0, 0.1], requires_grad=True)
    cost = penalised_curvature(mu, torch.zeros(2), 1.0, 1.0)
    assert cost.tolist() == [0.0, math.inf]
    cost[0].backward()
    assert mu.grad[0].item() == 0.0


@pytest.mark.parametrize("omega", [1e-3, 1.0, 1e3])
def test_rho_has_its_stated_slope_and_is_even_rising_and_concave(omega):
    mu = torch.linspace(1e-3, 9, 400, dtype=torch.float64, requires_grad=True)
    values = rho(mu, omega)
    (slope,) = torch.autograd.grad(values.sum(), mu)
    with torch.no_grad():
        torch.testing.assert_close(slope, 4 / (mu + (mu**2 + 4 * omega).sqrt()), **EXACT)
        assert torch.equal(rho(-mu, omega), values)
        assert (values.diff() > 0).all()
        assert (slope.diff() < 0).all()


def test_rho_is_the_l1_norm_for_a_large_omega():
    mu, omega = torch.tensor([-3.0, 0.0, 0.5, 7.0], dtype=torch.float64), 1e12
    shape = (rho(mu, omega) - math.log(2 * omega)) * math.sqrt(omega) / 2
    # the next term of the series is (mu / sqrt(omega)) / 4; rho itself is 28 with 1e-16 of it
    torch.testing.assert_close(shape, mu.abs(), rtol=1e-5, atol=1e-8)


def test_rho_is_the_l0_norm_for_a_small_omega():
    mu = torch.tensor([-3.0, 0.0, 0.5, 7.0], dtype=torch.float64)
    errors = []
    for omega in (1e-20, 1e-100, 1e-300):
        shape = (rho(mu, omega) - math.log(2 * omega)) / -math.log(omega)
        errors.append((shape - (mu != 0).double()).abs().max().item())
    # it gets there like 1 / log(1 / omega)
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] == pytest.approx((1 + math.log(49)) / math.log(1e300), rel=1e-12)


@pytest.mark.parametrize("function", [rho, best_variance])
@pytest.mark.parametrize("omega", [0.0, -1.0, math.nan, torch.tensor([1.0, 0.0])])
def test_an_omega_that_is_not_positive_is_refused(function, omega):
    with pytest.raises(ConfigError, match=rf"{function.__name__}\(mu, omega\): omega must be"):
        function(torch.ones(2), omega)


@pytest.mark.parametrize("name", ["variance", "curvature", "gamma"])
def test_a_negative_cost_is_refused(name):
    arguments = {"variance": torch.ones(2), "curvature": 1.0, "gamma": 1.0}
    arguments[name] = torch.tensor([1.0, -1.0])
    with pytest.raises(ConfigError, match=rf"penalised_curvature\(.*\): {name} must be"):
        penalised_curvature(torch.ones(2), **arguments)


@pytest.mark.parametrize("rank", [0, 1, 3, 5])
def test_the_rank_bound_is_one_above_the_rank(rank):
    factor = activations(6, rank, seed=1) @ activations(rank, 5, seed=2)
    assert rank_bound(factor) == rank + 1


@pytest.mark.parametrize("factor", [torch.ones(3), torch.ones(2, 2, dtype=torch.int64)])
def test_the_rank_bound_refuses_what_is_no_matrix(factor):
    with pytest.raises(ConfigError, match=r"rank_bound\(factor\): factor has shape"):
        rank_bound(factor)
