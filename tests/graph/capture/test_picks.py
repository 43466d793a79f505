"""What is picked by value is picked again, where the tensors are alike."""

import pytest
import torch
from laws import halved
from torch import nn

import vibnet
from vibnet.graph.capture import recall
from vibnet.graph.capture.picks import Picks

aten = torch.ops.aten


def test_a_pick_is_made_again_for_tensors_so_laid_out():
    first = Picks()
    x = torch.tensor([1.0, 0.0, 2.0, 0.0])
    assert first.call(aten.nonzero.default, (x,), {}).flatten().tolist() == [0, 2]
    again = Picks(first.made)
    assert again.call(aten.nonzero.default, (1 - x,), {}).flatten().tolist() == [0, 2]
    other = Picks(first.made)
    assert other.call(aten.nonzero.default, (torch.ones(3),), {}).flatten().tolist() == [0, 1, 2]


def test_of_a_mask_the_mask_is_kept_and_what_it_picks_from_is_not():
    mask, x = torch.tensor([True, False, True]), torch.arange(3.0)
    first = Picks()
    first.call(aten.index.Tensor, (x, [mask]), {})
    mask.logical_not_()  # what the pick keeps is a copy
    again = Picks(first.made).call(aten.index.Tensor, (x + 5, [mask]), {})
    assert again.tolist() == [5.0, 7.0]
    longer = torch.tensor([True, True, True, False])
    other = Picks(first.made).call(aten.index.Tensor, (torch.arange(4.0), [longer]), {})
    assert other.tolist() == [0.0, 1.0, 2.0]


def test_another_operator_picks_for_itself():
    mask, x = torch.tensor([True, False, True]), torch.arange(3.0)
    first = Picks()
    first.call(aten.index.Tensor, (x, [mask]), {})
    again = Picks(first.made).call(aten.masked_select.default, (x, ~mask), {})
    assert again.tolist() == [1.0]


def test_what_picks_nothing_is_left_to_torch():
    recall._KNOWN.clear()
    picks, x = Picks(), torch.tensor([-1.0, 2.0])
    assert torch.equal(picks.call(aten.relu.default, (x,), {}), torch.tensor([0.0, 2.0]))
    assert picks.made == []
    assert not recall._KNOWN


def test_positions_by_number_are_no_pick():
    picks = Picks()
    x, at = torch.arange(3.0), torch.tensor([2, 0])
    assert picks.call(aten.index.Tensor, (x, [at]), {}).tolist() == [2.0, 0.0]
    assert picks.made == []


class Picking(nn.Module):
    """Rows that its own scores pick, in one of the ways that models have."""

    def __init__(self, way):
        super().__init__()
        self.up, self.score = nn.Linear(6, 12), nn.Linear(12, 1)
        self.more, self.down, self.way = nn.Linear(12, 8), nn.Linear(8, 3), way

    def forward(self, x):
        h = self.up(x).relu()
        good = self.score(h)[:, 0] > 0
        if self.way == "mask":
            h = h[good]
        elif self.way == "numbers":
            h = h[good.nonzero()[:, 0]]
        elif self.way == "written":
            h = h * 1
            h[good] = 0.5 * h[good]
        return self.down(self.more(h).relu())


@pytest.mark.parametrize("way", ["mask", "numbers", "written"])
def test_rows_picked_by_value_do_not_keep_a_layer_whole(way):
    torch.manual_seed(0)
    model, x = Picking(way), torch.randn(40, 6)
    found = vibnet.plan(model, x)
    assert found.sizes == {"up": 12, "more": 8}
    small, report = vibnet.prune(model, halved(found), x)
    assert (small.up.out_features, small.more.out_features) == (6, 4)
    assert report.difference < 1e-12


def test_what_is_picked_again_is_a_copy():
    first = Picks()
    x = torch.tensor([1.0, 0.0, 2.0])
    first.call(aten.nonzero.default, (x,), {}).add_(5)
    again = Picks(first.made)
    again.call(aten.nonzero.default, (x,), {}).add_(7)
    assert Picks(first.made).call(aten.nonzero.default, (x,), {}).flatten().tolist() == [0, 2]


def test_values_that_are_true_or_false_are_no_masks():
    picks = Picks()
    flags = torch.tensor([True, False, True])
    assert picks.call(aten.index.Tensor, (flags, [torch.tensor([1])]), {}).tolist() == [False]
    assert picks.made == []
    x, mask = torch.zeros(3), torch.tensor([True, False, True])
    first = Picks()
    first.call(aten.masked_scatter.default, (x, mask, torch.ones(2)), {})
    again = Picks(first.made).call(aten.masked_scatter.default, (x, ~mask, torch.ones(2)), {})
    assert again.tolist() == [1.0, 0.0, 1.0]
    first = Picks()
    first.call(aten.masked_select.default, (x, mask), {})
    assert len(Picks(first.made).call(aten.masked_select.default, (x, ~mask), {})) == 2
