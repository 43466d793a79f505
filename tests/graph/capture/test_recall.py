import pytest
import torch
from networks import NETWORKS
from torch._subclasses.fake_tensor import FakeTensorMode

from vibnet.graph.capture import recall
from vibnet.graph.capture.capture import capture
from vibnet.graph.capture.memory import storage

ATEN = torch.ops.aten


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(recall, "_KNOWN", {})


def described(trace):
    """Every result of every call: layout, type, and which earlier tensor it is or lies with."""
    place, memory, out = {}, {}, []
    for call in trace.calls:
        for x in (*call.given, *call.results):
            which = place.setdefault(id(x), len(place)), memory.setdefault(storage(x), len(memory))
            laid = x.shape, x.stride(), x.storage_offset(), x.dtype, x.device, x.requires_grad
            out.append((call.op, type(call.out), *which, *laid))
    return out


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_what_is_remembered_is_what_was_worked_out(name, monkeypatch):
    model, example = NETWORKS[name](0)
    capture(model, example)
    known = len(recall._KNOWN)
    assert known
    remembered = capture(model, example)
    assert len(recall._KNOWN) == known
    monkeypatch.setattr(recall, "call", lambda mode, func, args, kwargs: func(*args, **kwargs))
    for one, other in zip(remembered, capture(model, example), strict=True):
        assert described(one) == described(other)


def made(mode, *shape, **options):
    with mode:
        return torch.empty(*shape, **options)


def both(mode, func, *args, **kwargs):
    """What a call gives at first, and then, where it must have been remembered."""
    with mode:
        first = recall.call(mode, func, args, kwargs)
        before = dict(recall._KNOWN)
        again = recall.call(mode, func, args, kwargs)
    assert recall._KNOWN.keys() == before.keys()
    return first, again


def test_a_view_lies_in_the_memory_of_its_own_argument():
    mode = FakeTensorMode()
    one, other = made(mode, 4, 6), made(mode, 4, 6)
    both(mode, ATEN.slice.Tensor, one, 1, 2, 5)
    _, view = both(mode, ATEN.slice.Tensor, other, 1, 2, 5)
    assert storage(view) == storage(other) != storage(one)
    assert (view.storage_offset(), view.stride()) == (2, (6, 1))
    parts = both(mode, ATEN.split.Tensor, other, 2)[1]
    assert [storage(x) == storage(other) for x in parts] == [True, True]
    assert storage(both(mode, ATEN._unsafe_view.default, other, [6, 4])[1]) == storage(other)


def test_what_is_written_in_place_is_the_argument_itself():
    mode = FakeTensorMode()
    x = made(mode, 4)
    assert both(mode, ATEN.add_.Tensor, x, 1)[1] is x


def test_which_of_two_tensors_is_which_is_not_mixed_up():
    mode = FakeTensorMode()
    x, y, z = (made(mode, 4) for _ in range(3))
    assert both(mode, ATEN.add.out, x, y, out=x)[1] is x
    assert both(mode, ATEN.add.out, x, y, out=y)[1] is y
    assert both(mode, ATEN.add.out, x, y, out=z)[1] is z
    with mode:
        half = ATEN.slice.Tensor(x, 0, 0, 2), ATEN.slice.Tensor(x, 0, 2, 4)
        before = len(recall._KNOWN)
        recall.call(mode, ATEN.add_.Tensor, half, {})
    assert len(recall._KNOWN) == before + 1


def test_types_of_numbers_layouts_and_default_types_are_told_apart():
    mode = FakeTensorMode()
    whole = made(mode, 2, 3, dtype=torch.int64)
    assert both(mode, ATEN.mul.Tensor, whole, 1)[1].dtype == torch.int64
    assert both(mode, ATEN.mul.Tensor, whole, 1.0)[1].dtype == torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert both(mode, ATEN.mul.Tensor, whole, 1.0)[1].dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    one, other = made(mode, 2, 3), both(mode, ATEN.t.default, made(mode, 3, 2))[0]
    assert both(mode, ATEN.relu.default, one)[1].stride() == (3, 1)
    assert both(mode, ATEN.relu.default, other)[1].stride() == (1, 2)


def test_numbers_of_the_code_keep_their_values():
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        for value in (2.0, 3.0):
            x = recall.call(mode, ATEN.mul.Tensor, (torch.tensor(value), torch.tensor(2.0)), {})
            assert x.item() == 2 * value


def test_calls_that_depend_on_data_fail_as_they_did():
    mode = FakeTensorMode()
    x = made(mode, 4)
    for _ in range(2):
        with mode, pytest.raises(Exception, match="nonzero"):
            recall.call(mode, ATEN.nonzero.default, (x,), {})


def test_a_tensor_of_another_mode_is_refused_as_it_was():
    mode, other = FakeTensorMode(), FakeTensorMode()
    both(mode, ATEN.relu.default, made(mode, 4))
    with mode, pytest.raises(AssertionError, match="Mixing fake modes"):
        recall.call(mode, ATEN.relu.default, (made(other, 4),), {})


def test_no_more_is_remembered_than_a_limit(monkeypatch):
    monkeypatch.setattr(recall, "LIMIT", 3)
    mode = FakeTensorMode()
    for size in range(1, 9):
        both(mode, ATEN.relu.default, made(mode, size))
    assert 1 <= len(recall._KNOWN) <= 3
