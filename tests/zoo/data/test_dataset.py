"""A set holds what it says, and its split is a fixed partition."""

import pytest
import torch

from vibnet.errors import ConfigError
from vibnet.zoo.data.dataset import DataSet
from vibnet.zoo.data.shuffle import permutation


def numbered(n=100, **changes):
    images = torch.arange(n, dtype=torch.uint8).reshape(n, 1, 1, 1).expand(n, 1, 2, 3)
    given = {"name": "n", "images": images, "labels": torch.arange(n), "classes": n, "peak": 99}
    return DataSet(**given | changes)


def test_a_split_is_a_partition_in_the_order_of_the_whole():
    whole = numbered()
    train, validation = whole.split(30, seed=4)
    assert (len(train), len(validation)) == (70, 30)
    assert sorted([*train.labels.tolist(), *validation.labels.tolist()]) == list(range(100))
    for part in (train, validation):
        assert part.labels.tolist() == sorted(part.labels.tolist())
        assert part.images[:, 0, 0, 0].tolist() == part.labels.tolist()
        assert (part.classes, part.peak) == (100, 99)
    assert (train.name, validation.name) == ("n/train", "n/validation")


def test_the_seed_and_nothing_else_decides_who_is_taken():
    whole = numbered()
    first = whole.split(30, seed=0)[1].labels
    torch.manual_seed(5)
    assert torch.equal(first, whole.split(30, seed=0)[1].labels)
    assert torch.equal(first, permutation(100, "split 0")[:30].sort().values)
    assert not torch.equal(first, whole.split(30, seed=1)[1].labels)


def test_by_default_ten_thousand_are_taken():
    labels = torch.zeros(10_001, dtype=torch.int64)
    whole = numbered(images=torch.zeros(10_001, 1, 1, 1, dtype=torch.uint8), labels=labels)
    assert [len(part) for part in whole.split()] == [1, 10_000]
    with pytest.raises(ConfigError, match=r"split\(validation=10000\).* from 1 to 99"):
        numbered().split()


@pytest.mark.parametrize("validation", [0, -1, 100, 101])
def test_a_split_that_leaves_a_part_empty_is_refused(validation):
    with pytest.raises(ConfigError, match=rf"validation={validation}\): .*from 1 to 99"):
        numbered().split(validation)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(100, 1, 2, 3)}, r"'n': the images are torch\.float32 of shape"),
        ({"images": torch.zeros(100, 2, dtype=torch.uint8)}, r"the images are .*\(100, 2\)"),
        ({"labels": torch.zeros(99, dtype=torch.int64)}, "int64, one for each of 100 images"),
        ({"labels": torch.zeros(100, dtype=torch.uint8)}, r"the labels are torch\.uint8"),
        ({"labels": torch.arange(100) - 1}, "labels run from -1 to 98"),
        ({"classes": 99}, "labels run from 0 to 99, but there are 99 classes"),
    ],
)
def test_a_set_that_does_not_fit_together_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        numbered(**changes)


def test_a_set_prints_what_it_is_and_cannot_be_changed():
    assert repr(numbered()) == "DataSet('n', 100 images of 1 x 2 x 3, 100 classes)"
    with pytest.raises(AttributeError, match="cannot assign"):
        numbered().images = None
