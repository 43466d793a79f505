import copy

import pytest
import torch
from torch import nn

from vibnet.layers import SelectedLinear


def selected():
    return SelectedLinear.of(nn.Linear(3, 2), torch.tensor([4, 0, 2]), 5)


def test_a_selected_layer_is_the_whole_one_with_zero_columns():
    torch.manual_seed(0)
    layer, x = selected().double(), torch.randn(2, 7, 5, dtype=torch.float64)
    whole = nn.Linear(5, 2).double()
    with torch.no_grad():
        whole.weight.zero_()
        whole.weight[:, [4, 0, 2]] = layer.weight
        whole.bias.copy_(layer.bias)
    torch.testing.assert_close(layer(x), whole(x), rtol=0, atol=1e-15)


def test_making_it_keeps_parameters_hooks_and_mode():
    layer = nn.Linear(3, 2).eval()
    weight = layer.weight.requires_grad_(False)
    seen = []
    layer.register_forward_hook(lambda *_: seen.append(1))
    SelectedLinear.of(layer, torch.tensor([0, 1, 2]), 4)(torch.ones(1, 4))
    assert seen == [1]
    assert layer.weight is weight
    assert not layer.weight.requires_grad
    assert not layer.training


def test_it_copies_saves_and_exports():
    layer, x = selected(), torch.randn(2, 5)
    other = selected()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    exported = torch.export.export(layer, (x,)).module()
    assert torch.equal(exported(x), layer(x))


@pytest.mark.parametrize("given", [4, 6])
def test_another_number_of_features_is_an_error(given):
    with pytest.raises(ValueError, match=f"picks 3 of 5 features, but is given {given}"):
        selected()(torch.ones(1, given))


def test_a_layer_is_plain_again_and_keeps_parameters_and_hooks():
    layer, x = selected(), torch.randn(2, 3)
    weight = layer.weight
    plain = layer.plain()
    assert plain is layer
    assert type(plain) is nn.Linear
    assert plain.weight is weight
    assert set(plain.state_dict()) == {"weight", "bias"}
    torch.testing.assert_close(plain(x), x @ weight.T + plain.bias)


@pytest.mark.parametrize("kind", [torch.int64, torch.int32])
def test_its_wide_weight_gives_a_plain_layer_of_the_same_answers(kind):
    torch.manual_seed(0)
    layer, x = selected().double(), torch.randn(2, 7, 5, dtype=torch.float64)
    layer.index = layer.index.to(kind)
    before = layer(x)
    assert layer.wide().requires_grad
    layer.weight.requires_grad_(False)
    layer.weight = layer.wide()
    assert not layer.weight.requires_grad
    plain = layer.plain()
    assert (plain.in_features, tuple(plain.weight.shape)) == (5, (2, 5))
    torch.testing.assert_close(plain(x), before, rtol=0, atol=1e-15)


def test_what_has_been_picked_already_is_not_picked_again():
    layer, x = selected(), torch.randn(2, 5)
    assert torch.equal(layer(layer.pick(x), picked=True), layer(x))
    with pytest.raises(RuntimeError, match=r"shapes cannot be multiplied"):
        layer(x, picked=True)
