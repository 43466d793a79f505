import math
import re

import pytest
import torch
from recorded import inside
from torch import nn

from vibnet.cli import given
from vibnet.errors import ConfigError


def test_settings_are_read_in_their_order():
    assert given.changes(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}


@pytest.mark.parametrize("text", ["gamma", "", "=3"])
def test_a_setting_without_its_parts_is_refused(text):
    with pytest.raises(ConfigError, match=re.escape(f"--set takes key=value, got {text!r}")):
        given.changes([text])


def test_a_setting_named_twice_is_refused():
    with pytest.raises(ConfigError, match="--set names a twice"):
        given.changes(["a=1", "a=2"])


@pytest.mark.parametrize(
    ("text", "value"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m5s", 5405), ("0.5m", 30)]
)
def test_a_time_has_its_unit(text, value):
    assert given.seconds(text) == value


def test_no_time_is_no_limit():
    assert given.seconds(None) == math.inf


@pytest.mark.parametrize("text", ["30", "", "0s", "-5s", "30 m", "1d", "m", "1e9s", "nans", "5m2h"])
def test_a_time_without_its_unit_is_refused(text):
    with pytest.raises(ConfigError, match="--time-limit takes a time with its unit"):
        given.seconds(text)


def test_an_example_has_the_shape_that_is_typed():
    assert given.example("1,3,8,8").shape == (1, 3, 8, 8)
    assert given.example("2x4").shape == (2, 4)
    assert torch.equal(given.example("2,4"), given.example("2,4"))


@pytest.mark.parametrize("text", ["", "1,,3", "a", "1,-3", "0,3", "1.5"])
def test_an_example_that_is_no_shape_is_refused(text):
    with pytest.raises(ConfigError, match="--example takes a shape"):
        given.example(text)


def test_a_device_must_be_there():
    assert given.device("cpu") == "cpu"
    with pytest.raises(ConfigError, match="--device 'nowhere' cannot be used here"):
        given.device("nowhere")


MODULE = """
import torch
from torch import nn
NUMBER = 3
def net(): return nn.Linear(3, 2)
def breaks(): raise RuntimeError("out of luck")
def needs(x): return x
class Data:
    example, steps = torch.zeros(2, 3), 1
    def train(self, epoch): yield self.example, torch.zeros(2)
    def validation(self): yield self.example, torch.zeros(2)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    name = f"given_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / f"{name}_broken.py").write_text("import nothing_of_that_name")
    with inside(tmp_path, monkeypatch):
        yield name


def test_a_factory_in_the_current_folder_makes_a_model_by_its_seed(here):
    before = torch.get_rng_state()
    a, b, c = (given.model(f"{here}:net", seed) for seed in (0, 0, 1))
    assert isinstance(a, nn.Linear)
    assert torch.equal(a.weight, b.weight)
    assert not torch.equal(a.weight, c.weight)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("{}", "takes package.module:factory"),
        (":net", "takes package.module:factory"),
        ("{}:", "takes package.module:factory"),
        ("{}:a.b", "takes package.module:factory"),
        ("{}:nothing", "has no 'nothing'"),
        ("{}:NUMBER", "is a int. Name a function or a class"),
        ("{}:breaks", "failed: RuntimeError: out of luck"),
        ("{}:needs", "failed: TypeError"),
        ("{}:Data", "gave a Data, not a torch.nn.Module"),
        ("{}_broken:net", "cannot be imported: ModuleNotFoundError"),
        ("no_such_module:net", "cannot be imported: ModuleNotFoundError"),
        ("../x:net", "cannot be imported"),
    ],
)
def test_a_factory_that_cannot_be_used_is_named(spec, text, here):
    with pytest.raises(ConfigError, match=re.escape(text)):
        given.model(spec.format(here))


def test_data_that_lack_something_are_named(here):
    with pytest.raises(ConfigError, match=r"gave a Data without test\. It needs"):
        given.data(f"{here}:Data")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (None, {}),
        ("macs", {"weights": "macs"}),
        ("fc1:features=8, conv1=area", {"weights": {"fc1:features": 8.0, "conv1": "area"}}),
        ("a=b=2", {"weights": {"a=b": 2.0}}),
    ],
)
def test_prices_are_a_kind_or_those_of_sites(text, value):
    assert given.prices(text) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fc1=2,", "takes site=price by commas, got ''"),
        ("fc1=2,fc2", "got 'fc2' in 'fc1=2,fc2'"),
        ("fc1=", "got 'fc1='"),
        ("=2", "got '=2'"),
        ("fc1=2,fc1=3", "names fc1 twice: 2.0 and 3"),
    ],
)
def test_prices_without_their_parts_are_refused(text, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        given.prices(text)


def test_a_run_has_one_budget():
    assert given.budget({"macs": "5%", "error": None}, {}) == {"budget": "macs=5%"}
    assert given.budget({"macs": None}, {"budget": "macs=1%"}) == {}
    for targets, wanted in (
        ({"macs": "5%", "error": "2"}, {}),
        ({"macs": "5%"}, {"budget": "macs=5%"}),
    ):
        with pytest.raises(ConfigError, match="a run has one budget"):
            given.budget(targets, wanted)
