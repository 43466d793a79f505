import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vibnet.graph.trial.probe import analyse


class Between(nn.Module):
    """A convolution, a function, and another convolution that reads it."""

    def __init__(self, function, width, read):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(read, 4, 1)
        self.function = function

    def forward(self, x):
        return self.b(self.function(self.a(x)))


def graph_of(function, width=8, read=8):
    return analyse(Between(function, width, read), torch.randn(2, 3, 6, 6))


def shuffle(x):
    n, c, h, w = x.shape
    return x.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def written(x):
    out = torch.zeros_like(x)
    out.copy_(x)
    return out


FREE = {
    "permute": (lambda x: x.permute(0, 2, 3, 1).relu().permute(0, 3, 1, 2), 8, 8),
    "transpose": (lambda x: x.transpose(1, 3).tanh().transpose(1, 3), 8, 8),
    "flip": (lambda x: x.flip(1), 8, 8),
    "flip of space": (lambda x: x.flip(2, 3), 8, 8),
    "roll of space": (lambda x: x.roll((1, 2), (2, 3)), 8, 8),
    "index of space": (lambda x: x[:, :, [2, 0, 1]], 8, 8),
    "slice of space": (lambda x: x[:, :, 1:4, ::2], 8, 8),
    "pad of space": (lambda x: F.pad(x, (1, 1, 2, 0)), 8, 8),
    "cat with itself": (lambda x: torch.cat([x, x.tanh()], 1), 8, 16),
    "cat of space": (lambda x: torch.cat([x, x.tanh()], 2), 8, 8),
    "stack": (lambda x: torch.stack([x, x.tanh()]).sum(0), 8, 8),
    "repeat": (lambda x: x.repeat(1, 2, 1, 1), 8, 16),
    "expand": (lambda x: x.unsqueeze(1).expand(-1, 3, -1, -1, -1).sum(1), 8, 8),
    "squeeze": (lambda x: x.unsqueeze(2).tanh().squeeze(2), 8, 8),
    "flatten": (lambda x: x.flatten(2).tanh().unflatten(2, (6, 6)), 8, 8),
    "contiguous": (lambda x: x.contiguous().clone(), 8, 8),
    "written": (written, 8, 8),
    "select of space": (lambda x: x[:, :, 1:2, 3:4] + x[:, :, 2, 2][:, :, None, None], 8, 8),
    "pixel unshuffle": (lambda x: F.pixel_unshuffle(x, 2), 8, 32),
}


@pytest.mark.parametrize("name", FREE)
def test_units_that_are_only_moved_can_be_cut(name):
    graph = graph_of(*FREE[name])
    assert [(s.name, s.size) for s in graph.sites] == [("a", 8)]
    assert graph.blocks == []
    assert [s.name for s in graph.pinned] == ["b"]


COLUMNS = {
    "flip": (lambda x: x.flip(1), 8, [7, 6, 5, 4, 3, 2, 1, 0]),
    "cat": (lambda x: torch.cat([x, x.tanh()], 1), 16, [*range(8), *range(8)]),
    "repeat": (lambda x: x.repeat(1, 2, 1, 1), 16, [*range(8), *range(8)]),
    "interleave": (lambda x: F.pixel_unshuffle(x, 2), 32, [k // 4 for k in range(32)]),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_the_reader_knows_where_every_unit_went(name):
    function, read, order = COLUMNS[name]
    graph = graph_of(function, 8, read)
    (site,) = graph.sites
    reader = next(r for r in graph.readers if r.parameter == "b.weight")
    assert reader.units.tolist() == site.units[order].tolist()
    written_rows = graph.parameters["a.weight"][0]
    assert written_rows.tolist() == site.units.tolist()


MERGED = {
    "chunk": (lambda x: torch.mul(*x.chunk(2, 1)), 4, 4, 2, "split"),
    "quarters": (lambda x: sum(x.chunk(4, 1)), 2, 2, 4, "split"),
}


@pytest.mark.parametrize("name", MERGED)
def test_parts_that_meet_become_one_set_of_units(name):
    function, read, size, blocks, op = MERGED[name]
    graph = graph_of(function, 8, read)
    assert [(s.name, s.size) for s in graph.sites] == [("a", size)]
    assert {b.blocks for b in graph.blocks} == {blocks}
    assert all(
        re.search(rf"the parts of {op} in .*test_layout\.py:\d+", b.why) for b in graph.blocks
    )
    assert sorted(graph.parameters["a.weight"][0].tolist()) == sorted([*range(size)] * blocks)


def test_parts_that_do_not_meet_keep_equal_numbers():
    graph = graph_of(lambda x: torch.cat([part.relu() for part in x.chunk(2, 1)], 1))
    assert [(s.name, s.size) for s in graph.sites] == [("a", 8)]
    assert {(b.blocks, tuple(b.units.tolist())) for b in graph.blocks} == {(2, tuple(range(8)))}


def test_pixel_shuffle_joins_the_channels_of_a_block():
    graph = graph_of(lambda x: F.pixel_shuffle(x, 2), 8, 2)
    assert [(s.name, s.size) for s in graph.sites] == [("a", 2)]
    assert graph.parameters["a.weight"][0].tolist() == [0] * 4 + [1] * 4


PINNED = {
    "roll": (lambda x: x.roll(1, 1), "roll", "turns it by a fixed step"),
    "roll of three": (lambda x: x.roll((3, 1), (1, 2)), "roll", "turns it by a fixed step"),
    "roll of all": (lambda x: x.roll(1), "roll|view", ""),
    "index": (lambda x: x[:, [1, 0, 2, 3, 5, 4, 7, 6]], "index", "picks positions by number"),
    "index_select": (
        lambda x: x.index_select(1, torch.arange(7, -1, -1)),
        "index_select",
        "picks positions by number",
    ),
    "uneven": (
        lambda x: torch.cat([p.relu() for p in x.split([3, 5], 1)], 1),
        "split_with_sizes",
        "fails: split_with_sizes expects split_sizes to sum exactly to",
    ),
    "slice": (lambda x: torch.cat([x[:, :3], x[:, 3:]], 1), "slice", "cuts it at a fixed place"),
    "steps": (lambda x: torch.cat([x[:, ::2], x[:, 1::2]], 1), "slice", "cuts it at a fixed place"),
    "select": (lambda x: x * x[:, 0].unsqueeze(1), "select", "picks one position by number"),
    "unbind": (lambda x: torch.stack(x.unbind(1), 1), "unbind", "takes its axis apart"),
    "crop": (
        lambda x: torch.cat([F.pad(x, (0, 0, 0, 0, -2, -2)), x[:, :4]], 1),
        "constant_pad_nd",
        "cuts it at a fixed place",
    ),
}


@pytest.mark.parametrize("name", PINNED)
def test_units_at_fixed_places_are_pinned_with_call_module_and_line(name):
    function, op, why = PINNED[name]
    graph = graph_of(function)
    assert graph.sites == []
    reason = {s.name: s.reason for s in graph.pinned}["a"]
    assert re.search(rf"({op}) in the model itself \(test_layout\.py:\d+\) {why}", reason), reason


def test_halves_by_literal_numbers_are_pinned_by_the_trial_cut():
    graph = graph_of(lambda x: x[:, :4] + x[:, 4:], 8, 4)
    assert graph.sites == []
    assert "after a trial cut" in {s.name: s.reason for s in graph.pinned}["a"]


def test_halves_by_the_width_can_be_cut():
    graph = graph_of(lambda x: x[:, : x.shape[1] // 2] + x[:, x.shape[1] // 2 :], 8, 4)
    assert [(s.name, s.size) for s in graph.sites] == [("a", 4)]


def test_a_roll_by_half_the_width_moves_halves():
    graph = graph_of(lambda x: x.roll(x.shape[1] // 2, 1))
    assert [(s.name, s.size) for s in graph.sites] == [("a", 8)]
    assert {(b.blocks, tuple(b.units.tolist())) for b in graph.blocks} == {(2, tuple(range(8)))}
    reader = next(r for r in graph.readers if r.parameter == "b.weight")
    assert reader.units.tolist() == [4, 5, 6, 7, 0, 1, 2, 3]


@pytest.mark.parametrize("step", [2, 4, -2, 6])
def test_a_roll_by_a_literal_number_is_pinned_by_the_labels_of_the_trial_cut(step):
    graph = graph_of(lambda x: x.roll(step, 1))
    assert graph.sites == []
    reason = {s.name: s.reason for s in graph.pinned}["a"]
    assert "roll in the model itself" in reason
    assert re.search(r"gives other units than those predicted|no legal cut", reason), reason


def test_a_channel_shuffle_by_the_width_keeps_units_or_says_why():
    graph = graph_of(shuffle)
    (site,) = graph.sites
    assert site.name == "a"
    assert site.size in {4, 8}


def test_units_padded_with_zeros_stay_units():
    graph = graph_of(lambda x: F.pad(x, (0, 0, 0, 0, 2, 2)), 8, 12)
    assert [(s.name, s.size) for s in graph.sites] == [("a", 8)]
    reader = next(r for r in graph.readers if r.parameter == "b.weight")
    assert reader.units.tolist() == [-1, -1, *graph.sites[0].units.tolist(), -1, -1]


def test_two_axes_of_units_flattened_together_are_pinned():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 2)
            self.c = nn.Linear(6, 2)

        def forward(self, x):
            return self.c((self.a(x)[:, :, None] * self.b(x)[:, None, :]).flatten(1))

    graph = analyse(Outer(), torch.randn(5, 4))
    assert graph.sites == []
    found = {s.name: s.reason for s in graph.pinned}
    for name in ("a", "b"):
        assert "flattens it with another axis of units" in found[name]


@pytest.mark.parametrize("last", [torch.contiguous_format, torch.channels_last])
def test_pooling_to_one_place_leaves_units_whatever_lies_last_in_memory(last):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    graph = analyse(model.to(memory_format=last), torch.randn(2, 3, 6, 6))
    assert [(s.name, s.size) for s in graph.sites] == [("0", 8)]


def test_elements_picked_by_their_place_in_memory_pin_units():
    class Strided(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.b(self.a(x).as_strided((3, 8), (8, 1)))

    graph = analyse(Strided(), torch.randn(3, 4))
    assert graph.sites == []
    assert any("by their place in memory" in s.reason for s in graph.pinned)
