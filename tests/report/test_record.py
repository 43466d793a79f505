import json

import pytest
from recorded import WHOLE, written

from vibnet.errors import ArtefactError
from vibnet.report.record import finished, read


def test_a_whole_record_is_read(tmp_path):
    found = read(written(tmp_path))
    assert found.run == WHOLE
    assert found.export == {}
    assert found.done
    assert found.held_out


def test_validation_on_training_images_is_known(tmp_path):
    notes = {**WHOLE["notes"], "images": {"train": 15, "validation": 0}}
    assert not read(written(tmp_path, notes=notes)).held_out


@pytest.mark.parametrize("part", [0, 1, 100, -2])
def test_a_truncated_record_is_refused(part, tmp_path):
    path = written(tmp_path) / "run.json"
    path.write_text(path.read_text()[:part])
    with pytest.raises(ArtefactError, match="truncated or no JSON"):
        read(tmp_path)


@pytest.mark.parametrize("text", ["[]", "3", "null", "{}", '{"schema": "vibnet.plan"}'])
def test_something_else_is_refused(text, tmp_path):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ArtefactError, match=r"no vibnet\.run of version 1"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["name", "history", "host", "sites", "before"])
def test_a_missing_part_is_named(name, tmp_path):
    with pytest.raises(ArtefactError, match=f"not complete: {name}"):
        read(written(tmp_path, **{name: None}))


def test_no_record_and_a_broken_export_are_named(tmp_path):
    with pytest.raises(ArtefactError, match=r"there is no run\.json"):
        read(tmp_path / "nowhere")
    (written(tmp_path) / "export.json").write_text("{")
    with pytest.raises(ArtefactError, match=r"export\.json is truncated"):
        read(tmp_path)


def test_a_run_that_is_not_over_says_how_to_go_on(tmp_path):
    with pytest.raises(ArtefactError, match=r"vibnet run by-hand --out .* --resume"):
        finished(written(tmp_path, done=False))
    assert json.loads((tmp_path / "run.json").read_text())["done"] is False
