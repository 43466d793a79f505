import dataclasses
import time

import pytest
import torch
from torch import nn
from training import Toy, mlp

from vibnet import attach
from vibnet.config import Settings
from vibnet.errors import TrainingError
from vibnet.train.loop import fit
from vibnet.train.objective import Objective, classification
from vibnet.train.watch import diverged, finite, out_of_reach

NAN = float("nan")
SETTINGS = Settings(batch=16, dense_epochs=1, gate_epochs=1)


class Log(nn.Module):
    """The logarithm of what is below zero."""

    def forward(self, x):
        return (x - x.abs() - 1).log()


class Functional(nn.Module):
    """Goes wrong outside all of its modules."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.b(self.a(x).relu()) / 0.0


def told(model, x):
    error = diverged(model, x, "gate epoch 3, step 7")
    assert isinstance(error, TrainingError)
    text = str(error)
    assert text.startswith("training diverged in gate epoch 3, step 7: ")
    assert text.endswith("Lower the learning rate, clip the gradient, or look at the data.")
    return text.partition(": ")[2]


def test_the_parameter_that_is_not_finite_is_named():
    model = mlp()
    model[4].bias.data[3] = float("inf")
    assert told(model, torch.ones(2, 6)).startswith("the parameter 4.bias is not finite.")


def test_inputs_that_are_not_finite_are_named_first():
    model, x = mlp(), torch.ones(2, 6)
    model[4].bias.data[3] = NAN
    x[1, 2] = NAN
    for given in (x, {"input": x}):
        text = str(diverged(model, given, "gate epoch 3, step 7"))
        assert text == "the inputs of gate epoch 3, step 7 are not finite. Look at the data."


def test_a_warning_about_a_billion_steps_comes_at_once():
    settings = dataclasses.replace(SETTINGS, gate_lr=1e-12)
    begin = time.monotonic()
    assert "no gate can close: 1000000000 steps" in out_of_reach(
        attach(mlp(), torch.ones(2, 6)), settings, 10**9
    )
    assert time.monotonic() - begin < 5


def test_the_first_layer_whose_output_is_not_finite_is_named():
    model = nn.Sequential(nn.Linear(6, 4), nn.Sequential(nn.ReLU(), Log()), nn.Linear(4, 3))
    assert told(model, torch.ones(2, 6)).startswith("the output of 1.1 is the first that is not")
    assert not any(m._forward_hooks for m in model.modules())


def test_what_goes_wrong_between_modules_is_the_models_own():
    text = told(Functional(), torch.ones(2, 6))
    assert text.startswith("the output of the model itself is the first that is not finite.")


def test_layers_of_a_gated_model_have_the_names_of_its_owner():
    gated = attach(mlp(), torch.ones(2, 6)).train()
    gated.gate("0").log_var.data.fill_(300.0)
    text = told(gated, torch.ones(2, 6))
    assert text.startswith("the output of the gate at 4 is the first that is not finite.")
    gated.gate("0").log_var.data.fill_(-9.0)
    gated.model[4].weight.data.fill_(3e38)
    assert told(gated, torch.ones(2, 6)).startswith("the output of 4 is the first")
    gated.gate("4").mu.data[0] = NAN
    assert told(gated, torch.ones(2, 6)).startswith("the parameter gates.4.mu is not finite.")


def test_where_the_outputs_are_fine_it_is_the_loss():
    text = told(mlp(), torch.ones(2, 6))
    assert text.startswith("the model's outputs are finite, the loss of them or the penalty is not")


def test_finite_looks_into_trees():
    assert finite({"a": [torch.ones(2), (torch.tensor([1]), None)]})
    assert not finite({"a": [torch.ones(2), (torch.tensor([1.0, NAN]), None)]})


class Bad(Toy):
    """A number of the second batch of the first epoch is none."""

    def train(self, epoch):
        batches = super().train(epoch)
        x = batches[1][0].clone()
        x[0, 0] = NAN
        return [batches[0], (x, batches[1][1]), *batches[2:]]


def test_fit_stops_with_phase_epoch_step_and_cause():
    with pytest.raises(TrainingError, match=r"inputs of dense epoch 1, step 2 are not finite"):
        fit(mlp(), Bad(), None, SETTINGS)
    nothing = Objective(lambda y, _t: y.sum().log() * NAN, classification().metric, "x")
    with pytest.raises(TrainingError, match=r"dense epoch 1, step 1: the model's outputs are"):
        fit(mlp(), Toy(), nothing, SETTINGS)
    with pytest.raises(TrainingError, match=r"dense epoch 1, step 1: the output of the model it"):
        fit(Functional(), Toy(), None, SETTINGS)


@pytest.mark.parametrize("batch", [16, 64])
def test_fit_sees_a_step_that_ruins_the_weights(batch):
    """Its loss is finite; with one step an epoch there is no further loss to look at."""

    def loss(output, _target):
        return (output - output.detach()).abs().sqrt().sum()

    steep = Objective(loss, classification().metric, "x")
    after = "step 2" if batch == 16 else "after its last step"
    with pytest.raises(TrainingError, match=f"dense epoch 1, {after}: the parameter .* is not"):
        fit(mlp(), Toy(batch=batch), steep, SETTINGS)


@pytest.mark.parametrize(
    ("settings", "steps", "warned"),
    [
        (Settings(gate_schedule="constant", gate_lr=1e-2), 90, True),
        (Settings(gate_schedule="constant", gate_lr=1e-2), 105, False),
        (Settings(gate_schedule="cosine", gate_lr=1e-2), 180, True),
        (Settings(gate_schedule="cosine", gate_lr=1e-2), 210, False),
        (Settings(gate_schedule="constant", gate_lr=1e-1), 9, True),
        (Settings(gate_schedule="constant", gate_lr=1e-1), 11, False),
        (Settings(gate_schedule="constant", optimizer="sgd"), 1, False),
        (Settings(gate_schedule="constant", gamma=0.0), 1, False),
    ],
)
def test_gates_that_cannot_close_in_time_are_told(settings, steps, warned):
    gated = attach(mlp(), torch.ones(2, 6))
    for _, gate in gated.all_gates():
        gate.mu.data.fill_(1.0)
        gate.log_var.data.fill_(-9.0)
    text = out_of_reach(gated, settings, steps)
    assert bool(text) is warned
    if warned:
        assert f"no gate can close: {steps} steps at gate_lr" in text


def test_adam_under_a_steady_pull_moves_as_far_as_the_warning_counts_with():
    lr, steps = 1e-2, 50
    p = nn.Parameter(torch.tensor(1.0))
    optimizer = torch.optim.Adam([p], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        (0.3 * p).backward()
        optimizer.step()
    assert 1 - float(p.detach()) == pytest.approx(lr * steps, rel=1e-4)


def test_fit_warns_once_and_counts_the_steps_of_accumulation():
    toy, said = Toy(batch=16), []
    settings = Settings(dense_epochs=0, gate_epochs=2, gate_lr=1e-3, accumulate=3)
    done = fit(mlp(), toy, None, settings, on_warning=said.append)
    assert len(said) == 1
    assert said[0].startswith("no gate can close: 4 steps at gate_lr 0.001")
    assert done.warnings == said
