import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vibnet.graph.capture.capture import capture
from vibnet.graph.labels.labeller import Labeller
from vibnet.graph.labels.rules import TABLE


def events(model, example):
    """The labeller of one trace, with what it noted."""
    traces = capture(model, example)
    engine = Labeller(dict(TABLE))
    engine.add_model(traces[0].model)
    engine.add(traces[0])
    return engine, traces[0]


@pytest.mark.parametrize(
    ("layer", "example", "op", "position", "bias"),
    [
        (nn.Linear(3, 4), (2, 3), "addmm", 0, "0.bias"),
        (nn.Linear(3, 4, bias=False), (2, 3), "mm", 0, ""),
        (nn.Conv2d(3, 4, 1), (2, 3, 2, 2), "convolution", 0, "0.bias"),
        (nn.ConvTranspose2d(3, 4, 1, bias=False), (2, 3, 2, 2), "convolution", 1, ""),
    ],
)
def test_a_write_names_its_call_its_dimension_and_its_bias(layer, example, op, position, bias):
    engine, trace = events(nn.Sequential(layer), torch.randn(example))
    (write,) = engine.writes
    assert (write.parameter, write.module, write.trace) == ("0.weight", "0", 0)
    assert trace.calls[write.call].op == op
    assert (write.position, write.bias) == (position, bias)
    assert write.atoms.tolist() == engine.parameters["0.weight"][position][0].tolist()


def test_a_bias_that_is_computed_is_told_from_none():
    class Shifted(nn.Linear):
        def forward(self, x):
            return F.linear(x, self.weight, self.bias * 2)

    engine, _ = events(nn.Sequential(Shifted(3, 4)), torch.randn(2, 3))
    assert [w.bias for w in engine.writes] == ["?"]


def test_a_norm_is_noted_with_its_units_and_the_call_that_adds_eps():
    model = nn.Sequential(nn.Linear(3, 4), nn.RMSNorm(4, eps=1e-3), nn.Linear(4, 2))
    engine, trace = events(model, torch.randn(2, 3))
    (normed,) = engine.normed
    assert normed.adding is trace.calls[normed.found.adding]
    assert normed.adding.numbers == [pytest.approx(1e-3)]
    roots, _ = engine.labels.resolve()
    assert (roots[normed.atoms[0]] == roots[engine.parameters["0.weight"][0][0]]).all()
