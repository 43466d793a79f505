"""Shifted-window attention that holds any number of heads, in the place of torchvision's."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WindowAttention(nn.Module):
    """What torchvision's shifted-window attention computes, with as many heads as it is wide.

    The stock function divides the width of its input by the number of heads to find their size.
    Here the size of a head is stated, and the number of heads follows `qkv`. All parameters and
    buffers are those of the stock module, and so is its bias over relative positions.

    Attributes:
        qkv: Queries, keys and values, ``width -> 3 * heads * head_size``.
        proj: ``heads * head_size -> width``.
        head_size: Of one head.
        window_size: Height and width of a window.
        shift_size: By how much windows are shifted.

    Source:
        Liu et al. 2021, arXiv 2103.14030, section 3.2; with `logit_scale` Liu et al. 2022,
        arXiv 2111.09883, section 3.2.
    """

    qkv: nn.Linear
    proj: nn.Linear
    head_size: int
    window_size: Sequence[int]
    shift_size: Sequence[int]
    attention_dropout: float
    dropout: float
    get_relative_position_bias: Any

    @staticmethod
    def of(stock: nn.Module) -> "WindowAttention":
        """Make a stock module one of these, in place: all that it holds stays."""
        kind, heads = type(stock), vars(stock)["num_heads"]
        stock.__class__ = type("WindowAttention", (WindowAttention, kind), {"__module__": __name__})
        assert isinstance(stock, WindowAttention)
        stock.head_size = stock.proj.in_features // heads
        return stock

    def forward(self, x: Tensor) -> Tensor:
        """Attention within windows.

        Shapes:
            ``(batch, height, width, channels)`` in and out.
        """
        batch, height, width, _ = x.shape
        rows, columns = self.window_size
        x = F.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
        _, tall, wide, _ = x.shape
        shift = [
            s if w < n else 0
            for s, w, n in zip(self.shift_size, self.window_size, (tall, wide), strict=True)
        ]
        if any(shift):
            x = torch.roll(x, shifts=(-shift[0], -shift[1]), dims=(1, 2))
        x = _split(_split(x, 2, -1, columns), 1, -1, rows).transpose(2, 3)
        grid = x.shape[1:3]
        x = self._attend(x.flatten(3, 4).flatten(0, 2), grid, shift)
        x = _split(_split(x, 1, rows, columns), 0, batch, *grid).transpose(2, 3)
        x = x.flatten(3, 4).flatten(1, 2)
        if any(shift):
            x = torch.roll(x, shifts=(shift[0], shift[1]), dims=(1, 2))
        return x[:, :height, :width].contiguous()

    def _attend(self, x: Tensor, grid: Sequence[int], shift: Sequence[int]) -> Tensor:
        """Attention of ``(windows, positions, channels)``."""
        bias: Tensor | None = self.qkv.bias
        scale = getattr(self, "logit_scale", None)
        if scale is not None and bias is not None:  # keys have no bias in the second version
            used = torch.tensor([[1.0], [0.0], [1.0]]).to(bias)
            bias = (_split(bias, 0, 3, -1) * used).flatten()
        heads = _split(F.linear(x, self.qkv.weight, bias), -1, 3, -1, self.head_size)
        q, k, v = heads.permute(2, 0, 3, 1, 4).unbind(0)
        if scale is not None:
            q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
            scores = q @ k.transpose(-2, -1) * scale.clamp(max=math.log(100.0)).exp()
        else:
            scores = q @ k.transpose(-2, -1) / math.sqrt(self.head_size)
        scores = scores + self.get_relative_position_bias()
        if any(shift):
            mask = self._mask(x, grid, shift)
            scores = (_split(scores, 0, -1, mask.shape[0]) + mask[:, None]).flatten(0, 1)
        weights = F.dropout(scores.softmax(-1), self.attention_dropout, self.training)
        out = self.proj((weights @ v).transpose(1, 2).flatten(2))
        return F.dropout(out, self.dropout, self.training)

    def _mask(self, x: Tensor, grid: Sequence[int], shift: Sequence[int]) -> Tensor:
        """Minus 100 between positions of a window that were no neighbours before the shift."""
        parts = []
        for count, size, moved in zip(grid, self.window_size, shift, strict=True):
            place = torch.arange(count * size, device=x.device)
            last = count * size
            beyond = (place >= last - moved).long() if moved else 0
            parts.append((place >= last - size).long() + beyond)
        regions = 3 * parts[0][:, None] + parts[1][None]
        rows, columns = self.window_size
        regions = _split(_split(regions, 1, -1, columns), 0, -1, rows).transpose(1, 2)
        flat = regions.flatten(2, 3).flatten(0, 1)
        return torch.zeros_like(flat[:, None] - flat[:, :, None], dtype=x.dtype).masked_fill(
            flat[:, None] != flat[:, :, None], -100.0
        )


def _split(x: Tensor, dim: int, *sizes: int) -> Tensor:
    """A tensor with one axis as several."""
    return torch.unflatten(x, dim, sizes)
