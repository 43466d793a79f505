"""Of a run with an average of the weights, the average is what is examined, cut and handed on."""

from types import SimpleNamespace

import pytest
import torch
from training import SHORT, Toy, mlp

from vibnet.surgery.prune import prune
from vibnet.train import loop, phases
from vibnet.train.average import Average
from vibnet.train.loop import fit
from vibnet.train.phases import State

AVERAGED = SHORT.replaced(ema=0.9, tune_epochs=1, tune_lr=0.1)


@pytest.fixture
def averages(monkeypatch):
    """Those of a run, in the order of its phases."""
    made = []

    def build(model, decay):
        made.append(Average(model, decay))
        return made[-1]

    monkeypatch.setattr(phases, "Average", build)
    return made


def owner(model, averages):
    """The number of the average that a model is, None of another model."""
    return next((k for k, average in enumerate(averages) if model is average.module), None)


def test_the_average_is_examined_after_every_epoch(averages, monkeypatch):
    seen, examine = [], loop.examine
    monkeypatch.setattr(loop, "examine", lambda m, *a: seen.append(m) or examine(m, *a))
    fit(mlp(), Toy(), None, AVERAGED)
    assert [owner(model, averages) for model in seen] == [0] * 2 + [1] * 7 + [2]


def test_the_average_is_cut_before_tuning_and_its_ratios_are_noted(averages, monkeypatch):
    cut, noted = [], []
    prunes, note = phases.prune, State.note_snr

    def noting(self, gated, leave=None):
        if leave is None:
            noted.append(gated)
        note(self, gated, leave)

    monkeypatch.setattr(phases, "prune", lambda g: cut.append(g) or prunes(g))
    monkeypatch.setattr(State, "note_snr", noting)
    fit(mlp(), Toy(), None, AVERAGED)
    assert [owner(model, averages) for model in cut] == [1]
    assert [owner(model, averages) for model in noted] == [1]


def test_the_small_network_is_cut_from_the_average(averages):
    fitted = fit(mlp(), Toy(), None, AVERAGED.replaced(tune_epochs=0))
    assert owner(fitted.gated, averages) == 1
    again, _ = prune(fitted.gated)
    for name, value in fitted.small.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_the_average_takes_in_the_weights_after_a_step():
    model = mlp()
    state = SimpleNamespace(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        average=Average(model, 0.5),
    )
    before = model[0].weight.detach().clone()
    model(Toy().x[:4]).square().sum().backward()
    loop._step(state, 0.0)
    assert not torch.equal(model[0].weight, before)
    assert torch.equal(state.average.module[0].weight, model[0].weight)  # its first is a copy


def test_distillation_goes_on_while_tuning():
    settings = AVERAGED.replaced(
        ema=0.0, dense_epochs=0, gate_epochs=1, gamma=0.0, lr=1e-9, gate_lr=1e-9, tune_lr=1e-9
    )
    toward = fit(mlp(), Toy(), None, settings.replaced(distil=1.0)).history[-1]
    truth = fit(mlp(), Toy(), None, settings).history[-1]
    assert toward.phase == truth.phase == "tune"
    assert toward.loss < 0.01
    assert truth.loss > 0.5
