"""Files of a saved model: whole or not there, and read only when every checksum fits."""

import hashlib

import pytest
import torch
from safetensors.torch import save

from vibnet.errors import ArtefactError, ConfigError
from vibnet.surgery.files import body_of, path_of, weights_of, write


def parts(folder):
    """Two files with a tensor each, and what a plan says of them."""
    files = {}
    for name in ("a", "b"):
        content = save({name: torch.full((2,), float(ord(name)))})
        write(folder / f"{name}.safetensors", content)
        files[f"{name}.safetensors"] = hashlib.sha256(content).hexdigest()
    return {"files": files}


def test_the_tensors_of_all_files_come_together(tmp_path):
    found = weights_of(tmp_path, parts(tmp_path))
    assert {k: v.tolist() for k, v in found.items()} == {"a": [97.0, 97.0], "b": [98.0, 98.0]}


@pytest.mark.parametrize("name", ["a.safetensors", "b.safetensors"])
def test_a_missing_or_altered_file_is_named(name, tmp_path):
    body, path = parts(tmp_path), tmp_path / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    with pytest.raises(ArtefactError, match=rf"{name} is truncated or altered"):
        weights_of(tmp_path, body)
    path.unlink()
    with pytest.raises(ArtefactError, match=rf"{name} is missing"):
        weights_of(tmp_path, body)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write(path, b"old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write(path, b"new")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_a_path():
    with pytest.raises(ConfigError, match="load: the folder must be a path, got 3"):
        path_of("load", 3)


def test_a_folder_without_a_plan_is_no_saved_model(tmp_path):
    with pytest.raises(ArtefactError, match=r"there is no plan\.json in it"):
        body_of(tmp_path)
