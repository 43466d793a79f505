import math

import numpy as np
import pytest
import torch
from laws import law_one
from torch import nn

import vibnet
from vibnet.errors import ConfigError
from vibnet.graph import checks
from vibnet.train.loop import fit


def test_a_module_is_no_class_and_nothing_else():
    checks.module("f", nn.Linear(2, 2))
    with pytest.raises(ConfigError, match=r"f: .* got the class Linear. Make one .*Linear\(...\)"):
        checks.module("f", nn.Linear)
    with pytest.raises(ConfigError, match=r"f: the model must be a torch.nn.Module, got NoneType"):
        checks.module("f", None)


class Extra(nn.Linear):
    """A layer with state that is no tensor."""

    def get_extra_state(self):
        return {"version": 1}

    def set_extra_state(self, state):
        assert state == {"version": 1}


def test_state_that_is_no_tensor_is_cut_but_not_stored(tmp_path):
    torch.manual_seed(0)
    example = torch.randn(4, 8)
    model = nn.Sequential(Extra(8, 12), nn.ReLU(), nn.Linear(12, 3))
    _, small, _ = law_one(model, example)
    assert small.state_dict()["0._extra_state"] == {"version": 1}
    with pytest.raises(ConfigError, match=r"save: the state of Sequential .*\(0\._extra_state\)"):
        vibnet.save(small, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match=r"fit: the state of Sequential .*torch\.save"):
        fit(model, Data(example), folder=tmp_path / "run")


class Data:
    """One batch, over and over."""

    steps = 1

    def __init__(self, example):
        self.example = example

    def train(self, _epoch):
        return [(self.example, torch.zeros(len(self.example), dtype=torch.int64))]

    def validation(self):
        return self.train(0)


def test_names_are_listed_and_a_string_is_one():
    assert checks.names("x", "ab") == ["ab"]
    assert checks.names("x", (n for n in "ab")) == ["a", "b"]
    assert checks.names("x", ()) == []


@pytest.mark.parametrize("given", [None, 3, ["a", None], b"a", True])
def test_what_is_no_list_of_names_is_refused(given):
    with pytest.raises(ConfigError, match="x must be a list of names, got"):
        checks.names("x", given)


@pytest.mark.parametrize("given", [1, 0, None, "yes"])
def test_a_flag_is_true_or_false(given):
    assert checks.flag("x", True)
    assert not checks.flag("x", False)
    with pytest.raises(ConfigError, match=f"x must be True or False, got {given!r}"):
        checks.flag("x", given)


def test_numbers_are_those_of_python_and_numpy():
    assert checks.number("x", 0) == 0
    assert checks.number("x", np.float32(0.5)) == 0.5
    assert checks.number("x", np.int64(2)) == 2


@pytest.mark.parametrize(
    "given", [-1, math.nan, math.inf, -math.inf, True, False, "1", None, 10**400, 1j]
)
def test_what_is_no_finite_number_is_refused(given):
    with pytest.raises(ConfigError, match="x must be a finite number >= 0"):
        checks.number("x", given)
    assert not checks.is_number(given)


@pytest.mark.parametrize(
    ("value", "kind", "wrong"),
    [
        (1, int, ""),
        (np.int64(1), int, ""),
        (1.0, int, "x must be int, got 1.0"),
        (True, int, "x must be int, got True"),
        (True, bool, ""),
        ("a", list[str], "x must be list[str], got 'a'"),
        (["a"], tuple[str, ...], ""),
        (("a", 1), tuple[str, ...], "x[1] must be str, got 1"),
        ({}, dict, ""),
        ({1: object()}, dict, ""),
        ([], dict, "x must be dict, got []"),
        ({1: "a"}, dict[str, str], "a key of x must be str, got 1"),
        ({"a": {"b": 1}}, dict[str, dict[str, str]], "x['a']['b'] must be str, got 1"),
        (list(range(100)), str, "x must be str, got [0, 1, 2, 3, 4, 5, ...]"),
    ],
)
def test_a_misfit_is_told_with_its_place(value, kind, wrong):
    assert checks.misfit(value, kind, "x") == wrong


def test_fields_are_all_there_and_no_others():
    kinds = {"a": int, "b": str}
    assert checks.misfits({"a": 1, "b": "c"}, kinds) == ""
    assert checks.misfits({"a": 1}, kinds) == "there must be b"
    assert checks.misfits({"a": 1, "b": "c", "d": 2}, kinds) == "there is no field 'd'"
    assert checks.misfits({"a": 1, "b": 2}, kinds) == "b must be str, got 2"
