"""Mini-batches of tensors in memory."""

from collections.abc import Iterator

import torch
from torch import Tensor

from vibnet.errors import ConfigError


def batches(
    images: Tensor,
    labels: Tensor,
    size: int,
    generator: torch.Generator | None = None,
    drop_last: bool = False,
    *,
    indices: Tensor | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Go through the examples once, in mini-batches.

    The order is that of the tensors, or a permutation. A permutation from a generator is drawn by
    this call, before the first batch, as ``torch.randperm``: the state of the generator at the call
    decides everything, and a run that resumes must restore it. ``indices=order(n, seed, epoch)``
    needs no state, and resumes in the middle of an epoch as ``indices[done:]``.

    Args:
        images: Shape ``(n, ...)``.
        labels: Shape ``(n, ...)``, on the same device.
        size: Examples in a batch.
        generator: Shuffles; without it, and without `indices`, nothing is shuffled.
        drop_last: Leave out the last batch where it is smaller than the others.
        indices: Which examples, in which order, int64, shape ``(m,)``.

    Returns:
        An iterator over pairs of images and labels, copies of shape ``(size, ...)``.

    Raises:
        ConfigError: Raised by the call, not by the first batch: the lengths differ, the size is
            less than 1, both a generator and indices are given, indices are no list of integers,
            or there would be no batch.

    >>> [y.tolist() for _, y in batches(torch.zeros(5, 1), torch.arange(5), 2)]
    [[0, 1], [2, 3], [4]]
    """
    if len(images) != len(labels):
        raise ConfigError(f"batches: there are {len(images)} images but {len(labels)} labels.")
    if size < 1:
        raise ConfigError(f"batches: size is {size}; a batch holds at least 1 example.")
    if indices is None:
        indices = _permutation(len(images), generator)
    elif generator is not None:
        raise ConfigError("batches: both a generator and indices are given. Pass one of them.")
    if indices.ndim != 1 or indices.dtype != torch.int64:
        raise ConfigError(
            f"batches: indices are {indices.dtype} of shape {tuple(indices.shape)}; they must be "
            f"int64 of shape (m,), as `order` makes them."
        )
    if len(indices) < (size if drop_last else 1):
        raise ConfigError(
            f"batches: {len(indices)} examples make no batch of {size} with drop_last={drop_last}. "
            f"Take a smaller size."
        )
    return _cut(images, labels, size, drop_last, indices.to(images.device))


def _permutation(n: int, generator: torch.Generator | None) -> Tensor:
    if generator is None:
        return torch.arange(n)
    return torch.randperm(n, generator=generator, device=generator.device)


def _cut(
    images: Tensor, labels: Tensor, size: int, drop_last: bool, indices: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    end = len(indices) - len(indices) % size if drop_last else len(indices)
    for start in range(0, end, size):
        chosen = indices[start : start + size]
        yield (
            images.index_select(0, chosen),
            labels.index_select(0, chosen),
        )  # faster than images[chosen]
