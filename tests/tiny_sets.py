"""Data sets of a few images in the published formats, written here byte by byte."""

import gzip
import hashlib
import struct
from dataclasses import replace

import numpy as np

from vibnet.zoo.data import sets

COUNTS = {"train": 10, "test": 5}
IDX_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def content(name, split):
    """Random images (n, c, h, w) and labels (n,), other ones for every set and split."""
    rng = np.random.default_rng([len(name), ord(name[0]), COUNTS[split]])
    published = sets.SETS[name]
    shape = (COUNTS[split], *published.shape)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    return images, rng.integers(0, published.classes, COUNTS[split], dtype=np.uint8)


def publish(name, monkeypatch):
    """Let the tiny set be the published one."""
    sums = {}
    for split in COUNTS:
        images, labels = content(name, split)
        sums[split] = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    monkeypatch.setitem(sets.SETS, name, replace(sets.SETS[name], counts=COUNTS, sums=sums))


def idx(array):
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def write_idx(folder, name, split, compressed):
    images, labels = content(name, split)
    folder.mkdir(parents=True, exist_ok=True)
    for file, array in zip(IDX_FILES[split], (images[:, 0], labels), strict=True):
        if compressed:
            (folder / f"{file}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / file).write_bytes(idx(array))


def batches(name, split):
    """File stem of every batch -> its rows."""
    if name == "cifar100":
        return {split: slice(None)}
    if split == "test":
        return {"test_batch": slice(None)}
    return {f"data_batch_{i + 1}": slice(2 * i, 2 * i + 2) for i in range(5)}


def write_binary(folder, name, split):
    images, labels = content(name, split)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [labels[:, None], images.reshape(len(images), -1)]
    if name == "cifar100":
        rows = [labels[:, None] // 5, *rows]
    records = np.concatenate(rows, 1)
    for file, part in batches(name, split).items():
        (folder / f"{file}.bin").write_bytes(records[part].tobytes())


def text(value):
    """A text as Python 2 pickled it."""
    return b"U" + bytes([len(value)]) + value


def numbers(values):
    return b"](" + b"".join(b"K" + bytes([v]) for v in values) + b"e"


def array(rows, code=b"u1", module=b"numpy.core.multiarray"):
    """An array as numpy on Python 2 pickled it: rebuilt empty, then filled with its state."""
    shape = b"K" + bytes([len(rows)]) + b"M" + struct.pack("<H", rows.shape[1]) + b"\x86"
    return (
        b"c" + module + b"\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01" + shape + b"cnumpy\ndtype\n" + text(code) + b"K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<I", rows.size * rows.itemsize)
        + rows.tobytes()
        + b"tb"
    )


def dictionary(items):
    return b"\x80\x02}(" + b"".join(text(k) + v for k, v in items.items()) + b"u."


def write_python(folder, name, split):
    images, labels = content(name, split)
    folder.mkdir(parents=True, exist_ok=True)
    for file, part in batches(name, split).items():
        items = {b"batch_label": text(b"training batch"), b"labels": numbers(labels[part])}
        if name == "cifar100":
            fine = items.pop(b"labels")
            items |= {b"coarse_labels": numbers(labels // 5), b"fine_labels": fine}
        items[b"data"] = array(images[part].reshape(len(images[part]), -1))
        (folder / file).write_bytes(dictionary(items))


WRITERS = {  # layout -> (set, what writes a split into the data folder)
    "mnist": ("mnist", lambda r, s: write_idx(r / "MNIST/raw", "mnist", s, False)),
    "mnist gz": ("mnist", lambda r, s: write_idx(r / "MNIST/raw", "mnist", s, True)),
    "mnist lower": ("mnist", lambda r, s: write_idx(r / "mnist", "mnist", s, True)),
    "mnist itself": ("mnist", lambda r, s: write_idx(r, "mnist", s, False)),
    "fashion": (
        "fashion-mnist",
        lambda r, s: write_idx(r / "FashionMNIST/raw", "fashion-mnist", s, False),
    ),
    "fashion gz": (
        "fashion-mnist",
        lambda r, s: write_idx(r / "FashionMNIST/raw", "fashion-mnist", s, True),
    ),
    "fashion lower": (
        "fashion-mnist",
        lambda r, s: write_idx(r / "fashion-mnist", "fashion-mnist", s, True),
    ),
    "cifar10 bin": (
        "cifar10",
        lambda r, s: write_binary(r / "cifar-10-batches-bin", "cifar10", s),
    ),
    "cifar10 py": ("cifar10", lambda r, s: write_python(r / "cifar-10-batches-py", "cifar10", s)),
    "cifar10 itself": ("cifar10", lambda r, s: write_binary(r, "cifar10", s)),
    "cifar100 bin": (
        "cifar100",
        lambda r, s: write_binary(r / "cifar-100-binary", "cifar100", s),
    ),
    "cifar100 py": ("cifar100", lambda r, s: write_python(r / "cifar-100-python", "cifar100", s)),
    "cifar100 itself": ("cifar100", lambda r, s: write_python(r, "cifar100", s)),
}
