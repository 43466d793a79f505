"""What stands where a layer has become a constant."""

import torch
from torch import Tensor, nn

Window = tuple[int, int, int, int]  # kernel size, stride, padding of both sides, dilation


class Constant(nn.Module):
    """Gives its bias, whatever the numbers are that it is given; of those only the shape counts.

    A pruned model holds it where all units that a linear layer or a convolution reads are gone, and
    where nothing reads any more what a layer makes.

    Args:
        width: how many numbers there are along `dim`.
        dim: that dimension of the output.
        windows: of a convolution's dimensions of space, one after the other, which follow `dim`;
            without them the other dimensions of the output are those of what is given.
        like: whose type, device and `requires_grad` the bias has; none is stored where all is zero.

    Attributes:
        bias: Shape ``(width,)``; None where all is zero.

    Shapes:
        ``(N, ..., any, ...)`` to ``(N, ..., width, ...)``.

    >>> Constant(3, -1)(torch.ones(2, 5, 7)).shape
    torch.Size([2, 5, 3])
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        width: int,
        dim: int,
        windows: tuple[Window, ...] = (),
        like: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.width, self.dim, self.windows = width, dim, windows
        bias = None
        if like is not None:
            bias = nn.Parameter(torch.zeros(width).to(like), like.requires_grad)
        self.register_parameter("bias", bias)

    @property
    def weight(self) -> Tensor | None:
        """The bias, for models that ask a layer's weight for its type or device."""
        return self.bias

    def sizes(self, given: Tensor) -> list[int]:
        """The shape of the output.

        Raises:
            RuntimeError: What is given is smaller than a window, as a convolution does.
        """
        shape = list(given.shape)
        for n, (kernel, stride, padding, dilation) in enumerate(self.windows):
            at = given.ndim - len(self.windows) + n
            room, window = shape[at] + padding, dilation * (kernel - 1) + 1
            if room < window:
                raise RuntimeError(
                    f"a window of {window} does not fit into {room} positions (dimension {at} of "
                    f"{tuple(given.shape)}, {padding} of padding). Give larger inputs."
                )
            shape[at] = (room - window) // stride + 1
        shape[self.dim] = self.width
        return shape

    def forward(self, input: Tensor) -> Tensor:
        """The bias, in the shape that belongs to what is given, in the type that autocast wants."""
        shape, kind = self.sizes(input), input.device.type
        if self.bias is None:
            out = torch.zeros(shape, dtype=input.dtype, device=input.device)
        else:
            columns = [1] * len(shape)
            columns[self.dim] = self.width
            out = self.bias.reshape(columns).expand(shape).clone()
        cast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        if cast and out.dtype != torch.float64:
            return out.to(torch.get_autocast_dtype(kind))
        return out

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.width} numbers along {self.dim}" + (", all zero" * (self.bias is None))
