"""Tensors in nested arguments, and how many examples they hold."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves


def tensors(*trees: Any) -> Iterator[Tensor]:
    """All tensors in nested arguments."""
    return (x for x in tree_leaves(trees) if isinstance(x, Tensor))


def batch_of(given: Iterable[Tensor]) -> int:
    """The examples that tensors hold: the first dimension of the first that has one."""
    return next((x.shape[0] for x in given if x.ndim and x.shape[0]), 1)
