import pytest
import torch

from vibnet.methods import METHODS, Gate, joined


@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_the_contract(name):
    torch.manual_seed(0)
    gates = [METHODS[name](n, torch.empty(1, dtype=torch.float64)) for n in (3, 5)]
    columns = joined(gates)
    assert [c.shape for c in columns] == [(8,)] * len(columns)
    torch.testing.assert_close(columns[0], torch.cat([g.mu for g in gates]))
    z = METHODS[name].draw(columns, torch.zeros(4, 8, dtype=torch.float64))
    torch.testing.assert_close(z, columns[0].expand(4, 8))  # without noise it is the mean
    assert all((g.score() > 1).all() and g.score().shape == g.mu.shape for g in gates)
    assert "3 units" in repr(gates[0])


@pytest.mark.parametrize("name", METHODS)
def test_the_penalty_is_linear_in_the_prices_where_gamma_is_split_between_them(name):
    gate = METHODS[name](6, torch.empty(1, dtype=torch.float64))
    if gate.observes:
        gate.curvature.copy_(torch.rand(6))
    prices = torch.rand(6, dtype=torch.float64)
    one = METHODS[name].penalty(gate.columns(), prices, 0.3)
    other = METHODS[name].penalty(gate.columns(), 0.3 * prices, 1.0)
    assert one > 0
    torch.testing.assert_close(one, other)


def test_a_bare_gate_says_nothing_by_itself():
    gate = Gate(2)
    for ask in (gate.columns, gate.score, lambda: gate.closes_within(1.0)):
        with pytest.raises(NotImplementedError):
            ask()
