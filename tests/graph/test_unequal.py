"""Splits into unequal parts: they follow where a module states the sizes, each part on its own."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import vibnet
from vibnet.errors import ArtefactError, PlanError
from vibnet.graph.trial.probe import Probe

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Parts(nn.Module):
    """Three readers, each of its part of fifteen units, split as `how` says."""

    def __init__(self, how, widths=(4, 5, 6), kind=list):
        super().__init__()
        self.a = nn.Linear(4, sum(widths))
        self.readers = nn.ModuleList(nn.Linear(n, 3) for n in widths)
        self.sizes = kind(widths)
        self.first, self.second, self.third = widths
        self.how = how

    def forward(self, x):
        parts = torch.relu(self.a(x)).split(self.how(self), 1)
        return sum(reader(part) for reader, part in zip(self.readers, parts, strict=True))


FOLLOWS = {
    "a list": lambda: Parts(lambda m: m.sizes),
    "a tuple": lambda: Parts(lambda m: m.sizes, kind=tuple),
    "a list with equal entries": lambda: Parts(lambda m: m.sizes, (4, 4, 7)),
    "numbers": lambda: Parts(lambda m: [m.first, m.second, m.third]),
}
KEPT = [0, 5, 6, 8, 13]


def parts(name):
    torch.manual_seed(0)
    return FOLLOWS[name]()


@pytest.mark.parametrize("name", FOLLOWS)
def test_stated_sizes_follow_part_by_part(name):
    model = parts(name)
    before = list(model.sizes)
    found = vibnet.plan(model, X)
    assert found.sizes == {"a": 15}
    small, report = vibnet.prune(model, replace(found, kept={"a": KEPT}), X)
    widths = [reader.in_features for reader in small.readers]
    assert sum(widths) == 5
    assert set(report.numbers.values()) <= set(widths)
    assert report.difference < 1e-12
    assert list(model.sizes) == before  # the caller's own list is left alone
    if name != "numbers":
        assert type(small.sizes) is type(model.sizes)
        assert list(small.sizes) == widths
        assert set(report.numbers) == {"sizes[0]", "sizes[1]", "sizes[2]"}


@pytest.mark.parametrize("name", FOLLOWS)
def test_gates_close_units_of_every_part_but_one(name):
    gated = vibnet.attach(parts(name), X)
    with torch.no_grad():
        gated.gate("a").mu.fill_(1e-6)
    small, report = vibnet.prune(gated.eval())
    assert [reader.in_features for reader in small.readers] == [1, 1, 1]
    assert report.difference < 1e-12


def test_a_plan_that_leaves_nothing_of_a_part_is_refused():
    model = parts("a list")
    found = vibnet.plan(model, X)
    with pytest.raises(PlanError, match=r"every part of split_with_sizes .*at least one"):
        vibnet.prune(model, replace(found, kept={"a": [0, 5]}), X)


@pytest.mark.parametrize("name", ["a list", "a tuple"])
def test_saved_models_bring_their_sizes_along(name, tmp_path):
    model = parts(name)
    found = vibnet.plan(model, X)
    small, _ = vibnet.prune(model, replace(found, kept={"a": KEPT}), X)
    vibnet.save(small, tmp_path)
    fresh = parts(name)
    loaded = vibnet.load(tmp_path, fresh)
    assert loaded is fresh
    assert loaded.sizes == small.sizes
    assert torch.equal(loaded(X), small(X))


def test_a_model_without_such_a_list_is_refused(tmp_path):
    model = parts("a list")
    found = vibnet.plan(model, X)
    small, _ = vibnet.prune(model, replace(found, kept={"a": KEPT}), X)
    vibnet.save(small, tmp_path)
    for sizes in ([4, 5], 15, [4, 5, "six"]):
        other = parts("a list")
        other.sizes = sizes
        with pytest.raises(ArtefactError, match=r"sets sizes\[.\], but this Parts has no number"):
            vibnet.load(tmp_path, other)
        assert other.a.out_features == 15


STAY = {
    "literals": lambda: Parts(lambda m: [4, 5, 6]),
    "equal numbers that count different parts": lambda: Parts(
        lambda m: [m.first, m.second, m.third], (4, 4, 7)
    ),
    "a list of something else": lambda: Parts(lambda m: [n for n in m.sizes if n] and [4, 5, 6]),
}


@pytest.mark.parametrize("name", STAY)
def test_others_stay_whole_and_name_the_line(name):
    found = vibnet.plan(STAY[name](), X)
    assert "split_with_sizes" in found.pinned["a"]
    assert "instead of the number" in found.pinned["a"]


class Stack(nn.Module):
    """Layers that split what they are given, one after the other."""

    def __init__(self, depth):
        super().__init__()
        self.first = nn.Linear(4, 15)
        widths = (4, 5, 6), (3, 5, 7), (2, 5, 8), (3, 4, 8), (2, 6, 7), (1, 6, 8)
        self.layers = nn.ModuleList(map(Mixed, widths[:depth]))
        self.last = nn.Linear(15, 2)

    def forward(self, x):
        x = self.first(x).relu()
        for layer in self.layers:
            x = layer(x).relu()
        return self.last(x)


class Mixed(nn.Module):
    """A layer for each part, and their outputs side by side."""

    def __init__(self, widths=(4, 5, 6)):
        super().__init__()
        self.sizes, self.width = list(widths), sum(widths)
        self.parts = nn.ModuleList(nn.Linear(n, n) for n in widths)

    def forward(self, x):
        given = x.split(self.sizes, 1)
        return torch.cat([part(x) for part, x in zip(self.parts, given, strict=True)], 1)


def test_what_followed_in_one_layer_is_tried_first_in_the_next(monkeypatch):
    tried, real = [], Probe._with

    def counted(self, found, groups, names):
        tried.append(names)
        return real(self, found, groups, names)

    monkeypatch.setattr(Probe, "_with", counted)
    assert len(vibnet.plan(Stack(6), X).sizes) > 12
    assert tried[-5:] == [["sizes"]] * 5
