"""With `ema`, the averaged weights are what is validated, recorded and handed out."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from training import SHORT, Toy, mlp, same

from vibnet.config import Settings
from vibnet.train.evaluate import validate
from vibnet.train.loop import fit
from vibnet.train.objective import function

LOSS = function(F.cross_entropy)  # as the metric too: it moves with every weight
PLAIN = Settings(
    batch=16, dense_epochs=2, gate_epochs=1, optimizer="sgd", momentum=0.0, lr=0.5, gamma=0.0
)


def doubles():
    toy = Toy()
    toy.x, toy.example = toy.x.double(), toy.example.double()
    return toy


def by_hand(model, toy, epochs, share):
    """Gradient descent, and per epoch the loss of its weights and of their running average."""
    model, average, losses = copy.deepcopy(model), None, []
    x, y = toy.validation()[0]
    for epoch in range(epochs):
        for inputs, targets in toy.train(epoch):
            model.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            with torch.no_grad():
                for p in model.parameters():
                    p.sub_(0.5 * p.grad)
                if average is None:  # it starts where the first step leads
                    average = copy.deepcopy(model)
                    continue
                for a, p in zip(average.parameters(), model.parameters(), strict=True):
                    a.mul_(share).add_((1 - share) * p)
        with torch.no_grad():
            losses.append([float(F.cross_entropy(m(x), y)) for m in (model, average)])
    return average, losses


def test_an_epoch_is_validated_with_the_average_of_its_steps():
    model = mlp().double()
    fitted = fit(model, doubles(), LOSS, dataclasses.replace(PLAIN, ema=0.8))
    average, losses = by_hand(model, doubles(), 2, 0.8)
    assert min(abs(last - mean) for last, mean in losses) > 1e-2
    found = [r.validation for r in fitted.history if r.phase == "dense"]
    assert found == pytest.approx([mean for _, mean in losses], rel=1e-9)
    for a, b in zip(fitted.dense.parameters(), average.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tune", [0, 2])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_last_error_of_every_phase_is_that_of_what_is_handed_out(ema, tune):
    settings = dataclasses.replace(SHORT, ema=ema, tune_epochs=tune)
    fitted = fit(mlp(norm=True), Toy(), LOSS, settings)
    last = {r.phase: r.validation for r in fitted.history}
    for name, phase in (("dense", "dense"), ("small", "tune" if tune else "gate")):
        found = validate(getattr(fitted, name), Toy().validation(), LOSS)
        assert found == pytest.approx(last[phase], rel=1e-5)


def test_the_average_changes_what_is_handed_out_and_not_how_it_is_trained():
    settings = dataclasses.replace(PLAIN, dense_epochs=3, gate_epochs=0)
    plain, mean = (
        fit(mlp(), Toy(), LOSS, dataclasses.replace(settings, ema=e)) for e in (0.0, 0.9)
    )
    assert [r.loss for r in plain.history] == [r.loss for r in mean.history]
    errors = [[r.validation for r in f.history] for f in (plain, mean)]
    assert all(a != b for a, b in zip(*errors, strict=True))
    assert not same(dict(plain.dense.state_dict()), dict(mean.dense.state_dict()))
