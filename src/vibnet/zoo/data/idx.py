"""The idx files of MNIST and its likes."""

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vibnet.errors import DataError


def read_idx(path: Path, shape: Sequence[int]) -> Tensor:
    """The unsigned bytes of one idx file, compressed where its name ends in ``.gz``.

    Args:
        path: Of the file.
        shape: What it must hold.

    Returns:
        uint8 of that shape.

    Raises:
        DataError: The file is damaged, no idx file of unsigned bytes, or holds another shape.

    Source:
        The MNIST database of handwritten digits, "file formats": two zero bytes, the type (8 is
        unsigned byte), the number of dimensions, their sizes as big-endian uint32, the bytes.
    """
    size = math.prod(shape)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4 + 4 * len(shape))
            content = bytearray(file.read(size + 1))
    except EOFError as error:
        raise DataError(f"{path} is truncated: its compressed data has no end. {AGAIN}") from error
    except (OSError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}. {AGAIN}") from error
    magic = bytes([0, 0, 8, len(shape)])
    if header[:4] != magic:
        raise DataError(
            f"{path} begins with {header[:4].hex(' ') or 'nothing'}; the magic number of an idx "
            f"file with {len(shape)} dimensions of bytes is {magic.hex(' ')}. {AGAIN}"
        )
    if len(header) < 4 + 4 * len(shape):
        raise DataError(f"{path} is truncated: it ends within its header. {AGAIN}")
    found = struct.unpack(f">{len(shape)}I", header[4:])
    if found != tuple(shape):
        raise DataError(f"{path} says that it holds {found}, published is {tuple(shape)}. {AGAIN}")
    if len(content) != size:
        what = "truncated: it ends after" if len(content) < size else "too long: it has more than"
        raise DataError(f"{path} is {what} {min(len(content), size)} of {size} bytes. {AGAIN}")
    return torch.frombuffer(content, dtype=torch.uint8).reshape(*shape)


AGAIN = "Delete the file and get it again: download=True fetches what is missing."
