"""A small run by the command, made once and copied, and a record written out by hand."""

import contextlib
import copy
import functools
import json
import shutil
import tempfile
from pathlib import Path

from typer.testing import CliRunner

from vibnet.cli import app

SHORT = ("--set", "dense_epochs=2", "--set", "gate_epochs=3", "--set", "gate_lr=0.1")


def vibnet(*words):
    """The command with words; the result has exit_code, stdout and stderr."""
    return CliRunner().invoke(app, [str(word) for word in words])


@functools.cache
def _short():
    folder = Path(tempfile.mkdtemp(prefix="vibnet-run-")) / "run"
    done = vibnet("run", "digits-mlp", *SHORT, "--out", folder)
    assert done.exit_code == 0, done.output
    return folder, done.output


def short_run(target):
    """A copy of a short digits-mlp run in `target`, and what the command printed."""
    folder, output = _short()
    shutil.copytree(folder, target)
    return target, output


def record(number, phase="gate"):
    return {
        "phase": phase,
        "epoch": number,
        "loss": 0.5,
        "nats": 100.0 / number,
        "validation": 10.0 / number,
        "kept": {"fc": 8 - number} if phase == "gate" else {},
        "weights": 100,
        "macs": 100,
        "gamma": 1e-3 if phase == "gate" else 0.0,
    }


def _cost(factor):
    names = ("weights", "macs", "neurons", "parameters", "bytes", "peak_memory")
    return {**dict.fromkeys(names, 100 * factor), "attention_macs": 0}


WHOLE = {
    "schema": "vibnet.run",
    "version": 1,
    "name": "by-hand",
    "notes": {
        "about": "a run written by hand",
        "data": "digits",
        "images": {"train": 10, "validation": 5},
        "published": {"the paper": [1.5, None, 20.0, 1.0]},
    },
    "settings": {"seed": 3, "gamma": 1e-3, "shrink": True, "autocast": ""},
    "options": {"weights": {"fc": 2.0}},
    "metric": "error (%)",
    "done": True,
    "history": [record(1, "dense"), record(1), record(2), record(3)],
    "timing": {
        "latency_dense": {"1": 2e-5, "32": 4e-5},
        "latency_small": {"1": 1e-5, "32": 1e-5},
        "seconds": 1.0,
    },
    "warnings": ["no gate can close"],
    "before": _cost(10),
    "after": _cost(1),
    "ratios": {"r_W": 10.0, "macs": 100, "r_N": 10.0},
    "test": {"dense": 2.0, "small": 2.5},
    "validation": {"dense": 2.0, "small": 2.0},
    "sites": [{"name": "fc", "before": 8, "after": 5, "writers": ["fc"], "readers": ["out"]}],
    "pinned": {"out": "it is an output of the model"},
    "snr": {"fc": [0.5, 2.0, 1e9, 0.0, 30.0]},
    "difference": 1e-16,
    "weights_sha256": "0" * 64,
    "host": {
        "vibnet": "0.1.0",
        "torch": "2.13.0",
        "python": "3.11",
        "machine": "m",
        "threads": 1,
        "device": "cpu",
        "flush_denormals": True,
        "commit": "abc",
        "command": "vibnet run by-hand",
    },
}


def written(folder, **changes):
    """A folder with the record by hand, changed."""
    folder.mkdir(parents=True, exist_ok=True)
    body = {**copy.deepcopy(WHOLE), **changes}
    (folder / "run.json").write_text(json.dumps(body))
    return folder


@contextlib.contextmanager
def inside(folder, monkeypatch):
    """With a folder as the current one, from which modules can be imported."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
