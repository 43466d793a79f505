"""The attention that holds any number of heads computes what torch's own does."""

import copy

import pytest
import torch
from torch import nn

from vibnet.layers import Attention

WIDTH, HEADS = 12, 3


def stock(**options):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(WIDTH, HEADS, **options)
    for p in module.parameters():
        p.data.normal_(0, 0.4)
    return module.eval()


def same(module, *args, **options):
    made = Attention.of(copy.deepcopy(module)).eval()
    found, weights = made(*args, **options)
    wanted, wanted_weights = module(*args, **options)
    torch.testing.assert_close(found, wanted)
    if options.get("need_weights", True):
        torch.testing.assert_close(weights, wanted_weights)
    else:
        assert weights is None


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("need", [True, False])
def test_plain_attention(first, need):
    x, y = torch.randn(4, 5, WIDTH), torch.randn(4, 5, WIDTH)
    same(stock(batch_first=first), x, y, y, need_weights=need)


@pytest.mark.parametrize("need", [True, False])
@pytest.mark.parametrize("kind", ["bool", "float", "per head"])
def test_masks(need, kind):
    x = torch.randn(2, 5, WIDTH)
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1)
    if kind == "float":
        mask = torch.randn(5, 5)
    if kind == "per head":
        mask = torch.randn(2 * HEADS, 5, 5)
    same(stock(batch_first=True), x, x, x, attn_mask=mask, need_weights=need)


@pytest.mark.parametrize("need", [True, False])
def test_padding_beside_a_mask(need):
    x = torch.randn(2, 5, WIDTH)
    padding = torch.tensor([[False] * 5, [False, False, False, True, True]])
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1)
    module = stock(batch_first=True)
    same(module, x, x, x, key_padding_mask=padding, need_weights=need)
    same(module, x, x, x, key_padding_mask=padding, attn_mask=mask, need_weights=need)


def test_one_example_without_a_batch_and_weights_per_head():
    x = torch.randn(5, WIDTH)
    same(stock(), x, x, x)
    same(stock(), x, x, x, average_attn_weights=False)


def test_other_sizes_of_keys_and_no_bias():
    x, k, v = torch.randn(2, 5, WIDTH), torch.randn(2, 7, 6), torch.randn(2, 7, 4)
    same(stock(kdim=6, vdim=4, batch_first=True), x, k, v)
    same(stock(bias=False, batch_first=True), x, x, x)


def test_flags_hooks_mode_and_number_of_heads_stay():
    module = stock(dropout=0.2)
    module.in_proj_weight.requires_grad_(False)
    seen = []
    module.register_forward_hook(lambda *_: seen.append(1))
    module.register_forward_pre_hook(lambda _m, _a, k: seen.append(len(k)), with_kwargs=True)
    made = Attention.of(module.train())
    assert (made.training, made.dropout, made.num_heads) == (True, 0.2, HEADS)
    assert not Attention.of(module.eval()).training
    assert (made.embed_dim, made.head_dim, made.kdim, made.vdim) == (WIDTH, 4, WIDTH, WIDTH)
    assert not made.k_proj.weight.requires_grad
    assert made.k_proj.bias.requires_grad
    assert made.out_proj is module.out_proj
    made(*[torch.randn(5, 2, WIDTH)] * 3)
    assert seen == [0, 1]


def test_gradients_are_those_of_the_stock_module():
    module = stock(batch_first=True)
    made = Attention.of(copy.deepcopy(module))
    x = torch.randn(2, 5, WIDTH)
    for m in (module, made):
        m(x, x, x)[0].square().sum().backward()
    rows = torch.cat([f.weight.grad for f in (made.q_proj, made.k_proj, made.v_proj)])
    torch.testing.assert_close(rows, module.in_proj_weight.grad)


@pytest.mark.parametrize("norm_first", [True, False])
def test_it_works_in_torchs_own_encoder(norm_first):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        WIDTH, HEADS, 16, batch_first=True, norm_first=norm_first, dropout=0.0
    )
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x = torch.randn(2, 5, WIDTH)
    wanted = encoder(x)
    for one in encoder.layers:
        one.self_attn = Attention.of(one.self_attn)
    torch.testing.assert_close(encoder(x), wanted)
    torch.testing.assert_close(encoder(x, is_causal=True, mask=torch.full((5, 5), 0.0)), wanted)
