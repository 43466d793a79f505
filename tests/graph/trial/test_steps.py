"""Which units trial cuts take, and what the narrowest one sees."""

import pytest
import torch
from laws import law_one
from torch import nn

from vibnet import plan
from vibnet.graph.capture.capture import capture
from vibnet.graph.labels.labeller import Labeller
from vibnet.graph.labels.rules import TABLE
from vibnet.graph.sites.sites import build
from vibnet.graph.trial.steps import third, two, unequal

IMAGES = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0))


def graph_of(model):
    traces = capture(model, IMAGES)
    engine = Labeller(dict(TABLE))
    engine.add_model(traces[0].model)
    engine.add(traces[0])
    return build(engine, traces[:1], model)


def test_a_trial_takes_a_third_of_every_block():
    model = nn.Sequential(nn.Conv2d(3, 32, 1), nn.Conv2d(32, 16, 1, groups=8), nn.Conv2d(16, 4, 1))
    graph = graph_of(model)
    kept = third(graph, graph.sites)
    first, second = (kept[s.units].reshape(8, -1).sum(axis=1) for s in graph.sites)
    assert first.tolist() == [3] * 8
    assert second.tolist() == [1] * 8
    left = two(graph, graph.sites)
    assert [left[s.units].reshape(8, -1).sum(axis=1).tolist() for s in graph.sites] == [[2] * 8] * 2


def test_two_units_are_left_of_every_site():
    model = nn.Sequential(
        *(nn.Conv2d(a, b, 1) for a, b in ((3, 1), (1, 2), (2, 9), (9, 5), (5, 3)))
    )
    graph = graph_of(model)
    left = two(graph, graph.sites)
    assert [int(left[s.units].sum()) for s in graph.sites] == [1, 2, 2, 2]
    only = two(graph, graph.sites[2:3])
    assert [int(only[s.units].sum()) for s in graph.sites] == [1, 2, 2, 5]


def test_a_second_trial_takes_unequal_shares():
    graph = graph_of(nn.Sequential(nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 1), nn.Conv2d(12, 4, 1)))
    one, other = (int(unequal(graph, graph.sites)[s.units].sum()) for s in graph.sites)
    assert one != other


class Compares(nn.Module):
    """Code that compares a width with a length, which is less."""

    def __init__(self, how):
        super().__init__()
        self.a, self.b, self.how = nn.Linear(8, 16), nn.Linear(16, 3), how
        self.c, self.d = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.d(self.c(self.b(self.how(self.a(x).relu()))).relu())


COMPARES = {
    "the less": lambda h: h * min(h.shape[1:]),
    "another way": lambda h: h.relu() if h.shape[1] > h.shape[2] else h.tanh(),
    "as many tokens": lambda h: h[:, : h.shape[2]],
}


@pytest.mark.parametrize("name", COMPARES)
def test_a_width_that_is_compared_with_a_length_stays(name):
    model = Compares(COMPARES[name])
    found = plan(model, TOKENS)
    assert "after a trial cut" in found.pinned["a"]
    assert {*found.sizes} == {"b", "c"}
    law_one(model, TOKENS)
