import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from recorded import SHORT, inside, short_run, vibnet

import vibnet.cli.run as command
from vibnet import load
from vibnet.recipes.catalog import recipe

MODULE = """
import torch
from torch import nn
def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))
class Data:
    steps = 4
    def __init__(self):
        self.x = torch.randn(80, 4, 4)
        self.y = torch.randint(0, 3, (80,))
        self.example = self.x[:2]
    def train(self, epoch):
        for k in range(4): yield self.x[10 * k : 10 * k + 10], self.y[10 * k : 10 * k + 10]
    def validation(self): yield self.x[40:60], self.y[40:60]
    def test(self): yield self.x[60:], self.y[60:]
"""


@pytest.fixture(autouse=True)
def process_as_it_was():
    """The command flushes them and sets the threads of its process; the tests go on as before."""
    threads = torch.get_num_threads()
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


def test_a_run_trains_cuts_tests_and_leaves_one_folder(tmp_path):
    folder, output = short_run(tmp_path / "run")
    assert {p.name for p in folder.iterdir()} == {
        ".lock", "checkpoint", "model", "report.html", "run.json", "started.json"
    }  # fmt: skip
    body = json.loads((folder / "run.json").read_text())
    assert body["done"]
    assert body["settings"]["dense_epochs"] == 2
    assert body["host"]["command"] == f"vibnet run digits-mlp {' '.join(SHORT)}"
    assert len(body["history"]) == 5
    for part in ("weights (r_W)", "latency of 32", "test error (%)", "report:", "count as zero"):
        assert part in output, part
    small = load(folder / "model", recipe("digits-mlp").network())
    assert sum(p.numel() for p in small.parameters()) == body["after"]["parameters"]


def test_a_run_that_is_there_is_left_alone(tmp_path):
    folder, _ = short_run(tmp_path / "run")
    before = (folder / "run.json").read_bytes()
    done = vibnet("run", "digits-mlp", *SHORT, "--out", folder)
    assert done.exit_code == 2
    assert "nothing is overwritten" in done.stderr
    done = vibnet("run", "digits-mlp", *SHORT, "--out", folder, "--resume")
    assert done.exit_code == 2
    assert "is over" in done.stderr
    assert (folder / "run.json").read_bytes() == before


def test_a_run_stopped_by_its_time_goes_on_to_the_same_weights(tmp_path):
    words = ("run", "digits-mlp", *SHORT, "--out", tmp_path / "run")
    first = vibnet(*words, "--time-limit", "0.001s")
    assert first.exit_code == 0
    assert "The time is over; a checkpoint is kept. Go on with:" in first.stdout
    assert f"--out {tmp_path / 'run'} --resume" in first.stdout
    stopped = json.loads((tmp_path / "run" / "run.json").read_text())
    assert not stopped["done"]
    assert len(stopped["history"]) == 1
    assert "is not over" in (tmp_path / "run" / "report.html").read_text()
    second = vibnet(*words, "--resume")
    assert second.exit_code == 0, second.output
    whole = json.loads((short_run(tmp_path / "whole")[0] / "run.json").read_text())
    parts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert parts["weights_sha256"] == whole["weights_sha256"]
    assert parts["history"] == whole["history"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("digits-mlp", "--set", "gama=1"), "there is no setting 'gama'. There are: seed, batch"),
        (("digits-mlp", "--set", "gamma=x"), "the setting gamma"),
        (("digits-mlp", "--set", "gamma=-1"), "gamma must be finite and at least 0"),
        (("digits-mlp", "--set", "gamma"), "--set takes key=value"),
        (("digits-mlp", "--time-limit", "5"), "takes a time with its unit"),
        (("digits-mlp", "--device", "nowhere"), "cannot be used here"),
        (("digits-mlp", "--resume"), "--resume needs --out"),
        (("digits-mlp", "--no-shrink", "--set", "shrink=true"), "contradict"),
        (("digits-mlp", "--features", "none"), "none"),
        (("../../etc/passwd",), "there is no recipe '../../etc/passwd'"),
        (("<script>[red]",), "there is no recipe '<script>[red]'"),
        ((), "name a recipe"),
    ],
)
def test_what_cannot_be_run_is_one_line(words, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = vibnet("run", *words)
    assert done.exit_code == 2, done.output
    assert text in done.stderr
    assert done.stderr.count("\n") == 1


def test_ones_own_model_and_data_are_run_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "run_mine.py").write_text(MODULE)
    with inside(tmp_path, monkeypatch):
        done = vibnet(
            "run", "--model", "run_mine:net", "--data", "run_mine:Data", "--features", "1",
            "--weights", "area", "--set", "dense_epochs=1", "--set", "gate_epochs=2", "--no-shrink",
            "--threads", "1",
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        folder = Path("runs/run_mine-net-1")
        body = json.loads((folder / "run.json").read_text())
        assert body["options"] == {"features": ["1"], "weights": "area"}
        assert body["settings"]["shrink"] is False
        assert body["notes"]["model"] == "run_mine:net"
        assert body["host"]["threads"] == 1
        assert body["host"]["command"].endswith("--threads 1")
        for words in (("bench", folder), ("export", folder, "--pt2", "m.pt2")):
            refused = vibnet(*words)
            assert refused.exit_code == 2
            assert "The run was made with --model run_mine:net" in refused.stderr
            own = ("--model", "run_mine:net", "--data", "run_mine:Data")
            done = vibnet(*words, *own)
            assert done.exit_code == 0, done.output
        assert vibnet("plan", folder).exit_code == 0


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch):
    def stopped(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run_job", stopped)
    done = vibnet("run", "digits-mlp", "--out", tmp_path / "run")
    assert done.exit_code == 130
    assert "Stopped. There was no checkpoint yet. Go on with:" in done.stdout
    assert f"vibnet run digits-mlp --out {tmp_path / 'run'} --resume" in done.stdout
    (tmp_path / "run" / "checkpoint").mkdir()
    (tmp_path / "run" / "checkpoint" / "000001.json").write_text("{}")
    done = vibnet("run", "digits-mlp", "--out", tmp_path / "run", "--resume")
    assert "The last checkpoint is kept" in done.stdout


@pytest.mark.slow
def test_a_real_ctrl_c_ends_with_130_and_the_run_can_be_resumed(tmp_path):
    words = [sys.executable, "-m", "vibnet", "run", "digits-cnn", "--out", str(tmp_path / "run")]
    short = ["--set", "dense_epochs=400"]
    process = subprocess.Popen([*words, *short], stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not (tmp_path / "run" / "started.json").exists() and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopped." in output
    assert "--resume" in output


def test_a_warning_is_shown_and_a_missing_extra_does_not_lose_the_run(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = vibnet(
        "run", "digits-mlp", "--out", tmp_path / "run", "--set", "dense_epochs=1", "--set",
        "gate_epochs=1", "--set", "gate_lr=1e-6",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "warning: no gate can close" in done.stderr
    assert "warning: report: matplotlib is not installed" in done.stderr
    assert (tmp_path / "run" / "run.json").exists()


def test_a_final_run_calls_its_validation_figure_what_it_is(tmp_path):
    done = vibnet("run", "digits-mlp", *SHORT, "--final", "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "training images error (%)" in done.stdout
    assert "validation error" not in done.stdout
    assert "there is no validation figure" in (tmp_path / "run" / "report.html").read_text()


BROKEN = {
    "labels above": ("self.y += 9", "Target"),
    "labels below": ("self.y -= 9", "Target"),
    "validation labels": ("self.y[50] = 7", "the labels go from 0 to 7, but the model gives 3"),
    "test labels": ("self.y[70] = -1", "the labels go from -1 to 2, but the model gives 3"),
    "no numbers": (
        "self.x[3] = float('nan')",
        "of dense epoch 1, step 1 are not finite",
    ),
    "lists": ("self.y = self.y.tolist()", "TypeError at "),
    "another shape": ("self.x = self.x[:, :3]", "does not run on the example"),
    "it raises": ("self.steps = 1 / 0", "ZeroDivisionError"),
    "it leaves": ("raise SystemExit", "SystemExit"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_faults_in_ones_own_data_are_one_line(name, tmp_path, monkeypatch):
    fault, text = BROKEN[name]
    source = MODULE.replace("        self.example", f"        {fault}\n        self.example")
    (tmp_path / "broken.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("broken", None)
    done = vibnet("run", "--model", "broken:net", "--data", "broken:Data", *SHORT)
    assert done.exit_code == 2, done.output
    assert text in done.stderr
    assert [w.split(": ")[0] for w in done.stderr.splitlines()] in (["error"], ["warning", "error"])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--weights", "foo"), "weights must be one of"),
        (("--features", "99"), "99"),
    ],
)
def test_what_attach_refuses_is_refused_before_there_is_a_folder(words, text, tmp_path):
    done = vibnet("run", "digits-mlp", *words, "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert text in done.stderr
    assert not (tmp_path / "run").exists()


def test_sigterm_ends_with_143_and_says_how_to_go_on(tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(command, "run_job", lambda *_a, **_k: signal.raise_signal(signal.SIGTERM))
    done = vibnet("run", "digits-mlp", "--out", tmp_path / "run")
    assert done.exit_code == 143
    assert "Go on with:" in done.stdout
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_budget_is_kept_and_said(tmp_path):
    folder = tmp_path / "run"
    result = vibnet("run", "digits-mlp", *SHORT, "--out", folder, "--target-weights", "10%")
    assert result.exit_code == 0
    assert "budget:      weights=10%, at most 5,020 weights: kept, with" in result.output


def test_a_budget_that_is_not_kept_is_said_in_the_exit_status(tmp_path):
    folder = tmp_path / "run"
    result = vibnet("run", "digits-mlp", *SHORT, "--out", folder, "--max-error", "0.01")
    assert result.exit_code == 3
    assert "error=0.01, at most 0.01: NOT kept, with" in result.output
    assert (folder / "report.html").exists()


def test_bad_budgets_are_refused_before_there_is_a_folder(tmp_path):
    for words, said in (
        (("--target-macs", "0.05"), "write 'macs=5%'"),
        (("--target-macs", "5%", "--max-error", "2"), "a run has one budget"),
        (("--target-macs", "5%", "--set", "budget=macs=6%"), "a run has one budget"),
        (("--target-weights", "3"), "with one unit left at every gated site the model still costs"),
        (("--target-latency", "5"), "has no unit of latency"),
        (("--max-error", "2", "--final"), "held-out images"),
    ):
        folder = tmp_path / "run"
        result = vibnet("run", "digits-mlp", *SHORT, "--out", folder, *words)
        assert result.exit_code == 2
        assert said in result.output
        assert not folder.exists()
