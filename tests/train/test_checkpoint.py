import json
import shutil

import pytest
import torch

from vibnet.errors import ArtefactError, ConfigError
from vibnet.train import checkpoint

TENSORS = {"a/b.c": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor(3), "c": torch.empty(0, 4)}
BODY = {"history": [{"loss": 0.1 + 0.2, "kept": {"x": 3}}], "none": None}


def numbers(folder):
    return sorted(int(p.stem) for p in folder.glob("*.json"))


def two(folder):
    for k in (1, 2):
        checkpoint.save(folder, k, {"n": torch.full((3,), float(k))}, {"n": k})
    return folder


def found(folder):
    tensors, body = checkpoint.load(folder)
    assert tensors["n"].tolist() == [body["n"]] * 3
    return body["n"]


def test_what_was_saved_is_loaded_bit_by_bit(tmp_path):
    shared = torch.randn(3)
    checkpoint.save(tmp_path / "new" / "folder", 4, {**TENSORS, "d": shared, "e": shared}, BODY)
    tensors, body = checkpoint.load(tmp_path / "new" / "folder")
    assert body == BODY
    assert set(tensors) == {*TENSORS, "d", "e"}
    for name, value in TENSORS.items():
        assert torch.equal(tensors[name], value)
        assert tensors[name].dtype == value.dtype
    tensors["d"].zero_()
    assert torch.equal(tensors["e"], shared)


def test_nothing_was_ever_saved(tmp_path):
    assert checkpoint.load(tmp_path) is None
    assert checkpoint.load(tmp_path / "nowhere") is None


def test_the_last_two_are_kept_and_nothing_else(tmp_path):
    (tmp_path / ".000001.json.abc").write_text("begun")
    for k in (1, 2, 9, 10, 100):
        checkpoint.save(tmp_path, k, TENSORS, BODY)
    assert numbers(tmp_path) == [10, 100]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("000010.json", "000010.safetensors", "000100.json", "000100.safetensors"),
    ]


def damages(content):
    """The content cut off, and with one bit turned, at many places."""
    for at in sorted({0, 1, 2, 8, len(content) - 1, *range(0, len(content), len(content) // 40)}):
        yield content[:at]
        yield content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    yield content + b"x"
    yield b"[]"
    yield b"5"


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, suffix):
    two(tmp_path)
    assert found(tmp_path) == 2
    path = tmp_path / f"000002.{suffix}"
    content = path.read_bytes()
    for number, damage in enumerate(damages(content)):
        path.write_bytes(damage)
        assert found(tmp_path) == 1, number
    path.unlink()
    assert found(tmp_path) == 1
    path.write_bytes(content)
    assert found(tmp_path) == 2


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_two_damaged_checkpoints_are_an_error(tmp_path, suffix):
    two(tmp_path)
    for path in tmp_path.glob(f"*.{suffix}"):
        path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ArtefactError, match=r"all 2 checkpoints in .* are truncated or altered"):
        checkpoint.load(tmp_path)


def test_the_tensors_of_another_checkpoint_do_not_pass(tmp_path):
    two(tmp_path)
    shutil.copy(tmp_path / "000001.safetensors", tmp_path / "000002.safetensors")
    assert found(tmp_path) == 1
    body = json.loads((tmp_path / "000002.json").read_text())
    body["body"]["n"] = 7
    (tmp_path / "000002.json").write_text(json.dumps(body))
    assert found(tmp_path) == 1


@pytest.mark.parametrize("writes", [0, 1])
def test_a_save_that_is_stopped_leaves_the_checkpoints_there_were(tmp_path, monkeypatch, writes):
    two(tmp_path)
    real, left = checkpoint.write, [writes]

    def stop(path, content):
        if not left[0]:
            path.with_name(f".{path.name}.begun").write_bytes(content[:5])
            raise KeyboardInterrupt
        left[0] -= 1
        real(path, content)

    monkeypatch.setattr(checkpoint, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, 3, {"n": torch.full((3,), 3.0)}, {"n": 3})
    assert found(tmp_path) == 2
    monkeypatch.setattr(checkpoint, "write", real)
    checkpoint.save(tmp_path, 3, {"n": torch.full((3,), 3.0)}, {"n": 3})
    assert found(tmp_path) == 3
    assert len(list(tmp_path.iterdir())) == 4


def test_what_a_stop_before_the_tidying_left_can_be_taken_away(tmp_path, monkeypatch):
    two(tmp_path)
    with monkeypatch.context() as stopped:
        stopped.setattr(checkpoint, "tidy", lambda _folder: None)
        checkpoint.save(tmp_path, 3, {"n": torch.full((3,), 3.0)}, {"n": 3})
    (tmp_path / "000001.json").unlink()  # stopped while it tidied
    assert len(list(tmp_path.iterdir())) == 5
    assert found(tmp_path) == 3
    checkpoint.tidy(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("000002.json", "000002.safetensors", "000003.json", "000003.safetensors"),
    ]


def test_the_place_is_beside_the_run(tmp_path):
    assert checkpoint.place(None, resume=False) is None
    assert checkpoint.place(tmp_path, resume=False) == tmp_path / "checkpoint"
    two(tmp_path / "checkpoint")
    assert checkpoint.place(tmp_path, resume=True) == tmp_path / "checkpoint"
    with pytest.raises(ConfigError, match="Resume them, or name another folder"):
        checkpoint.place(tmp_path, resume=False)
    with pytest.raises(ConfigError, match="resume needs the folder"):
        checkpoint.place(None, resume=True)
