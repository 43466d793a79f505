"""True information of a unit against scipy quadrature, simulation, closed forms and limits."""

import math
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import entr
from scipy.stats import norm

from vibnet.errors import ConfigError
from vibnet.information import kl_to_best_prior, psi, rate, unit_information


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def one(mu: float, log_var: float, f: torch.Tensor) -> float:
    """The information of a single unit."""
    numbers = torch.tensor([[mu], [log_var]], dtype=torch.float64)
    (nats,) = unit_information(*numbers, f).tolist()
    return nats


def by_quadrature(mu: float, log_var: float, f: torch.Tensor) -> float:
    """Entropy of h less that given f, integrated over h itself, piece by piece."""
    values = f.flatten().numpy()
    alive = values[values != 0]
    centres, widths = mu * alive, math.exp(log_var / 2) * np.abs(alive)

    def entropy_density(h: float) -> float:
        return entr(norm.pdf(h, centres, widths).mean())

    steps = (-12, -8, -5, -3, -2, -1, 0, 1, 2, 3, 5, 8, 12)
    edges = np.unique(np.concatenate([centres + step * widths for step in steps]))
    pieces = [quad(entropy_density, a, b, epsabs=1e-13, limit=200)[0] for a, b in pairwise(edges)]
    given_f = np.mean(0.5 * np.log(2 * np.pi * np.e * widths**2))
    share = len(alive) / len(values)
    return entr(share) + entr(1 - share) + share * (sum(pieces) - given_f)


CASES = {
    "signs": column(1.0, -1.0),
    "near": column(1.0, 1.5),
    "far": column(0.01, -3.0),
    "unequal shares": column(-2.0, -2.0, -2.0, 0.7),
    "with a zero": column(0.0, 0.0, 1.0, 2.0, -0.3),
    "five": column(1.0, -1.2, 3.0, 0.2, -0.05),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("log_var", [-6.0, -3.0, 0.0, 2.0])
@pytest.mark.parametrize("mu", [0.0, 1.0, -0.6])
def test_information_is_the_entropy_of_h_less_that_given_f(name, log_var, mu):
    # scipy's rule stops at 1e-13 a piece and there are up to sixty pieces
    assert one(mu, log_var, CASES[name]) == pytest.approx(
        by_quadrature(mu, log_var, CASES[name]), abs=1e-10, rel=0.0
    )


@pytest.mark.parametrize("ratio", [6.9, 7.1, 8.9, 9.1, 9.9, 10.1, 30.0])
def test_nothing_jumps_where_the_window_of_the_grid_changes_its_form(ratio):
    f = column(1.0, 1.1, 1.3, -0.8, -0.9, 0.5)
    log_var = -2 * math.log(ratio)
    assert one(1.0, log_var, f) == pytest.approx(by_quadrature(1.0, log_var, f), abs=1e-10, rel=0.0)


def test_information_is_the_mean_log_ratio_of_a_simulation():
    random = np.random.default_rng(0)
    f = np.maximum(random.normal(size=40), 0.0)
    mu, sigma = 0.9, 0.4
    alive = f[f != 0]
    chosen = random.choice(alive, size=200_000)
    h = (mu + sigma * random.normal(size=chosen.size)) * chosen
    mixture = sum(norm.pdf(h, mu * value, sigma * value) for value in alive) / len(alive)
    logs = norm.logpdf(h, mu * chosen, sigma * chosen) - np.log(mixture)
    share = len(alive) / len(f)
    expected = entr(share) + entr(1 - share) + share * logs.mean()
    four_errors = 4 * share * logs.std() / math.sqrt(logs.size)
    got = one(mu, 2 * math.log(sigma), torch.from_numpy(f)[:, None])
    assert got == pytest.approx(expected, abs=four_errors, rel=0.0)
    assert four_errors < 0.01


@pytest.mark.parametrize("share", [1e-3, 0.25, 0.5, 0.999])
@pytest.mark.parametrize("log_var", [-9.0, 0.0, 9.0])
@pytest.mark.parametrize("mu", [0.0, -1.0])
def test_a_unit_that_is_on_or_off_tells_exactly_whether_it_is_on(share, log_var, mu):
    zeros = round(1000 * share)
    f = torch.cat([torch.zeros(zeros, 1), 3 * torch.ones(1000 - zeros, 1)])
    expected = entr(zeros / 1000) + entr(1 - zeros / 1000)
    assert one(mu, log_var, f) == pytest.approx(expected, rel=1e-12)


def test_a_constant_activation_tells_nothing_at_any_noise():
    f = torch.tensor([[2.0, 0.0, -1.0]] * 4)
    f[1, 1] = -0.0  # minus zero is zero
    for log_var in (-math.inf, -40.0, 0.0, 40.0):
        nats = unit_information(torch.ones(3), torch.full((3,), log_var), f)
        assert nats.tolist() == [0.0, 0.0, 0.0]


def test_a_closed_gate_hides_the_sign_but_not_the_size():
    assert one(0.0, 0.3, column(2.0, -2.0)) == pytest.approx(0.0, abs=1e-14)
    assert one(0.0, 0.3, column(2.0, -2.0, 0.2)) > 0.1


@pytest.mark.parametrize("f", [column(1.0, 2.0), column(1.0, -1.0), column(0.0, 1.0)])
def test_without_noise_information_is_infinite_unless_the_gate_is_closed(f):
    assert one(0.5, -math.inf, f) == math.inf
    assert one(0.0, -math.inf, f) == 0.0


def test_signs_alone_come_to_the_rate_when_noise_is_strong_and_to_one_bit_when_weak():
    f, one_unit = column(1.0, -1.0), torch.ones(1, dtype=torch.float64)
    weak = -math.log(1e-4) * one_unit
    # the series is snr / 2 - snr^2 / 4, and the same for the rate: they part at snr^3
    assert unit_information(one_unit, weak, f).item() == pytest.approx(
        rate(one_unit, weak).item(), rel=1e-7
    )
    assert one(1.0, -9.0, f) == pytest.approx(math.log(2), rel=1e-12)


@pytest.mark.parametrize("samples", [3, 1000])
def test_with_hardly_any_noise_information_is_the_entropy_of_the_samples(samples):
    f = torch.linspace(-1.0, 2.0, samples, dtype=torch.float64)[:, None] + 0.1234
    assert one(1.0, -60.0, f) == pytest.approx(math.log(samples), rel=1e-10)
    doubled = torch.cat([f, f[:1]])  # one value twice as likely
    expected = (samples - 1) * entr(1 / (samples + 1)) + entr(2 / (samples + 1))
    assert one(1.0, -60.0, doubled) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("snr", "tolerance"), [(1e4, 1e-10), (1e8, 1e-10), (1e12, 1e-8)])
def test_accuracy_at_a_high_snr_is_as_stated(snr, tolerance):
    ratio = math.sqrt(snr)
    f = 1234.5 * column(1.0, 1 + 1.7 / ratio, 1 - 2.2 / ratio)
    # in units of the noise of the first sample, and from its mean
    widths = (f / f[0]).flatten().numpy()
    centres = (ratio * (f - f[0]) / f[0]).flatten().numpy()
    mixture = quad(lambda h: entr(norm.pdf(h, centres, widths).mean()), -15, 15, epsabs=1e-13)[0]
    expected = mixture - np.mean(0.5 * np.log(2 * np.pi * np.e * widths**2))
    assert one(1.0, -math.log(snr), f) == pytest.approx(expected, abs=tolerance, rel=0.0)


@pytest.mark.parametrize("log_var", [-1000.0, -80.0, 80.0, 1000.0])
def test_extreme_noise_stays_between_zero_and_the_entropy_of_the_samples(log_var):
    nats = one(1.0, log_var, column(-1e-300, 1e-20, 1.0, 1e300, 0.0))
    expected = math.log(5)  # sizes so far apart are told apart by any noise
    assert nats == pytest.approx(expected, rel=1e-9)
    assert 0 <= one(1.0, log_var, column(1.0, 1.1)) <= math.log(2) * (1 + 1e-12)


def test_information_depends_on_the_snr_and_on_f_up_to_scale_only():
    f = torch.randn(60, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = one(0.7, -1.0, f)
    shift = 2 * math.log(5)
    same = [
        one(-0.7, -1.0, f),
        one(0.7 * 5, -1.0 + shift, f),
        one(0.7, -1.0, -1e-8 * f),
        one(0.7, -1.0, f.flip(0)),
        one(0.7, -1.0, torch.cat([f, f, f])),
    ]
    assert same == pytest.approx([expected] * 5, abs=1e-11, rel=0.0)


def test_units_do_not_see_each_other_and_narrow_numbers_are_welcome():
    random = torch.Generator().manual_seed(1)
    mu, log_var = torch.randn(2, 4, generator=random)
    f = torch.randn(30, 4, generator=random).relu().requires_grad_()
    together = unit_information(mu, log_var, f)
    assert together.dtype == torch.float64
    assert not together.requires_grad
    apart = [one(mu[j].item(), log_var[j].item(), f[:, j : j + 1]) for j in range(4)]
    assert together.tolist() == pytest.approx(apart, rel=1e-12)
    assert unit_information(mu[:0], mu[:0], f[:, :0]).shape == (0,)


def test_many_samples_are_taken_in_parts_that_change_nothing(monkeypatch):
    # the package gives the name of the file to its function
    module = sys.modules["vibnet.information.unit_information"]
    f = torch.randn(500, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = one(1.0, 0.0, f)
    monkeypatch.setattr(module, "ELEMENTS", 7 * 1200)
    assert one(1.0, 0.0, f) == pytest.approx(expected, rel=1e-12)


numbers = st.floats(-20, 20, allow_subnormal=False).map(lambda x: 0.0 if abs(x) < 1e-6 else x)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    st.lists(numbers, min_size=1, max_size=12),
    st.floats(-3, 3),
    st.floats(-12, 8),
)
def test_information_is_at_most_the_bound_of_equation_7_and_the_entropy_of_the_samples(
    values, mu, log_var
):
    f, mean, noise = column(*values), *torch.tensor([[mu], [log_var]], dtype=torch.float64)
    nats = unit_information(mean, noise, f).item()
    assert -1e-12 <= nats <= math.log(len(values)) + 1e-12
    assert nats <= kl_to_best_prior(mean, noise, f, delta=0.0).item() + 1e-12
    # with zeros eq. 7 is infinite; split off what they tell, and it bounds the rest
    alive = f[f != 0][:, None]
    share = len(alive) / len(f)
    if len(alive):
        rest = (rate(mean, noise) + psi(alive, delta=0.0) / 2).item()
        assert nats <= entr(share) + entr(1 - share) + share * rest + 1e-12


@settings(max_examples=30, derandomize=True, deadline=None)
@given(st.lists(numbers, min_size=2, max_size=8), st.floats(-8, 6), st.floats(0.01, 2))
def test_more_noise_never_tells_more(values, log_var, more):
    f = column(*values)
    assert one(1.0, log_var + more, f) <= one(1.0, log_var, f) + 1e-10


@pytest.mark.parametrize(
    ("name", "unit", "value"),
    [("mu", 1, math.nan), ("mu", 0, math.inf), ("log_var", 1, math.nan), ("log_var", 0, math.inf)],
)
def test_numbers_that_are_not_finite_are_refused_by_name_and_unit(name, unit, value):
    arguments = {"mu": torch.ones(2), "log_var": torch.zeros(2), "f": torch.ones(3, 2)}
    arguments[name][unit] = value
    with pytest.raises(ConfigError, match=rf"{name} is NaN or infinite in 1 of 2.*\[{unit}\]"):
        unit_information(**arguments)


def test_activations_that_are_not_finite_are_refused_by_unit():
    f = torch.ones(3, 4)
    f[1, 2], f[2, 2], f[0, 0] = math.nan, 1.0, -math.inf
    with pytest.raises(ConfigError, match=r"f is NaN or infinite in 2 of 4 units.*\[0, 2\]"):
        unit_information(torch.ones(4), torch.zeros(4), f)


@pytest.mark.parametrize(
    ("mu", "log_var", "f", "message"),
    [
        (torch.ones(2), torch.ones(1), torch.ones(3, 2), "same shape"),
        (torch.ones(2), torch.ones(2), torch.ones(3, 1), "one column for each"),
        (torch.ones(2), torch.ones(2), torch.ones(2), "floating-point table"),
        (torch.ones(2), torch.ones(2), torch.ones(0, 2), "at least one sample"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(mu, log_var, f, message):
    with pytest.raises(ConfigError, match=rf"unit_information\(mu, log_var, f\): .*{message}"):
        unit_information(mu, log_var, f)
