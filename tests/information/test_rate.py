"""Rate and snr against torch.distributions, exact big-number logarithms and gradients by hand."""

import math
from fractions import Fraction

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from vibnet.errors import ConfigError
from vibnet.information import rate, snr

MU = torch.tensor([0.0, -0.5, 2.0, 1e-3, -30.0, 1.0], dtype=torch.float64)
LOG_VAR = torch.tensor([0.3, -1.0, 0.0, 4.0, -9.0, 0.0], dtype=torch.float64)


def exact_rate(mu: float, log_var: float) -> float:
    """0.5 * log(1 + mu^2 / e^log_var) with an exact sum: no rounding but in log and exp."""
    sum_of_powers = Fraction(mu) ** 2 / Fraction(math.exp(log_var))
    if sum_of_powers < 1:
        return 0.5 * math.log1p(float(sum_of_powers))
    whole = 1 + sum_of_powers
    shift = whole.numerator.bit_length() - whole.denominator.bit_length()
    return 0.5 * (math.log(float(whole / Fraction(2) ** shift)) + shift * math.log(2))


def test_rate_is_the_kl_to_the_best_zero_mean_prior():
    posterior = Normal(MU, torch.exp(0.5 * LOG_VAR))
    best_prior = Normal(0.0, (MU.square() + LOG_VAR.exp()).sqrt())
    expected = kl_divergence(posterior, best_prior)
    # the KL is a difference of terms near 1: what is left of 1e-16 shows at small rates
    torch.testing.assert_close(rate(MU, LOG_VAR), expected, rtol=1e-12, atol=1e-15)


def test_no_other_zero_mean_prior_has_a_smaller_kl_than_the_rate():
    posterior = Normal(MU, torch.exp(0.5 * LOG_VAR))
    best = (MU.square() + LOG_VAR.exp()).sqrt()
    for factor in (0.5, 0.9, 0.999, 1.001, 1.1, 3.0):
        assert (kl_divergence(posterior, Normal(0.0, best * factor)) > rate(MU, LOG_VAR)).all()


def test_snr_is_the_square_of_the_mean_over_the_variance():
    expected = [m**2 / math.exp(v) for m, v in zip(MU.tolist(), LOG_VAR.tolist(), strict=True)]
    torch.testing.assert_close(
        snr(MU, LOG_VAR), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0.0
    )


@pytest.mark.parametrize("log_var", [-80.0, -40.0, -9.0, 0.0, 9.0, 80.0])
@pytest.mark.parametrize("mu", [0.0, 1e-20, -1e-6, 1e-3, 0.999, 1.0, -1.001, 30.0, 1e3, -1e15])
def test_rate_is_right_to_the_dtype_at_extreme_values(mu, log_var):
    expected = exact_rate(mu, log_var)
    means, variances = torch.tensor([mu]).double(), torch.tensor([log_var]).double()
    got = rate(means, variances)
    assert got.item() == pytest.approx(exact_rate(means.item(), log_var), rel=1e-12, abs=0.0)
    # below 1e-38 float32 has no normal numbers
    got = rate(means.float(), variances.float())
    assert got.item() == pytest.approx(expected, rel=1e-5, abs=1e-38)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_and_right_from_noise_free_to_closed(dtype):
    mu, log_var = torch.meshgrid(
        torch.tensor([0.0, 1e-18, -1e-9, 1e-4, 0.999, -1.0, 1.001, 7.0, -1e12], dtype=dtype),
        torch.tensor([-80.0, -30.0, -9.0, 0.0, 3.0, 60.0], dtype=dtype),
        indexing="ij",
    )
    mu, log_var = mu.clone().requires_grad_(), log_var.clone().requires_grad_()
    rate(mu, log_var).sum().backward()
    wide_mu, wide_var = mu.detach().double(), log_var.detach().double().exp()
    total = wide_mu.square() + wide_var
    tolerance = {"rtol": 1e-5, "atol": 1e-37} if dtype == torch.float32 else {"rtol": 1e-12}
    tolerance.setdefault("atol", 0.0)
    torch.testing.assert_close(mu.grad.double(), wide_mu / total, **tolerance)
    torch.testing.assert_close(log_var.grad.double(), -0.5 * wide_mu.square() / total, **tolerance)


def test_rate_and_snr_pass_gradcheck_twice_also_at_a_closed_unit():
    mu = torch.tensor([0.0, -0.4, 3.0], dtype=torch.float64, requires_grad=True)
    log_var = torch.tensor([0.1, -1.0, 0.5], dtype=torch.float64, requires_grad=True)
    for function in (rate, snr):
        assert torch.autograd.gradcheck(function, (mu, log_var))
        assert torch.autograd.gradgradcheck(function, (mu, log_var))


def test_a_closed_unit_costs_exactly_nothing_and_feels_no_force_on_its_noise():
    mu, log_var = torch.zeros(3), torch.tensor([-80.0, 0.0, 80.0], requires_grad=True)
    nats = rate(mu, log_var)
    nats.sum().backward()
    assert nats.tolist() == snr(mu, log_var).tolist() == [0.0, 0.0, 0.0]
    assert log_var.grad.tolist() == [0.0, 0.0, 0.0]


def test_rate_does_not_see_the_sign_of_the_mean():
    assert torch.equal(rate(-MU, LOG_VAR), rate(MU, LOG_VAR))
    assert torch.equal(snr(-MU, LOG_VAR), snr(MU, LOG_VAR))


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 3)])
def test_every_shape_comes_back_unsummed(shape):
    ones = torch.ones(shape, dtype=torch.float64)
    assert rate(ones, 0 * ones).shape == snr(ones, 0 * ones).shape == shape
    assert torch.all(rate(ones, 0 * ones) == 0.5 * math.log(2))


@pytest.mark.parametrize("function", [rate, snr])
def test_shapes_that_would_broadcast_are_refused(function):
    message = rf"{function.__name__}\(mu, log_var\): mu has shape \(3,\).* \(1,\).*same shape"
    with pytest.raises(ConfigError, match=message):
        function(torch.ones(3), torch.ones(1))
