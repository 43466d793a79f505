import json
import os
import shlex

import pytest
from points import finished
from recorded import vibnet

from vibnet.cli import follow, reproduce
from vibnet.recipes import grid, tables
from vibnet.recipes.published import LENET300

SHORT = ("--set", "dense_epochs=1", "--set", "gate_epochs=3", "--set", "gate_lr=0.1")

ROWS = ["vibnet", "dense", "scratch", "sampled", "twin-l1"]


@pytest.fixture
def toy(monkeypatch):
    """A table of the digits, whose data are there."""
    entries = tables._entries("40%")
    made = tables.Table("toy", "digits", "digits-mlp", LENET300, entries)
    monkeypatch.setitem(tables.TABLES, "toy", made)
    return made


def test_a_table_is_run_written_down_put_into_a_document_and_gone_on_with(toy, tmp_path):
    out, document = tmp_path / "out", tmp_path / "results.md"
    document.write_text("# R\n<!-- toy --><!-- end toy -->\n")
    words = ("reproduce", "toy", *SHORT, "--out", out, "--seeds", "0", "--document", document)
    first = vibnet(*words, "--rows", "sampled,scratch,twin-l1,dense", "--jobs", "2")
    assert first.exit_code == 0, first.output
    names = {path.name for path in out.iterdir() if path.is_dir()}
    assert names == {f"{row},seed=0" for row in ROWS}
    body = json.loads((out / "toy.json").read_text())
    assert list(body["rows"]) == ROWS
    dense = body["rows"]["dense"]
    assert (dense["r_W"]["mean"], dense["r_N"]["mean"]) == (100.0, 100.0)
    assert dense["structures"] == {"0": "300-100"}
    run = json.loads((out / "vibnet,seed=0" / "run.json").read_text())
    assert body["rows"]["vibnet"]["test"]["mean"] == run["test"]["small"]
    assert body["rows"]["scratch"]["r_W"]["mean"] == pytest.approx(run["ratios"]["r_W"])
    assert body["rows"]["twin-l1"]["r_W"]["mean"] <= 40.0
    assert (out / "toy.md").read_text() in document.read_text()
    assert "VIBNet, in print" in first.stdout
    before = {p: p.stat().st_mtime_ns for p in out.rglob("run.json")}
    assert vibnet(*words, "--rows", "scratch").exit_code == 0
    assert json.loads((out / "toy.json").read_text())["rows"] == body["rows"]  # none is lost
    assert {p: p.stat().st_mtime_ns for p in out.rglob("run.json")} == before
    other = vibnet("reproduce", "toy", *SHORT, "--out", out, "--seeds", "1", "--rows", "vibnet")
    assert other.exit_code == 0, other.output
    rows = json.loads((out / "toy.json").read_text())["rows"]
    assert rows["vibnet"]["seeds"] == [0, 1]  # nor a seed
    assert rows["scratch"]["runs"] == body["rows"]["scratch"]["runs"]
    (out / "vibnet,seed=0" / "run.json").write_text('{"done": true')
    broken = vibnet(*words, "--rows", "scratch,twin-l1")
    assert broken.exit_code == 2
    assert "truncated or no record" in broken.stderr
    left = json.loads((out / "toy.json").read_text())["rows"]
    assert list(left) == ["vibnet", "dense", "twin-l1"]  # a control says nothing without its run
    assert left["vibnet"]["seeds"] == [1]


def test_rows_can_be_listed(toy):
    done = vibnet("reproduce", "toy", "--rows", "help")
    assert done.exit_code == 0
    for row, entry in toy.entries.items():
        assert row in done.stdout
        assert entry.about.split(",")[0][:20] in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name a table: table1, table2"),
        (("table3",), "no table 'table3'"),
        (("table1", "--rows", "x"), "table1 has no row x"),
        (("table1", "--seeds", "a"), "--seeds takes whole numbers"),
        (("table1", "--set", "seed=3"), "sets seed itself"),
        (("table1", "--set", "lr=-1"), "lr must be finite and above 0"),
        (("table1", "--document", "none.md"), "none.md cannot be read"),
        (("table1", "--document", __file__), "has no place for table1"),
        (("table1", "--set", "budget="), "the row vibnet-steered sets budget itself"),
        (("table1", "--device", "tpu9"), "--device 'tpu9' cannot be used"),
        (("table1", "--rows", "vibnet", "--set", "budget=x"), "'x' is not a kind"),
        (("table1", "--rows", "vibnet", "--set", "budget=error=2"), "is kept on held-out"),
    ],
)
def test_what_cannot_be_reproduced_is_refused_before_there_is_a_folder(words, said, tmp_path):
    done = vibnet("reproduce", *words, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_failure_is_in_the_exit_status(toy, monkeypatch, tmp_path):
    def failing(points, folder, *, on_failed, **_):
        on_failed(points[0], "no")
        for point in points[1:]:
            finished(folder, point.name)
        return 1

    monkeypatch.setattr(follow, "run_all", failing)
    out, document = tmp_path / "out", tmp_path / "results.md"
    document.write_text("<!-- toy -->of before<!-- end toy -->\n")
    words = ("reproduce", "toy", "--rows", "vibnet", "--out", out, "--document", document)
    assert vibnet(*words, "--seeds", "0").exit_code == 2
    assert {path.name for path in out.rglob("*.*")} == {"point.json"}
    assert vibnet(*words, "--seeds", "0,1").exit_code == 2
    assert json.loads((out / "toy.json").read_text())["rows"]["vibnet"]["seeds"] == [1]
    assert "| vibnet | 1 |" in (out / "toy.md").read_text()  # what is over is written down
    assert "of before" in document.read_text()  # but no table takes the place of a fuller one


@pytest.mark.parametrize("fault", ["damaged", "of another network"])
def test_what_is_wrong_with_runs_of_former_calls_is_said(fault, toy, monkeypatch, tmp_path):
    def making(points, folder, **_):
        grid.claim(points, folder)
        for point in points:
            finished(folder, point.name)
        return 0

    monkeypatch.setattr(follow, "run_all", making)
    out, document = tmp_path / "out", tmp_path / "results.md"
    document.write_text("<!-- toy --><!-- end toy -->\n")
    words = ("reproduce", "toy", "--rows", "vibnet", "--out", out, "--document", document)
    assert vibnet(*words, "--seeds", "0,1").exit_code == 0
    before = document.read_text()
    assert "| vibnet | 2 |" in before
    record = out / "vibnet,seed=1" / "run.json"
    if fault == "damaged":
        record.write_text(record.read_text()[:40])
    else:
        (out / "vibnet,seed=1" / "point.json").write_text('{"name": "x"}')
    again = vibnet(*words, "--seeds", "0")
    assert again.exit_code == 2
    assert "vibnet,seed=1" in again.stderr
    assert document.read_text() == before


def test_runs_are_on_all_training_images_unless_said(toy, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(reproduce, "follow", lambda *given: seen.append(given) or 0)
    vibnet("reproduce", "toy", "--out", tmp_path / "a")
    vibnet("reproduce", "toy", "--out", tmp_path / "b", "--held-out", "--jobs", "7")
    assert [{p.final for p in points} for points, *_ in seen] == [{True}, {False}]
    assert {p.changes["seed"] for p in seen[0][0]} == {"0", "1", "2", "3", "4"}
    commands = [command for *_, command, _more, _others in seen]
    assert commands[0] == "vibnet reproduce toy --seeds 0,1,2,3,4"
    assert commands[1] == f"{commands[0]} --held-out"
    assert [jobs for _, _, jobs, *_ in seen] == [os.cpu_count(), 7]  # a process a core


def test_the_command_of_a_table_repeats_its_runs(toy, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(reproduce, "follow", lambda *given: seen.append(given) or 0)
    words = ("--seeds", "3,5", "--rows", "scratch", "--device", "meta", "--set", "budget=macs=50%")
    page = tmp_path / "a page.md"
    page.write_text("<!-- toy -->\n<!-- end toy -->\n")
    words += ("--download", "--jobs", "3", "--threads", "2", "--document", page)
    asked = vibnet("reproduce", "toy", *words, "--out", tmp_path / "s")
    assert asked.exit_code == 0, asked.output  # rows that set a budget themselves are left alone
    points, *same, command, more, _ = seen[0]
    assert same == [tmp_path / "s", 3, 2]
    assert more == ["--jobs", "3", "--document", str(page), "--download"]
    assert [point.name for point in points] == [
        f"{row},seed={n}" for row in ("vibnet", "scratch") for n in (3, 5)
    ]
    assert {(p.device, p.download, p.changes["budget"]) for p in points} == {
        ("meta", True, "macs=50%")
    }
    vibnet(*shlex.split(command)[1:], *more, "--out", tmp_path / "s")
    assert seen[1] == seen[0]
    vibnet("reproduce", "toy", "--out", tmp_path / "s")
    assert not seen[2][-2]
    assert "--threads" not in seen[2][-3]


def test_only_folders_of_rows_tell_of_former_seeds(toy, tmp_path):
    for name in ("vibnet,seed=3", "dense,seed=12", "mine,seed=5", "vibnet,seed=x", "vibnet,seed=²"):
        (tmp_path / name).mkdir()
    assert reproduce._seeds_in(tmp_path, toy) == {3, 12}
