import pytest
import torch

from vibnet.errors import ConfigError
from vibnet.graph.capture.example import arguments, shapes, ways


def test_an_example_is_a_tensor_a_tuple_or_a_dict():
    x, y = torch.ones(1), torch.zeros(2)
    assert arguments(x) == ((x,), {})
    assert arguments((x, y)) == ((x, y), {})
    assert arguments([x, 3]) == ((x, 3), {})
    assert arguments({"x": x, "flag": True}) == ((), {"x": x, "flag": True})


@pytest.mark.parametrize("example", [None, 3, (), {}, "text", ({"a": 1},)])
def test_an_example_without_a_tensor_is_refused(example):
    with pytest.raises(ConfigError, match="at least one tensor"):
        arguments(example)


def test_a_batch_of_one_is_doubled_and_others_are_left():
    one, two = torch.randn(1, 3), torch.randn(2, 3)
    twice, same = ways(one)
    assert torch.equal(twice, torch.cat([one, one]))
    assert same is one
    assert ways(two)[0] is two
    assert len(ways(two)) == 1
    doubled = ways({"x": one, "scale": torch.tensor(2.0), "n": 1})[0]
    assert doubled["x"].shape == (2, 3)
    assert doubled["scale"].ndim == 0
    assert doubled["n"] == 1


def test_the_first_tensor_is_doubled_alone_where_that_differs():
    found = ways((torch.zeros(1, 3), torch.zeros(1), torch.zeros(4)))
    assert [shapes(x) for x in found] == [
        "(2, 3), (2,), (4,)",
        "(2, 3), (1,), (4,)",
        "(1, 3), (1,), (4,)",
    ]
