"""The shifted-window attention that holds any number of heads computes what torchvision's does."""

import copy

import pytest
import torch
from tv import torchvision

from vibnet.layers import WindowAttention


def pair(shift, version=1, heads=3, width=12):
    from torchvision.models import swin_transformer as swin

    torch.manual_seed(0)
    kind = swin.ShiftedWindowAttention if version == 1 else swin.ShiftedWindowAttentionV2
    stock = kind(width, [4, 4], shift, heads).eval()
    for p in stock.parameters():
        p.data.normal_(0, 0.4)
    return stock, WindowAttention.of(copy.deepcopy(stock))


@torchvision
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("shift", [[0, 0], [2, 2], [2, 0]])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (4, 8), (3, 3)])
def test_it_is_the_stock_module(version, shift, size):
    stock, made = pair(shift, version)
    x = torch.randn(2, *size, 12)
    torch.testing.assert_close(made(x), stock(x))


@torchvision
def test_parameters_and_buffers_are_those_of_the_stock_module():
    stock, made = pair([2, 2])
    assert made.state_dict().keys() == stock.state_dict().keys()
    assert isinstance(made, type(stock))
    assert made.head_size == 4
