import pytest
import torch
import torch.nn.functional as F
from laws import law_one
from liveliness import lively
from torch import nn

from vibnet import attach, prune
from vibnet.errors import FoldError, NoSitesError
from vibnet.graph.sites.detours import Detour
from vibnet.graph.trial.probe import analyse

X = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Shared(nn.Module):
    """A reader whose weight is also used turned round, so no multiplier fits into it."""

    def __init__(self, between):
        super().__init__()
        self.write = nn.Linear(5, 6)
        self.between = between
        self.read = nn.Linear(6, 7, bias=False)
        self.out = nn.Linear(6, 2)

    def forward(self, x):
        y = self.read(self.between(self.write(x)))
        return self.out(F.linear(torch.tanh(y), self.read.weight.t()))


class Scale(nn.Module):
    def __init__(self, seen_elsewhere=False):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(6))
        self.seen_elsewhere = seen_elsewhere

    def forward(self, x):
        y = torch.tanh(x) * self.scale + self.shift
        return y + torch.tanh(self.scale) if self.seen_elsewhere else y


class Twice(nn.Module):
    """What lies between is read a second time."""

    def __init__(self):
        super().__init__()
        self.norm, self.other = nn.BatchNorm1d(6), nn.Linear(6, 6)

    def forward(self, x):
        y = self.norm(x)
        return y + self.other(y)


class Before(nn.Module):
    """A scale and a shift that stand in front of what they meet."""

    def __init__(self):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(6))

    def forward(self, x):
        return self.shift + self.scale * torch.tanh(x)


class InTraining(nn.Module):
    """A scale that only evaluation sees alone."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(6))

    def forward(self, x):
        y = torch.tanh(x) * self.scale
        return y + torch.tanh(self.scale) if self.training else y


class InEvaluation(nn.Module):
    """A scale that training never sees, and evaluation sees twice."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(6))

    def forward(self, x):
        if self.training:
            return torch.tanh(x)
        return torch.tanh(x + torch.tanh(self.scale)) * self.scale


class Temperature(nn.Module):
    """One number for all units."""

    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return torch.tanh(x) * self.temperature


def reader(gated, dim=1):
    return next(r for r in gated.graph.readers if r.parameter == "read.weight" and r.dim == dim)


def of(between):
    model = Shared(between).double()
    lively(model, X, 0)
    return model


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        (nn.BatchNorm1d(6), Detour((("between.weight", 0), ("between.bias", 0)))),
        (Scale(), Detour((("between.shift", 0), ("between.scale", 0)))),
        (Before(), Detour((("between.shift", 0), ("between.scale", 0)))),
        (nn.Sequential(nn.Dropout(0.1)), Detour((("write.weight", 0), ("write.bias", 0)))),
    ],
)
def test_multipliers_of_either_sign_find_another_place(between, expected):
    gated = attach(of(between), X, include=["write"])
    assert not reader(gated).foldable
    assert reader(gated).detour == expected


@pytest.mark.parametrize(
    "between", [nn.BatchNorm1d(6), Scale(), nn.Dropout(0.1), nn.BatchNorm1d(6, affine=True)]
)
def test_law_one_holds_on_the_detour(between):
    assert law_one(Shared(between), X, include=["write"]) is not None


def test_the_writer_takes_positive_multipliers_through_a_relu():
    torch.manual_seed(0)
    gated = attach(of(nn.ReLU()), X, include=["write"])
    assert "relu in between" in reader(gated).detour.positive
    mu = gated.gate("write").mu.data
    mu.uniform_(0.5, 1.5)
    gated.gate("write").log_var.data[2] = 5.0
    _, report = prune(gated)
    assert report.difference < 1e-12
    mu[1] = -1.0
    with pytest.raises(FoldError, match=r"relu in between .* lets only positive .* 1 of 5"):
        prune(gated)


@pytest.mark.parametrize(
    "between",
    [
        *(nn.Tanh(), nn.BatchNorm1d(6, affine=False), Scale(seen_elsewhere=True), Twice()),
        *(InTraining(), InEvaluation(), Temperature()),
    ],
)
def test_without_such_a_place_the_site_has_no_gate(between):
    with pytest.raises(NoSitesError, match=r"write: .*read.weight is also used elsewhere"):
        attach(of(between), X, include=["write"])


class Product(nn.Module):
    """A product that keeps its units on both sides."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6))

    def forward(self, x):
        return x @ self.weight


class Square(nn.Module):
    """What lies between is a product whose rows and columns are the same units."""

    def __init__(self):
        super().__init__()
        self.write, self.out = nn.Linear(5, 6), nn.Linear(6, 2)
        self.square, self.read = Product(), nn.Linear(6, 7, bias=False)

    def forward(self, x):
        h = self.write(x)
        y = self.read(self.square(h))
        return self.out(F.linear(torch.tanh(y), self.read.weight.t()) + h)


def test_a_weight_that_holds_the_units_twice_takes_no_multipliers():
    model = Square().double()
    lively(model, X, 0)
    graph = analyse(model, X)
    rows, columns = graph.parameters["square.weight"]
    assert rows.tolist() == columns.tolist() == graph.parameters["write.weight"][0].tolist()
    read = next(r for r in graph.readers if r.parameter == "read.weight")
    assert read.detour is None
    with pytest.raises(NoSitesError, match=r"write: .*also used elsewhere"):
        attach(model, X, include=["write"])
