import numpy as np
import torch
from torch import nn

from vibnet.graph.trial.outputs import INSIDE, outputs
from vibnet.graph.trial.probe import followed

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def found(model, example=X):
    graph, engine, traces = followed(model, example)
    return graph, outputs(engine, traces, graph)


def three():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


def test_every_module_is_listed_with_the_units_it_gives():
    graph, listed = found(three())
    assert [(o.module, o.call, o.leaf) for o in listed] == [
        ("", 0, 0),
        ("0", 1, 0),
        ("1", 2, 0),
        ("2", 3, 0),
    ]
    units = graph.sites[0].units.tolist()
    assert [o.units[1].tolist() for o in listed] == [[-1, -1], units, units, [-1, -1]]
    assert [o.shape for o in listed] == [(3, 2), (3, 6), (3, 6), (3, 2)]


def test_the_positions_that_stay_are_those_of_kept_units():
    _, listed = found(three())
    kept = np.array([True, False, False, True, True, False])
    assert [index.tolist() for index in listed[1].stay(kept)] == [[0, 1, 2], [0, 3, 4]]
    assert [index.tolist() for index in listed[3].stay(kept)] == [[0, 1, 2], [0, 1]]


class Asides(nn.Module):
    """What a module gives is not always used."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.aside = nn.Linear(4, 6), nn.Linear(6, 2), nn.Tanh()

    def forward(self, x):
        h = self.a(x)
        self.aside(h)
        return self.b(h)


def test_what_no_answer_depends_on_is_not_listed():
    _, listed = found(Asides())
    assert [o.module for o in listed] == ["", "a", "b"]


class Seen(Asides):
    """What a module gives is kept, and nothing else uses it."""

    def forward(self, x):
        h = self.a(x)
        self.seen = self.aside(h)
        return self.b(h)


def test_what_a_module_keeps_is_listed():
    _, listed = found(Seen())
    assert [o.module for o in listed] == ["", "a", "aside", "b"]


class Square(nn.Module):
    """The mean of squares."""

    def forward(self, x):
        return x.pow(2).mean(-1, keepdim=True)


class Norm(nn.Module):
    """A norm with a module of its own for the mean."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)
        self.eps, self.square = 1e-3, Square()

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(self.square(x) + self.eps))


def test_a_module_inside_a_norm_that_follows_is_told_so():
    graph, listed = found(nn.Sequential(nn.Linear(4, 6, bias=False), Norm(6), nn.Linear(6, 2)))
    assert len(graph.norms) == 1
    assert {o.module: o.reason for o in listed} == {
        "": "",
        "0": "",
        "1": "",
        "1.square": INSIDE,
        "2": "",
    }
