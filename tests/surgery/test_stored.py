import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from vibnet.surgery.stored import (
    SOME,
    Stored,
    bare,
    double,
    doubled,
    empty,
    hollow,
    unfilled,
    wide,
)

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double()


class File:
    """A tensor in a file, and how often it was read."""

    def __init__(self, value):
        self.value, self.reads = value, 0

    def read(self):
        self.reads += 1
        return self.value.clone()

    def stored(self):
        return Stored.of(tuple(self.value.shape), self.value.dtype, self.read)


def test_an_operation_reads_a_stored_tensor_and_nothing_else_does():
    file = File(torch.randn(2, 4))
    weight = file.stored()
    assert (tuple(weight.shape), weight.dtype, str(weight.device)) == ((2, 4), torch.double, "cpu")
    assert isinstance(weight, nn.Parameter)
    assert weight.to("cpu") is weight
    assert file.reads == 0
    with torch.no_grad():
        out = nn.functional.linear(X, weight)
    assert type(out) is torch.Tensor
    assert torch.equal(out, X @ file.value.double().T)
    assert file.reads == 1


def test_a_parameter_of_a_stored_tensor_is_stored_too():
    file = File(torch.randn(2))
    again = nn.Parameter(file.stored(), requires_grad=True)
    assert type(again) is Stored
    assert again.requires_grad
    assert file.reads == 0


def test_what_has_read_a_stored_tensor_is_known():
    table = File(torch.randn(5, 4)).stored()
    with torch.no_grad():
        rows = nn.functional.embedding(torch.tensor([1, 2]), table)
        assert rows.dtype == table[0].dtype == torch.double
        assert table.used <= SOME
        table.sum()
    assert not table.used <= SOME


def test_nothing_that_was_read_is_held():
    given = []

    def read():
        value = torch.randn(6, 4).double()
        given.append(StorageWeakRef(value.untyped_storage()))
        return value

    weight = Stored.of((6, 4), torch.float64, read)
    model = bare(nn.Linear(4, 6, bias=False), {"weight": weight})
    with torch.no_grad():
        model(X)
    assert [held.expired() for held in given] == [True]


@pytest.mark.parametrize(
    ("kind", "wider"),
    [
        (torch.bfloat16, torch.double),
        (torch.float32, torch.double),
        (torch.double, torch.double),
        (torch.complex64, torch.complex128),
        (torch.int32, torch.int32),
        (torch.bool, torch.bool),
    ],
)
def test_wide_is_double_precision_for_floating_point_alone(kind, wider):
    assert wide(kind) == wider


def test_nothing_is_computed_in_less_than_double_precision():
    x = torch.full((3,), 1 / 3, dtype=torch.double)
    with double():
        assert torch.equal(x.float().to(torch.bfloat16), x)
        assert x.softmax(0, dtype=torch.float32).dtype == torch.double
        assert torch.ones(2).dtype == torch.double
        assert torch.zeros(2, dtype=torch.float16).dtype == torch.double
        assert torch.zeros(2, dtype=torch.int64).dtype == torch.int64
    assert torch.ones(2).dtype == torch.float32


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight
        self.register_buffer("scale", torch.ones(4))


def test_a_copy_has_other_tensors_under_all_their_names_and_the_model_is_left_alone():
    model, file = Tied(), File(torch.randn(4, 4))
    copied = bare(model, {"a.weight": file.stored(), "scale": torch.zeros(4)})
    assert copied.a.weight is copied.b.weight
    assert type(copied.a.weight) is Stored
    assert not copied.scale.any()
    assert type(model.a.weight) is nn.Parameter
    assert model.scale.all()


def test_a_hollow_copy_has_no_parameters_but_its_buffers():
    model = Tied()
    copied = hollow(model)
    assert copied.a.weight.is_meta
    assert copied.a.weight is copied.b.weight
    assert torch.equal(copied.scale, model.scale)
    assert unfilled(copied, {"a.weight", "b.weight"}) == []
    assert unfilled(copied, {"a.weight"}) == ["b.weight"]


def test_doubled_keeps_ties_whole_numbers_and_what_is_stored():
    model, file = Tied(), File(torch.randn(4, 4))
    model.register_buffer("count", torch.tensor(3))
    model.c = nn.Linear(4, 2)
    model.c.weight = nn.Parameter(torch.empty(2, 4, device="meta"))
    model = doubled(bare(model, {"a.weight": file.stored()}))
    assert file.reads == 0
    assert model.c.weight.is_meta
    assert model.count.dtype == torch.int64
    assert model.scale.dtype == model.c.bias.dtype == torch.double
    plain = doubled(Tied())
    assert plain.a.weight is plain.b.weight
    assert plain.a.weight.dtype == torch.double


def test_a_model_made_empty_has_buffers_with_numbers():
    before = nn.Module.register_parameter
    with empty():
        model = Tied()
        assert model.a.weight is model.b.weight
    assert model.a.weight.is_meta
    assert model.scale.tolist() == [1.0] * 4
    assert nn.Module.register_parameter is before
    with pytest.raises(ZeroDivisionError), empty():
        raise ZeroDivisionError
    assert nn.Module.register_parameter is before
