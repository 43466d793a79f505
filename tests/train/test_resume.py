import dataclasses
import itertools

import pytest
import torch
from training import SHORT, Toy, mlp, told

from vibnet.errors import ArtefactError, ConfigError
from vibnet.train import loop
from vibnet.train.loop import fit

CHANGES = {
    "plain": {},
    "average": {"ema": 0.8},
    "sgd": {"optimizer": "sgd", "lr": 0.02, "gate_lr": 0.3, "gamma": 0.5, "momentum": 0.5},
    "accumulated": {"accumulate": 3, "clip": 1.0, "weight_decay": 1e-3, "gate_lr": 0.4},
    "tuned": {"tune_epochs": 3, "distil": 0.5, "gamma_rise": 0.3, "dense_schedule": "halving"},
    "tuned average": {"tune_epochs": 2, "ema": 0.5, "optimizer": "adamw", "autocast": "bfloat16"},
    "no dense phase": {"dense_epochs": 0},
    "too short": {"gate_lr": 1e-4},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_run_that_stops_after_every_epoch_is_the_undisturbed_one(name, tmp_path):
    settings = dataclasses.replace(SHORT, **CHANGES[name])
    model = mlp(dropout=0.2, norm=True)
    straight = fit(model, Toy(), None, settings)
    assert straight.done
    epochs = settings.dense_epochs + settings.gate_epochs + settings.tune_epochs
    for number in itertools.count(1):
        torch.manual_seed(number)  # whatever the process did before
        part = fit(model, Toy(), None, settings, folder=tmp_path, resume=True, seconds=0)
        assert part.done is (len(part.history) == epochs)
        assert len(part.history) == number
        if part.done:
            break
        assert part.small is None or part.history[-1].phase == "tune"
    assert told(part) == told(straight)
    finished = fit(model, Toy(), None, settings, folder=tmp_path, resume=True)
    assert told(finished) == told(straight)
    sizes = [r.weights for r in straight.history if r.phase == "gate"]
    if name not in ("too short",):
        assert sizes[-1] < sizes[0]
        assert straight.small[0].out_features < 16
    else:
        assert len(straight.warnings) == 1


def test_what_cannot_be_resumed_is_refused(tmp_path):
    fit(mlp(), Toy(), None, SHORT, folder=tmp_path, seconds=0)
    with pytest.raises(ConfigError, match=r"holds checkpoints. Resume them, or name another"):
        fit(mlp(), Toy(), None, SHORT, folder=tmp_path)
    other = dataclasses.replace(SHORT, gamma=0.1)
    with pytest.raises(ConfigError, match=r"other settings: \{'gamma': 0.05\}"):
        fit(mlp(), Toy(), None, other, folder=tmp_path, resume=True)
    with pytest.raises(ConfigError, match=r"resume needs the folder"):
        fit(mlp(), Toy(), None, SHORT, resume=True)
    for path in (tmp_path / "checkpoint").glob("*.json"):
        path.write_text("{")
    with pytest.raises(ArtefactError, match=r"all 1 checkpoints"):
        fit(mlp(), Toy(), None, SHORT, folder=tmp_path, resume=True)


def test_a_damaged_last_checkpoint_costs_an_epoch_and_no_digit(tmp_path):
    straight = fit(mlp(), Toy(), None, SHORT)
    options = {"folder": tmp_path, "resume": True}
    for _ in range(5):
        fit(mlp(), Toy(), None, SHORT, seconds=0, **options)
    newest = sorted((tmp_path / "checkpoint").glob("*.safetensors"))[-1]
    newest.write_bytes(newest.read_bytes()[:-9])
    part = fit(mlp(), Toy(), None, SHORT, seconds=0, **options)
    assert len(part.history) == 5
    assert told(fit(mlp(), Toy(), None, SHORT, **options)) == told(straight)


@pytest.mark.parametrize("every", [0.0, 1e9])
def test_checkpoints_are_written_first_when_due_and_at_the_end(tmp_path, monkeypatch, every):
    numbers, real = [], loop.checkpoint.save
    monkeypatch.setattr(
        loop.checkpoint, "save", lambda f, n, *rest: (numbers.append(n), real(f, n, *rest))
    )
    fit(mlp(), Toy(), None, SHORT, folder=tmp_path, save_every=every)
    assert numbers == (list(range(1, 10)) if every == 0 else [1, 9])
