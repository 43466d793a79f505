import pytest
import torch
from torch import nn

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
