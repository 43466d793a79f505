import pytest
import torch
from laws import close_units
from torch import nn

from vibnet import attach, prune
from vibnet.errors import ConfigError


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(3, 1, 6), (6,)])
def test_a_tensor_of_another_rank_than_the_examples_is_refused(shape, training):
    gated = attach(mlp(), torch.randn(2, 6)).train(training)
    message = r"the gate at input 0 of 2 was made for 8 units in dimension 1 of 2, but gets"
    with pytest.raises(ConfigError, match=message):
        gated(torch.randn(shape))


class Widths(nn.Module):
    """Repeats its units as often as a number says."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)
        self.part = 8

    def forward(self, x):
        return self.b(self.a(x)[:, : self.part])


def test_a_tensor_of_another_width_is_refused():
    gated = attach(Widths(), torch.randn(2, 6))
    gated.model.part = 4
    with pytest.raises(ConfigError, match=r"8 units in dimension 1 of 2, .* shape \(2, 4\)"):
        gated(torch.randn(2, 6))


class Rows(nn.Module):
    """Every example is several rows."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.b(self.a(x.flatten(0, 1)).relu())


def test_rows_of_an_example_share_its_draw_whatever_their_number():
    torch.manual_seed(0)  # eight units that are all closed by the relu show nothing
    gated = attach(Rows(), torch.randn(2, 3, 6)).train()
    gated.gate("a").log_var.data.fill_(0.0)
    out = gated(torch.ones(4, 5, 6)).reshape(4, 5, 3)
    torch.testing.assert_close(out, out[:, :1].expand_as(out))
    assert len(out[:, 0].unique(dim=0)) == 4


def test_rows_are_not_guessed_where_the_example_had_one_each():
    gated = attach(Rows(), torch.randn(2, 1, 6)).train()
    with pytest.raises(ConfigError, match=r"1 rows for each of 4 examples, .* \(20, 8\)"):
        gated(torch.ones(4, 5, 6))
    assert gated.eval()(torch.ones(4, 5, 6)).shape == (20, 3)


def test_rows_that_no_number_of_examples_gives_are_refused():
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows = Rows()

        def forward(self, count, x):
            return self.rows(x) + 0 * count.sum()

    gated = attach(Beside(), (torch.randn(2), torch.randn(2, 3, 6))).train()
    with pytest.raises(ConfigError, match=r"3 rows for each of 7 examples"):
        gated(torch.randn(7), torch.randn(4, 5, 6))


class Pair(nn.Module):
    """Reads two inputs with bare weights of its own."""

    def __init__(self):
        super().__init__()
        self.p, self.q = (nn.Parameter(torch.randn(4, 8)) for _ in range(2))

    def forward(self, h, q=None, **more):
        q = more["z"][0] if "z" in more else q
        return nn.functional.linear(h, self.p) + nn.functional.linear(q, self.q)


class Twice(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), Pair(), nn.Linear(4, 2)
        self.call = call

    def forward(self, x):
        return self.c(self.call(self.b, self.a(x).relu()))


@pytest.mark.parametrize(
    "call",
    [lambda b, h: b(h, h), lambda b, h: b(h, q=h), lambda b, h: b(h, z=[h])],
    ids=["positional", "keyword", "list"],
)
def test_a_tensor_given_to_a_module_twice_is_gated_for_both_or_not_at_all(call):
    torch.manual_seed(0)
    gated = attach(Twice(call), torch.randn(2, 6))
    assert "b" not in {p.module for p in gated.graph.places}
    close_units(gated, 0.5, 0)
    assert prune(gated)[1].difference < 1e-10
