"""What modules hold after a forward, and what the next one uses of it."""

import pytest
import torch
from laws import law_one
from torch import nn

from vibnet import plan
from vibnet.graph.capture.held import held_by, tensors_of
from vibnet.graph.capture.refusals import computed

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


class Keeps(nn.Module):
    """Units that a forward keeps, and that the next one may read."""

    def __init__(self, buffer, reads):
        super().__init__()
        self.a, self.b = nn.Linear(8, 12), nn.Linear(24 if reads else 12, 6)
        self.reads, start = reads, torch.zeros(12)
        if buffer:
            self.register_buffer("last", start)
        else:
            self.last = start
        self.c, self.d = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        h = self.a(x).relu()
        before = [self.last.expand(len(h), -1)] if self.reads else []
        y = self.b(torch.cat([h, *before], 1))
        self.last = h.mean(0).detach()
        return self.d(self.c(y.relu()).relu())


@pytest.mark.parametrize("buffer", [True, False])
def test_units_that_the_next_call_reads_stay(buffer):
    found = plan(Keeps(buffer, reads=True), X)
    assert found.pinned["a"] == "last keeps it for the next call"
    assert {"b", "c"} <= {*found.sizes}


@pytest.mark.parametrize("buffer", [True, False])
def test_units_that_nothing_reads_again_may_go(buffer):
    model = Keeps(buffer, reads=False)
    assert "a" in plan(model, X).sizes
    law_one(model, X)


def test_tensors_are_found_by_name_in_lists_too():
    model = nn.Sequential(nn.BatchNorm1d(3))
    model[0].seen = torch.zeros(2)
    model[0].more = [torch.ones(1)]
    assert {*tensors_of(model)} == {f"0.{n}" for n in (
        "running_mean", "running_var", "num_batches_tracked", "seen"
    )}  # fmt: skip
    assert {"seen", "more", "weight", "running_var"} <= {name for name, _ in held_by(model[0])}
    assert computed(model) == []
