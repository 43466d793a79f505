import torch
from torch import nn

from vibnet.graph.capture.capture import capture
from vibnet.graph.capture.reach import live


class Net(nn.Module):
    """A live layer, a dead one, one that is added through a view, one whose number counts."""

    def __init__(self):
        super().__init__()
        self.live, self.dead, self.over, self.counts = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x):
        self.dead(x)
        out = self.live(x)
        out.view(-1)[:4].add_(self.over(x)[0])
        if self.counts(x).sum().item() > 1e9:
            return out * 2
        self.dead(x).add_(1)
        return out


def inside(trace, name):
    mine = {k for k, m in enumerate(trace.modules) if m.name == name}
    return {k for k, call in enumerate(trace.calls) if not mine.isdisjoint(call.stack)}


def test_what_no_output_needs_is_not_live():
    trace = capture(Net(), torch.ones(2, 4))[-1]
    found = live(trace)
    assert found.isdisjoint(inside(trace, "dead"))
    for name in ("live", "over", "counts"):
        assert not found.isdisjoint(inside(trace, name)), name


class Keeping(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.seen = None

    def forward(self, x):
        self.seen = self.linear(x)
        return x + 1


def test_what_a_module_keeps_is_live():
    trace = capture(Keeping(), torch.ones(2, 4))[-1]
    assert not live(trace).isdisjoint(inside(trace, "linear"))
