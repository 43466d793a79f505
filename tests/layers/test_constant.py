import pytest
import torch
from torch import nn

from vibnet.layers import Constant


def filled(*args, **kwargs):
    layer = Constant(*args, **kwargs, like=nn.Parameter(torch.empty(1)))
    layer.bias.data.copy_(torch.arange(1.0, layer.width + 1))
    return layer


def test_the_numbers_lie_along_the_dimension():
    out = filled(3, -1)(torch.ones(2, 5, 7))
    assert torch.equal(out, torch.tensor([1.0, 2, 3]).expand(2, 5, 3))
    out = filled(3, -3)(torch.ones(2, 9, 4, 6))
    assert torch.equal(out, torch.tensor([1.0, 2, 3]).reshape(3, 1, 1).expand(2, 3, 4, 6))


@pytest.mark.parametrize("size", [7, 8, 9])
@pytest.mark.parametrize("window", [(3, 2, 1, 1), (3, 1, 0, 2), (1, 1, 0, 1), (2, 2, 0, 1)])
def test_the_space_is_that_of_the_convolution(size, window):
    kernel, stride, padding, dilation = window
    conv = nn.Conv2d(2, 3, kernel, stride, padding, dilation)
    both = (kernel, stride, 2 * padding, dilation)
    x = torch.ones(2, 2, size, size + 2)
    assert filled(3, -3, (both, both))(x).shape == conv(x).shape


def test_without_numbers_all_are_zero_and_nothing_is_stored():
    layer = Constant(3, -1)
    x = torch.ones(2, 4, dtype=torch.float64)
    assert torch.equal(layer(x), torch.zeros(2, 3, dtype=torch.float64))
    assert not layer.state_dict()
    assert layer.weight is None


def test_it_may_be_written_into_and_trained():
    layer = filled(3, -1)
    out = layer(torch.ones(2, 4))
    out += 1
    assert torch.equal(layer.bias, torch.tensor([1.0, 2, 3]))
    out.sum().backward()
    assert torch.equal(layer.bias.grad, torch.full((3,), 2.0))


def test_it_says_what_it_is():
    assert "3 numbers along -1, all zero" in repr(Constant(3, -1))


def test_on_the_meta_device_it_gives_a_shape():
    assert filled(3, -1).to("meta")(torch.ones(2, 4, device="meta")).shape == (2, 3)
