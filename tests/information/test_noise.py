"""The multiplier against a slow loop, torch.distributions and its own statistics."""

import math

import pytest
import torch
from torch.distributions import Normal

from vibnet.errors import ConfigError
from vibnet.information import draw


def random_numbers(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_a_draw_is_the_mean_plus_noise_times_the_standard_deviation():
    mu, log_var, noise = (random_numbers(*s, seed=i) for i, s in enumerate([(3,), (3,), (5, 3)]))
    expected = [
        [mu[j].item() + noise[i, j].item() * math.sqrt(math.exp(log_var[j])) for j in range(3)]
        for i in range(5)
    ]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(draw(mu, log_var, noise), expected, rtol=1e-12, atol=1e-15)


def test_draws_have_the_stated_mean_and_variance():
    mu = torch.tensor([-1.0, 0.0, 3.0], dtype=torch.float64)
    log_var = torch.tensor([-2.0, 0.0, 1.0], dtype=torch.float64)
    # exact statistics, not a random sample: equally likely quantiles of the standard normal
    levels = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    noise = Normal(0.0, 1.0).icdf(levels)[:, None].expand(-1, 3)
    drawn = draw(mu, log_var, noise)
    torch.testing.assert_close(drawn.mean(dim=0), mu, rtol=1e-12, atol=1e-12)
    # 20,000 quantiles leave 1e-4 of the variance in the tails
    torch.testing.assert_close(drawn.var(dim=0), log_var.exp(), rtol=3e-4, atol=0.0)


def test_a_draw_is_pure():
    mu, log_var, noise = torch.ones(2), torch.zeros(2), random_numbers(4, 2, seed=0).float()
    before = torch.get_rng_state(), mu.clone(), log_var.clone(), noise.clone()
    first, second = draw(mu, log_var, noise), draw(mu, log_var, noise)
    assert torch.equal(first, second)
    after = torch.get_rng_state(), mu, log_var, noise
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_gradients_reach_mean_and_log_variance():
    mu = torch.tensor([0.0, -2.0], dtype=torch.float64, requires_grad=True)
    log_var = torch.tensor([-9.0, 0.5], dtype=torch.float64, requires_grad=True)
    noise = random_numbers(3, 2, seed=1)
    draw(mu, log_var, noise).sum().backward()
    assert mu.grad.tolist() == [3.0, 3.0]
    expected = noise.sum(dim=0) * log_var.detach().exp().sqrt() / 2
    torch.testing.assert_close(log_var.grad, expected, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("log_var", [-math.inf, -400.0])
def test_without_noise_every_example_gets_the_mean(log_var):
    mu = torch.tensor([1.0, 0.0, -3.0])
    drawn = draw(mu, torch.full((3,), log_var), torch.ones(2, 3))
    assert drawn.tolist() == [[1.0, 0.0, -3.0]] * 2


def test_no_example_and_one_unit_are_fine():
    assert draw(torch.ones(1), torch.zeros(1), torch.ones(0, 1)).shape == (0, 1)
    assert draw(torch.ones(1), torch.zeros(1), torch.ones(1, 1)).tolist() == [[2.0]]


@pytest.mark.parametrize("shape", [(3,), (4, 1), (4, 3, 3), (3, 4), ()])
def test_noise_that_is_not_one_number_per_example_and_unit_is_refused(shape):
    with pytest.raises(ConfigError, match=r"noise has shape .*mu has shape \(3,\).*examples"):
        draw(torch.ones(3), torch.ones(3), torch.ones(shape))


def test_means_and_log_variances_of_other_shapes_are_refused():
    with pytest.raises(ConfigError, match=r"draw\(mu, log_var, noise\): mu .*same shape"):
        draw(torch.ones(3), torch.ones(1), torch.ones(2, 3))
