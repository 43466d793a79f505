import json

import pytest
import torch
from points import SHORT, WHOLE, finished, point

from vibnet.errors import ArtefactError, ConfigError
from vibnet.recipes.catalog import recipe
from vibnet.recipes.grid import POINT, RUN, claim, done, make, over
from vibnet.recipes.run import job, run


def test_a_point_is_the_run_that_the_recipe_makes_alone(tmp_path):
    wanted = point(changes={"seed": "3"})
    torch.set_flush_denormal(False)
    claim([wanted], tmp_path)
    make(wanted, tmp_path)
    alone = run(job(recipe("digits-mlp"), {**SHORT, "seed": "3"}), tmp_path / "alone")
    assert done(wanted, tmp_path)["weights_sha256"] == alone["weights_sha256"]
    before = (tmp_path / "a" / RUN).stat().st_mtime_ns
    make(wanted, tmp_path)  # it is over
    assert (tmp_path / "a" / RUN).stat().st_mtime_ns == before


def test_a_point_goes_on_from_its_checkpoint(tmp_path):
    claim([point(), point("b")], tmp_path)
    make(point(), tmp_path)
    part = run(point("b").job(), tmp_path / "b", seconds=0)
    assert not part["done"]
    assert done(point("b"), tmp_path) is None
    make(point("b"), tmp_path)
    a, b = (done(point(n), tmp_path)["weights_sha256"] for n in "ab")
    assert a == b


def test_nothing_is_overwritten(tmp_path):
    with pytest.raises(ConfigError, match=r"two runs are called a"):
        claim([point(), point()], tmp_path)
    assert not list(tmp_path.iterdir())
    claim([point()], tmp_path)
    claim([point()], tmp_path)  # the same again
    claim([point(download=True)], tmp_path)  # that the data were fetched makes no other run
    claim([point()], tmp_path)
    with pytest.raises(ConfigError, match=r"holds another run of that name: gamma differ"):
        claim([point(changes={"gamma": "0.5"}), point("b")], tmp_path)
    assert not (tmp_path / "b").exists()
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"holds something else.*nothing is overwritten"):
        claim([point("c")], tmp_path)


@pytest.mark.parametrize("text", ["[1]", '"x"', "3", "null", "{}"])
def test_a_note_that_is_none_is_another_run(text, tmp_path):
    claim([point()], tmp_path)
    (tmp_path / "a" / POINT).write_text(text)
    with pytest.raises(ConfigError, match=r"another run of that name: name, recipe"):
        claim([point()], tmp_path)


def test_what_a_kill_leaves_while_a_note_is_written_is_no_obstacle(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".point.json.abc").write_text("{")
    claim([point()], tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"is a file. Name a folder"):
        claim([point()], tmp_path / "file")


def test_only_finished_points_of_that_very_kind_are_over(tmp_path):
    points = [point(), point("b"), point("c"), point("d")]
    claim(points, tmp_path)
    for name in "abd":
        finished(tmp_path, name)
    (tmp_path / "d" / RUN).write_text("{")
    other = point("b", changes={"gamma": "9"})
    wrong = {}
    assert list(over([points[0], other, *points[2:], point("e")], tmp_path, wrong)) == ["a"]
    assert list(wrong) == ["b", "d"]  # neither c, which is not over, nor e, which is not there
    assert "is of another run than b" in wrong["b"]
    assert "truncated or no record" in wrong["d"]
    elsewhere = point("a", device="cuda")
    assert not over([elsewhere], tmp_path)


def test_a_control_starts_from_the_network_of_its_run_or_not_at_all(tmp_path):
    control = point("c", control="scratch", of="a")
    claim([point(), control], tmp_path)
    with pytest.raises(ArtefactError, match=r"holds no finished run with its checkpoint"):
        make(control, tmp_path)
    make(point(), tmp_path)
    record = json.loads((tmp_path / "a" / RUN).read_text())
    (tmp_path / "a" / RUN).write_text(json.dumps(record | {"weights_sha256": "0" * 64}))
    with pytest.raises(ArtefactError, match=r"does not give the network of its record"):
        make(control, tmp_path)
    (tmp_path / "a" / RUN).write_text(json.dumps(record))
    for path in (tmp_path / "a" / "checkpoint").iterdir():
        path.unlink()
    with pytest.raises(ArtefactError, match=r"holds no finished run with its checkpoint"):
        make(control, tmp_path)
    assert not (tmp_path / "c" / RUN).exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [({"settings": {"gamma": 5.0}}, "gamma"), ({"options": {"inputs": True}}, "options")],
)
def test_a_record_of_a_recipe_that_has_changed_since_is_not_taken_for_its_own(
    change, named, tmp_path
):
    finished(tmp_path)
    one = point()
    assert done(one, tmp_path) is not None
    path = tmp_path / one.name / RUN
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ArtefactError, match=f"when digits-mlp had other {named}. Take its folder"):
        done(one, tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"ratios": None}, "TypeError"),
        ({"ratios": {"r_W": 1.0, "macs": 5}}, "KeyError"),
        ({"validation": {}}, "KeyError"),
        ({"test": {"small": float("nan"), "dense": 1.0}}, "test is nan"),
        ({"test": {"small": True, "dense": 1.0}}, "test is True"),
        ({"test": {"small": "1.0", "dense": 1.0}}, "test is '1.0'"),
        ({"before": {"weights": None}}, "before is None"),
        ({"timing": {"cpu_seconds": float("inf")}}, "timing is inf"),
        ({"sites": [{"name": "fc1", "after": "3"}]}, "sites fc1 is '3'"),
        ({"settings": None}, "settings"),
        ({"notes": []}, "notes"),
    ],
)
def test_a_record_whose_figures_are_none_is_damaged(change, named, tmp_path):
    finished(tmp_path)
    assert done(point(), tmp_path) is not None
    path = tmp_path / "a" / RUN
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ArtefactError, match=r"truncated or no record .*Take its folder") as found:
        done(point(), tmp_path)
    assert named in str(found.value)
    for name in change:
        path.write_text(json.dumps({k: v for k, v in WHOLE.items() if k != name}))
        with pytest.raises(ArtefactError, match=name):
            done(point(), tmp_path)


@pytest.mark.parametrize("test", [None, {}, {"1": None}, float("nan"), "2"])
def test_a_control_whose_figures_are_none_is_damaged(test, tmp_path):
    control = point("c", control="scratch", of="a")
    claim([control], tmp_path)
    good = {"done": True, "control": True, "test": {"1": 2.0, "8": 1.5}}
    (tmp_path / "c" / RUN).write_text(json.dumps(good))
    assert done(control, tmp_path) == good
    (tmp_path / "c" / RUN).write_text(json.dumps(good | {"test": test}))
    with pytest.raises(ArtefactError, match=r"truncated or no record"):
        done(control, tmp_path)


def test_a_control_of_another_run_than_the_one_there_is_refused(tmp_path):
    control = point("c", control="scratch", of="a")
    claim([point(), control], tmp_path)
    make(point(), tmp_path)
    make(control, tmp_path)
    record = json.loads((tmp_path / "a" / RUN).read_text())
    assert done(control, tmp_path)["weights_sha256"] == record["weights_sha256"]
    (tmp_path / "a" / RUN).write_text(json.dumps(record | {"weights_sha256": "0" * 64}))
    with pytest.raises(ArtefactError, match=r"from another run than a is now. Take its folder"):
        done(control, tmp_path)
    assert list(over([point(), control], tmp_path)) == ["a"]
    (tmp_path / "a" / RUN).unlink()
    assert done(control, tmp_path) is not None  # said where the run is looked at


def test_a_run_that_another_process_has_just_made_is_over(tmp_path, monkeypatch):
    def late(*_args, **_options):
        finished(tmp_path)
        raise ConfigError("holds a run")

    monkeypatch.setitem(make.__globals__, "run", late)
    claim([point(), point("b")], tmp_path)
    make(point(), tmp_path)
    assert done(point(), tmp_path) is not None
    with pytest.raises(ConfigError, match="holds a run"):
        make(point("b"), tmp_path)


def test_the_folder_of_one_run_is_no_folder_of_many(tmp_path):
    (tmp_path / RUN).write_text("{}")
    with pytest.raises(ConfigError, match=r"is the folder of one run. Name another"):
        claim([point()], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [RUN]
