import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vibnet.cost import Layer, cuttable_time, layers
from vibnet.cost.layers import REST
from vibnet.errors import CaptureError, ConfigError

X = torch.zeros(2, 4)


class Slow(nn.Linear):
    def forward(self, x):
        time.sleep(0.02)
        return super().forward(x)


class Model(nn.Module):
    """A shared layer, a slow one, and a product of the model's own."""

    def __init__(self):
        super().__init__()
        self.first, self.shared = nn.Linear(4, 6), nn.Linear(6, 6, bias=False)
        self.body = nn.Sequential(nn.ReLU(), Slow(6, 3))
        self.own = nn.Parameter(torch.randn(3, 2))

    def forward(self, x):
        return self.body(self.shared(self.shared(self.first(x)))) @ self.own


def test_layers_stand_in_the_order_of_calls_with_what_they_cost():
    found = layers(Model(), X, seconds=0.01)
    assert [layer.name for layer in found] == ["first", "shared", "body.0", "body.1", REST]
    assert [layer.kind for layer in found] == ["Linear", "Linear", "ReLU", "Slow", ""]
    assert [layer.weights for layer in found] == [24, 36, 0, 18, 6]
    assert [layer.macs for layer in found] == [24, 72, 0, 18, 6]  # shared runs twice
    assert [layer.cuttable for layer in found] == [1, 1, 0, 1, 1]


def test_the_time_is_where_it_is_spent():
    found = {layer.name: layer.seconds for layer in layers(Model(), X, seconds=0.01)}
    assert found["body.1"] >= 0.02
    assert all(s < 0.01 for name, s in found.items() if name != "body.1")


def test_the_share_of_time_counts_by_multiply_adds():
    rows = [Layer("a", "Linear", 1, 10, 0.5, 3.0), Layer("b", "ReLU", 0, 0, 0.0, 1.0)]
    assert cuttable_time(rows) == pytest.approx(0.375)
    assert cuttable_time([]) == 0.0


def test_a_layer_that_may_not_be_cut_does_not_count():
    model = nn.Sequential(nn.Linear(4, 6), nn.Softmax(1), nn.Linear(6, 3))
    assert [layer.cuttable for layer in layers(model, X, seconds=0.01)] == [0, 0, 0, 0]


def test_the_model_is_left_as_it_was_even_after_an_error():
    model = Model().train()
    layers(model, X, seconds=0.01)
    with pytest.raises(CaptureError, match="does not run on the example"):
        layers(model, torch.zeros(2, 5), seconds=0.01)
    with pytest.raises(ConfigError, match="must be positive"):
        layers(model, X, batch=0)

    class Breaks(Model):
        def forward(self, x):
            if x.shape[0] == 7:
                raise RuntimeError("seven rows")
            return F.relu(super().forward(x))

    broken = Breaks().train()
    with pytest.raises(RuntimeError, match="seven rows"):
        layers(broken, X, batch=7)
    for one in (model, broken):
        assert all(m.training for m in one.modules())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in one.modules())
