import copy

import pytest
import torch
from torch import nn
from training import Toy, mlp

from vibnet.errors import ConfigError, TrainingError
from vibnet.train.evaluate import call, examine, validate
from vibnet.train.objective import classification, regression


def test_validation_is_a_mean_over_examples_in_evaluation_and_leaves_modes_alone():
    toy, model = Toy(), mlp(dropout=0.5, norm=True)
    model[1].eval()
    modes = [m.training for m in model]
    found = validate(model, [(toy.x[:10], toy.y[:10]), (toy.x[10:], toy.y[10:])], classification())
    assert [m.training for m in model] == modes
    wrong = (copy.deepcopy(model).eval()(toy.x).argmax(1) != toy.y).double()
    assert found == pytest.approx(100 * float(wrong.mean()), rel=1e-12)
    with pytest.raises(ConfigError, match=r"validate: there is no example"):
        validate(model, [], classification())


def test_a_model_is_called_with_a_tensor_a_tuple_or_a_dict():
    bilinear, a = nn.Bilinear(2, 2, 1), torch.ones(3, 2)
    expected = bilinear(a, 2 * a)
    assert torch.equal(call(bilinear, (a, 2 * a)), expected)
    assert torch.equal(call(bilinear, {"input2": 2 * a, "input1": a}), expected)
    assert torch.equal(call(nn.Identity(), a), a)


def test_a_validation_that_gives_no_number_is_refused():
    x, y = torch.full((2, 6), float("nan")), torch.zeros(2, 3)
    with pytest.raises(TrainingError, match=r"the mean squared error of 2 examples is nan"):
        validate(mlp(), [(x, y)], regression())


def test_the_standard_error_is_that_of_a_mean_over_examples():
    toy, model = Toy(), mlp()
    wrong = 100.0 * (model.eval()(toy.x).argmax(1) != toy.y).double()
    batches = [(toy.x[:7], toy.y[:7]), (toy.x[7:], toy.y[7:])]
    mean, spread = examine(model, batches, classification())
    assert mean == pytest.approx(float(wrong.mean()))
    assert spread == pytest.approx(float(wrong.std(correction=0)) / len(wrong) ** 0.5)
