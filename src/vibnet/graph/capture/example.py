"""An example of what a model is called with, and what it gives back."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from vibnet.errors import CaptureError, ConfigError


def arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """An example as positional and keyword arguments: a tensor, a tuple of them, or a dict."""
    if isinstance(example, Mapping):
        args, kwargs = (), dict(example)
    else:
        args = tuple(example) if isinstance(example, (tuple, list)) else (example,)
        kwargs = {}
    if not any(isinstance(leaf, Tensor) for leaf in tree_leaves((args, kwargs))):
        raise ConfigError(
            f"example must hold at least one tensor (a tensor, a tuple of arguments or a dict of "
            f"keyword arguments), got {type(example).__name__}. Pass what you would pass to the "
            f"model."
        )
    return args, kwargs


def ways(example: Any) -> list[Any]:
    """An example with a batch of two, for a batch of one hides its axis; then as it is.

    Every tensor is doubled that has a first dimension of one, or else the first tensor alone.
    """
    leaves = [x for x in tree_leaves(arguments(example)) if isinstance(x, Tensor) and x.ndim]
    if not leaves or leaves[0].shape[0] != 1:
        return [example]
    single = [x for x in leaves if x.shape[0] == 1]
    out = [_doubled(example, single)]
    if any(x is not leaves[0] for x in single):
        out.append(_doubled(example, leaves[:1]))
    return [*out, example]


def _doubled(example: Any, which: list[Tensor]) -> Any:
    def double(x: Any) -> Any:
        return torch.cat([x, x]) if any(x is one for one in which) else x

    return tree_map(double, example)


def tensors(output: Any) -> Iterator[Tensor]:
    """The tensors of a model's output.

    Raises:
        CaptureError: it holds something that cannot be followed.
    """
    values = output.to_tuple() if hasattr(output, "to_tuple") else output
    if hasattr(values, "__dataclass_fields__"):
        values = {name: getattr(values, name) for name in values.__dataclass_fields__}
    for leaf in tree_leaves(values):
        if isinstance(leaf, Tensor):
            yield leaf
        elif not isinstance(leaf, (int, float, str, bool, type(None))):
            raise CaptureError(
                f"the model's output holds a {type(leaf).__name__}, which cannot be followed. "
                f"Return tensors in tuples, lists, dicts or dataclasses."
            )


def shapes(example: Any) -> str:
    """The shapes of an example's tensors, for an error."""
    return ", ".join(
        str(tuple(x.shape)) for x in tree_leaves(arguments(example)) if isinstance(x, Tensor)
    )
