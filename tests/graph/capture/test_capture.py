import copy
import random

import numpy as np
import pytest
import torch
from networks import NETWORKS
from torch import nn
from torch.nn.utils.prune import random_unstructured

from vibnet.errors import CaptureError
from vibnet.graph.capture.capture import capture


class Calls(nn.Module):
    """A model whose forward is a function of it and its input."""

    def __init__(self, forward):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.function = forward

    def forward(self, *args, **kwargs):
        return self.function(self.linear, *args, **kwargs)


def test_calls_know_their_operator_module_and_line():
    def forward(linear, x):
        return linear(x).relu()

    training, evaluation = capture(Calls(forward), torch.randn(3, 4))
    assert (training.training, evaluation.training) == (True, False)
    relu = next(c for c in training.calls if c.op == "relu")
    product = next(c for c in training.calls if c.op == "addmm")
    line = forward.__code__.co_firstlineno + 1
    assert str(relu) == f"relu in the model itself (test_capture.py:{line})"
    assert str(product) == f"addmm in linear (test_capture.py:{line})"
    assert relu.pointwise
    assert not product.pointwise
    assert [m.name for m in training.modules] == ["", "linear"]
    assert [training.modules[k].name for k in product.stack] == ["", "linear"]
    assert training.modules[1].output is product.out
    assert training.outputs[0] is relu.out
    assert training.inputs[0] is training.modules[0].inputs[0]


def test_training_uses_batch_statistics_and_evaluation_the_running_ones():
    model, example = NETWORKS["cnn"](0)
    flags = [
        [(c.op, *c.args[5:6]) for c in t.calls if "batch_norm" in c.op]
        for t in capture(model, example)
    ]
    assert flags[0]
    assert flags[0] != flags[1]


def test_a_frozen_norm_stays_frozen_in_a_model_that_trains():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Dropout(0.5))
    model[1].eval()
    training, evaluation = capture(model, torch.randn(2, 4))
    assert sum("dropout" in c.op or c.op == "bernoulli_" for c in training.calls) == 1
    assert not any("dropout" in c.op or c.op == "bernoulli_" for c in evaluation.calls)


def test_a_forward_that_looks_at_data_is_followed_too():
    def forward(linear, x):
        y = linear(x)
        return y if y.sum().item() < 1e9 else y.relu()

    assert [c.op for c in capture(Calls(forward), torch.randn(2, 4))[0].calls if "mm" in c.op]


def test_a_model_that_takes_one_example_only_is_followed_with_one():
    def forward(linear, x):
        return linear(x.view(1, 4))

    trace = capture(Calls(forward), torch.randn(1, 4))[0]
    assert trace.inputs[0].shape == (1, 4)


def test_a_model_that_does_not_run_says_so_with_shapes_and_place():
    match = r"Sequential does not run on the example \(\(2, 5\)\).*train and in eval mode"
    with pytest.raises(CaptureError, match=match):
        capture(nn.Sequential(nn.Linear(4, 4)), torch.randn(2, 5))


def test_an_error_of_the_users_own_is_told_and_chained():
    def forward(linear, x):
        raise KeyError("no such head")

    with pytest.raises(CaptureError, match=r"no such head.*test_capture\.py:\d+") as caught:
        capture(Calls(forward), torch.randn(2, 4))
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_output_that_cannot_be_followed_is_named():
    def forward(linear, x):
        return {"y": linear(x), "when": object()}

    with pytest.raises(CaptureError, match="output holds a object, which cannot be followed"):
        capture(Calls(forward), torch.randn(2, 4))


def test_outputs_in_any_tree_are_found():
    def forward(linear, x):
        y = linear(x)
        return {"a": y, "b": (y + 1, [None, 3, "text"])}

    assert len(capture(Calls(forward), torch.randn(2, 4))[0].outputs) == 2


def test_keyword_arguments_reach_the_model():
    def forward(linear, *, x, scale):
        return linear(x) * scale

    trace = capture(Calls(forward), {"x": torch.randn(2, 4), "scale": 2.0})[0]
    assert [x.shape for x in trace.inputs] == [(2, 4)]


def test_the_model_keeps_its_state_hooks_and_modes():
    model, example = NETWORKS["cnn"](0)
    model.eval()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    capture(model, example)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(m.training or m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_line_is_the_callers_own_even_in_a_sequential():
    trace = capture(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.randn(2, 3))[1]
    here = test_a_line_is_the_callers_own_even_in_a_sequential.__code__.co_firstlineno
    assert {c.line for c in trace.calls} == {f"test_capture.py:{here + 1}"}


def test_a_batch_of_one_beside_a_single_number_is_doubled_alone():
    def forward(linear, x, scale):
        return linear(x) * float(scale.shape == (1,))

    class Scaled(Calls):
        def forward(self, x, scale):
            if scale.shape != (1,):
                raise ValueError("one number is wanted")
            return self.linear(x) * scale

    traces = capture(Scaled(forward), (torch.randn(1, 4), torch.ones(1)))
    assert [tuple(x.shape) for x in traces[0].inputs] == [(2, 4), (1,)]
    assert [tuple(x.shape) for x in traces[0].example] == [(2, 4), (1,)]


@pytest.mark.parametrize("how", ["weight_norm", "prune"])
def test_weights_that_a_hook_computes_are_named_with_the_remedy(how):
    linear = nn.Linear(4, 2)
    if how == "prune":
        random_unstructured(linear, "weight", 0.5)
    else:
        with pytest.warns(FutureWarning):
            torch.nn.utils.weight_norm(linear)
    model = nn.Sequential(linear)
    model(torch.randn(2, 4))
    with pytest.raises(CaptureError, match=r"cannot be copied: 0.weight. .*parametrizations"):
        capture(model, torch.randn(2, 4))


RANDOM = {
    "randn_like": lambda x: x + torch.randn_like(x),
    "dropout": lambda x: nn.functional.dropout(x, 0.5),
    "bernoulli": lambda x: x * torch.bernoulli(torch.full_like(x, 0.5)),
    "rand": lambda x: x * torch.rand(x.shape),
    "normal": lambda x: x * torch.empty_like(x).normal_(),
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers_in_evaluation_are_known(name):
    evaluation = capture(Calls(lambda linear, x: RANDOM[name](linear(x))), torch.randn(3, 4))[1]
    assert any(c.draws for c in evaluation.calls)


SOURCES = {
    "python": (random.seed, random.random),
    "numpy": (np.random.seed, np.random.rand),
    "torch": (torch.manual_seed, lambda: torch.rand(()).item()),
}


@pytest.mark.parametrize("source", SOURCES)
def test_layers_that_are_left_out_at_random_are_left_out_again(source):
    seed, draw = SOURCES[source]

    class Drops(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(8))
            self.last = nn.Linear(4, 2)

        def forward(self, x):
            for layer in self.layers:
                x = layer(x) if draw() < 0.5 else x
            return self.last(x)

    model = Drops()
    seed(3)
    first = draw()
    seed(3)
    traces = [trace for _ in range(2) for trace in capture(model, torch.zeros(3, 4))]
    ways = [[(call.op, call.module) for call in trace.way] for trace in traces]
    assert len(ways) == 4
    assert all(way == ways[0] for way in ways)
    assert draw() == first


def test_dropout_that_is_off_draws_nothing():
    def forward(linear, x):
        return nn.functional.rrelu(nn.functional.dropout(linear(x), 0.5, training=False))

    evaluation = capture(Calls(forward), torch.randn(3, 4))[1]
    assert not any(c.draws for c in evaluation.calls)


def test_of_a_model_that_needs_real_numbers_the_real_failure_is_told():
    class Detects(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 3)

        def forward(self, x, targets=None):
            h = self.a(x)
            if float(h.sum()) > 1e9:
                return h
            if self.training and targets is None:
                raise ValueError("targets should not be None")
            return h

    with pytest.raises(CaptureError, match=r"targets should not be None \(at test_capture"):
        capture(Detects(), torch.randn(2, 4))
