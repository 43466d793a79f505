import copy

import numpy as np
import pytest
import torch
from torch import nn

from vibnet.errors import CaptureError, VerificationError
from vibnet.graph.trial.cut import cut
from vibnet.graph.trial.outputs import Output, outputs
from vibnet.graph.trial.probe import followed
from vibnet.surgery.fold import closed
from vibnet.surgery.layerwise import Layers, Layerwise, forward

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
KEPT = np.array([True, False, True, True, False, True])


def three():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).double()


def parts(model=None, kept=KEPT, example=X):
    """What compares, and the whole and the small model."""
    model = model or three()
    graph, engine, traces = followed(model, example.to(next(model.parameters()).dtype))
    small = copy.deepcopy(model)
    cut(small, graph, kept)
    whole = closed(model, graph, kept)
    return Layerwise(outputs(engine, traces, graph), kept), whole, small


def compared(layers, whole, small, example=X):
    layers.remember(lambda: copy.deepcopy(whole), example)
    return layers.compare(lambda: copy.deepcopy(small))


def test_a_right_cut_agrees_module_by_module():
    layers, whole, small = parts()
    assert compared(layers, whole, small) < 1e-15
    assert list(layers.outputs) == ["0", "1", "2", ""]
    assert layers.apart == {}
    assert len(layers.records) == 2  # the numbers in another order too


@pytest.mark.parametrize("name", ["0.weight", "0.bias", "2.weight", "2.bias"])
def test_the_module_that_computes_something_else_is_named(name):
    layers, whole, small = parts()
    dict(small.named_parameters())[name].data.flatten()[1] += 1e-8
    module = name[0]
    with pytest.raises(VerificationError, match=rf"outputs of {module} moved by .* of their scale"):
        compared(layers, whole, small)


def test_a_difference_within_rounding_is_none():
    layers, whole, small = parts()
    small[2].bias.data += 1e-13
    assert 1e-15 < compared(layers, whole, small) < 1e-11


def test_swapped_units_are_noticed_where_they_are_swapped():
    layers, whole, small = parts()
    small[0].weight.data = small[0].weight.data[[1, 0, 2, 3]]
    small[0].bias.data = small[0].bias.data[[1, 0, 2, 3]]
    small[2].weight.data = small[2].weight.data[:, [1, 0, 2, 3]]
    torch.testing.assert_close(small(X.double()), whole(X.double()))  # the answers are right
    with pytest.raises(VerificationError, match="outputs of 0 moved"):
        compared(layers, whole, small)


def test_a_wrong_shape_is_told():
    layers, whole, _ = parts()
    _, _, small = parts(kept=np.array([True] * 5 + [False]))
    with pytest.raises(VerificationError, match=r"shape \(3, 5\) instead of \(3, 4\)"):
        compared(layers, whole, small)


def test_a_small_model_that_does_not_run_is_an_error_of_its_own():
    layers, whole, small = parts()
    small[2] = nn.Linear(7, 2).double()
    with pytest.raises(VerificationError, match="the small model does not run: mat1 and mat2"):
        compared(layers, whole, small)


class Single(nn.Module):
    """Multiplies two types."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        if x.dtype == torch.float64:
            raise TypeError("single precision only")
        return self.b(self.a(x))


def test_a_model_that_is_not_made_for_double_precision_is_refused():
    layers, whole, _ = parts(Single(), example=X)
    match = r"does not run in double precision.*single precision only \(at test_layerwise"
    with pytest.raises(CaptureError, match=match):
        layers.remember(lambda: whole, X)


class Picky(nn.Module):
    """Takes sorted numbers only."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        if type(x) is torch.Tensor and (x.diff() < 0).any():
            raise ValueError("sorted numbers only")
        return self.b(self.a(x))


def test_an_input_that_the_model_does_not_take_is_left_out():
    example = X.double().sort().values
    layers, whole, small = parts(Picky().double(), example=example)
    assert compared(layers, whole, small, example) < 1e-15
    assert len(layers.records) == 1


class Deaf(nn.Module):
    """Answers the same to every input."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.b(self.a(x)) * 0


def test_answers_that_are_the_same_whatever_the_input_verify_nothing():
    layers, whole, small = parts(Deaf().double())
    assert compared(layers, whole, small) is None


def test_a_module_that_takes_another_way_with_numbers_is_left_to_what_holds_it():
    _, whole, small = parts()
    units = np.full(3, -1), np.full(9, -1)
    layers = Layerwise([Output("1", 2, 0, units), Output("2", 7, 0, units)], KEPT)
    assert compared(layers, whole, small) < 1e-15
    assert "takes another way" in layers.apart["1"]
    assert list(layers.outputs) == []


def test_numbers_far_smaller_than_others_may_be_what_rounding_leaves():
    layers, whole, small = parts()
    for model in (whole, small):
        model[2].weight.data.mul_(1e-12)
        model[2].bias.data.zero_()
    small[2].bias.data += 1e-15
    assert compared(layers, whole, small) < 1e-10
    small[2].bias.data += 1e-12
    with pytest.raises(VerificationError, match="outputs of 2 moved"):
        compared(layers, whole, small)


def test_a_forward_tells_of_every_module_as_they_end():
    seen = []
    answers = forward(three(), X, lambda call, name, given: seen.append((call, name, len(given))))
    assert seen == [(1, "0", 1), (2, "1", 1), (3, "2", 1), (0, "", 1)]
    assert torch.equal(answers[0], three()(X.double()))


def test_a_report_says_what_was_compared_and_how():
    many = tuple(f"layer{k}" for k in range(6))
    layers = Layers(many, ("table",), (("a", "why"), ("b", "why")))
    assert str(layers) == "verified layer by layer: outputs of 6 modules"
    assert layers.lines == [
        "compared number by number, for the example uses some rows or none: table",
        "compared only as a part of what holds it: a, b (why)",
    ]
    told = Layers((), many).lines[0]
    assert told.endswith("layer0, layer1, layer2, layer3, ... (6)")
