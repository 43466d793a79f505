import copy
import json

import pytest
import torch
from states import X, gate_state, set_snr, step
from training import mlp, same

from vibnet.config import Settings
from vibnet.errors import ConfigError
from vibnet.train import saved
from vibnet.train.phases import State


def written(state):
    """What a checkpoint would hold, once through JSON."""
    return {k: v.clone() for k, v in saved.tensors(state).items()}, json.loads(
        json.dumps(saved.body(state))
    )


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("phase", ["dense", "gate", "shrunk", "tune"])
def test_a_state_comes_back_whole(phase, optimizer, ema):
    settings = Settings(optimizer=optimizer, ema=ema, tune_epochs=2, patience=1, momentum=0.9)
    model = mlp(norm=True, dropout=0.3)
    torch.manual_seed(3)
    state = State(settings, X, {"exclude": ["4"]}, copy.deepcopy(model))
    step(state)
    if phase != "dense":
        state.advance()
        step(state)
    if phase in ("shrunk", "tune"):
        for gated in {state.model, state.result}:
            set_snr(gated, "0", [0.1] * 5 + [9.0] * 11)
        assert state.shrink()
        step(state)
    if phase == "tune":
        state.advance()
        step(state)
    state.epoch, state.warnings = 1, ["something"]
    state.record(1 / 3, 0.1, 2.0)
    tensors, body = written(state)
    torch.manual_seed(99)
    other = State(settings, X, {"exclude": ["4"]}, copy.deepcopy(model))
    saved.restore(other, tensors, body)
    again, body_again = written(other)
    assert same(again, tensors)
    assert body_again == body
    for s in (state, other):
        torch.set_rng_state(tensors["random/cpu"])
        step(s)
    assert same(written(other)[0], written(state)[0])
    if phase == "tune":
        assert other.report.plan == state.report.plan
    else:
        state.advance()
        other.advance()
        assert str(other.model) == str(state.model)


def test_another_run_is_not_gone_on_with():
    state = gate_state(lr=0.1, seed=4)
    tensors, body = written(state)
    for settings, options, model, named in [
        ({"lr": 0.2, "seed": 4}, {}, mlp(), r"other settings: \{'lr': 0.1\}"),
        ({"seed": 5}, {}, mlp(), r"\{'seed': 4, 'lr': 0.1\}"),
        ({"lr": 0.1, "seed": 4}, {"multiple": 2}, mlp(), r"\{'options': '\{\}'\}"),
        ({"lr": 0.1, "seed": 4}, {}, mlp(classes=4), r"\{'model': '[0-9a-f]+'\}"),
    ]:
        other = State(Settings(**settings), X, options, model)
        with pytest.raises(ConfigError, match=named):
            saved.restore(other, tensors, body)
