"""Group norm: whole groups go, and what does not follow the width stays whole."""

import pytest
import torch
from between import Between, graph_of, images, reasons, sizes
from laws import law_one
from torch import nn
from torch.nn import functional as F

from vibnet.graph.trial.probe import analyse


@pytest.mark.parametrize("groups", [2, 4, 6, 12])
def test_whole_groups_of_a_group_norm_go(groups):
    model = Between(nn.Sequential(nn.GroupNorm(groups, 12), nn.ReLU()), width=12)
    assert sizes(analyse(model, images())) == {"a": groups}
    report, small, _ = law_one(model, images())
    left = len(report.plan.kept["a"])
    assert left < groups
    norm = small.step[0]
    assert (norm.num_groups, norm.num_channels) == (left, left * 12 // groups)


def test_one_group_is_a_statistic_over_all():
    assert "takes a statistic over it" in reasons(graph_of(nn.GroupNorm(1, 8)))["a"]


def test_a_group_norm_that_states_no_width_stays_whole():
    bare = graph_of(nn.GroupNorm(4, 8, affine=False))
    assert "no weights that tell how wide" in reasons(bare)["a"]


def test_a_number_of_groups_in_the_code_keeps_the_channels_whole():
    class Literal(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8))

        def forward(self, x):
            return F.group_norm(x, 4, self.weight)

    assert "a" in reasons(graph_of(Literal()))


def test_groups_of_a_norm_bind_the_channels_of_a_residual_sum():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.GroupNorm(3, 12)

        def forward(self, x):
            return x + F.relu(self.norm(x))

    model = Between(Sum(), width=12)
    assert sizes(analyse(model, images())) == {"a": 3}
    assert law_one(model, images()) is not None
