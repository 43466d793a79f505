import torch
from torch import nn

from vibnet.graph.capture.capture import capture
from vibnet.graph.capture.reach import Reach, output_of


class Branchy(nn.Module):
    """A live layer, one whose output is only written over, and one that reads no input."""

    def __init__(self):
        super().__init__()
        self.live, self.dead, self.fixed = (nn.Linear(4, 4) for _ in range(3))
        self.start = nn.Parameter(torch.ones(1, 4))

    def forward(self, x):
        self.dead(x)
        fixed = self.fixed(self.start.expand(x.shape))
        fixed += self.live(x)
        return fixed


def flow():
    trace = capture(Branchy(), torch.ones(2, 4))[-1]
    return Reach(trace), {m.name: m for m in trace.modules}


def test_calls_that_no_output_needs_are_not_live():
    found, _ = flow()
    assert found.live.isdisjoint(found.inside("dead"))
    assert not found.live.isdisjoint(found.inside("live"))
    assert found.inside("").issuperset(found.inside("live"))


def test_a_constant_stays_one_when_it_is_written_into_later():
    found, modules = flow()
    assert found.constant(found.inside("fixed"), modules["fixed"])
    assert not found.constant(found.inside("live"), modules["live"])


class Inner(nn.Module):
    """A constant whose intermediate result is used outside too."""

    def __init__(self):
        super().__init__()
        self.start, self.linear = nn.Parameter(torch.ones(3, 4)), nn.Linear(4, 4)

    def forward(self, x):
        self.seen = self.linear(self.start) * 2
        return self.seen + 1


class Outer(nn.Module):
    def __init__(self, used):
        super().__init__()
        self.inner, self.used = Inner(), used

    def forward(self, x):
        out = x + self.inner(x)
        if self.used:
            out = out * self.inner.seen
        self.inner.seen = None
        return out


def test_what_else_leaves_a_module_is_seen():
    for used in (True, False):
        trace = capture(Outer(used), torch.ones(3, 4))[-1]
        found = Reach(trace)
        call = next(m for m in trace.modules if m.name == "inner")
        assert found.constant(found.inside("inner"), call) is not used


def test_the_output_of_a_module():
    x = torch.ones(1)
    assert output_of(x) is x
    assert output_of((x, None)) is x
    assert output_of((x, x)) is None
    assert output_of({"a": x}) is None


class Writing(nn.Module):
    """A constant beside which its input is written into."""

    def __init__(self):
        super().__init__()
        self.start = nn.Parameter(torch.ones(3, 4))

    def forward(self, x):
        x.mul_(2)
        return self.start + 1


class Around(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.inner = kind()

    def forward(self, x):
        x = x + 1
        return self.inner(x) + x


class Viewing(Writing):
    """A constant beside which its input is looked at."""

    def forward(self, x):
        x.view(-1)
        return self.start + 1


class Handing(nn.Module):
    """A module that gives a parameter on as it is."""

    def __init__(self):
        super().__init__()
        self.start = nn.Parameter(torch.ones(3, 4))

    def forward(self, x):
        return self.start.view(3, 4)


def test_a_module_that_writes_into_its_input_is_no_constant():
    for kind, constant in ((Writing, False), (Viewing, True), (Handing, False)):
        trace = capture(Around(kind), torch.ones(3, 4))[-1]
        found = Reach(trace)
        call = next(m for m in trace.modules if m.name == "inner")
        assert found.constant(found.inside("inner"), call) is constant
