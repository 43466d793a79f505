"""The embedded digits: scikit-learn's own, split once and for all."""

import sys

import pytest
import torch

from vibnet.errors import DataError
from vibnet.zoo.data import load, load_test
from vibnet.zoo.data.digits import read_digits

datasets = pytest.importorskip("sklearn.datasets", reason="SCIKIT-LEARN IS NOT INSTALLED")


def test_both_parts_together_are_the_1797_digits_of_scikit_learn():
    published = datasets.load_digits()
    expected = [
        (int(label), *map(int, row))
        for label, row in zip(published.target, published.data, strict=True)
    ]
    found = []
    for split, n in (("train", 1437), ("test", 360)):
        images, labels = read_digits(split)
        assert images.shape == (n, 1, 8, 8)
        assert labels.shape == (n,)
        rows = images.flatten(1).tolist()
        found += [(label, *row) for label, row in zip(labels.tolist(), rows, strict=True)]
    assert sorted(found) == sorted(expected)
    assert len(found) == 1797


def test_they_are_loaded_without_a_folder_and_reach_their_peak(monkeypatch):
    monkeypatch.delenv("VIBNET_DATA", raising=False)
    train, test = load("digits"), load_test("digits")
    assert (len(train), len(test)) == (1437, 360)
    assert (int(train.images.max()), train.peak, train.classes) == (16, 16, 10)
    assert (test.name, test.labels.dtype) == ("digits/test", torch.int64)


def test_every_digit_is_in_both_parts():
    for part in (load("digits"), load_test("digits")):
        assert part.labels.bincount(minlength=10).min() > 20


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"come with scikit-learn.*pip install 'vibnet\[demo\]'"):
        load("digits")
