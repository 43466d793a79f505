import torch
from networks import NETWORKS
from torch import nn

from vibnet.graph.trial.probe import analyse


def test_units_are_numbered_once_over_all_sites():
    for name in ("cnn", "unet", "grouped", "dense_concatenated", "tied_parameter"):
        graph = analyse(*NETWORKS[name](0))
        numbers = sorted(u for s in graph.sites for u in s.units.tolist())
        assert numbers == list(range(graph.total))
        assert all(len(s.units) == s.size and not s.reason for s in graph.sites)
        assert all(s.reason and not len(s.units) for s in graph.pinned)
        names = [s.name for s in (*graph.sites, *graph.pinned)]
        assert len(set(names)) == len(names)


class Uses(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(3, 3)
        self.dead = nn.Linear(4, 3)

    def forward(self, x):
        self.dead(x)
        h = self.a(x)
        return self.b(h) + self.b.weight.sum()


def test_a_reader_with_another_use_cannot_be_gated_and_says_so():
    class Tied(Uses):
        def forward(self, x):
            return self.b(self.a(x)), self.b.weight.mul(2).sum(0)

    graph = analyse(Tied(), torch.randn(3, 4))
    assert all(s.name != "a" or s.ungated for s in graph.sites)


def test_what_nothing_reads_is_pinned_and_what_is_never_used_is_listed():
    graph = analyse(Uses(), torch.randn(3, 4))
    assert {s.name: s.reason for s in graph.pinned}[
        "dead"
    ] == "nothing reads it with a stored weight"
    assert graph.unused == ["c.bias", "c.weight"]


def test_a_writer_of_two_kinds_of_units_has_two_sites():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(3, 2)

        def forward(self, x):
            left, right = self.a(x).chunk(2, 1)
            return self.b(left), right

    graph = analyse(Two(), torch.randn(3, 4))
    found = [(s.name, s.size) for s in (*graph.sites, *graph.pinned) if s.writers == ("a",)]
    assert sorted(found) == [("a", 3), ("a#2", 3)]
