"""The scalings of gamma against losses written out as the paper and the authors write them."""

import math

import pytest
import torch

from vibnet.errors import ConfigError
from vibnet.information import gamma, rate

# kl_fac; number of gated layers; then what a unit of the first block (width 32), of the last
# conv layer (width 2) and of the hidden dense layer (width 1) is charged for log(1 + snr).
SETTINGS = {
    "CIFAR-10 of BC (D4)": (1.4e-5, 15, 2.24e-4, 1.4e-5, 7e-6),
    "CIFAR-10 of PF and SBP (D6)": (3e-5, 14, 4.8e-4, 3e-5, 1.5e-5),
    "CIFAR-10 of NS (G5)": (1e-5, 16, 1.6e-4, 1e-5, None),
    "CIFAR-100 of RNP (G)": (1e-5, 14, 1.6e-4, 1e-5, 5e-6),
    "CIFAR-100 of NS (G5)": (1.5e-5, 16, 2.4e-4, 1.5e-5, None),
}


@pytest.fixture
def layers():
    generator = torch.Generator().manual_seed(0)
    pairs = [torch.randn(2, n, dtype=torch.float64, generator=generator) for n in (4, 7, 1)]
    return [(mu, log_var) for mu, log_var in pairs]


def test_the_whole_of_equation_9_is_layers_times_our_loss(layers):
    cross_entropy, gamma_eq9 = 0.7, 3e-2
    logs = [torch.log(1 + mu**2 / torch.exp(log_var)).sum() for mu, log_var in layers]
    equation_9 = sum(gamma_eq9 * log for log in logs) + len(layers) * cross_entropy
    ours = gamma.from_equation_9(gamma_eq9, len(layers))
    loss = cross_entropy + ours * sum(rate(*layer).sum() for layer in layers)
    torch.testing.assert_close(equation_9, len(layers) * loss, rtol=1e-12, atol=0.0)


def test_the_loss_of_the_authors_code_is_our_loss_with_width_weights(layers):
    cross_entropy, kl_fac, heights, multipliers = 0.7, 1.4e-5, (32, 16, 1), (1 / 32, 1 / 16, 1)
    theirs = cross_entropy
    for (mu, log_var), height, multiplier in zip(layers, heights, multipliers, strict=True):
        log = torch.log(1 + mu**2 / (torch.exp(log_var) + 1e-8)).sum()
        theirs = theirs + kl_fac * 0.5 * log * multiplier * height * height
    ours = gamma.from_authors_code(kl_fac)
    nats = [rate(*layer).sum() for layer in layers]
    loss = cross_entropy + ours * sum(w * n for w, n in zip((32, 16, 1), nats, strict=True))
    # the 1e-8 that the authors add to sigma^2 is not in ours
    torch.testing.assert_close(theirs, loss, rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_authors_five_settings_have_their_charge_per_unit(name):
    kl_fac, count, first_block, last_conv, dense = SETTINGS[name]
    ours = gamma.from_authors_code(kl_fac)
    charges = [(32, first_block), (2, last_conv)] + ([] if dense is None else [(1, dense)])
    for width, charge in charges:
        assert gamma.to_equation_9(width * ours, count) == pytest.approx(count * charge, rel=1e-12)
        back = gamma.from_equation_9(count * charge, count)
        assert back == pytest.approx(width * ours, rel=1e-12)


def test_the_first_setting_starts_with_a_penalty_of_1_55():
    blocks = [(32, 2 * 64), (16, 2 * 128), (8, 3 * 256), (4, 3 * 512), (2, 3 * 512), (1, 2 * 512)]
    each = rate(torch.ones((), dtype=torch.float64), torch.tensor(-9.0, dtype=torch.float64))
    total = gamma.from_authors_code(1.4e-5) * sum(width * n for width, n in blocks) * each
    assert total.item() == pytest.approx(1.55, abs=0.005)  # two digits were printed


@pytest.mark.parametrize("layers", [1, 2, 16])
@pytest.mark.parametrize("value", [0.0, 1e-9, 0.3, 7.0])
def test_there_and_back_is_the_same_gamma(value, layers):
    there = gamma.to_equation_9(value, layers)
    assert gamma.from_equation_9(there, layers) == pytest.approx(value, rel=1e-12, abs=0.0)
    assert there == pytest.approx(value * layers / 2, rel=1e-12, abs=0.0)


@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf])
def test_a_gamma_that_is_negative_or_not_finite_is_refused(value):
    with pytest.raises(ConfigError, match="gamma_eq9 must be finite and at least 0"):
        gamma.from_equation_9(value, 3)
    with pytest.raises(ConfigError, match=r"to_equation_9.* gamma must be finite and at least 0"):
        gamma.to_equation_9(value, 3)
    with pytest.raises(ConfigError, match="kl_fac must be finite and at least 0"):
        gamma.from_authors_code(value)


@pytest.mark.parametrize("layers", [0, -1, 2.0, 1.5, math.nan, "3"])
def test_a_number_of_layers_that_is_no_count_is_refused(layers):
    with pytest.raises(ConfigError, match="layers must be a whole number, at least 1"):
        gamma.from_equation_9(1e-3, layers)
    with pytest.raises(ConfigError, match="layers must be a whole number, at least 1"):
        gamma.to_equation_9(1e-3, layers)
