"""Data sets as tensors in memory: read, checked, split, augmented and cut into batches."""

from vibnet.zoo.data.augment import flip, pad_crop
from vibnet.zoo.data.batches import batches
from vibnet.zoo.data.convert import as_float, moments, normalise
from vibnet.zoo.data.dataset import DataSet
from vibnet.zoo.data.loading import load, load_test
from vibnet.zoo.data.sets import SETS
from vibnet.zoo.data.shuffle import order

__all__ = [
    "SETS",
    "DataSet",
    "as_float",
    "batches",
    "flip",
    "load",
    "load_test",
    "moments",
    "normalise",
    "order",
    "pad_crop",
]
