import pytest
import torch
from torch.distributions import Normal, kl_divergence

from vibnet.methods import VIBGate


def gate(units=4000, dtype=torch.float64):
    torch.manual_seed(0)
    return VIBGate(units, torch.empty(1, dtype=dtype))


def test_gates_start_at_one_with_little_noise():
    g = gate()
    for value, mean in ((g.mu.detach(), 1.0), (g.log_var.detach(), -9.0)):
        assert abs(value.mean().item() - mean) < 5 * 0.01 / 4000**0.5
        assert 0.009 < value.std().item() < 0.011
    assert not torch.equal(g.mu - 1, g.log_var + 9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gates_are_of_the_type_of_the_weights(dtype):
    g = gate(3, dtype)
    assert g.mu.dtype == g.log_var.dtype == dtype
    assert VIBGate(3).mu.dtype == torch.get_default_dtype()


def test_the_signal_to_noise_ratio_is_that_of_the_multipliers_distribution():
    g = gate(50)
    with torch.no_grad():
        g.mu.normal_()
        g.log_var.normal_()
    z = Normal(g.mu, torch.exp(0.5 * g.log_var))
    torch.testing.assert_close(g.snr(), z.mean**2 / z.variance)


def test_the_rate_is_the_divergence_from_the_best_prior_at_zero():
    """eq. 7: the prior N(0, mu^2 + sigma^2) is what makes the divergence least."""
    g = gate(50)
    with torch.no_grad():
        g.mu.normal_()
        g.log_var.normal_()
    z = Normal(g.mu, torch.exp(0.5 * g.log_var))
    best = (z.mean**2 + z.variance).sqrt()
    torch.testing.assert_close(g.rate(), kl_divergence(z, Normal(torch.zeros_like(best), best)))
    for factor in (0.9, 1.1):
        other = kl_divergence(z, Normal(torch.zeros_like(best), factor * best))
        assert (other > g.rate()).all()


def test_the_rate_pulls_means_to_zero_and_noise_up():
    g = gate(10)
    g.rate().sum().backward()
    assert (g.mu.grad * g.mu > 0).all()
    assert (g.log_var.grad < 0).all()


def test_a_gate_says_how_many_units_it_has():
    assert "7 units" in repr(VIBGate(7))
