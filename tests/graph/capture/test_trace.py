"""What is told of a call: its numbers, whether it draws, and whether it is always made."""

import pytest
import torch
from torch import nn

from vibnet import plan
from vibnet.graph.capture.capture import capture
from vibnet.graph.capture.trace import Trace


class Does(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.layer, self.function = nn.Linear(4, 6), function

    def forward(self, x):
        return self.function(self.layer(x))


def calls(function, op):
    trace = capture(Does(function), torch.randn(2, 4))[1]
    return [c for c in trace.calls if c.op == op]


@pytest.mark.parametrize(
    ("function", "op", "numbers"),
    [
        (lambda x: x * 3, "mul", [3]),
        (lambda x: torch.add(x, x, alpha=2), "add", [2]),
        (lambda x: x.sum(1), "sum", [1]),
        (lambda x: x + torch.full((6,), 2.0), "full", [2.0]),
        (lambda x: x.view(3, 4), "view", []),
        (lambda x: x.var(1, correction=0), "var", [1, 0]),
    ],
)
def test_numbers_are_what_a_call_computes_with(function, op, numbers):
    assert calls(function, op)[0].numbers == numbers


def test_a_call_names_its_operator_module_and_line():
    found = str(calls(lambda x: x.relu(), "relu")[0])
    assert found.startswith("relu in the model itself (test_trace.py:")


@pytest.mark.parametrize(
    ("function", "op", "draws"),
    [
        (lambda x: x + torch.rand_like(x), "rand_like", True),
        (lambda x: torch.native_dropout(x, 0.5, True)[0], "native_dropout", True),
        (lambda x: x.relu(), "relu", False),
    ],
)
def test_random_calls_are_told_apart(function, op, draws):
    assert calls(function, op)[0].draws is draws


def test_a_reshape_is_the_same_step_whether_or_not_it_copies():
    def shuffled(x):
        return x.view(2, 2, 3).transpose(1, 2).reshape(2, 6)

    copied, plain = (
        capture(Does(f), torch.randn(2, 4))[1]
        for f in (shuffled, lambda x: x.view(2, 2, 3).reshape(2, 6))
    )
    assert any(c.may_copy for c in copied.calls)
    assert not any(c.may_copy for c in copied.way)
    assert [c.kind for c in copied.way if c.kind != "transpose"] == [c.kind for c in plain.way]


def test_calls_that_no_output_depends_on_are_not_live():
    def function(x):
        x.softmax(1)
        y = x.relu()
        y[0] = 1.0
        return y * 2

    trace = capture(Does(function), torch.randn(2, 4))[1]
    live = {trace.calls[k].op for k in trace.live}
    assert {"relu", "mul", "select"} <= live
    assert any(op.endswith("_") for op in live)
    assert "_softmax" not in live


def test_statistics_of_a_norm_are_live_though_its_output_is_not():
    norm = nn.BatchNorm1d(6)
    trace = capture(Does(lambda x: (norm(x), x)[1]), torch.randn(2, 4))[0]
    assert any("batch_norm" in trace.calls[k].op for k in trace.live)


def test_a_trace_starts_empty():
    trace = Trace(True, nn.Identity())
    assert trace.way == trace.calls == []


@pytest.mark.parametrize("held", ["attribute", "buffer", "list"])
def test_what_a_module_keeps_of_a_forward_is_live(held):
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)
            self.register_buffer("state", torch.zeros(()))
            self.kept = []

        def forward(self, x):
            h = self.a(x)
            mean = h.mean().detach()
            if held == "attribute":
                self.seen = mean
            elif held == "buffer":
                self.state = 0.9 * self.state + 0.1 * mean
            else:
                self.kept = [mean]
            return self.b(h)

    found = plan(Keeps(), torch.randn(3, 4))
    assert "mean in the model itself" in found.pinned["a"]


def test_one_result_of_several_makes_a_call_live():
    trace = capture(Does(lambda x: x.max(1)[0]), torch.randn(2, 4))[1]
    assert "max" in {trace.calls[k].op for k in trace.live}
