"""Saved and loaded: the same small model, or an error that says what is wrong."""

import copy
import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
import torch
from laws import close_units
from liveliness import another, lively
from networks import NETWORKS
from torch import nn
from torch.utils._pytree import tree_map

import vibnet
from vibnet.errors import ArtefactError, ConfigError
from vibnet.layers import SelectedLinear
from vibnet.surgery.plan import digest
from vibnet.surgery.verify import answers, difference
from vibnet.zoo import LeNet5Caffe

CASES = ["cnn", "residual_pre", "inverted_bottleneck", "grouped", "tied_parameter", "prelu"]


def pruned(name, seed=0):
    model, example = NETWORKS[name](seed)
    lively(model, example, seed)
    example = tree_map(lambda x: x.double(), example)
    gated = vibnet.attach(model, example)
    close_units(gated, 0.4, seed)
    return (*vibnet.prune(gated.eval()), example)


def fresh(name, seed=1):
    return NETWORKS[name](seed)[0].double()


@pytest.mark.parametrize("name", CASES)
def test_a_loaded_model_answers_as_the_saved_one_and_states_its_sizes(name, tmp_path):
    small, _, example = pruned(name)
    vibnet.save(small, tmp_path)
    loaded = vibnet.load(tmp_path, fresh(name)).eval()
    other = another(example, 5)
    first, second = (answers(m, other, torch.float64) for m in (small, loaded))
    assert difference(first, second) == 0.0
    assert str(loaded) == str(small)
    names = [n for n, _ in small.named_parameters()]
    assert [n for n, _ in loaded.named_parameters()] == names


def test_saving_what_was_not_pruned_is_refused(tmp_path):
    with pytest.raises(ArtefactError, match=r"not what vibnet\.prune returned"):
        vibnet.save(nn.Linear(2, 2), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_copy_is_saved_with_its_report(tmp_path):
    model, report, example = pruned("cnn")
    del example
    copied = fresh("cnn")
    vibnet.save(model, tmp_path / "a")
    vibnet.load(tmp_path / "a", copied)
    with pytest.raises(ArtefactError, match="Pass the report"):
        vibnet.save(copied, tmp_path / "b")
    vibnet.save(copied, tmp_path / "b", report)
    assert (tmp_path / "b" / "plan.json").is_file()


def weights_of(folder):
    (path,) = folder.glob("*.safetensors")
    return path


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-20])


def alter(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def alter_plan(path):
    body = json.loads(path.read_text())
    next(iter(body["plan"]["kept"].values())).pop()
    path.write_text(json.dumps(body))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: cut_short(weights_of(f)), "truncated or altered"),
        (lambda f: alter(weights_of(f)), "truncated or altered"),
        (lambda f: weights_of(f).unlink(), "is missing"),
        (lambda f: cut_short(f / "plan.json"), "is not complete"),
        (lambda f: alter_plan(f / "plan.json"), "digest does not fit"),
        (lambda f: (f / "plan.json").unlink(), r"there is no plan\.json"),
    ],
)
def test_a_harmed_folder_is_refused_and_the_model_stays_as_it_was(harm, message, tmp_path):
    small, _, _ = pruned("cnn")
    vibnet.save(small, tmp_path)
    harm(tmp_path)
    model = fresh("cnn")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ArtefactError, match=message):
        vibnet.load(tmp_path, model)
    after = model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())


def three(width=6):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


def three_cut():
    gated = vibnet.attach(three(), torch.randn(3, 4))
    gated.gate("0").log_var.data[:2] = 5.0
    return vibnet.prune(gated)


def refused(folder, model, match):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ArtefactError, match=match):
        vibnet.load(folder, model)
    after = model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())


@pytest.mark.parametrize("folder", [None, 3, b"out"])
def test_a_folder_is_named_by_a_path(folder):
    small, _ = three_cut()
    with pytest.raises(ConfigError, match=r"save: the folder must be a path, got"):
        vibnet.save(small, folder)
    with pytest.raises(ConfigError, match=r"load: the folder must be a path, got"):
        vibnet.load(folder, three())


def test_a_file_is_no_folder(tmp_path):
    small, _ = three_cut()
    file = tmp_path / "file"
    file.write_text("mine")
    for path in (file, file / "below"):
        with pytest.raises(
            ArtefactError, match=r"save: .* cannot be made a folder .* Name another"
        ):
            vibnet.save(small, path)
    refused(
        file, three(), r"load: .*/file holds no saved model, for it is a file\. Name the folder"
    )
    refused(file / "below", three(), r"there is no plan\.json in it")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert file.read_text() == "mine"


@pytest.mark.parametrize("text", ["[]", "null", "3", "{}", "[" * 100_000])
def test_a_plan_file_of_something_else_is_refused(text, tmp_path):
    (tmp_path / "plan.json").write_text(text)
    refused(tmp_path, three(), r"plan\.json is not complete.* Save the model again")


def test_a_plan_file_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "plan.json").mkdir()
    refused(tmp_path, three(), r"plan\.json is not complete \(.*directory")


def rewritten(folder, edit):
    """A saved plan file that was edited and given a digest that fits."""
    path = folder / "plan.json"
    body = json.loads(path.read_text())
    edit(body)
    del body["digest"]
    path.write_text(json.dumps({**body, "digest": digest(body)}))


FIELDS = {
    "plan": ([], "dict"),
    "files": ({"a": 1}, "str"),
    "aliases": ({"0.weight": 1}, r"str"),
    "depthwise": ("0.weight", r"list\[str\]"),
    "widths": ({"1": "4"}, "int"),
    "selected": (["2", None], "str"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_is_missing_or_of_the_wrong_type_is_named(name, tmp_path):
    vibnet.save(three_cut()[0], tmp_path)
    value, kind = FIELDS[name]
    rewritten(tmp_path, lambda body: body.update({name: value}))
    refused(
        tmp_path, three(), rf"plan\.json: {name}\S* must be {kind}, got .* Save the model again"
    )
    rewritten(tmp_path, lambda body: body.pop(name))
    refused(tmp_path, three(), rf"plan\.json: there must be {name}\. Save the model again")


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda b: b.update(more=1), "there is no field 'more'"),
        (lambda b: b["plan"].pop("kept"), r"plan\.json: the plan was altered"),
        (lambda b: [b["plan"].pop(k) for k in ("kept", "digest")], "fields: there must be kept"),
        (lambda b: b.update(plan={}), r"plan\.json: this is not a complete plan"),
        (lambda b: b.update(files={".": "0"}), "cannot be read"),
        (lambda b: b.update(files={"\0": "0"}), "cannot be read"),
        (lambda b: b.update(selected=["nothing"]), "nothing is a NoneType, not a linear layer"),
        (lambda b: b.update(aliases={"0.bias": "more"}), "do not have the names of the model's"),
        (lambda b: b.update(aliases={"more": "0.bias"}), "do not have the names of the model's"),
    ],
)
def test_a_plan_file_that_was_edited_with_care_is_refused(edit, match, tmp_path):
    vibnet.save(three_cut()[0], tmp_path)
    rewritten(tmp_path, edit)
    refused(tmp_path, three(), match)


def test_a_folder_with_its_one_file_under_the_older_names_is_read(tmp_path):
    small, _ = three_cut()
    vibnet.save(small, tmp_path)

    def older(body):
        ((body["weights"], body["sha256"]),) = body.pop("files").items()
        del body["config"]

    rewritten(tmp_path, older)
    loaded = vibnet.load(tmp_path, three())
    assert all(torch.equal(v, small.state_dict()[k]) for k, v in loaded.state_dict().items())


def test_a_report_is_what_prune_returned(tmp_path):
    small, _ = three_cut()
    for report in ("x", "", small):
        with pytest.raises(ConfigError, match=r"save: the report must be the one that .* returned"):
            vibnet.save(small, tmp_path / "out", report)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (three, r"0\.weight is \(6, 4\), after the cut it was \(4, 4\) \(\d tensors differ\)"),
        (
            lambda: nn.Sequential(nn.Linear(4, 4)),
            r"1\.weight is missing, after .* \(7 tensors differ",
        ),
        (lambda: nn.Sequential(*three(4), nn.PReLU()), r"3\.weight is \(1,\), .* was missing"),
    ],
)
def test_a_model_that_is_not_the_one_of_the_report_is_refused(make, match, tmp_path):
    _, report = three_cut()
    with pytest.raises(ArtefactError, match=match):
        vibnet.save(make(), tmp_path / "out", report)
    assert not list(tmp_path.iterdir())


def test_a_small_model_that_was_changed_since_is_refused(tmp_path):
    small, _ = three_cut()
    small[2] = nn.Linear(4, 9)
    with pytest.raises(
        ArtefactError, match=r"2\.weight is \(9, 4\), after the cut it was \(2, 4\)"
    ):
        vibnet.save(small, tmp_path / "out")


@pytest.mark.parametrize("convert", [nn.Module.half, nn.Module.double])
def test_a_model_of_another_type_is_still_the_one_of_the_report(convert, tmp_path):
    small, report = three_cut()
    convert(small)
    vibnet.save(small, tmp_path / "a")
    vibnet.save(copy.deepcopy(small), tmp_path / "b", report)
    for folder in ("a", "b"):
        loaded = vibnet.load(tmp_path / folder, three())
        assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in small.state_dict().items())
        assert loaded[0].weight.dtype == small[0].weight.dtype


def test_a_model_on_the_meta_device_comes_to_the_cpu(tmp_path):
    x = torch.randn(3, 4)
    small, _ = three_cut()
    vibnet.save(small, tmp_path)
    loaded = vibnet.load(tmp_path, three().to("meta"))
    assert {v.device.type for v in loaded.state_dict().values()} == {"cpu"}
    assert torch.equal(loaded.eval()(x), small.eval()(x))


def test_single_features_come_back_on_the_meta_device(tmp_path):
    image = torch.randn(2, 1, 28, 28)
    gated = vibnet.attach(LeNet5Caffe(), image, features=["fc1"])
    gated.gate("fc1:features").log_var.data[::3] = 5.0
    small, _ = vibnet.prune(gated)
    vibnet.save(small, tmp_path)
    loaded = vibnet.load(tmp_path, LeNet5Caffe().to("meta"))
    assert torch.equal(loaded(image), small(image))


class Extras(nn.Module):
    """It holds tensors that its state does not name."""

    def __init__(self, buffer=True):
        super().__init__()
        self.layers = three()
        if buffer:
            self.register_buffer("scale", torch.ones(2), persistent=False)
        else:
            self.scale = torch.ones(2)

    def forward(self, x):
        return self.layers(x) * self.scale


@pytest.mark.parametrize("buffer", [True, False])
def test_what_would_stay_on_the_meta_device_is_named(buffer, tmp_path):
    gated = vibnet.attach(Extras(buffer), torch.randn(3, 4))
    gated.gate("layers.0").log_var.data[:2] = 5.0
    vibnet.save(vibnet.prune(gated)[0], tmp_path)
    model = Extras(buffer).to("meta")
    model.scale = model.scale.to("meta")
    with pytest.raises(
        ArtefactError, match=r"Extras is on the meta .* not saved: scale\. Make the"
    ):
        vibnet.load(tmp_path, model)
    assert model.layers[0].weight.is_meta
    assert model.layers[0].weight.shape == (6, 4)
    model.scale = torch.ones(2)
    assert vibnet.load(tmp_path, model).layers[0].weight.shape == (4, 4)


def test_another_model_is_refused(tmp_path):
    small, _, _ = pruned("cnn")
    vibnet.save(small, tmp_path)
    with pytest.raises(ArtefactError, match="was cut from another model"):
        vibnet.load(tmp_path, fresh("mlp"))


def test_a_folder_holds_a_whole_model_whenever_the_program_is_killed(tmp_path):
    script = textwrap.dedent(
        """
        import sys, torch, vibnet
        from torch import nn
        folder = sys.argv[1]
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 300), nn.ReLU(), nn.Linear(300, 4))
        x = torch.randn(4, 8)
        small, _ = vibnet.prune(vibnet.attach(model, x))
        while True:
            small[0].bias.data.add_(1)
            vibnet.save(small, folder)
            print("saved", flush=True)
        """
    )
    model = nn.Sequential(nn.Linear(8, 300), nn.ReLU(), nn.Linear(300, 4))
    for delay in (0.003, 0.011, 0.02):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "saved\n"
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        loaded = vibnet.load(tmp_path, model)
        assert loaded(torch.randn(2, 8)).shape == (2, 4)


def test_single_features_come_back(tmp_path):
    image = torch.randn(2, 1, 28, 28)
    gated = vibnet.attach(LeNet5Caffe(), image, features=["fc1"])
    gated.gate("fc1:features").log_var.data[::3] = 5.0
    small, _ = vibnet.prune(gated)
    vibnet.save(small, tmp_path)
    loaded = vibnet.load(tmp_path, LeNet5Caffe())
    assert type(loaded.fc1) is SelectedLinear
    assert torch.equal(loaded(image), small(image))
    body = tmp_path / "plan.json"
    with pytest.raises(ArtefactError, match="was cut from another model"):
        vibnet.load(tmp_path, LeNet5Caffe(hidden=400))
    assert "fc1" in body.read_text()


class Scaled(nn.Module):
    """Units meet a buffer that is not saved."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)
        self.register_buffer("scale", torch.arange(8.0) + 1, persistent=False)

    def forward(self, x):
        return self.b(self.a(x) * self.scale)


def test_a_buffer_that_is_cut_comes_back_though_models_do_not_save_it(tmp_path):
    x = torch.randn(2, 4)
    gated = vibnet.attach(Scaled(), x)
    gated.gate("a").log_var.data[[0, 3]] = 9.0
    small, _ = vibnet.prune(gated)
    vibnet.save(small, tmp_path)
    loaded = vibnet.load(tmp_path, Scaled())
    assert loaded.scale.tolist() == [2.0, 3.0, 5.0, 6.0, 7.0, 8.0]
    assert torch.equal(loaded(x), small(x))
    assert "scale" not in loaded.state_dict()


def test_a_layer_that_picks_features_knows_from_how_many_after_loading(tmp_path):
    layers = nn.Flatten(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)
    model, x = nn.Sequential(*layers), torch.randn(2, 8)
    gated = vibnet.attach(model, x, inputs=True)
    with torch.no_grad():
        gated.gate("inputs").log_var[::2] = 5
    vibnet.save(vibnet.prune(gated.eval())[0], tmp_path)
    again = vibnet.load(tmp_path, copy.deepcopy(model))
    assert again[1].given == 8
    with pytest.raises(ValueError, match="picks 4 of 8 features, but is given 9"):
        again(torch.randn(2, 9))


def stream(norm):
    """A stream of units under a norm, its head, and an example."""

    class Stream(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.head = nn.Linear(4, 6), norm(), nn.Linear(6, 2)

        def forward(self, x):
            return self.head(self.norm(self.first(x)))

    torch.manual_seed(0)
    return Stream(), torch.randn(3, 4)


def test_a_norm_that_follows_its_width_comes_back_with_its_eps(tmp_path):
    model, x = stream(lambda: nn.RMSNorm(6, eps=1e-2))
    found = vibnet.plan(model, x)
    small, report = vibnet.prune(model, replace(found, kept={"first": [1, 4]}), x)
    assert report.eps == {"norm.eps": 3e-2}
    assert "set: norm.eps = 0.03" in str(report)
    vibnet.save(small, tmp_path)
    loaded = vibnet.load(tmp_path, stream(lambda: nn.RMSNorm(6, eps=1e-2))[0])
    assert loaded.norm.eps == 3e-2
    assert loaded.norm.normalized_shape == (2,)
    assert torch.equal(loaded(x), small(x))


def test_a_model_without_the_eps_that_was_saved_is_refused(tmp_path):
    model, x = stream(lambda: nn.RMSNorm(6, eps=1e-2))
    found = vibnet.plan(model, x)
    small, _ = vibnet.prune(model, replace(found, kept={"first": [1, 4]}), x)
    vibnet.save(small, tmp_path)
    other, _ = stream(lambda: nn.RMSNorm(6))
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(
        ArtefactError, match=r"sets norm\.eps, but this Stream has no number of that"
    ):
        vibnet.load(tmp_path, other)
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())
