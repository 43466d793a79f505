import pytest
import torch
from torch import nn

from vibnet import attach, plan
from vibnet.errors import NoSitesError

X = torch.ones(2, 4)


class Head(nn.Module):
    """A head that forward never calls, but that could read six units."""

    def __init__(self, width=6):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 2)
        self.head = nn.Linear(width, 3, bias=False)

    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


def test_a_site_that_an_unused_weight_could_read_is_left_alone_by_name():
    found = plan(Head(), X)
    assert list(found.kept) == ["b"]
    assert "head.weight is never used with this example and could meet it" in found.pinned["a"]
    assert "ignore=['head.weight']" in found.pinned["a"]


def test_all_parameters_that_could_meet_it_are_named_at_once():
    model = Head()
    model.other = nn.Linear(6, 6)
    reason = plan(model, X).pinned["a"]
    names = ["head.weight", "other.bias", "other.weight"]
    assert f"{', '.join(names)} are never used" in reason
    assert f"pass ignore={names}" in reason
    assert list(plan(model, X, ignore=names).kept) == ["a", "b"]


def test_a_flattened_multiple_could_read_it_too():
    assert list(plan(Head(24), X).kept) == ["b"]


def test_other_sizes_cannot_read_it():
    assert list(plan(Head(7), X).kept) == ["a", "b"]


def test_what_is_ignored_reads_nothing():
    assert [s.name for s in attach(Head(), X, ignore=["head.*"]).sites] == ["a", "b"]
    assert list(plan(Head(), X, ignore="head.*").kept) == ["a", "b"]


def test_a_pattern_that_ignores_nothing_is_an_error():
    with pytest.raises(NoSitesError, match=r"ignore names 'heads.\*'.*There are: head.weight"):
        attach(Head(), X, ignore=["heads.*"])
