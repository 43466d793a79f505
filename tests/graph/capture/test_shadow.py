from collections import OrderedDict, defaultdict

import pytest
import torch
from networks import NETWORKS
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from vibnet.graph.capture.shadow import as_parameter, copied, empty, shadow


def test_a_shadow_holds_no_storage_and_keeps_ties_flags_and_buffers():
    model, _ = NETWORKS["tied_parameter"](0)
    model.register_buffer("extra", torch.ones(3))
    next(model.parameters()).requires_grad_(False)
    copied = shadow(model, FakeTensorMode())
    state = list(copied.named_parameters(remove_duplicate=False))
    original = list(model.named_parameters(remove_duplicate=False))
    assert all(isinstance(p, FakeTensor) for _, p in state)
    assert isinstance(copied.extra, FakeTensor)
    for (name, p), (other, q) in zip(state, original, strict=True):
        assert name == other
        assert (p.shape, p.dtype, p.requires_grad) == (q.shape, q.dtype, q.requires_grad)
    same = [[p is r for _, r in state] for _, p in state]
    assert same == [[q is r for _, r in original] for _, q in original]
    assert isinstance(next(model.parameters()).data, torch.Tensor)


def test_without_a_mode_a_shadow_is_a_copy():
    model = nn.Linear(2, 3)
    copied = shadow(model, None)
    assert torch.equal(copied.weight, model.weight)
    assert copied.weight is not model.weight


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(4, 3, 5, 5).to(memory_format=torch.channels_last),
        torch.zeros(3, 4).t(),
        torch.zeros(2, dtype=torch.int64),
        torch.zeros((), dtype=torch.float16),
        torch.zeros(2, 2).to_sparse(),
    ],
)
def test_a_stand_in_is_what_the_mode_itself_would_make(value):
    model = nn.Module()
    model.register_buffer("x", value)
    mode = FakeTensorMode()
    made, expected = shadow(model, mode).x, mode.from_tensor(value)
    assert (made.shape, made.dtype, made.device) == (expected.shape, expected.dtype, value.device)
    assert made.layout == expected.layout
    if value.layout == torch.strided:
        assert made.stride() == expected.stride()


def test_a_fake_parameter_is_a_parameter():
    mode = FakeTensorMode()
    for tensor in (mode.from_tensor(torch.zeros(3)), torch.zeros(3)):
        for grad in (True, False):
            made = as_parameter(tensor.clone(), grad)
            assert isinstance(made, nn.Parameter)
            assert made.requires_grad is grad
            assert made.is_leaf


def test_a_copy_shares_no_table_but_those_that_were_shared():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    model[0].note = model[1].note = {}
    made = copied(model, {})
    for one, other in zip(model.modules(), made.modules(), strict=True):
        assert one is not other
        for name, value in vars(one).items():
            if isinstance(value, dict | set | list):
                assert vars(other)[name] is not value
                assert type(vars(other)[name]) is type(value)
    assert made[0].note is made[1].note
    assert made[0]._forward_hooks is not made[0]._backward_hooks
    assert torch.equal(made[0].weight, model[0].weight)
    made[0].register_forward_hook(lambda *_: None)
    assert not model[0]._forward_hooks
    assert not made[1]._forward_hooks


def test_only_plain_tables_without_entries_are_empty():
    found = [empty(x) for x in ({}, OrderedDict(), set(), [], (), {1: 2}, defaultdict(list), "")]
    assert found == [True, True, True, False, False, False, False, False]
