from dataclasses import replace

import pytest
import torch
from branching import TOKENS, Mixer
from torch import nn

from vibnet import attach
from vibnet.graph.capture.capture import capture
from vibnet.graph.sites.paths import Branches, Step, paths


class Net(nn.Module):
    """The output is written into a slice, or added to what has the input's shape alone."""

    def __init__(self, way):
        super().__init__()
        self.up, self.down, self.way = nn.Linear(4, 5), nn.Linear(5, 2), way

    def forward(self, x):
        y = self.down(self.up(x))
        if self.way == "like":
            return torch.zeros_like(x[:, :2]) + y
        if self.way == "beside":
            return y, torch.ones(3)
        out = torch.zeros(len(x), 4)
        out[:, :2] = y
        return out


def of(way, **readers):
    found = paths(capture(Net(way), torch.ones(2, 4))[-1])
    return Branches(readers, found.steps, found.inputs, found.outputs)


@pytest.mark.parametrize("way", ["slice", "like", "beside"])
def test_an_output_depends_on_the_input_through_the_layers_that_are_left(way):
    found = of(way, up=("down",), nobody=("elsewhere",))
    assert len(found.outputs) == 1
    assert found.answers([])
    assert found.answers(["nobody"])
    assert not found.answers(["up"])


def test_layers_are_named_once():
    assert Branches({"a": ("x", "y"), "b": ("y", "z")}).layers(["a", "b"]) == ("x", "y", "z")


def test_a_write_reaches_all_that_lies_in_the_same_memory():
    write = Step(((1, 10), (2, 20)), ((2, 20),), writes=True, module="")
    read = Step(((1, 10),), ((2, 20),), writes=False, module="")
    for step, reached in ((write, 1), (read, 0)):
        assert Branches({}, (step,), ((1, 10),)).reached([], [(3, 20)]) == [reached]


class Masked(nn.Module):
    """Without its only hidden layer, the answers would depend on nothing but which words count."""

    def __init__(self, way):
        super().__init__()
        self.words, self.up, self.down = nn.Embedding(9, 4), nn.Linear(4, 6), nn.Linear(6, 3)
        self.way = way

    def forward(self, ids, mask):
        h = self.down(self.up(self.words(ids)).relu())
        weights = (ids != 0)[..., None] if self.way == "compared" else mask[..., None]
        if self.way == "both":
            weights = weights * (ids != 3)[..., None]
        return (h * weights).sum(1) / weights.sum(1).clamp(min=1)


@pytest.mark.parametrize("way", ["compared", "given", "both"])
def test_a_mask_is_nothing_that_answers_depend_on(way):
    ids = torch.tensor([[1, 2, 3, 0], [4, 5, 0, 0]])
    for mask in ((ids > 0).long(), ids > 0):
        gated = attach(Masked(way).eval(), (ids, mask), remove_branches=True)
        assert gated.graph.branches.readers == {}


class TwoInputs(nn.Module):
    """Only the branch reads the second input."""

    def __init__(self):
        super().__init__()
        self.stem, self.up = nn.Linear(4, 6), nn.Linear(4, 5)
        self.down, self.head = nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, x, y):
        return self.head(self.stem(x) + self.down(self.up(y).relu()))


def test_every_input_that_answers_depended_on_still_counts():
    gated = attach(TwoInputs().eval(), (TOKENS, TOKENS + 1), remove_branches=True)
    assert "up" in gated.gates
    assert gated.graph.branches.readers == {}


class TwoOutputs(Mixer):
    def forward(self, x):
        x = self.stem(x)
        out, _ = self.mlp(hidden=self.norm(x))
        return self.head(x), out


def test_no_output_of_several_may_become_a_constant():
    gated = attach(TwoOutputs().eval(), TOKENS, remove_branches=True)
    assert "mlp.up" not in gated.graph.branches.readers


class Numbered(nn.Module):
    """A second input of whole numbers, one way or another, that only the branch reads."""

    def __init__(self, way):
        super().__init__()
        self.stem, self.up = nn.Linear(4, 6), nn.Linear(5, 8)
        self.down, self.head, self.way = nn.Linear(8, 6), nn.Linear(6, 2), way

    def forward(self, x, k):
        if self.way == "one_hot":
            told = nn.functional.one_hot(k, 5).to(x.dtype)
        elif self.way == "index_add_":
            told = torch.zeros(3, 5, dtype=x.dtype).index_add_(0, k, x[:, :1].expand(-1, 5))
        else:
            told = torch.zeros(3, 5, dtype=x.dtype).scatter_(1, k[:, None], 1.0)
        return self.head(self.stem(x) + self.down(self.up(told).relu()))


@pytest.mark.parametrize("way", ["one_hot", "index_add_", "scatter_"])
def test_whole_numbers_that_say_which_one_count(way):
    x, k = TOKENS[:, 0], torch.tensor([0, 2, 1])
    found = paths(capture(Numbered(way), (x, k))[-1])
    branch = replace(found, readers={"up": ("down",)})
    assert found.answers([])
    assert not branch.answers(["up"])
    assert len(found.inputs) == 2
