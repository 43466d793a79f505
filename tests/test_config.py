import dataclasses
import json

import pytest

from vibnet.config import Settings
from vibnet.errors import ConfigError

NAN, INF = float("nan"), float("inf")
BAD = {
    "seed": [1.0, "0", True, 2**63, -(2**63) - 1],
    "batch": [0, -1, 1.5, NAN, "100", True],
    "dense_epochs": [-1, 2.5, NAN, INF, "5"],
    "gate_epochs": [-1, 0.5],
    "tune_epochs": [-1, 1.0],
    "optimizer": ["lbfgs", "", "Adam", 3],
    "lr": [0.0, -1e-3, NAN, INF, "0.1", True],
    "gate_lr": [0, -1.0, NAN, INF],
    "tune_lr": [0.0, NAN, INF],
    "momentum": [-0.1, 1.0, NAN],
    "weight_decay": [-1e-9, NAN, INF],
    "dense_schedule": ["step", None],
    "gate_schedule": ["Cosine", 0],
    "gamma": [-1e-9, NAN, INF],
    "gamma_rise": [-0.1, 1.1, NAN],
    "budget": [5, None],
    "clip": [-1.0, NAN, INF],
    "accumulate": [0, -2, 1.5],
    "ema": [-0.1, 1.0, NAN],
    "autocast": ["float16", "none", True],
    "channels_last": ["yes", 1],
    "distil": [-0.1, 1.1, NAN],
    "temperature": [0.0, -1.0, NAN, INF],
    "shrink": [1, "true", None],
    "patience": [0, 2.5],
    "margin": [0.99, NAN, INF],
}
EDGES = {
    "batch": [1],
    "dense_epochs": [0],
    "seed": [-1, 2**63 - 1],
    "gamma": [0, 0.0],
    "gamma_rise": [0, 1],
    "distil": [0, 1],
    "momentum": [0],
    "ema": [0, 0.999],
    "margin": [1],
    "patience": [1],
    "clip": [0],
    "weight_decay": [0],
}


def test_every_setting_has_its_bad_values():
    assert {f.name for f in dataclasses.fields(Settings)} == set(BAD)


@pytest.mark.parametrize(("name", "value"), [(k, v) for k, values in BAD.items() for v in values])
def test_a_setting_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=f"^settings: {name} must be "):
        Settings(**{name: value})


@pytest.mark.parametrize(("name", "value"), [(k, v) for k, vs in EDGES.items() for v in vs])
def test_the_ends_of_a_range_belong_to_it(name, value):
    assert getattr(Settings(**{name: value}), name) == value


def test_settings_are_frozen_and_whole_in_json():
    settings = Settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.lr = 1.0
    assert Settings(**json.loads(json.dumps(dataclasses.asdict(settings)))) == settings


def test_what_is_documented_are_the_settings():
    text = Settings.__doc__.partition("Attributes:")[2]
    named = [line.split(":")[0].strip() for line in text.splitlines() if line[:9].strip(" ") and ":"
             in line and line.startswith("        ") and line[8] != " "]  # fmt: skip
    assert named == [f.name for f in dataclasses.fields(Settings)]


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("lr", "3e-4", 3e-4),
        ("lr", 1, 1.0),
        ("batch", "64", 64),
        ("batch", "1e2", 100),
        ("batch", 64.0, 64),
        ("seed", "9007199254740993", 9007199254740993),
        ("seed", "-3", -3),
        ("shrink", "false", False),
        ("shrink", "True", True),
        ("shrink", False, False),
        ("optimizer", "sgd", "sgd"),
        ("autocast", "", ""),
    ],
)
def test_settings_are_replaced_from_values_and_text(name, given, expected):
    found = Settings().replaced(**{name: given})
    value = getattr(found, name)
    assert value == expected
    assert type(value) is type(expected)
    assert dataclasses.replace(found, **{name: getattr(Settings(), name)}) == Settings()


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("bacth", "64", r"there is no setting 'bacth'. There are: seed, batch, "),
        ("batch", "many", r"the setting batch is of type int, but 'many' is given"),
        ("batch", "1.5", r"the setting batch is of type int, but '1.5'"),
        ("batch", "inf", r"the setting batch is of type int, but 'inf'"),
        ("batch", "nan", r"the setting batch is of type int"),
        ("batch", None, r"the setting batch is of type int, but None"),
        ("batch", True, r"the setting batch is of type int, but True"),
        ("lr", "fast", r"the setting lr is of type float, but 'fast'"),
        ("lr", True, r"the setting lr is of type float, but True"),
        ("shrink", "yes", r"the setting shrink is of type bool, but 'yes'"),
        ("shrink", 1, r"the setting shrink is of type bool, but 1"),
        ("lr", "-1", r"settings: lr must be finite and above 0, got -1.0"),
        ("lr", "nan", r"settings: lr must be finite"),
    ],
)
def test_what_cannot_be_a_setting_is_refused(name, given, message):
    with pytest.raises(ConfigError, match=message):
        Settings().replaced(**{name: given})


def test_replacing_leaves_the_original_alone():
    settings = Settings(lr=0.5)
    assert settings.replaced(batch=7) == Settings(lr=0.5, batch=7)
    assert settings == Settings(lr=0.5)
