import shlex
import signal

import pytest
import typer

from vibnet.cli import follow as module
from vibnet.cli.follow import follow
from vibnet.errors import ConfigError
from vibnet.recipes.grid import Point, claim

POINTS = [Point("a", "digits-mlp"), Point("b", "digits-mlp", control="sampled", of="a")]
RUN = {
    "notes": {"images": {"validation": 0}},
    "ratios": {"r_W": 3.5, "macs": 12_000, "r_N": 16.0},
    "validation": {"small": 2.0},
    "test": {"small": 1.5},
}


def test_a_line_for_every_run_and_what_failed(monkeypatch, capsys, tmp_path):
    bodies = {"a": RUN, "b": {"control": True, "test": {"1": 2.5}}}
    monkeypatch.setattr(module, "done", lambda point, _folder: bodies[point.name])

    def both(points, folder, *, jobs, threads, command, on_done, on_failed):
        assert (jobs, threads, command, folder) == (2, 1, "vibnet x", tmp_path)
        on_done(points[0])
        on_failed(points[2], "it broke")
        on_done(points[1])
        return 1

    monkeypatch.setattr(module, "run_all", both)
    points = [*POINTS, Point("c", "digits-mlp")]
    assert follow(points, tmp_path, 2, 1, "vibnet x") == 1
    said = capsys.readouterr()
    assert "1/3  a: r_W 3.50 %, 0.012 M, r_N 16.00 %, training 2.00, test 1.50" in said.out
    assert "\n3/3  b: test {'1': 2.5}\n" in said.out  # what failed is over too: no time is left
    assert "c: it broke" in said.err


def test_a_folder_of_something_else_is_refused_before_a_word(capsys, tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        follow(POINTS, tmp_path, 2, 1, "vibnet x")
    assert not capsys.readouterr().out
    assert [path.name for path in tmp_path.rglob("*")] == ["b", "mine.txt"]


def test_what_was_there_already_tells_nothing_of_the_time_that_is_left(
    monkeypatch, capsys, tmp_path
):
    points = [Point(name, "digits-mlp") for name in "abc"]
    claim(points, tmp_path)
    (tmp_path / "a" / "run.json").write_text("{}")
    monkeypatch.setattr(module, "done", lambda *_: RUN)
    clock = iter([0.0, 1.0, 600.0, 601.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))

    def all_of_them(points, _folder, *, on_done, **_):
        for point in points:
            on_done(point)
        return 0

    monkeypatch.setattr(module, "run_all", all_of_them)
    follow(points, tmp_path, 1, 1, "vibnet x")
    lines = capsys.readouterr().out.splitlines()[1:]
    assert "left" not in lines[0]
    assert lines[1].endswith(", about 10 min left")
    assert "left" not in lines[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_gives_the_command_that_goes_on(number, monkeypatch, capsys, tmp_path):
    def stopped(*_args, **_options):
        if number == signal.SIGINT:  # a job in the background is born deaf to it
            signal.signal(number, signal.default_int_handler)
        signal.raise_signal(number)

    monkeypatch.setattr(module, "run_all", stopped)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(typer.Exit) as raised:
        follow(POINTS, tmp_path / "a b", 1, 1, "vibnet x 'c d'", ["--document", "e f"])
    assert raised.value.exit_code == 128 + number
    again = capsys.readouterr().out.partition("Go on with:\n")[2]
    words = ["vibnet", "x", "c d", "--out", str(tmp_path / "a b"), "--document", "e f"]
    assert shlex.split(again) == words
    assert signal.getsignal(signal.SIGTERM) is before
