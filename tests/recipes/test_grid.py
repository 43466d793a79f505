import json

import pytest
import torch
from points import SHORT, finished, point

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
    assert list(over([points[0], other, *points[2:]], tmp_path)) == ["a"]
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
