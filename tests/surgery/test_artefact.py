"""What a folder of a saved model holds, and all of what a load gives back."""

import hashlib
import json

import pytest
import torch
from torch import nn

import vibnet

X = torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(0))


def norms(seed=0):
    """A network with norms that hold no tensor to tell their width by."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3),
        nn.BatchNorm2d(8, affine=False, track_running_stats=False),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1),
        nn.BatchNorm2d(6, affine=False),
        nn.ReLU(),
        nn.Conv2d(6, 2, 1),
    )


def pruned(closed=(1, 4, 6)):
    gated = vibnet.attach(norms(), X)
    gated.gate("0").log_var.data[list(closed)] = 5.0
    gated.gate("3").log_var.data[[0, 5]] = 5.0
    return vibnet.prune(gated.eval())[0]


def weights_in(folder):
    return sorted(path.name for path in folder.glob("*.safetensors"))


def test_the_widths_of_norms_without_tensors_come_back(tmp_path):
    small = pruned()
    vibnet.save(small, tmp_path)
    loaded = vibnet.load(tmp_path, norms(1)).eval()
    assert (small[1].num_features, small[4].num_features) == (5, 4)
    assert [m.num_features for m in (loaded[1], loaded[4])] == [5, 4]
    assert str(loaded) == str(small)
    assert torch.equal(loaded(X), small.eval()(X))


def test_a_weight_file_is_named_by_what_is_in_it(tmp_path):
    small = pruned()
    vibnet.save(small, tmp_path / "a")
    vibnet.save(small, tmp_path / "b")
    (name,) = weights_in(tmp_path / "a")
    checksum = hashlib.sha256((tmp_path / "a" / name).read_bytes()).hexdigest()
    assert name == f"model-{checksum[:16]}.safetensors"
    assert weights_in(tmp_path / "b") == [name]
    small[0].bias.data.add_(1)
    vibnet.save(small, tmp_path / "b")
    assert len(weights_in(tmp_path / "b")) == 1
    assert weights_in(tmp_path / "b") != [name]


def test_saving_again_leaves_the_new_weights_only_and_other_files_alone(tmp_path):
    shard = "model-00001-of-00002.safetensors"
    for name in ("other.safetensors", shard):
        (tmp_path / name).write_bytes(b"somebody else's")
    small = pruned()
    for step in range(3):
        small[0].bias.data.add_(step)
        vibnet.save(small, tmp_path)
        (stated,) = json.loads((tmp_path / "plan.json").read_text())["files"]
        assert weights_in(tmp_path) == sorted([stated, shard, "other.safetensors"])
    vibnet.save(small, tmp_path)
    assert weights_in(tmp_path) == sorted([stated, shard, "other.safetensors"])
    assert torch.equal(vibnet.load(tmp_path, norms(1))[0].bias, small[0].bias)


def test_a_save_that_fails_before_the_plan_leaves_the_old_model(tmp_path, monkeypatch):
    small = pruned()
    vibnet.save(small, tmp_path)
    before = small[0].bias.detach().clone()
    small[0].bias.data.add_(1)
    replace, done = type(tmp_path).replace, []

    def stops(path, target):
        if target.name == "plan.json":
            raise OSError("no space left")
        done.append(target.name)
        return replace(path, target)

    monkeypatch.setattr(type(tmp_path), "replace", stops)
    with pytest.raises(OSError, match="no space left"):
        vibnet.save(small, tmp_path)
    monkeypatch.undo()
    assert len(done) == 1
    assert torch.equal(vibnet.load(tmp_path, norms(1))[0].bias, before)
    vibnet.save(small, tmp_path)
    assert len(weights_in(tmp_path)) == 1
