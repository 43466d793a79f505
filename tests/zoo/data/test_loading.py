"""Every layout gives the same tensors, and whatever is not the published set is refused."""

import hashlib
from dataclasses import replace

import pytest
import torch
from tiny_sets import COUNTS, IDX_FILES, WRITERS, content, publish, write_binary, write_idx

from vibnet.errors import ConfigError, DataError
from vibnet.zoo.data import load, load_test, sets
from vibnet.zoo.data.loading import checksum

READERS = {"train": load, "test": load_test}


@pytest.mark.parametrize("split", READERS)
@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_gives_the_images_and_labels_that_were_written(
    layout, split, tmp_path, monkeypatch
):
    name, write = WRITERS[layout]
    publish(name, monkeypatch)
    write(tmp_path, split)
    found = READERS[split](name, tmp_path)
    images, labels = content(name, split)
    assert found.name == (name if split == "train" else f"{name}/test")
    assert (found.classes, found.peak) == (100 if name == "cifar100" else 10, 255)
    assert torch.equal(found.images, torch.from_numpy(images))
    assert found.images.is_contiguous()
    assert found.labels.dtype == torch.int64
    assert found.labels.tolist() == labels.tolist()


@pytest.mark.parametrize("layout", WRITERS)
def test_training_needs_no_test_file_and_the_test_no_training_file(layout, tmp_path, monkeypatch):
    name, write = WRITERS[layout]
    publish(name, monkeypatch)
    for split, other in (("train", "test"), ("test", "train")):
        write(tmp_path / split, split)
        assert len(READERS[split](name, tmp_path / split)) == COUNTS[split]
        with pytest.raises(DataError, match=rf"\('{name}'\): there is no complete {name}"):
            READERS[other](name, tmp_path / split)


def test_the_environment_names_the_folder_and_an_argument_overrides_it(tmp_path, monkeypatch):
    publish("mnist", monkeypatch)
    write_idx(tmp_path / "MNIST/raw", "mnist", "train", True)
    monkeypatch.setenv("VIBNET_DATA", str(tmp_path))
    assert len(load("mnist")) == 10
    with pytest.raises(DataError, match="elsewhere is not there"):
        load("mnist", tmp_path / "elsewhere")


def test_without_a_folder_the_error_names_the_variable(monkeypatch):
    monkeypatch.delenv("VIBNET_DATA", raising=False)
    with pytest.raises(DataError, match="no folder was given, and VIBNET_DATA is not set"):
        load("cifar10")
    with pytest.raises(DataError, match=r"load_test\('cifar10'\): no folder"):
        load_test("cifar10", download=True)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for download in (False, True):
        with pytest.raises(DataError, match="file is no folder"):
            load("mnist", tmp_path / "file", download=download)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"load\('minst'\).*digits, mnist, fashion-mnist, cifar"):
        load("minst")


def test_missing_files_are_named_folder_by_folder(tmp_path):
    with pytest.raises(
        DataError, match=r"MNIST/raw lacks train-images-idx3-ubyte, train-labels.*download=True"
    ):
        load("mnist", tmp_path)
    write_idx(tmp_path / "MNIST/raw", "mnist", "train", True)
    (tmp_path / "MNIST/raw/train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="raw lacks train-labels-idx1-ubyte, of which some are the"):
        load("mnist", tmp_path)
    write_binary(tmp_path / "cifar-10-batches-bin", "cifar10", "train")
    (tmp_path / "cifar-10-batches-bin/data_batch_4.bin").unlink()
    with pytest.raises(DataError, match=r"-bin lacks data_batch_4\.bin, of which some are there"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize("layout", WRITERS)
def test_one_altered_byte_is_found(layout, tmp_path, monkeypatch):
    name, write = WRITERS[layout]
    publish(name, monkeypatch)
    expected = sets.SETS[name].sums["train"]
    other = replace(sets.SETS[name], sums={"train": "0" * 64, "test": "1" * 64})
    monkeypatch.setitem(sets.SETS, name, other)
    write(tmp_path, "train")
    with pytest.raises(DataError, match=rf"not the published {name} .*is {expected}, not 0000"):
        load(name, tmp_path)


def test_an_altered_image_and_an_altered_label_are_found(tmp_path, monkeypatch):
    publish("mnist", monkeypatch)
    for file in IDX_FILES["train"]:
        write_idx(tmp_path, "mnist", "train", False)
        altered = bytearray((tmp_path / file).read_bytes())
        altered[-1] ^= 1
        (tmp_path / file).write_bytes(altered)
        with pytest.raises(DataError, match=r"not the published mnist \(train\)"):
            load("mnist", tmp_path)


def test_another_set_under_the_same_file_names_is_recognised(tmp_path, monkeypatch):
    publish("mnist", monkeypatch)
    publish("fashion-mnist", monkeypatch)
    write_idx(tmp_path, "fashion-mnist", "train", False)
    assert len(load("fashion-mnist", tmp_path)) == 10
    with pytest.raises(DataError, match=r"not the published mnist.*It is fashion-mnist \(train\)"):
        load("mnist", tmp_path)


def test_the_checksum_is_that_of_the_bytes_of_images_then_labels():
    images = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2)
    expected = hashlib.sha256(bytes(range(24)) + bytes([7, 9])).hexdigest()
    assert checksum(images, torch.tensor([7, 9])) == expected
    strided = torch.stack([images, images], -1)[..., 0]
    assert checksum(strided, torch.tensor([7, 9], dtype=torch.uint8)) == expected
