"""Grouped convolutions, plain and transposed: equal groups on both sides, weights cut by group."""

import pytest
import torch
from between import graph_of, sizes
from torch import nn
from torch.nn import functional as F


def test_a_grouped_convolution_wants_equal_groups_on_both_sides():
    graph = graph_of(nn.Conv2d(8, 12, 1, groups=4), read=12)
    assert sizes(graph) == {"a": 8, "step": 12}
    a, step = graph.sites
    found = {(b.blocks, tuple(b.units.tolist())) for b in graph.blocks}
    assert found == {(4, tuple(a.units.tolist())), (4, tuple(step.units.tolist()))}
    assert all("the 4 groups of convolution in step" in b.why for b in graph.blocks)
    units, groups = graph.within_group["step.weight"]
    assert (units.tolist(), groups) == (a.units.tolist(), 4)


def test_a_grouped_transposed_convolution_wants_equal_groups_on_both_sides():
    graph = graph_of(nn.ConvTranspose2d(8, 12, 3, groups=4), read=12)
    assert sizes(graph) == {"a": 8, "step": 12}
    a, step = graph.sites
    found = {(b.blocks, tuple(b.units.tolist())) for b in graph.blocks}
    assert found == {(4, tuple(a.units.tolist())), (4, tuple(step.units.tolist()))}
    units, groups = graph.within_group["step.weight"]
    assert (units.tolist(), groups) == (step.units.tolist(), 4)
    assert graph.parameters["step.weight"][0].tolist() == a.units.tolist()
    assert graph.parameters["step.bias"][0].tolist() == step.units.tolist()


class Bare(nn.Module):
    """A grouped convolution with a weight of its own, used in some way."""

    def __init__(self, use, *shape):
        super().__init__()
        self.weight, self.use = nn.Parameter(torch.randn(*shape, 1, 1)), use

    def forward(self, x):
        return self.use(x, self.weight)


OTHER_USES = {
    "summed": (
        lambda x, w: F.conv2d(x, w, groups=2) + w.sum(),
        "step.weight numbers it, and has another use too",
    ),
    "summed, transposed": (
        lambda x, w: F.conv_transpose2d(x, w.transpose(0, 1), groups=2) + 0 * w.sum(),
        "through a reshaped weight",
    ),
    "swapped": (
        lambda x, w: F.conv2d(x, w.transpose(0, 1).transpose(2, 3), groups=2),
        "through a reshaped weight",
    ),
    "computed": (
        lambda x, w: F.conv_transpose2d(x, w * 2, groups=2),
        "computed, not stored",
    ),
    "other groups": (
        lambda x, w: (
            F.conv_transpose2d(x, w, groups=2)
            + F.conv_transpose2d(x, w, groups=4).repeat(1, 1, 1, 1)[:, :8]
        ),
        "shares its weight with other groups",
    ),
}


@pytest.mark.parametrize("name", OTHER_USES)
def test_a_grouped_weight_with_another_use_is_left_alone(name):
    use, why = OTHER_USES[name]
    shape = (4, 8) if "transpose" in name or name == "swapped" else (8, 4)
    graph = graph_of(Bare(use, *shape))
    found = {r for s in graph.pinned for r in [s.reason]}
    assert "step" not in sizes(graph)
    assert any(why in r for r in found), found
