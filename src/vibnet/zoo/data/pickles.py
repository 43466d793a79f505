"""A pickle reader that knows arrays of bytes and nothing else."""

import math
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vibnet.errors import DataError


def read_pickle(path: Path) -> Any:
    """Read a pickle of plain containers, numbers, texts and numpy arrays of unsigned bytes.

    Nothing of numpy runs: the three names that such an array is written with lead to stand-ins that
    only record it, and any other name is refused before it is imported. Texts of Python 2 are read
    as bytes. A forged file can still ask for much memory.

    Args:
        path: Of the file.

    Returns:
        What was pickled, every array as an `Array`.

    Raises:
        DataError: The file is damaged, or asks for anything else.
    """
    try:
        with path.open("rb") as file:
            return _Restricted(file, encoding="bytes").load()
    except Exception as error:  # a damaged pickle may raise anything
        raise DataError(
            f"{path} cannot be read as a pickle of arrays: {str(error) or type(error).__name__}. "
            f"Nothing of it has been run. Delete it and get the published file again; "
            f"download=True fetches the binary version, which needs no pickle."
        ) from error


class Array:
    """Stands in for `numpy.ndarray`: filled by the pickle with the state of an array."""

    __slots__ = ("tensor",)
    tensor: Tensor  # uint8

    def __setstate__(self, state: Any) -> None:
        """Take (version, shape, type, Fortran order, bytes), the state that numpy writes."""
        _, shape, kind, fortran, content = state
        if not isinstance(kind, _Bytes) or fortran or not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array of anything but unsigned bytes in C order")
        if not all(type(n) is int and n > 0 for n in shape) or math.prod(shape) != len(content):
            raise pickle.UnpicklingError(f"an array of shape {shape} in {len(content)} bytes")
        self.tensor = torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(shape)


class _Bytes:
    """Stands in for the dtype of unsigned bytes."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like say nothing about single bytes."""


class _Name:
    """Stands in for a name that is looked up: may be called, and cannot be changed."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError(f"it changes {self._name}")

    def __call__(self, *arguments: Any) -> Any:
        if self._name == "_reconstruct" and isinstance(arguments[0], _Name):
            return Array()
        if self._name == "dtype" and arguments[0] in ("u1", b"u1"):
            return _Bytes()
        if self._name == "encode" and arguments[1] == "latin1":
            return arguments[0].encode("latin1")
        raise pickle.UnpicklingError(f"it calls {self._name} in a way that makes no bytes")


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which is no part of an array"
            )
        return _Name(name)


ADMITTED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),  # the same, written by numpy 2
    ("_codecs", "encode"),  # how Python 3 writes bytes for Python 2
}
