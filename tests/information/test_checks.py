"""Each check lets good arguments through and names what it refuses."""

import math

import pytest
import torch

from vibnet.errors import ConfigError
from vibnet.information import checks


@pytest.mark.parametrize("value", [0, 0.0, 1, 2.5, torch.tensor([0.0, 3.0]), torch.empty(0)])
def test_numbers_from_zero_up_pass(value):
    assert checks.at_least_zero("call", number=value) is None


@pytest.mark.parametrize("value", [1, 5e-324, torch.tensor([1e-30, 3.0])])
def test_positive_numbers_pass(value):
    assert checks.above_zero("call", number=value) is None


BAD = [-1, -1e-300, math.nan, math.inf, torch.tensor([1.0, -1.0]), torch.tensor([math.nan, 1.0])]


@pytest.mark.parametrize("value", BAD)
def test_negative_infinite_and_nan_are_refused_by_name(value):
    with pytest.raises(ConfigError, match=r"^call: number must be finite and at least 0, found"):
        checks.at_least_zero("call", fine=1.0, number=value)


@pytest.mark.parametrize("value", [*BAD, 0, 0.0, torch.tensor([1.0, 0.0])])
def test_zero_is_refused_where_a_positive_number_is_needed(value):
    with pytest.raises(ConfigError, match=r"^call: number must be finite and above 0, found"):
        checks.above_zero("call", number=value, fine=1.0)


def test_a_refusal_is_also_a_value_error():
    with pytest.raises(ValueError, match=r"found -2\. Give a non-negative number\."):
        checks.at_least_zero("call", number=-2)


def test_equal_shapes_pass_and_others_do_not():
    checks.same_shape("call", torch.ones(2, 3), torch.ones(2, 3))
    with pytest.raises(ConfigError, match=r"^call: mu has shape \(2, 3\) .* shape \(3,\)"):
        checks.same_shape("call", torch.ones(2, 3), torch.ones(3))


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (3, 0)])
def test_a_table_of_floats_passes(shape):
    assert checks.activations("call", torch.ones(shape, dtype=torch.bfloat16)) is None


@pytest.mark.parametrize(
    "f", [torch.ones(3), torch.ones(0, 2), torch.ones(2, 2, 2), torch.ones(2, 2, dtype=torch.int64)]
)
def test_what_is_no_table_of_floats_is_refused(f):
    with pytest.raises(ConfigError, match=r"^call: f has shape .* dtype .*\(samples, units\)"):
        checks.activations("call", f)


def test_one_column_per_unit_is_asked_for():
    checks.one_column_per_unit("call", torch.ones(2), torch.ones(5, 2))
    with pytest.raises(ConfigError, match=r"^call: mu has shape \(2,\) and f has shape \(2, 5\)"):
        checks.one_column_per_unit("call", torch.ones(2), torch.ones(2, 5))
