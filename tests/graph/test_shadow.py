import copy

import pytest
import torch
from networks import NETWORKS
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from vibnet.graph.shadow import as_parameter, shadow, structure


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


def same(a, b, seen):
    """Whether two objects have the same structure, with the same sharing inside."""
    if type(a) is not type(b) or seen.setdefault(id(a), id(b)) != id(b):
        return False
    if isinstance(a, torch.Tensor):
        return a is not b and torch.equal(a, b) and a.requires_grad == b.requires_grad
    if isinstance(a, nn.Module):
        return a is not b and same(dict(a.__dict__), dict(b.__dict__), {})
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k], seen) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y, seen) for x, y in zip(a, b, strict=True))
    return callable(a) or a == b


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_structure_of_a_model_is_what_a_deep_copy_gives(name):
    model, _ = NETWORKS[name](0)
    made, expected = structure(model, {}), copy.deepcopy(model)
    assert [n for n, _ in made.named_modules()] == [n for n, _ in expected.named_modules()]
    assert same(model, made, {})
    owners = lambda m: [  # noqa: E731 - the ties of all tensors and modules
        [x is y for _, y in m.named_parameters(remove_duplicate=False)]
        for _, x in m.named_parameters(remove_duplicate=False)
    ]
    assert owners(made) == owners(model)


def test_lists_tensors_and_other_objects_in_attributes_are_copied():
    model = nn.Linear(2, 2)
    model.notes, model.table, model.again = [1, [2]], torch.ones(3), model.weight
    model.child = nn.Linear(1, 1)
    object.__setattr__(model, "parent", model.child)
    made = structure(model, {})
    assert made.notes == [1, [2]]
    assert made.notes[1] is not model.notes[1]
    assert torch.equal(made.table, model.table)
    assert made.table is not model.table
    assert made.again is made.weight
    assert made.parent is made.child


def test_a_module_with_its_own_way_of_copying_is_asked():
    class Odd(nn.Linear):
        def __deepcopy__(self, memo):
            made = Odd(1, 1)
            made.copied = True
            return made

    made = structure(nn.Sequential(Odd(2, 2), nn.ReLU()), {})
    assert made[0].copied
    parametrised = torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
    copied = structure(nn.Sequential(parametrised), {})
    x = torch.randn(2, 3)
    assert torch.equal(copied(x), parametrised(x))


def test_hooks_that_are_bound_to_a_module_follow_it():
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].calls = 0

    def count(self, *_):
        self.calls += 1

    model[0].register_forward_hook(count.__get__(model[0]))
    made = structure(model, {})
    made(torch.ones(1, 2))
    assert (model[0].calls, made[0].calls) == (0, 1)
