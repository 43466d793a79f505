import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from recorded import vibnet

from vibnet.errors import ConfigError

COMMANDS = ("run", "recipes", "plan", "bench", "export", "report")


def test_help_names_every_command_and_no_command_shows_it():
    text = vibnet("--help").stdout
    assert all(f"  {name} " in text for name in COMMANDS)
    assert vibnet().output == text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does(name):
    done = vibnet(name, "--help")
    assert done.exit_code == 0
    assert f"vibnet {name}" in done.stdout or f"{name} [OPTIONS]" in done.stdout


def test_an_error_of_ours_is_one_line_and_code_2():
    done = vibnet("run", "nope")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: there is no recipe 'nope'. There are: digits-mlp, ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [("--debug", "run", "nope"), ("run", "nope", "--debug")])
def test_debug_lets_the_error_through_wherever_it_stands(words):
    done = vibnet(*words)
    assert isinstance(done.exception, ConfigError)
    assert done.exit_code == 1


def test_missing_data_say_what_to_set(monkeypatch):
    monkeypatch.delenv("VIBNET_DATA", raising=False)
    done = vibnet("run", "lenet5-mnist")
    assert done.exit_code == 2
    assert "Set VIBNET_DATA to the folder of the data sets, or add --download." in done.output


def test_the_package_installs_the_command():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"vibnet": "vibnet.cli:app"}


def test_what_goes_wrong_elsewhere_is_one_line_and_code_2(monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device", "runs/x/run.json")

    def odd(*_args):
        raise KeyError("first line\nsecond")

    monkeypatch.setattr("vibnet.cli.run.given.changes", full)
    done = vibnet("run", "digits-mlp")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "error: No space left on device: runs/x/run.json.\n"
    monkeypatch.setattr("vibnet.cli.run.given.changes", odd)
    done = vibnet("run", "digits-mlp")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: KeyError at test_app.py:")
    assert "--debug shows" in done.stderr
    assert isinstance(vibnet("run", "digits-mlp", "--debug").exception, KeyError)


def test_the_version_is_that_of_the_package():
    done = vibnet("--version")
    assert done.exit_code == 0
    assert done.stdout == f"vibnet {version('vibnet')}, torch {torch.__version__}\n"
