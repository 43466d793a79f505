import json
import shlex
import signal
import sys

import pytest
from points import WHOLE
from recorded import vibnet

from vibnet.cli import follow
from vibnet.cli import sweep as sweeps
from vibnet.recipes import grid

SHORT = ("--set", "dense_epochs=1", "--set", "gate_epochs=2", "--set", "gate_lr=0.1")


def swept(folder, *words):
    return vibnet("sweep", "digits-mlp", "--gammas", "1e-2,1e-4", *SHORT, "--out", folder, *words)


def test_a_sweep_makes_every_point_a_frontier_and_goes_on_where_it_stopped(tmp_path):
    out = tmp_path / "sweep"
    first = swept(out, "--seeds", "0,1", "--jobs", "2")
    assert first.exit_code == 0, first.output
    names = {f"gamma={g},seed={s}" for g in ("0.01", "0.0001") for s in (0, 1)}
    assert {path.name for path in out.iterdir() if path.is_dir()} == names
    assert "4/4" in first.stdout
    body = json.loads((out / "frontier.json").read_text())
    assert [row["gamma"] for row in body["rows"]] == [0.0001, 0.01]
    weak, strong = body["rows"]
    assert strong["r_W"]["mean"] < weak["r_W"]["mean"]
    assert strong["n"] == 2
    runs = [json.loads((out / f"gamma=0.01,seed={s}" / "run.json").read_text()) for s in (0, 1)]
    assert [run["r_W"] for run in strong["runs"]] == [run["ratios"]["r_W"] for run in runs]
    assert strong["test"]["worst"] == max(run["test"]["small"] for run in runs)
    assert body["command"] in (out / "frontier.html").read_text()
    assert body["options"] == {}
    before = {p: p.stat().st_mtime_ns for p in out.rglob("run.json")}
    again = swept(out, "--seeds", "0,1")
    assert again.exit_code == 0
    assert {p: p.stat().st_mtime_ns for p in out.rglob("run.json")} == before
    less = vibnet("sweep", "digits-mlp", "--gammas", "1e-2", *SHORT, "--out", out)
    assert less.exit_code == 0
    again = json.loads((out / "frontier.json").read_text())
    assert again["rows"] == sorted(body["rows"], key=lambda row: row["gamma"])  # none is lost
    more = vibnet(
        "sweep", "digits-mlp", "--gammas", "1e-2", "--seeds", "0", *SHORT, "--out", out,
        "--set", "lr=2e-3",
    )  # fmt: skip
    assert more.exit_code == 2
    assert "another run of that name: lr differ" in more.stderr


def test_gammas_that_print_alike_are_points_of_their_own(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(sweeps, "follow", lambda points, *_: seen.extend(points) or 0)
    given = ("--gammas", "1.2345678e-3,1.2345679e-3,1e-4,0", "--out", tmp_path / "s")
    assert vibnet("sweep", "digits-mlp", *given).exit_code == 0
    names = [point.name.split(",")[0] for point in seen]
    assert names == ["gamma=0.0012345678", "gamma=0.0012345679", "gamma=0.0001", "gamma=0"]
    assert [float(point.changes["gamma"]) for point in seen] == [float(n[6:]) for n in names]


def test_a_gamma_of_many_digits_is_one_row_and_stays(tmp_path):
    out = tmp_path / "sweep"
    for gammas in ("1.2345678e-3", "1e-2"):
        done = vibnet("sweep", "digits-mlp", "--gammas", gammas, *SHORT, "--out", out)
        assert done.exit_code == 0, done.output
    rows = json.loads((out / "frontier.json").read_text())["rows"]
    assert [(row["gamma"], row["n"]) for row in rows] == [(0.0012345678, 1), (0.01, 1)]
    assert "0.0012345678" in (out / "frontier.html").read_text()


def test_what_the_page_needs_is_asked_for_before_the_first_run(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = swept(tmp_path / "sweep")
    assert done.exit_code == 2
    assert "matplotlib is not installed. Install the extra" in done.stderr
    assert not (tmp_path / "sweep").exists()


def test_what_fails_is_said_and_the_rest_is_drawn(tmp_path, monkeypatch):
    def some(points, _folder, *, on_failed, **_):
        on_failed(points[0], "TrainingError: no good")
        return 1

    monkeypatch.setattr(follow, "run_all", some)
    done = swept(tmp_path / "sweep")
    assert done.exit_code == 2
    assert "gamma=0.01,seed=0: TrainingError: no good" in done.stderr
    files = [path for path in (tmp_path / "sweep").rglob("*.*") if path.is_file()]
    assert {path.name for path in files} == {"point.json"}  # nothing is over: nothing to draw


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_says_how_to_go_on(tmp_path, monkeypatch, number):
    def stopped(*_args, **_options):
        if number == signal.SIGINT:  # a job in the background is born deaf to it
            signal.signal(number, signal.default_int_handler)
        signal.raise_signal(number)

    monkeypatch.setattr(follow, "run_all", stopped)
    before = signal.getsignal(signal.SIGTERM)
    done = swept(tmp_path / "sweep")
    assert done.exit_code == 128 + number
    assert "Go on with:\n  vibnet sweep digits-mlp --gammas 1e-2,1e-4" in done.stdout
    assert f"--out {tmp_path / 'sweep'}" in done.stdout
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name a recipe"),
        (("digits-mlp",), "--gammas takes numbers by commas, got ''"),
        (("digits-mlp", "--gammas", "1,1"), "each once"),
        (("digits-mlp", "--gammas", "-1"), "at least 0"),
        (("digits-mlp", "--gammas", "nan"), "at least 0"),
        (("digits-mlp", "--gammas", "1", "--seeds", "0.5"), "whole numbers"),
        (("digits-mlp", "--gammas", "1", "--seeds", "0,1e30"), "whole numbers"),
        (("digits-mlp", "--gammas", "1_0"), "takes numbers by commas"),
        (("digits-mlp", "--gammas", "1", "--seeds", f"0,{2**64}"), "a number of 64 bits"),
        (("digits-mlp", "--gammas", "1", "--set", "gamma=2"), "sweep sets gamma itself"),
        (("digits-mlp", "--gammas", "1", "--set", "seed=2"), "sweep sets seed itself"),
        (("digits-mlp", "--gammas", "1", "--set", "budget=macs=5%"), "sweep sets budget itself"),
        (("digits-mlp", "--gammas", "1", "--set", "epochs=2"), "no setting 'epochs'"),
        (("digits-mpl", "--gammas", "1"), "no recipe 'digits-mpl'"),
        (("digits-mlp", "--gammas", "1", "--weights", "fc1"), "got 'fc1'"),
        (("digits-mlp", "--gammas", "1", "--weights", "9=2"), "The gated sites are: 1, 3"),
        (("digits-mlp", "--gammas", "1", "--weights", "1=nan"), "finite numbers >= 0"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_there_is_a_folder(words, said, tmp_path):
    done = vibnet("sweep", *words, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_point_of_a_sweep_is_the_recipe_with_its_gamma(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(follow, "run_all", lambda points, *_args, **_o: seen.extend(points) or 0)
    swept(tmp_path / "sweep", "--seeds", "7", "--final")
    job = seen[0].job()
    assert (job.settings.gamma, job.settings.seed, job.settings.dense_epochs) == (0.01, 7, 1)
    assert job.data.sizes["validation"] == 0
    assert seen[0] == grid.Point(
        "gamma=0.01,seed=7", "digits-mlp", seen[0].changes, final=True, device="cpu"
    )


def test_the_command_of_a_sweep_repeats_its_runs(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(sweeps, "follow", lambda *given: seen.append(given) or 0)
    words = ("--seeds", "3,5", "--final", "--device", "meta", "--download")
    done = swept(tmp_path, *words, "--jobs", "3", "--threads", "2")
    assert done.exit_code == 0, done.output
    points, *same, command, more, _ = seen[0]
    assert same == [tmp_path, 3, 2]
    assert more == ["--jobs", "3", "--download"]
    assert [point.changes["seed"] for point in points] == ["3", "5"] * 2
    given = {(p.device, p.download, p.final, p.changes["gate_lr"]) for p in points}
    assert given == {("meta", True, True, "0.1")}
    vibnet(*shlex.split(command)[1:], *more, "--out", tmp_path)
    assert seen[1] == seen[0]
    swept(tmp_path)
    assert seen[2][1:4] == (tmp_path, 1, 1)
    assert not seen[2][-2]
    assert "--threads" not in seen[2][-3]


def test_prices_of_sites_are_those_of_every_point_and_of_no_other_sweep(tmp_path, monkeypatch):
    seen = []

    def record(points, folder, *_words, **_options):
        grid.claim(points, folder)
        seen.append(points)
        return 0

    monkeypatch.setattr(follow, "run_all", record)
    done = swept(tmp_path / "s", "--weights", "1=2")
    assert done.exit_code == 0, done.output
    assert [point.job().options for point in seen[0]] == [{"weights": {"1": 2.0}}] * 2
    assert "--weights 1=2" in sweeps._command("r", "1", "0", {}, "1=2", False, "cpu", 1)
    other = swept(tmp_path / "s", "--weights", "1=3")
    assert other.exit_code == 2
    assert "weights differ" in other.stderr
    assert len(seen) == 1


def test_a_frontier_says_its_prices(tmp_path):
    words = ("--gammas", "1e-2", *SHORT, "--weights", "1=2", "--out", tmp_path / "s")
    assert vibnet("sweep", "digits-mlp", *words).exit_code == 0
    body = json.loads((tmp_path / "s" / "frontier.json").read_text())
    assert body["options"] == {"weights": {"1": 2.0}}
    assert "--weights 1=2" in body["command"]
    run = json.loads((tmp_path / "s" / "gamma=0.01,seed=0" / "run.json").read_text())
    assert run["options"] == {"weights": {"1": 2.0}}


def test_points_of_former_calls_are_of_the_same_settings_and_whole(tmp_path, monkeypatch):
    def making(points, folder, **_):
        grid.claim(points, folder)
        for point in points:
            body = WHOLE | {"settings": {"seed": int(point.changes["seed"])}}
            (folder / point.name / "run.json").write_text(json.dumps(body))
        return 0

    monkeypatch.setattr(follow, "run_all", making)
    out = tmp_path / "s"
    assert swept(out, "--seeds", "0,1").exit_code == 0
    before = (out / "frontier.json").read_bytes()
    other = swept(out, "--seeds", "2", "--set", "lr=5e-3")
    assert other.exit_code == 2
    assert "seed=0 holds another run of that name: lr differ" in other.stderr
    assert not (out / "gamma=0.01,seed=2").exists()
    assert (out / "frontier.json").read_bytes() == before
    (out / "gamma=0.01,seed=1" / "run.json").write_text("{")
    again = swept(out, "--seeds", "0")
    assert again.exit_code == 2
    assert "gamma=0.01,seed=1/run.json is truncated" in again.stderr
    assert [row["n"] for row in json.loads((out / "frontier.json").read_text())["rows"]] == [2, 1]
