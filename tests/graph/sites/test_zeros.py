import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vibnet.graph.capture.capture import capture
from vibnet.graph.labels.labeller import Labeller
from vibnet.graph.labels.rules import TABLE
from vibnet.graph.sites.zeros import Zeros


class Steps(nn.Module):
    """A layer that writes four units, something after it, and a layer that reads."""

    def __init__(self, how):
        super().__init__()
        self.a, self.b, self.how = nn.Linear(3, 4), nn.Linear(4, 2), how
        self.w = nn.Parameter(torch.rand(4))

    def forward(self, x):
        return self.b(self.how(self, self.a(x)))


def surveyed(how):
    """Whether the units are zero where they are read, and the survey with what is read."""
    trace = capture(Steps(how), torch.randn(2, 5, 3))[-1]
    engine = Labeller(dict(TABLE))
    engine.add_model(trace.model)
    engine.add(trace)
    roots, _ = engine.labels.resolve()
    wanted = np.unique(roots[engine.parameters["a.weight"][0][0]])
    number = np.full(engine.labels.count, -1)
    number[wanted] = np.arange(len(wanted))
    zeros = Zeros(engine, trace, 0, number[roots])
    read = next(r for r in engine.reads if r.parameter == "b.weight")
    return zeros, read.source


ZERO = {
    "nothing": lambda m, h: h,
    "weights": lambda m, h: h * m.w,
    "products": lambda m, h: h * torch.exp(h),
    "sums": lambda m, h: h + 2 * h - torch.tanh(h),
    "quotients": lambda m, h: h / 3,
    "powers": lambda m, h: h**3,
    "means": lambda m, h: h.mean(1, keepdim=True),
    "moves": lambda m, h: torch.cat([h[:, 1:], h[:, :1]], 1).flip(1).roll(1, 1),
    "a bare parameter": lambda m, h: h + m.w,  # which closes with them
    "a matrix of answers": lambda m, h: torch.softmax(h @ h.transpose(1, 2), -1) @ h,
    "attention": lambda m, h: F.scaled_dot_product_attention(h, h, h),
    "zeros": lambda m, h: h + torch.zeros_like(h) + torch.zeros(h.shape) + h.new_zeros(h.shape),
    "in place": lambda m, h: F.relu_(h.clone()),
}
OTHER = {
    "a number": lambda m, h: h + 1,
    "a tensor without units": lambda m, h: h + h.shape[1] * torch.ones(5, 1),
    "ones": lambda m, h: h + torch.ones_like(h),
    "exponential": lambda m, h: torch.exp(h),
    "values of an attention": lambda m, h: F.scaled_dot_product_attention(h, h, torch.exp(h)),
    "a quotient of them": lambda m, h: h / (h * h),
    "roots below one": lambda m, h: h.abs() ** -0.5,
    "one part only": lambda m, h: torch.cat([h[:, 1:], h[:, :1].cos()], 1),
    "a sum with something else": lambda m, h: h + h.sigmoid(),
    "a view that is written into": lambda m, h: (h := h * 1, h[:, 0].add_(1))[0],
}


@pytest.mark.parametrize("name", ZERO)
def test_zero_stays_zero(name):
    zeros, x = surveyed(ZERO[name])
    assert zeros.carried(x).all()
    assert zeros.zeros(x).all()


@pytest.mark.parametrize("name", OTHER)
def test_what_is_no_longer_zero_is_known_with_its_cause(name):
    zeros, x = surveyed(OTHER[name])
    assert zeros.carried(x).all()
    assert not zeros.zeros(x).any()
    assert "the model itself" in zeros.cause(x, 0)


def test_the_first_cause_on_the_way_is_named_not_one_beside_it():
    zeros, x = surveyed(lambda m, h: torch.sigmoid(torch.sin(h)) * 2 + h.cos().detach() * 0)
    assert zeros.cause(x, 0).startswith(("sigmoid", "cos"))
