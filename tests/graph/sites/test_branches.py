import numpy as np
import pytest
import torch
from torch import nn

from vibnet.graph.sites.branches import empty, feeding, fewest, held, opened
from vibnet.graph.sites.paths import NO_BRANCHES
from vibnet.graph.sites.structure import Request
from vibnet.graph.trial.probe import analyse

ASKED = Request(branches=True, inexact=True)
X = torch.ones(2, 6)


class Net(nn.Module):
    """Two residual branches, then two parallel ones that only together may not go."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.up, self.down = nn.Linear(8, 5), nn.Linear(5, 8)
        self.left_up, self.left_down = nn.Linear(8, 4), nn.Linear(4, 3)
        self.right_up, self.right_down = nn.Linear(8, 4), nn.Linear(4, 3)

    def forward(self, x):
        x = self.stem(x).relu()
        x = x + self.down(self.up(x).relu())
        return self.left_down(self.left_up(x).relu()) + self.right_down(self.right_up(x).relu())


def graph_of(model, example=X):
    torch.manual_seed(0)
    return analyse(model.eval(), example, ASKED)


def test_sites_in_branches_may_go_and_the_trunk_may_not():
    graph = graph_of(Net())
    assert set(graph.branches.readers) == {"up", "left_up", "right_up"}
    assert graph.branches.layers(["up", "left_up"]) == ("down", "left_down")


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
def test_convolutions_of_a_branch_may_go(kind):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.up = kind(1, 3, 1), kind(3, 4, 1)
            self.down = kind(4, 3, 3, padding=1)

        def forward(self, x):
            x = self.stem(x)
            return (x + self.down(self.up(x).relu())).flatten(2).mean(2)

    sides = [4] * int(kind.__name__[4])
    assert set(graph_of(Block(), torch.ones(2, 1, *sides)).branches.readers) == {"up"}


def test_nothing_may_go_where_nobody_asked():
    assert analyse(Net().eval(), X).branches is NO_BRANCHES


def test_outputs_must_still_depend_on_the_input():
    branches = graph_of(Net()).branches
    assert branches.answers(["up", "left_up"])
    assert not branches.answers(["left_up", "right_up"])


def test_the_best_unit_comes_back_where_the_outputs_need_one():
    graph = graph_of(Net())
    sites = {s.name: s for s in graph.sites}
    score = np.linspace(0, 0.5, graph.total)
    score[sites["left_up"].units[2]] = 0.9
    kept = opened(graph.branches, graph.sites, np.zeros(graph.total, dtype=np.bool_), score)
    assert empty(graph.sites, kept) == ["up", "right_up"]
    assert np.flatnonzero(kept[sites["left_up"].units]).tolist() == [2]
    assert kept[sites["stem"].units].sum() == 1


def test_weights_hold_one_unit_of_an_empty_site():
    graph = graph_of(Net())
    kept = np.ones(graph.total, dtype=np.bool_)
    up = next(s for s in graph.sites if s.name == "up")
    kept[up.units] = False
    assert held(graph.sites, kept)[up.units].tolist() == [True, False, False, False, False]
    kept[up.units[3]] = True
    assert (held(graph.sites, kept) == kept).all()


class Tied(Net):
    def __init__(self):
        super().__init__()
        self.right_down.weight = self.left_down.weight


class Heard(Net):
    def __init__(self):
        super().__init__()
        self.down.register_forward_hook(lambda m, x, y: None)


class Own(nn.Linear):
    def forward(self, x):
        return super().forward(x)


class OwnForward(Net):
    def __init__(self):
        super().__init__()
        self.down = Own(5, 8)


class Wordy(nn.Module):
    """A convolution whose padding is a word."""

    def __init__(self, padding="same", mode="zeros"):
        super().__init__()
        self.stem, self.up = nn.Conv1d(1, 3, 1), nn.Conv1d(3, 4, 1)
        self.down = nn.Conv1d(4, 3, 3, padding=padding, padding_mode=mode)

    def forward(self, x):
        x = self.stem(x[:, None])
        return (x + self.down(self.up(x).relu())).mean(2)


class Mirrored(Wordy):
    """A convolution that fails on inputs of one position."""

    def __init__(self):
        super().__init__(1, "reflect")


class Beside(Net):
    """A reader of two sites at once."""

    def __init__(self):
        super().__init__()
        self.down = nn.Linear(13, 8)

    def forward(self, x):
        x = self.stem(x).relu()
        x = x + self.down(torch.cat([self.up(x).relu(), x], 1))
        return self.left_down(self.left_up(x).relu()) + self.right_down(self.right_up(x).relu())


class Normed(Net):
    """A statistic over the units, which `allow_inexact` lets go."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(5)

    def forward(self, x):
        x = self.stem(x).relu()
        x = x + self.down(self.norm(self.up(x)))
        return self.left_down(self.left_up(x).relu()) + self.right_down(self.right_up(x).relu())


class Rooted(Normed):
    """Units that close where they are written."""

    def __init__(self):
        super().__init__()
        self.norm = nn.RMSNorm(5, eps=1e-6)


class Functional(Net):
    """A reader that is used past its module, so that its units have no gate."""

    def forward(self, x):
        x = self.stem(x).relu()
        x = x + nn.functional.linear(self.up(x).relu(), self.down.weight, self.down.bias)
        return self.left_down(self.left_up(x).relu()) + self.right_down(self.right_up(x).relu())


class Picked(Net):
    """Units in an order that a buffer holds."""

    def __init__(self):
        super().__init__()
        self.register_buffer("order", torch.tensor([3, 0, 4, 2, 1]))

    def forward(self, x):
        x = self.stem(x).relu()
        x = x + self.down(self.up(x).relu()[:, self.order])
        return self.left_down(self.left_up(x).relu()) + self.right_down(self.right_up(x).relu())


class Grouped(nn.Module):
    """Units that are bound to equal numbers in every group."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Conv1d(1, 4, 1), nn.Conv1d(4, 2, 1, groups=2)

    def forward(self, x):
        x = x[:, None]
        return x + self.down(self.up(x).relu()).sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("kind", "whole"),
    [
        (Tied, "left_up"),
        (Heard, "up"),
        (OwnForward, "up"),
        (Wordy, "up"),
        (Mirrored, "up"),
        (Beside, "up"),
        (Picked, "up"),
        (Grouped, "up"),
        (Normed, "up"),
        (Rooted, "up"),
        (Functional, "up"),
    ],
)
def test_sites_stay_whose_readers_cannot_be_replaced(kind, whole):
    graph = graph_of(kind())
    assert whole in {s.name for s in graph.sites}
    assert whole not in graph.branches.readers


def test_features_of_a_branch_stay():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Conv1d(1, 3, 1), nn.Linear(18, 6)

        def forward(self, x):
            return x + self.down(self.up(x[:, None]).relu().flatten(1))

    class Both(Flat):
        def __init__(self):
            super().__init__()
            self.other = nn.Conv1d(3, 1, 1)

        def forward(self, x):
            h = self.up(x[:, None]).relu()
            return x + self.down(h.flatten(1)) + self.other(h)[:, 0]

    asked = Request(features=("down",), branches=True)
    for kind in (Flat, Both):
        torch.manual_seed(0)
        graph = analyse(kind().eval(), X, asked)
        assert {s.name for s in graph.sites} == {"up", "down:features"}
        assert not graph.branches.readers


def test_backward_hooks_are_heard():
    for hook in ("register_full_backward_hook", "register_full_backward_pre_hook"):
        model = Net()
        getattr(model.down, hook)(lambda *x: None)
        assert "up" not in graph_of(model).branches.readers


def test_the_fewest_units_leave_branches_empty_and_one_unit_elsewhere():
    graph = graph_of(Net())
    nothing = np.zeros(graph.total, dtype=np.bool_)
    kept = fewest(graph, nothing, np.linspace(0, 1, graph.total))
    assert empty(graph.sites, kept) == ["up", "left_up"]
    graph.branches = NO_BRANCHES
    assert empty(graph.sites, fewest(graph, nothing, np.linspace(0, 1, graph.total))) == []


def test_multiples_hold_where_branches_go():
    graph = graph_of(Net())
    wanted = np.ones(graph.total, dtype=np.bool_)
    sites = {s.name: s.units for s in graph.sites}
    wanted[sites["up"]] = wanted[sites["stem"][:3]] = False
    kept = fewest(graph, wanted, np.linspace(0, 1, graph.total), 4)
    assert {name: kept[units].sum() for name, units in sites.items()} == {
        **{"stem": 8, "up": 0, "left_up": 4, "right_up": 4}
    }


def test_what_feeds_an_empty_site_makes_its_units_alone():
    graph = graph_of(Net())
    kept = np.ones(graph.total, dtype=np.bool_)
    assert feeding(graph, kept) == []
    kept[next(s for s in graph.sites if s.name == "up").units] = False
    assert feeding(graph, kept) == ["down", "up"]
