import json
import signal

import pytest
import torch
from points import finished, point

from vibnet.errors import ArtefactError, ConfigError
from vibnet.recipes import workers
from vibnet.recipes.grid import POINT, RUN, claim, done
from vibnet.recipes.workers import run_all


def test_runs_and_their_controls_are_made_in_processes_side_by_side(tmp_path):
    control = point("c", control="scratch", of="a")
    said = []
    points = [control, point(), point("b", changes={"seed": "1"})]
    failed = run_all(
        points, tmp_path, jobs=2, on_done=lambda p: said.append(p.name), command="the command"
    )
    assert failed == 0
    assert sorted(said[:2]) == ["a", "b"]
    assert said[2] == "c"
    assert done(points[1], tmp_path)["host"]["command"] == "the command"
    found = done(control, tmp_path)
    assert (found["name"], found["of"], found["control"]) == ("scratch", "a", True)
    assert found["weights"] == done(point(), tmp_path)["after"]["weights"]
    said.clear()
    assert run_all(points, tmp_path, on_done=lambda p: said.append(p.name)) == 0
    assert said == ["a", "b", "c"]


def test_a_failure_stops_neither_the_others_nor_is_hidden(tmp_path):
    bad = point("bad", changes={"lr": "1e30"})
    control = point("c", control="dense", of="bad")
    over, failed = [], {}
    finished(tmp_path, "good")
    (tmp_path / "good" / POINT).write_text(json.dumps(point("good").identity()))
    count = run_all(
        [bad, control, point("good")],
        tmp_path,
        on_done=lambda p: over.append(p.name),
        on_failed=lambda p, text: failed.update({p.name: text}),
    )
    assert count == 2
    assert over == ["good"]
    assert failed["bad"].startswith("TrainingError: training diverged")
    assert failed["c"] == "bad has failed, which it starts from."


def test_processes_end_with_the_call(tmp_path, monkeypatch):
    started = []
    real = workers.wait

    def interrupted(sentinels):
        started.extend(sentinels)
        raise KeyboardInterrupt

    monkeypatch.setattr(workers, "wait", interrupted)
    points = [point(name, changes={"gate_epochs": "100000"}) for name in "abc"]
    with pytest.raises(KeyboardInterrupt):
        run_all(points, tmp_path, jobs=2)
    assert len(started) == 2  # as many as were asked for
    assert real(started, timeout=0) == started  # a sentinel is ready when its process is over


def test_a_process_computes_as_it_is_told_and_is_deaf_to_a_stop_from_the_keyboard(monkeypatch):
    seen = []

    def make(*given):
        flushes = float(torch.tensor(1e-39) * 1.0) == 0.0
        seen.append((given, torch.get_num_threads(), flushes, signal.getsignal(signal.SIGINT)))

    monkeypatch.setattr(workers, "make", make)
    before, threads = signal.getsignal(signal.SIGINT), torch.get_num_threads()
    torch.set_flush_denormal(False)
    try:
        workers._child(point(), "out", threads + 1, "the command", None)
    finally:
        signal.signal(signal.SIGINT, before)
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)
    assert seen == [((point(), "out", "the command"), threads + 1, True, signal.SIG_IGN)]


@pytest.mark.parametrize("text", ['{"done"', '{"done": true}', "[1]", "null"])
def test_a_damaged_record_is_said_and_does_not_stop_the_others(text, tmp_path):
    assert done(point(), tmp_path) is None
    claim([point(), point("good")], tmp_path)
    finished(tmp_path, "good")
    (tmp_path / "a" / RUN).write_text(text)
    with pytest.raises(ArtefactError, match=r"truncated or no record .*Take its folder away"):
        done(point(), tmp_path)
    over_, failed = [], []
    assert run_all(
        [point(), point("good")],
        tmp_path,
        on_done=lambda p: over_.append(p.name),
        on_failed=lambda p, text: failed.append((p.name, text[:10])),
    )
    assert over_ == ["good"]
    assert [name for name, _ in failed] == ["a"]
    (tmp_path / "a" / RUN).write_text('{"done": false}')
    assert done(point(), tmp_path) is None


@pytest.mark.parametrize("wrong", [{"jobs": 0}, {"threads": 0}])
def test_there_is_at_least_one_process_and_thread(wrong, tmp_path):
    with pytest.raises(ConfigError, match=r"jobs and threads must be at least 1"):
        run_all([point()], tmp_path, **wrong)
