"""Units that a call reaches by place, by number or by width: which stay whole, which are cut."""

import copy
import re

import numpy as np
import pytest
import torch
from laws import law_one
from torch import nn
from torch.nn import functional as F

from vibnet import attach, prune
from vibnet.graph.trial.cut import cut
from vibnet.graph.trial.probe import analyse

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Between(nn.Module):
    """A convolution, a function, and another convolution that reads what it gives."""

    def __init__(self, function, width=8, read=8):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(read, 4, 1)
        self.function = function

    def forward(self, x):
        return self.b(self.function(self.a(x)))


def graph_of(function, width=8, read=8):
    return analyse(Between(function, width, read), IMAGES)


def reason_of(graph, site):
    return {s.name: s.reason for s in (*graph.sites, *graph.pinned)}[site]


def test_a_unit_that_is_expanded_to_a_width_is_kept_whole():
    graph = graph_of(lambda x: x.expand(-1, 8, -1, -1), width=1)
    assert graph.sites == []
    reason = reason_of(graph, "a")
    assert re.fullmatch(r"expand in the model itself \(.*:\d+\) spreads .* another axis", reason)


def test_one_picked_unit_that_is_expanded_is_kept_and_the_others_are_cut():
    class Spread(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
            self.register_buffer("one", torch.tensor([3]))

        def forward(self, x):
            h = self.a(x)
            return self.b(h) + h[:, self.one].expand(-1, 4, -1, -1)

    graph = analyse(Spread(), IMAGES)
    assert [s.size for s in graph.sites] == [7]
    assert graph.parameters["a.weight"][0].tolist() == [0, 1, 2, -1, 3, 4, 5, 6]


MIDDLES = {
    "from a part of the width on": lambda x: x[:, x.shape[1] // 4 : 3 * x.shape[1] // 4],
    "counted from the end": lambda x: x[:, -3 * (x.shape[1] // 4) : -(x.shape[1] // 4)],
}


@pytest.mark.parametrize("name", MIDDLES)
def test_a_slice_that_is_no_whole_part_is_kept_whole(name):
    graph = graph_of(MIDDLES[name], read=4)
    assert graph.sites == []
    assert re.search(r"slice in .* cuts it at a fixed place", reason_of(graph, "a"))


def test_parts_counted_from_the_end_are_cut():
    graph = graph_of(lambda x: torch.cat([x[:, -(x.shape[1] // 2) :], x[:, :-4]], 1))
    assert graph.sites == []  # the 4 is a number of its own
    assert "after a trial cut" in reason_of(graph, "a")

    def swapped(x):
        half = x.shape[1] // 2
        return torch.cat([x[:, -half:], x[:, :-half]], 1)

    graph = graph_of(swapped)
    reader = next(r for r in graph.readers if r.parameter == "b.weight")
    assert [(s.name, s.size) for s in graph.sites] == [("a", 8)]
    assert reader.units.tolist() == [4, 5, 6, 7, 0, 1, 2, 3]


TURNS = {
    "forwards": (lambda x: x.roll(x.shape[1] // 4, 1), [*range(12, 16), *range(12)]),
    "backwards": (lambda x: x.roll(-(x.shape[1] // 4), 1), [*range(4, 16), *range(4)]),
}


@pytest.mark.parametrize("name", TURNS)
def test_a_roll_moves_parts_in_the_direction_of_its_sign(name):
    function, read = TURNS[name]
    graph = graph_of(function, 16, 16)
    reader = next(r for r in graph.readers if r.parameter == "b.weight")
    assert [(s.name, s.size) for s in graph.sites] == [("a", 16)]
    assert reader.units.tolist() == read
    gated = attach(Between(function, 16, 16).double(), IMAGES.double())
    gated.gate("a").log_var.data[[0, 5, 10, 15]] = 5.0  # one of every quarter
    small, _ = prune(gated.eval())
    assert small.a.out_channels == 12
    torch.testing.assert_close(small(IMAGES.double()), gated(IMAGES.double()))


class Order(nn.Module):
    """Channels picked by the numbers in a buffer."""

    def __init__(self, numbers):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(len(numbers), 4, 1)
        self.register_buffer("order", torch.tensor(numbers))

    def forward(self, x):
        return self.b(self.a(x)[:, self.order])


@pytest.mark.parametrize("number", [8, -9, 100])
def test_numbers_of_channels_that_do_not_exist_keep_the_site_whole(number):
    graph = analyse(Order([3, 0, number]), IMAGES)
    assert graph.sites == []
    assert "picks positions by number" in reason_of(graph, "a")


def test_numbers_in_any_order_up_to_both_ends_are_cut():
    model = Order([7, -8, 3, -1])
    graph = analyse(model, IMAGES)
    rows, read = graph.parameters["a.weight"][0], graph.parameters["b.weight"][1]
    assert read.tolist() == rows[[7, 0, 3, 7]].tolist()
    assert law_one(model, (IMAGES,)) is not None


CROPS = {"begin": (-2, 0), "end": (0, -2), "end, and more at the begin": (1, -3)}


@pytest.mark.parametrize("name", CROPS)
def test_a_padding_that_cuts_one_end_keeps_the_units_whole(name):
    graph = graph_of(lambda x: F.pad(x, (0, 0, 0, 0, *CROPS[name])), read=6)
    assert graph.sites == []
    assert re.search(r"constant_pad_nd in .* cuts it at a fixed place", reason_of(graph, "a"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("begin", [(("a",), 2), (("a", "c"), 6)]), ("end", [(("a", "c"), 6), (("a",), 2)])],
)
def test_what_a_padding_leaves_meets_the_units_at_its_places(name, expected):
    class Added(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(6, 4, 1), nn.Conv2d(3, 6, 1)

        def forward(self, x):
            return self.b(F.pad(self.a(x), (0, 0, 0, 0, *CROPS[name])) + self.c(x))

    graph = analyse(Added(), IMAGES)
    assert graph.sites == []
    assert [(s.writers, s.size) for s in graph.pinned if s.writers != ("b",)] == expected


def test_the_columns_of_a_depthwise_weight_are_kept_where_each_channel_has_several():
    class Both(nn.Module):
        """The second dimension of one weight: columns a channel here, what is read there."""

        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 3, 1)
            self.w = nn.Parameter(torch.randn(4, 3, 1, 1))
            self.c, self.d = nn.Conv2d(12, 2, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            several = F.conv_transpose2d(self.a(x), self.w, groups=4)
            return self.c(several) + self.d(F.conv2d(self.b(x), self.w))

    graph = analyse(Both(), IMAGES)
    assert "b" not in {s.name for s in graph.sites}
    assert re.search(r"convolution in .* has several columns a channel", reason_of(graph, "b"))


def test_a_depthwise_convolution_with_several_columns_loses_whole_channels():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 12, 2, groups=4), nn.Conv2d(12, 2, 1)
    )
    graph = analyse(model, IMAGES)
    (site,) = graph.sites
    small = copy.deepcopy(model)
    cut(small, graph, np.array([True, False, True, True]))
    assert (site.name, site.size) == ("0", 4)
    assert torch.equal(small[1].weight, model[1].weight[[0, 2, 3]])
    assert (small[1].groups, small[1].out_channels) == (3, 9)
