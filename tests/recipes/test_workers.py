import json

import pytest
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
    with pytest.raises(KeyboardInterrupt):
        run_all([point(changes={"gate_epochs": "100000"})], tmp_path)
    assert real(started, timeout=0) == started  # a sentinel is ready when its process is over


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
