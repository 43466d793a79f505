import json
import re

import pytest
import torch
from recorded import inside, short_run, vibnet, written
from torch import nn

from vibnet.cli.look import reach
from vibnet.graph.trial.probe import analyse
from vibnet.recipes.catalog import RECIPES

MODULE = """
from torch import nn
def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 20), nn.ReLU(), nn.Linear(20, 5))
def whole(): return nn.Linear(3, 2)
"""


def test_every_recipe_is_listed():
    text = vibnet("recipes").stdout
    assert [name for name in RECIPES if name not in text] == []
    assert "60+100" in text


def test_a_report_is_written_for_every_folder_or_for_none(tmp_path):
    a, b = written(tmp_path / "a"), written(tmp_path / "b")
    assert vibnet("report", a, b).exit_code == 0
    for folder in (a, b):
        assert "by-hand" in (folder / "report.html").read_text()
        (folder / "report.html").unlink()
    done = vibnet("report", a, tmp_path / "missing")
    assert done.exit_code == 2
    assert "there is no run.json" in done.stderr
    assert not (a / "report.html").exists()


def test_a_truncated_record_is_one_line(tmp_path):
    path = written(tmp_path) / "run.json"
    path.write_text(path.read_text()[:200])
    for words in (("report",), ("bench",), ("plan",), ("export", "--pt2", "x")):
        done = vibnet(words[0], tmp_path, *words[1:])
        assert done.exit_code == 2
        assert re.fullmatch(r"error: .*run\.json is truncated or no JSON.*\n", done.stderr)


def test_reach_counts_by_hand():
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    share = reach(analyse(model, torch.zeros(2, 6)))
    assert share.weights == pytest.approx(100 * (1 - (6 + 2) / (24 + 8)))
    assert share.macs == share.weights
    assert reach(analyse(nn.Linear(3, 2), torch.zeros(2, 3))).weights == 0


def test_reach_keeps_as_many_as_equal_blocks_need():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1, groups=2))
    share = reach(analyse(model, torch.zeros(2, 3, 5, 5)))
    assert share.weights == pytest.approx(100 * (1 - (3 * 2 + 4) / (12 + 8)))


def test_a_plain_model_shows_its_sites_and_reasons(tmp_path, monkeypatch):
    (tmp_path / "look_mine.py").write_text(MODULE)
    with inside(tmp_path, monkeypatch):
        words = ("plan", "--model", "look_mine:net", "--example", "1,3,4,4")
        text = vibnet(*words).stdout
        assert ["1", "20", "20", "1", "3"] in [line.split() for line in text.splitlines()]
        assert "it is an output of the model" in text
        assert "95.0 % of the weights" in text
        body = json.loads(vibnet(*words, "--json", "--inputs").stdout)
        assert body["schema"] == "vibnet.plan"
        assert body["inputs"] is True
        assert set(body["kept"]) == {"1", "inputs"}
        assert body["reach"]["weights"] > 95
        done = vibnet("plan", "--model", "look_mine:whole", "--example", "1,3")
        assert done.exit_code == 0
        assert "Nothing in this model can be cut." in done.stdout
        done = vibnet("plan", "--model", "look_mine:net", "--example", "1,7")
        assert done.exit_code == 2
        assert "does not run on the example" in done.stderr


def test_the_plan_of_a_run_shows_what_was_kept(tmp_path):
    folder, _ = short_run(tmp_path / "run")
    body = json.loads(vibnet("plan", folder, "--json").stdout)
    sites = json.loads((folder / "run.json").read_text())["sites"]
    assert {s["name"]: s["after"] for s in sites} == {k: len(v) for k, v in body["kept"].items()}
    assert vibnet("plan", folder).stdout.startswith("site")
    path = folder / "model" / "plan.json"
    path.write_text(path.read_text()[:50])
    assert "is truncated or no plan" in vibnet("plan", folder).stderr
    path.unlink()
    assert "there is no plan.json" in vibnet("plan", folder).stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "name the folder of a run, or give --model"),
        (("x", "--model", "m:net"), "name the folder of a run, or give --model"),
        (("--model", "m:net"), "give --example or --data"),
        (("--model", "m:net", "--example", "1", "--data", "m:D"), "give --example or --data"),
        (("nowhere",), "there is no run.json in nowhere"),
    ],
)
def test_a_plan_of_nothing_is_refused(words, text):
    done = vibnet("plan", *words)
    assert done.exit_code == 2
    assert text in done.stderr


def test_a_plan_may_replace_attentions(tmp_path, monkeypatch):
    (tmp_path / "heads.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)\n"
        "        self.last = nn.Linear(12, 2)\n"
        "    def forward(self, x):\n"
        "        return self.last(x + self.attention(x, x, x)[0])\n"
    )
    words = ("plan", "--model", "heads:Net", "--example", "2,5,12", "--json")
    with inside(tmp_path, monkeypatch):
        plain = json.loads(vibnet(*words).stdout)
        replaced = json.loads(vibnet(*words, "--replace-attention").stdout)
    assert plain["kept"] == {}
    assert "as replace_attention=True does" in plain["pinned"]["attention"]
    assert replaced["kept"] == {"attention.q_proj": [0, 1, 2]}
    assert replaced["replace_attention"] is True


def test_the_layers_are_timed_and_drawn(tmp_path, monkeypatch):
    (tmp_path / "timed_mine.py").write_text(MODULE)
    with inside(tmp_path, monkeypatch):
        words = ("plan", "--model", "timed_mine:net", "--example", "1,48")
        text = vibnet(*words, "--latency", "--picture", "p.svg").stdout
        assert re.search(r"1 +Linear +960 +960 +100 +\d+\.\d{3} +\d+\.\d", text)
        assert re.search(r"ms a forward at batch 1; \d+\.\d % of it is in rows and columns", text)
        assert (tmp_path / "p.svg").read_text().startswith("<svg")
        assert " ms</text>" in (tmp_path / "p.svg").read_text()
        body = json.loads(vibnet(*words, "--latency", "--json").stdout)
        assert [row["name"] for row in body["layers"]][:2] == ["0", "1"]
        assert 0 < body["reach"]["latency"] < 100
        assert "layers" not in json.loads(vibnet(*words, "--json").stdout)


def test_pictures_that_cannot_be_are_refused(tmp_path, monkeypatch):
    (tmp_path / "drawn_mine.py").write_text(MODULE)
    with inside(tmp_path, monkeypatch):
        words = ("plan", "--model", "drawn_mine:net", "--example", "1,48", "--picture")
        done = vibnet(*words, "p.png")
        assert done.exit_code == 2
        assert "Name a file that ends in .svg, not p.png" in done.stderr
        done = vibnet(*words, "drawn_mine.py/p.svg")
        assert done.exit_code == 2
        assert "cannot be written" in done.stderr
        assert sorted(p.name for p in tmp_path.iterdir() if p.suffix) == ["drawn_mine.py"]


def test_the_plan_of_a_run_is_drawn_but_not_timed(tmp_path):
    folder, _ = short_run(tmp_path / "run")
    assert vibnet("plan", folder, "--picture", tmp_path / "p.svg").exit_code == 0
    assert "units" in (tmp_path / "p.svg").read_text()
    done = vibnet("plan", folder, "--latency")
    assert done.exit_code == 2
    assert "--latency times a model" in done.stderr
