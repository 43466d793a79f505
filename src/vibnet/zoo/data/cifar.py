"""The files of CIFAR-10 and CIFAR-100: the binary version and the python version."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vibnet.errors import DataError
from vibnet.zoo.data.idx import AGAIN
from vibnet.zoo.data.pickles import Array, read_pickle

PIXELS = 3 * 32 * 32


def read_binary(paths: Sequence[Path], count: int, label_bytes: int) -> tuple[Tensor, Tensor]:
    """Read the binary version: a record is its labels, then red, green and blue planes.

    Args:
        paths: Of the files, each holding the same number of records.
        count: Records in all of them together.
        label_bytes: 1 for CIFAR-10; 2 for CIFAR-100, whose second one is the fine label.

    Returns:
        Images, uint8, shape ``(count, 3, 32, 32)``, and labels, uint8, shape ``(count,)``.

    Raises:
        DataError: A file cannot be read, or its size is not that of its records.

    Source:
        A. Krizhevsky, The CIFAR-10 and CIFAR-100 data sets, "binary version".
    """
    rows = count // len(paths)
    parts = [_records(path, rows, label_bytes + PIXELS) for path in paths]
    records = parts[0] if len(parts) == 1 else torch.cat(parts)
    images = records[:, label_bytes:].reshape(-1, 3, 32, 32).contiguous()
    return images, records[:, label_bytes - 1].clone()


def _records(path: Path, rows: int, size: int) -> Tensor:
    expected = rows * size
    try:
        found = path.stat().st_size
        content = bytearray(path.read_bytes()) if found == expected else bytearray()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}. {AGAIN}") from error
    if len(content) != expected:
        what = "truncated" if found < expected else "too long"
        raise DataError(
            f"{path} is {what}: {rows} images of {size} bytes are {expected} bytes, the file has "
            f"{found}. {AGAIN}"
        )
    return torch.frombuffer(content, dtype=torch.uint8).reshape(rows, size)


def read_python(paths: Sequence[Path], count: int, key: str) -> tuple[Tensor, Tensor]:
    """Read the python version: a pickled dictionary of an array and lists, by `read_pickle`.

    Args:
        paths: Of the files, each holding the same number of images.
        count: Images in all of them together.
        key: Of the labels: ``labels`` in CIFAR-10, ``fine_labels`` in CIFAR-100.

    Returns:
        Images, uint8, shape ``(count, 3, 32, 32)``, and labels, uint8, shape ``(count,)``.

    Raises:
        DataError: A file cannot be read, asks for more than arrays, or holds something else.

    Source:
        A. Krizhevsky, The CIFAR-10 and CIFAR-100 data sets, "python version".
    """
    rows = count // len(paths)
    images, labels = zip(*(_dictionary(path, rows, key) for path in paths), strict=True)
    return torch.cat(images).reshape(-1, 3, 32, 32), torch.cat(labels)


def _dictionary(path: Path, rows: int, key: str) -> tuple[Tensor, Tensor]:
    found = path.stat().st_size
    if not rows * PIXELS < found < rows * MOST:
        what = "truncated" if found <= rows * PIXELS else "too long"
        raise DataError(
            f"{path} is {what}: it has {found} bytes, and {rows} images with labels and names take "
            f"from {rows * PIXELS} to {rows * MOST}. {AGAIN}"
        )
    content = read_pickle(path)
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, not a dictionary. {AGAIN}")
    named = {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in content.items()}
    missing = [k for k in ("data", key) if k not in named]
    if missing:
        raise DataError(
            f"{path} has no {' and no '.join(map(repr, missing))}; it has "
            f"{', '.join(sorted(map(repr, named))) or 'nothing'}. {AGAIN}"
        )
    return _images(path, named["data"], rows), _labels(path, named[key], rows)


def _images(path: Path, data: Any, rows: int) -> Tensor:
    tensor = data.tensor if isinstance(data, Array) else None
    if tensor is None or tensor.shape != (rows, PIXELS):
        what = "no array" if tensor is None else f"an array of shape {tuple(tensor.shape)}"
        raise DataError(f"{path}: 'data' is {what}, published is {(rows, PIXELS)}. {AGAIN}")
    return tensor


def _labels(path: Path, values: Any, rows: int) -> Tensor:
    right = isinstance(values, list) and all(type(v) is int and 0 <= v < 256 for v in values)
    if not right or len(values) != rows:
        raise DataError(f"{path}: the labels are no list of {rows} small integers. {AGAIN}")
    return torch.tensor(values, dtype=torch.uint8)


MOST = PIXELS + 1024  # bytes an image with its labels and name takes at most in a pickle
