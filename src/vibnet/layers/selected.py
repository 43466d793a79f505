"""A linear layer that picks the features it reads."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SelectedLinear(nn.Linear):
    """A linear layer that reads some of the features it is given.

    A pruned model holds it where single inputs or flattened features were cut: what makes them
    stays whole, or is shared with other readers, so the layer itself picks those that are left.

    Attributes:
        index: The features read, in order, int64 of shape ``(in_features,)``.
        given: How many features there are to pick from.
        weight: Shape ``(out_features, in_features)``.

    Shapes:
        ``(..., given)`` to ``(..., out_features)``.

    Raises:
        ValueError: another number of features is given.

    Source:
        Dai et al. 2018, section 5.1: LeNet-300-100 with 97 of 784 inputs.

    >>> layer = SelectedLinear.of(nn.Linear(2, 3), torch.tensor([0, 3]), 5)
    >>> layer(torch.ones(7, 5)).shape
    torch.Size([7, 3])
    """

    index: Tensor
    given: int

    @staticmethod
    def of(linear: nn.Linear, index: Tensor, given: int) -> "SelectedLinear":
        """Make a linear layer a selected one, in place: its name, hooks and parameters stay."""
        linear.__class__ = SelectedLinear
        linear.register_buffer("index", index)
        assert isinstance(linear, SelectedLinear)
        linear.given = given
        return linear

    def plain(self) -> nn.Linear:
        """Make it a plain linear layer again, which reads all that it is given, in place."""
        self.in_features = self.weight.shape[1]
        del self.index, self.given
        self.__class__ = nn.Linear  # type: ignore[assignment]  # what `of` did, undone
        return self

    def wide(self) -> nn.Parameter:
        """The weight of a plain linear layer of the same answers, ``(out_features, given)``.

        It is zero where this layer picks nothing.
        """
        weight = self.weight.detach()
        index = self.index.to(weight.device, torch.int64)
        wide = weight.new_zeros(len(weight), self.given).index_copy(1, index, weight)
        return nn.Parameter(wide, self.weight.requires_grad)

    def pick(self, given: Tensor) -> Tensor:
        """The features that are read, of those given."""
        if given.shape[-1] != self.given:
            raise ValueError(
                f"this layer picks {len(self.index)} of {self.given} features, but is given "
                f"{given.shape[-1]}. Give what the layer had before it was cut, or name it in "
                f"features to cut what it reads."
            )
        return torch.index_select(given, -1, self.index)

    def forward(self, input: Tensor, picked: bool = False) -> Tensor:
        """The linear map of the selected features; `picked`: the input holds no others."""
        return F.linear(input if picked else self.pick(input), self.weight, self.bias)
