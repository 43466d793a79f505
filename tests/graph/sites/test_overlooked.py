"""Weights that are computed with before a layer multiplies by them stand in the plan, with why."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import vibnet
from vibnet.errors import NoSitesError
from vibnet.graph.sites.overlooked import owner_of

normed = nn.utils.parametrizations.weight_norm
X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


class Centred(nn.Linear):
    def forward(self, x):
        return F.linear(x, self.weight - self.weight.mean(1, keepdim=True), self.bias)


class Doubled(nn.Module):
    """A weight of the model itself, in an einsum."""

    def __init__(self):
        super().__init__()
        self.weight, self.last = nn.Parameter(torch.randn(8, 12)), nn.Linear(12, 9)

    def forward(self, x):
        return self.last(torch.einsum("bi,io->bo", x, self.weight * 2).relu())


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.last = nn.EmbeddingBag(20, 12), nn.Linear(12, 9)

    def forward(self, x):
        return self.last(self.table((x > 0).long()).relu())


FIRST = {
    "weight norm": (lambda: normed(nn.Linear(8, 9)), "0", "_weight_norm_interface"),
    "a centred weight": (lambda: Centred(8, 9), "0", "mean in 0"),
    "a weight of its own": (Doubled, "0", "in 0"),
    "a bag": (Bag, "0.table", "there is no rule for _embedding_bag"),
}


@pytest.mark.parametrize("name", FIRST)
def test_the_reason_is_told(name):
    make, layer, why = FIRST[name]
    model = nn.Sequential(make(), nn.ReLU(), nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 3))
    found = vibnet.plan(model, X)
    assert why in found.pinned[layer]
    assert "2" in found.sizes


def test_where_nothing_else_is_left_the_refusal_tells_it():
    model = nn.Sequential(normed(nn.Linear(8, 12)), nn.ReLU(), normed(nn.Linear(12, 3)))
    with pytest.raises(NoSitesError, match="0: there is no rule for _weight_norm_interface in 0"):
        vibnet.attach(model, X)


def test_a_layer_that_has_a_site_is_not_told_twice():
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3))
    assert {*vibnet.plan(model, X).pinned} == {"2"}


class Scaled(nn.Module):
    """Inputs with a scale each, and a table that is given out."""

    def __init__(self):
        super().__init__()
        self.scale, self.table = nn.Parameter(torch.rand(8)), nn.Parameter(torch.rand(2, 3))
        self.first, self.last = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.first(x * self.scale).relu()), self.table


def test_vectors_are_no_weights_and_what_is_given_out_is_told_so():
    pinned = vibnet.plan(Scaled(), X).pinned
    assert {*pinned} == {"last", "table"}
    assert pinned["table"] == "it is an output of the model"


class Two(nn.Module):
    """A weight as it is stored, and one that is doubled, in one layer."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Parameter(torch.randn(9, 8)), nn.Parameter(torch.randn(8, 9))

    def forward(self, x):
        return F.linear(x, self.one) + torch.einsum("bi,io->bo", x, self.other * 2)


def test_a_layer_is_told_once():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), Two(), nn.ReLU(), nn.Linear(9, 3))
    found = vibnet.plan(model, X)
    assert not {*found.sizes} & {*found.pinned}


def test_parametrisations_belong_to_their_layer():
    assert owner_of("a.parametrizations.weight.original0") == "a"
    assert owner_of("a.b.weight") == "a.b"
    assert owner_of("weight") == "weight"
