import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vibnet import plan
from vibnet.graph.capture.memory import Memory, storage

X = torch.randn(5, 4)


@pytest.mark.parametrize("fake", [True, False])
def test_a_tensor_given_other_data_has_moved_and_so_has_what_it_lies_with(fake):
    mode = FakeTensorMode() if fake else torch.no_grad()
    with mode:
        x, y, other = torch.empty(3), torch.empty(3), torch.empty(3)
        memory = Memory()
        memory.note([x, y, y[1:], other], "all")
        assert memory.moved() == []
        x.add_(1)
        y.resize_(2)
        assert memory.moved() == []
        x.data = y
        assert storage(x) == storage(y)
        moved = [t for t, who in memory.moved() if who == "all"]
        assert len(moved) == 3
        assert not any(t is other for t in moved)


def test_tensors_without_strides_are_left_out():
    memory = Memory()
    memory.note([torch.zeros(2, 2).to_sparse()], "it")
    assert memory.moved() == []


class Replaced(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.first, self.last, self.how = nn.Linear(4, 6), nn.Linear(6, 2), how

    def forward(self, x):
        h = self.first(x).relu()
        self.how(self, h)
        return self.last(h)


def turned(model, h):
    h.data = h.data.flip(1)


def turned_weight(model, h):
    model.last.weight.data = model.last.weight.data.flip(1)


def after_data(model, h):
    if model.last.bias.sum().item() < 9:  # takes real tensors to follow
        h.data = h.data.flip(1)


REPLACED = {
    turned: r"what relu in the model itself .* is given other data \(x\.data = y\), which no",
    turned_weight: r"^last\.weight is given other data",
    after_data: r"what relu in the model itself .* is given other data",
}


@pytest.mark.parametrize("how", REPLACED, ids=lambda how: how.__name__)
def test_units_whose_data_are_replaced_without_a_call_stay_whole(how):
    found = plan(Replaced(how), X)
    assert found.sizes == {}
    with pytest.raises(AssertionError, match=REPLACED[how]):
        raise AssertionError(found.pinned["first"])


def test_data_that_are_written_into_are_seen():
    def scaled(model, h):
        h.data.mul_(2)

    assert plan(Replaced(scaled), X).sizes == {"first": 6}
