"""What stands where a layer or a branch has become a constant."""

from typing import Any

import torch
from torch import Tensor, nn

Window = tuple[int, int, int, int]  # kernel size, stride, padding of both sides, dilation


class Constant(nn.Module):
    """Gives the same numbers along one dimension, whatever it is given; of that only the shape.

    A pruned model holds it where all units that a layer reads are gone, and where a whole module
    has become a constant by that, or makes what nothing reads any more.

    Args:
        width: how many numbers there are along `dim`.
        dim: that dimension of the output.
        windows: of a convolution's dimensions of space, one after the other, which follow `dim`;
            without them the other dimensions of the output are those of what is given.
        others: how often None is given beside the output, for modules that give tuples.
        like: whose type and device the numbers have; none are stored where all are zero.

    Attributes:
        value: The numbers, shape ``(width,)``; None where all are zero.

    Shapes:
        ``(N, ..., any, ...)`` to ``(N, ..., width, ...)``.

    >>> Constant(3, -1)(torch.ones(2, 5, 7)).shape
    torch.Size([2, 5, 3])
    """

    value: nn.Parameter | None

    def __init__(
        self,
        width: int,
        dim: int,
        windows: tuple[Window, ...] = (),
        others: int = 0,
        like: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.width, self.dim, self.windows, self.others = width, dim, windows, others
        value = (
            None if like is None else nn.Parameter(torch.zeros(width).to(like), like.requires_grad)
        )
        self.register_parameter("value", value)

    @property
    def weight(self) -> Tensor | None:
        """The numbers, for models that ask a layer's weight for its type or device."""
        return self.value

    def sizes(self, given: Tensor) -> list[int]:
        """The shape of the output."""
        shape = list(given.shape)
        for n, (kernel, stride, padding, dilation) in enumerate(self.windows):
            at = given.ndim - len(self.windows) + n
            shape[at] = (shape[at] + padding - dilation * (kernel - 1) - 1) // stride + 1
        shape[self.dim] = self.width
        return shape

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The numbers, in the shape that belongs to the first tensor that is given."""
        given = next(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
        shape = self.sizes(given)
        if self.value is None:
            out = torch.zeros(shape, dtype=given.dtype, device=given.device)
        else:
            columns = [1] * len(shape)
            columns[self.dim] = self.width
            out = (
                self.value.reshape(columns)
                .expand(shape)
                .clone(memory_format=torch.contiguous_format)
            )
        return (out, *[None] * self.others) if self.others else out

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.width} numbers along {self.dim}" + (", all zero" * (self.value is None))
