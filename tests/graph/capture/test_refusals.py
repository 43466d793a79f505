"""Models of which no forward can be seen say why, not that the example is wrong."""

import threading

import pytest
import torch
from torch import nn

from vibnet import plan
from vibnet.errors import CaptureError
from vibnet.graph.capture.refusals import in_the_way


class Locked(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.lock = nn.Linear(8, 4), nn.Linear(4, 2), threading.Lock()

    def forward(self, x):
        return self.b(self.a(x))


def scripted():
    class Traced(nn.Module):
        def forward(self, x):
            return x.relu()

    return nn.Sequential(
        nn.Linear(8, 4), torch.jit.trace(Traced(), torch.zeros(1)), nn.Linear(4, 2)
    )


def not_called_yet():
    return nn.Sequential(nn.Linear(8, 4), nn.LazyLinear(5), nn.Linear(5, 2))


REFUSED = {
    scripted: r"has scripted modules, whose calls cannot be seen \(1\). Put the modules there",
    not_called_yet: r"parameters without a shape yet \(1\.weight, 1\.bias\)\. Call it once before",
    Locked: r"cannot be copied: .*lock.* Keep what cannot be copied out of its attributes",
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("make", REFUSED)
def test_what_is_in_the_way_is_told(make):
    model = make()
    with pytest.raises(CaptureError, match=REFUSED[make]):
        plan(model, torch.randn(3, 8))


def test_nothing_is_in_the_way_of_a_plain_model():
    assert in_the_way(nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2))) == ""
