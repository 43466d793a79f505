import math

import pytest

from vibnet.train.schedule import rate, rise

SHARES = [k / 200 for k in range(200)]


def test_a_cosine_falls_from_one_to_zero_around_its_middle():
    assert rate("cosine", 0.0) == 1.0
    assert abs(rate("cosine", 1.0)) < 1e-15
    values = [rate("cosine", p) for p in SHARES]
    assert values == sorted(values, reverse=True)
    for p in SHARES:
        assert rate("cosine", p) == pytest.approx(math.cos(math.pi * p / 2) ** 2, abs=1e-15)
        assert rate("cosine", p) + rate("cosine", 1 - p) == pytest.approx(1.0, abs=1e-15)


def test_a_constant_is_constant():
    assert {rate("constant", p) for p in SHARES} == {1.0}


@pytest.mark.parametrize("epochs", [10, 20, 30, 70, 90, 300])
def test_halving_halves_at_every_tenth_of_the_epochs(epochs):
    values = [rate("halving", epoch / epochs) for epoch in range(epochs)]
    assert values == [0.5 ** (10 * epoch // epochs) for epoch in range(epochs)]
    assert rate("halving", 1.0) == 2.0**-10


def test_a_rise_is_a_line_and_then_one():
    assert [rise(0.5, p) for p in (0.0, 0.125, 0.25, 0.5, 0.75)] == [0.0, 0.25, 0.5, 1.0, 1.0]
    assert {rise(0.0, p) for p in SHARES} == {1.0}
    assert [rise(1.0, p) for p in SHARES] == SHARES
