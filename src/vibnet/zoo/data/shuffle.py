"""Permutations that are the same on every machine and in every version of torch and numpy."""

import hashlib

import numpy as np
import torch
from torch import Tensor

from vibnet.errors import ConfigError


def order(n: int, seed: int, epoch: int) -> Tensor:
    """In which order an epoch visits the examples: a pure function, so that a run can resume.

    Args:
        n: Number of examples, at least 1.
        seed: Of the run; any integer.
        epoch: Any integer; every epoch has an order of its own.

    Returns:
        A permutation of ``0 .. n - 1``, int64, shape ``(n,)``, on the CPU.

    Raises:
        ConfigError: There is no example.

    >>> order(5, seed=0, epoch=3)
    tensor([1, 2, 0, 4, 3])
    """
    return permutation(n, f"order {seed} {epoch}")


def permutation(n: int, key: str) -> Tensor:
    """The permutation that belongs to a text: ``0 .. n - 1`` sorted by 64-bit pseudo-random keys.

    The keys are `splitmix64` from the first 8 bytes (little-endian) of the text's SHA-256.

    Args:
        n: Number of examples, at least 1.
        key: Any text; other texts give unrelated permutations.

    Returns:
        int64, shape ``(n,)``, on the CPU.

    Raises:
        ConfigError: There is no example.

    >>> permutation(4, "a")
    tensor([1, 2, 3, 0])
    """
    if n < 1:
        raise ConfigError(f"an order of {n} examples: there must be at least 1.")
    start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    found = np.argsort(splitmix64(start, n), kind="stable").astype(np.int64)
    return torch.from_numpy(found)


def splitmix64(start: int, n: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """The first `n` numbers of the generator SplitMix64.

    Args:
        start: Its state, from 0 up to 2^64 - 1.
        n: How many.

    Returns:
        uint64, shape ``(n,)``.

    Source:
        Steele, Lea and Flood 2014, Fast Splittable Pseudorandom Number Generators, figure 17, with
        the constants of Vigna's public `splitmix64.c`.

    >>> splitmix64(1234567, 1)[0].item()
    6457827717110365317
    """
    z = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(start)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
