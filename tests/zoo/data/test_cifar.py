"""Both published versions of CIFAR give the same tensors; other contents are refused."""

import numpy as np
import pytest
import torch
from tiny_sets import array, content, dictionary, numbers, text, write_binary, write_python

from vibnet.errors import DataError
from vibnet.zoo.data.cifar import read_binary, read_python

ROWS = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(("name", "label_bytes"), [("cifar10", 1), ("cifar100", 2)])
def test_the_binary_and_the_python_version_agree(name, label_bytes, tmp_path):
    write_binary(tmp_path / "bin", name, "train")
    write_python(tmp_path / "py", name, "train")
    binary = sorted((tmp_path / "bin").iterdir())
    python = sorted((tmp_path / "py").iterdir())
    images, labels = read_binary(binary, 10, label_bytes)
    key = "labels" if name == "cifar10" else "fine_labels"
    others, other_labels = read_python(python, 10, key)
    assert torch.equal(images, others)
    assert torch.equal(labels, other_labels)
    assert labels.tolist() == content(name, "train")[1].tolist()


def test_a_record_is_the_label_and_three_planes_row_by_row(tmp_path):
    planes = [bytes([channel] * 1023 + [200 + channel]) for channel in (1, 2, 3)]
    (tmp_path / "file").write_bytes(b"\x07" + b"".join(planes))
    images, labels = read_binary([tmp_path / "file"], 1, 1)
    assert labels.tolist() == [7]
    assert images[0, :, 0, 0].tolist() == [1, 2, 3]
    assert images[0, :, 31, 31].tolist() == [201, 202, 203]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (3072, r"file is truncated: 2 images of 3073 bytes are 6146 bytes, the file has 3072"),
        (6147, r"file is too long: .* the file has 6147. Delete"),
    ],
)
def test_a_binary_file_of_another_size_is_refused(size, message, tmp_path):
    (tmp_path / "file").write_bytes(bytes(size))
    with pytest.raises(DataError, match=message):
        read_binary([tmp_path / "file"], 2, 1)


def test_a_binary_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"absent cannot be read: .*No such file"):
        read_binary([tmp_path / "absent"], 2, 1)


GOOD = {b"labels": numbers([3, 4]), b"data": array(ROWS)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (dictionary(GOOD)[:6000], "file is truncated: it has 6000 bytes"),
        (
            dictionary(GOOD)[:6200],
            "cannot be read as a pickle of arrays: pickle data was truncated",
        ),
        (dictionary(GOOD) + bytes(2048), "file is too long: it has"),
        (b"\x80\x02" + array(ROWS) + b".", "holds a Array, not a dictionary"),
        (dictionary({b"data": array(ROWS)}), "has no 'labels'; it has 'data'"),
        (
            dictionary(GOOD | {b"data": array(ROWS[:1])}) + bytes(3072),
            r"'data' is an array of shape \(1, 3072\), published is \(2, 3072\)",
        ),
        (
            dictionary(GOOD | {b"data": text(b"none"), b"more": array(ROWS)}),
            "'data' is no array, published is",
        ),
        (dictionary(GOOD | {b"labels": numbers([1])}), "the labels are no list of 2 small"),
        (dictionary(GOOD | {b"labels": text(b"ab")}), "the labels are no list of 2 small"),
        (dictionary(GOOD | {b"labels": b"](M\x00\x01K\x01e"}), "the labels are no list of 2"),
        (dictionary(GOOD | {b"labels": b"](\x88\x89e"}), "the labels are no list of 2"),
    ],
)
def test_a_python_file_with_other_content_is_refused(content, message, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_python([tmp_path / "file"], 2, "labels")


def test_the_python_version_without_a_fault_is_read(tmp_path):
    (tmp_path / "file").write_bytes(dictionary(GOOD))
    images, labels = read_python([tmp_path / "file"], 2, "labels")
    assert images.shape == (2, 3, 32, 32)
    assert labels.tolist() == [3, 4]
