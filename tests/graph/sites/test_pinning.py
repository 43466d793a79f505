import torch
from torch import nn

from vibnet.graph.sites.pinning import stuck, without
from vibnet.graph.trial.probe import analyse


def three():
    return analyse(
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)),
        torch.randn(3, 4),
    )


def test_the_graph_without_a_site_is_numbered_anew():
    graph = without(three(), {"0": "it must not"})
    assert [(s.name, s.units.tolist()) for s in graph.sites] == [("2", [0, 1, 2, 3, 4])]
    assert {s.name: s.reason for s in graph.pinned}["0"] == "it must not"
    assert graph.total == 5
    assert graph.parameters["0.weight"][0].tolist() == [-1] * 6
    assert graph.parameters["2.weight"][0].tolist() == [0, 1, 2, 3, 4]
    assert graph.parameters["2.weight"][1].tolist() == [-1] * 6
    assert [p.module for p in graph.places] == ["4"]


def test_a_graph_without_a_failure_stays_the_same():
    graph = three()
    assert without(graph, {}) is graph
    assert stuck(graph) == {}
