import json
import shlex
from dataclasses import replace

import pytest
from recorded import written

from vibnet.cli.jobs import Asked, folder, over, start
from vibnet.errors import ArtefactError, ConfigError
from vibnet.recipes.catalog import RECIPES

ASKED = Asked("digits-mlp")


def test_the_command_repeats_what_was_asked():
    asked = Asked(
        None, "a b:net", "m:Data", {"gamma": "1e-3"}, device="cuda", inputs=True, features=("fc",),
        weights="area", replace_attention=True, allow_inexact=True,
    )  # fmt: skip
    assert shlex.split(asked.command) == [
        "vibnet", "run", "--model", "a b:net", "--data", "m:Data", "--weights", "area",
        "--features", "fc", "--set", "gamma=1e-3", "--inputs", "--replace-attention",
        "--allow-inexact", "--device", "cuda",
    ]  # fmt: skip
    assert asked.options == {
        "inputs": True, "features": ["fc"], "weights": "area", "replace_attention": True,
        "allow_inexact": True,
    }  # fmt: skip
    assert Asked("digits-mlp", final=True).command == "vibnet run digits-mlp --final"


def test_a_recipe_takes_settings_and_options():
    job = Asked("digits-mlp", changes={"batch": "32"}, weights="area", final=True).job()
    assert job.settings.batch == 32
    assert job.options == {"weights": "area"}
    assert job.notes["images"]["validation"] == 0
    priced = Asked("digits-mlp", weights="fc1=2,fc2=area")
    assert priced.job().options == {"weights": {"fc1": 2.0, "fc2": "area"}}
    assert shlex.split(priced.command)[-2:] == ["--weights", "fc1=2,fc2=area"]


def test_what_is_asked_stands_above_the_options_of_a_recipe(monkeypatch):
    own = {"inputs": True, "weights": {"inputs": 4.0, "1": 2.0}}
    monkeypatch.setitem(RECIPES, "own", replace(RECIPES["digits-mlp"], options=own))
    assert Asked("own").job().options == own
    assert Asked("own", weights="area").job().options == {"inputs": True, "weights": "area"}
    prices = Asked("own", weights="1=3").job().options["weights"]
    assert prices == {"inputs": 4.0, "1": 3.0}


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (Asked(), "name a recipe, or give --model and --data"),
        (Asked("digits-mlp", "m:net"), "name a recipe, or give --model and --data"),
        (Asked("digits-mlp", data="m:Data"), "--data goes with --model"),
        (Asked(model="m:net"), "--model needs --data"),
        (Asked(model="m:net", data="m:D", final=True), "--final is for recipes"),
        (Asked(model="m:net", data="m:D", download=True), "--download is for recipes"),
        (Asked("nope"), "There are: digits-mlp, "),
        (Asked("digits-mlp", changes={"gama": "1"}), "there is no setting 'gama'. There are: seed"),
    ],
)
def test_what_does_not_go_together_is_refused(asked, text):
    with pytest.raises(ConfigError, match=text):
        asked.job()


def test_folders_are_counted_and_never_taken_twice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = [folder(ASKED, None, False).as_posix() for _ in range(3)]
    assert found == ["runs/digits-mlp-1", "runs/digits-mlp-2", "runs/digits-mlp-3"]


@pytest.mark.parametrize(
    ("name", "safe"),
    [("../../etc:passwd", "etc-passwd"), ("a.b:net", "a-b-net"), ("..:.", "run"), ("/x", "x")],
)
def test_a_hostile_name_stays_below_runs(name, safe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert folder(Asked(model=name), None, False).as_posix() == f"runs/{safe}-1"


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    assert folder(ASKED, tmp_path, False) == tmp_path
    (tmp_path / "x").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty"):
        folder(ASKED, tmp_path, False)
    with pytest.raises(ConfigError, match="cannot be made"):
        folder(ASKED, tmp_path / "x", False)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_only_the_same_run_is_resumed(tmp_path):
    with pytest.raises(ConfigError, match="--resume needs --out"):
        folder(ASKED, None, True)
    with pytest.raises(ConfigError, match="there is no run in"):
        folder(ASKED, tmp_path, True)
    start(ASKED, ASKED.job(), tmp_path)
    assert folder(ASKED, tmp_path, True) == tmp_path
    with pytest.raises(ConfigError, match="holds another run: vibnet run digits-mlp"):
        folder(Asked("digits-cnn"), tmp_path, True)
    (tmp_path / "started.json").write_text('{"comma')
    with pytest.raises(ArtefactError, match="truncated"):
        folder(ASKED, tmp_path, True)


def test_a_run_that_is_over_is_not_resumed(tmp_path):
    start(ASKED, ASKED.job(), written(tmp_path))
    assert over(tmp_path)
    with pytest.raises(ConfigError, match="is over"):
        folder(ASKED, tmp_path, True)
    (tmp_path / "run.json").write_text("{")
    assert not over(tmp_path)
    assert json.loads((tmp_path / "started.json").read_text())["settings"]["seed"] == 0
