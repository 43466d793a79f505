"""What a model picks by value, as the boxes that stay: a trial cut picks the same.

The sizes of all that comes after a pick follow from its numbers. A trial cut computes others, and
would look as if a size depended on the width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

MASKED = {"index", "index_put", "_index_put_impl", "masked_select", "masked_scatter"}


@dataclass(frozen=True)
class Pick:
    """A call that picked: copies of its masks, or else of its results, for tensors so laid out."""

    op: str
    laid: tuple[Any, ...]
    masks: tuple[Tensor, ...]
    out: Any


class Picks:
    """Makes calls, and notes those that pick; the first picks as the first of another run, ..."""

    def __init__(self, like: Sequence[Pick] = ()) -> None:
        self.like, self.made = like, list[Pick]()

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The result of a call."""
        op = str(func.overloadpacket.__name__).removesuffix("_")
        masks = _masks(args, kwargs) if op in MASKED else []
        picks = op == "nms" or torch.Tag.dynamic_output_shape in func.tags
        if not masks and (op in MASKED or not picks):
            return func(*args, **kwargs)
        number = len(self.made)
        like = self.like[number] if number < len(self.like) else None
        laid = _laid(masks if masks else (args, kwargs))
        known = like if like is not None and (like.op, like.laid) == (op, laid) else None
        if masks:
            if known is not None:
                instead = {id(x): m.clone() for x, m in zip(masks, known.masks, strict=True)}
                args, kwargs = tree_map(lambda x: instead.get(id(x), x), (args, kwargs))
            copies = tuple(x.clone() for x in _masks(args, kwargs))
            self.made.append(Pick(op, laid, copies, None))
            return func(*args, **kwargs)
        out = func(*args, **kwargs) if known is None else tree_map(_copy, known.out)
        self.made.append(Pick(op, laid, (), tree_map(_copy, out)))
        return out


def _copy(x: Any) -> Any:
    return x.clone() if isinstance(x, Tensor) else x


def _masks(args: Any, kwargs: Any) -> list[Tensor]:
    """The masks that a call is given; not the tensor that it picks from."""
    leaves = tree_leaves((args[1:], kwargs))
    return [x for x in leaves if isinstance(x, Tensor) and x.dtype == torch.bool]


def _laid(given: Any) -> tuple[Any, ...]:
    leaves = tree_leaves(given)
    return tuple((x.shape, x.dtype) if isinstance(x, Tensor) else x for x in leaves)
