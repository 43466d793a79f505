"""Saved and loaded: the same small model, or an error that says what is wrong."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from laws import close_units
from liveliness import another, lively
from networks import NETWORKS
from torch import nn
from torch.utils._pytree import tree_map

import vibnet
from vibnet.errors import ArtefactError
from vibnet.layers import SelectedLinear
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
