"""Attention that holds any number of heads, in the place of `nn.MultiheadAttention`."""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """What `nn.MultiheadAttention` computes, with as many heads as its layers are wide.

    The stock module states its number of heads, and wants its width to be that many times a
    head's: it cannot hold fewer. Here only the size of a head is stated.

    Attributes:
        q_proj: Queries, ``width -> heads * head_size``.
        k_proj: Keys, likewise.
        v_proj: Values, likewise.
        out_proj: ``heads * head_size -> width``.
        head_size: Of one head.
        dropout: Of the attention weights, in training.
        batch_first: Whether examples or tokens come first.

    Source:
        Vaswani et al. 2017, arXiv 1706.03762, section 3.2.
    """

    in_proj_weight = in_proj_bias = bias_k = bias_v = None
    _qkv_same_embed_dim = False  # so that torch's own encoder takes no short cut past forward

    def __init__(
        self,
        q_proj: nn.Linear,
        k_proj: nn.Linear,
        v_proj: nn.Linear,
        out_proj: nn.Linear,
        head_size: int,
        dropout: float = 0.0,
        batch_first: bool = False,
    ) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = q_proj, k_proj, v_proj, out_proj
        self.head_size, self.dropout, self.batch_first = head_size, dropout, batch_first
        self.embed_dim = out_proj.out_features
        self.kdim, self.vdim = k_proj.in_features, v_proj.in_features

    @property
    def num_heads(self) -> int:
        """How many heads there are."""
        return self.q_proj.out_features // self.head_size

    @property
    def head_dim(self) -> int:
        """The size of a head, by the stock module's name."""
        return self.head_size

    @staticmethod
    def of(stock: nn.MultiheadAttention) -> "Attention":
        """The same attention, with the stock module's numbers, flags, hooks and mode."""
        if stock.in_proj_weight is not None:
            weights = [_like(w, stock.in_proj_weight) for w in stock.in_proj_weight.chunk(3)]
        else:
            weights = [stock.q_proj_weight, stock.k_proj_weight, stock.v_proj_weight]
        biases: list[nn.Parameter | None] = [None] * 3
        if stock.in_proj_bias is not None:
            biases = [_like(b, stock.in_proj_bias) for b in stock.in_proj_bias.chunk(3)]
        q, k, v = (_linear(w, b) for w, b in zip(weights, biases, strict=True))
        size = stock.embed_dim // stock.num_heads
        made = Attention(q, k, v, stock.out_proj, size, stock.dropout, stock.batch_first)
        for name, value in vars(stock).items():
            if name.endswith("hooks") or name.endswith("_with_kwargs"):
                made.__dict__[name] = value
        return made.train(stock.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """The output, and the attention weights if they are needed.

        Shapes:
            as `nn.MultiheadAttention`: ``(tokens, batch, width)``, ``(batch, tokens, width)`` with
            `batch_first`, or ``(tokens, width)``.
        """
        single, swap = query.ndim == 2, not self.batch_first and query.ndim == 3
        given = [
            x.unsqueeze(0) if single else x.transpose(0, 1) if swap else x
            for x in (query, key, value)
        ]
        layers = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (
            torch.unflatten(layer(x), -1, (-1, self.head_size)).transpose(1, 2)
            for layer, x in zip(layers, given, strict=True)
        )
        mask = self._mask(q, k, attn_mask, key_padding_mask)
        chance, weights = self.dropout if self.training else 0.0, None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / math.sqrt(self.head_size)
            weights = F.dropout((scores if mask is None else scores + mask).softmax(-1), chance)
            h = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights.squeeze(0) if single else weights
        else:
            h = F.scaled_dot_product_attention(q, k, v, mask, chance)
        out = self.out_proj(h.transpose(1, 2).flatten(2))
        return out.squeeze(0) if single else out.transpose(0, 1) if swap else out, weights

    def _mask(
        self, q: Tensor, k: Tensor, mask: Tensor | None, padding: Tensor | None
    ) -> Tensor | None:
        """What is added to the scores, of a shape that spreads over ``(batch, heads, q, k)``."""
        out: Tensor | None = None
        if mask is not None:
            out = _added(mask, q.dtype)
            if out.ndim == 3:  # a slice for every head of every example
                out = torch.unflatten(out, 0, (q.shape[0], -1))
        if padding is not None:
            hidden = _added(padding, q.dtype).reshape(-1, 1, 1, k.shape[2])
            out = hidden if out is None else out + hidden
        return out


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as what is added: bool means hidden."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -math.inf)


def _like(part: Tensor, whole: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(part.detach().clone(), whole.requires_grad)


def _linear(weight: nn.Parameter, bias: nn.Parameter | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight, layer.bias = weight, cast(nn.Parameter, bias)
    return layer
