import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock
from torch import nn

import vibnet
from vibnet.errors import ConfigError
from vibnet.recipes.catalog import recipe
from vibnet.recipes.run import _budget, fingerprint_of_weights, job, options_over, run
from vibnet.report import read as read_record
from vibnet.report import write_page
from vibnet.train.evaluate import validate
from vibnet.train.loop import fit
from vibnet.zoo import data as sets

SMALL = {"dense_epochs": 2, "gate_epochs": 6, "gate_lr": 0.1, "gamma": 3e-3, "patience": 1}
DIGITS = recipe("digits-mlp")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Latencies take seconds and are not looked at here."""
    monkeypatch.setitem(run.__globals__, "latency", lambda *_: 0.001)


@pytest.fixture
def opened(monkeypatch):
    """How many epochs had been seen whenever the test images were read."""
    epochs, found, real = [], [], sets.load_test
    monkeypatch.setattr(sets, "load_test", lambda *a: (found.append(len(epochs)), real(*a))[1])
    return epochs, found


def numbers(body):
    """All of a run's JSON that is the same whenever and wherever it is repeated."""
    return {k: v for k, v in body.items() if k not in ("timing", "host")}


def read(folder):
    return json.loads((folder / "run.json").read_text())


def test_the_test_set_is_opened_once_after_the_last_epoch(tmp_path, opened):
    epochs, found = opened
    run(job(DIGITS, SMALL), tmp_path, on_epoch=epochs.append)
    assert found == [8]


def test_a_run_that_stops_early_opens_no_test_set(tmp_path, opened):
    epochs, found = opened
    body = run(job(DIGITS, SMALL), tmp_path, seconds=0, on_epoch=epochs.append)
    assert len(epochs) == 1
    assert found == []
    assert body["done"] is False
    assert "test" not in body
    assert read(tmp_path)["done"] is False
    assert not (tmp_path / "model").exists()


def test_what_is_written_down_is_what_was_done(tmp_path):
    given = job(DIGITS, {**SMALL, "seed": 3})
    body = run(given, tmp_path, command="vibnet run digits-mlp")
    assert read(tmp_path) == json.loads(json.dumps(body))
    assert (body["schema"], body["version"], body["name"]) == ("vibnet.run", 1, "digits-mlp")
    assert body["settings"] == dataclasses.asdict(given.settings)
    assert body["settings"]["seed"] == 3
    assert body["notes"]["images"] == {"train": 1137, "validation": 300}
    assert body["host"]["command"] == "vibnet run digits-mlp"
    assert body["timing"]["seconds"] > 0
    assert [r["epoch"] for r in body["history"]] == [1, 2, 1, 2, 3, 4, 5, 6]
    small = vibnet.load(tmp_path / "model", DIGITS.network())
    assert fingerprint_of_weights(small) == body["weights_sha256"]
    widths = [s["after"] for s in body["sites"]]
    assert widths == [small[1].out_features, small[3].out_features]
    assert [s["before"] for s in body["sites"]] == [300, 100]
    assert all(1 <= w < b for w, b in zip(widths, [300, 100], strict=True))
    a, b = widths
    assert body["before"]["weights"] == 64 * 300 + 300 * 100 + 100 * 10
    assert body["after"]["weights"] == 64 * a + a * b + b * 10
    percent = 100 * body["after"]["weights"] / body["before"]["weights"]
    assert body["ratios"]["r_W"] == pytest.approx(percent)
    for name in ("test", "validation"):
        batches = getattr(given.data, name)()
        assert validate(small, batches, given.objective) == body[name]["small"]
    assert set(body["snr"]) == {"1", "3"}
    assert body["difference"] <= 1e-10


def test_a_run_in_pieces_is_the_undisturbed_one(tmp_path):
    whole = run(job(DIGITS, SMALL), tmp_path / "whole")
    body = {"done": False}
    while not body["done"]:
        body = run(job(DIGITS, SMALL), tmp_path / "parts", resume=True, seconds=0)
    assert numbers(body) == numbers(whole)
    assert numbers(read(tmp_path / "parts")) == numbers(read(tmp_path / "whole"))
    again = run(job(DIGITS, SMALL), tmp_path / "parts", resume=True)
    assert numbers(again) == numbers(whole)


def test_warnings_survive_a_stop(tmp_path):
    slow, said = {**SMALL, "gate_lr": 1e-5, "gate_epochs": 2}, []
    whole = run(job(DIGITS, slow), tmp_path / "whole", on_warning=said.append)
    assert len(said) == 1
    assert whole["warnings"] == said
    body = {"done": False}
    while not body["done"]:
        body = run(job(DIGITS, slow), tmp_path / "parts", resume=True, seconds=0)
    assert numbers(body) == numbers(whole)


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    run(job(DIGITS, SMALL), tmp_path, seconds=0)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(ConfigError, match=r"holds a run. Resume it, or name another folder"):
        run(job(DIGITS, SMALL), tmp_path)
    with pytest.raises(ConfigError, match=r"other settings: \{'gamma': 0.003\}"):
        run(job(DIGITS, {**SMALL, "gamma": 1.0}), tmp_path, resume=True)
    assert (tmp_path / "run.json").read_bytes() == before


def test_a_final_run_trains_on_all_training_images():
    final = job(DIGITS, SMALL, final=True)
    assert final.data.sizes == {"train": 1437, "validation": 0}
    assert job(DIGITS, SMALL).data.sizes == {"train": 1137, "validation": 300}


def test_prices_of_sites_replace_those_of_the_same_sites_only():
    entry = recipe("table2-vibnet")
    own = entry.options["weights"]
    with_own = {**own, "conv2": 1.0}
    assert options_over(entry.options, {"weights": {"conv2": 1.0}})["weights"] == with_own
    assert entry.options["weights"] is own
    assert own["conv2"] != 1.0
    assert options_over(entry.options, {"weights": "area", "inputs": True}) == {
        **entry.options, "weights": "area", "inputs": True,
    }  # fmt: skip
    assert options_over({"weights": "area"}, {"weights": {"a": 1.0}}) == {"weights": {"a": 1.0}}
    assert options_over(entry.options, {}) == entry.options
    made = job(recipe("digits-mlp"), options={"weights": {"fc1": 2.0}})
    assert made.options == {"weights": {"fc1": 2.0}}


def test_the_seed_makes_the_network_and_nothing_else_does():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b = job(DIGITS, {"seed": 1}), job(DIGITS, {"seed": 1})
    assert torch.equal(torch.get_rng_state(), before)
    assert fingerprint_of_weights(a.model) == fingerprint_of_weights(b.model)
    assert fingerprint_of_weights(job(DIGITS, {"seed": 2}).model) != fingerprint_of_weights(a.model)
    with pytest.raises(ConfigError, match=r"there is no setting 'epochs'"):
        job(DIGITS, {"epochs": 3})


def test_a_fingerprint_is_of_names_shapes_types_and_bytes():
    model = nn.Linear(3, 2)
    found = {fingerprint_of_weights(model)}
    model.weight.data[0, 0] = torch.nextafter(model.weight.data[0, 0], torch.tensor(9.0))
    found.add(fingerprint_of_weights(model))
    found.add(fingerprint_of_weights(nn.Sequential(model)))
    found.add(fingerprint_of_weights(nn.Linear(3, 2).double()))
    turned = nn.Linear(2, 3, bias=False)
    turned.weight.data = model.weight.data.reshape(3, 2)
    flat = nn.Linear(3, 2, bias=False)
    flat.weight.data = model.weight.data
    found |= {fingerprint_of_weights(turned), fingerprint_of_weights(flat)}
    assert len(found) == 6


def test_the_recipe_trains_what_fit_trains(tmp_path):
    given = job(DIGITS, SMALL)
    fitted = fit(given.model, given.data, given.objective, given.settings)
    body = run(job(DIGITS, SMALL), tmp_path)
    assert fingerprint_of_weights(fitted.small) == body["weights_sha256"]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_run_killed_at_twenty_moments_ends_as_the_undisturbed_one(tmp_path):
    tests = Path(__file__).parents[1]
    program = [sys.executable, str(tests / "killing.py"), str(tmp_path), "0"]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=230)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "killed.json").read_text())
    hits = [hit for _, hit, _ in report["hits"]]
    assert len(hits) == 20
    assert hits.count(None) <= 5, hits  # those that were done before their moment came, four times
    assert hits.count(1) >= 3, hits  # while a checkpoint was written
    assert hits.count(2) >= 1, hits  # while the model shrank
    straight = read(tmp_path / "straight")
    assert straight["done"]
    sizes = [r["weights"] for r in straight["history"] if r["phase"] == "gate"]
    assert len(set(sizes)) > 5
    folders = sorted(tmp_path.glob("killed*/run.json"))
    assert folders
    for path in folders:
        body = json.loads(path.read_text())
        assert numbers(body) == numbers(straight)
        assert len(list((path.parent / "checkpoint").iterdir())) == 4


def test_one_process_at_a_time_runs_in_a_folder(tmp_path):
    used = pytest.raises(ConfigError, match="is in use: another process runs in it")
    with FileLock(tmp_path / ".lock"), used:
        run(job(DIGITS, SMALL), tmp_path)
    assert run(job(DIGITS, SMALL), tmp_path)["done"]


def test_a_job_without_notes_has_a_page(tmp_path):
    made = job(DIGITS, SMALL)
    made.notes = {}
    run(made, tmp_path)
    page = write_page(read_record(tmp_path)).read_text()
    assert made.name in page


def test_time_is_counted_over_all_pieces(tmp_path):
    first = run(job(DIGITS, SMALL), tmp_path, seconds=0)
    assert not first["done"]
    before = first["timing"]
    last = run(job(DIGITS, SMALL), tmp_path, resume=True)["timing"]
    assert 0 < before["seconds"] < last["seconds"]
    assert 0 < before["cpu_seconds"] < last["cpu_seconds"]


def test_what_a_budget_allowed_and_what_came_of_it_is_written_down(tmp_path):
    body = run(job(DIGITS, SMALL | {"budget": "weights=8%"}), tmp_path)
    found = body["budget"]
    assert (found["asked"], found["kind"], found["limit"]) == ("weights=8%", "weights", 4016.0)
    assert found["reached"] == body["after"]["weights"] <= 4016
    assert found["met"] is True
    body = run(job(DIGITS, SMALL | {"budget": "error=0.1"}), tmp_path / "other")
    assert body["budget"]["reached"] == body["validation"]["small"] > 0.1
    assert body["budget"]["met"] is False
    assert "the dense model has" in body["warnings"][0]


def test_a_budget_is_met_up_to_its_limit_and_not_above():
    for kind in ("error", "macs"):
        fitted = SimpleNamespace(budget={"kind": kind, "limit": 200}, small=object())
        outcome = []
        for reached in (199, 200, 201):
            cost = SimpleNamespace(macs=reached, weights=1, peak_memory=1)
            outcome.append(_budget(fitted, cost, reached, None)["met"])
        assert outcome == [True, True, False], kind


def test_an_error_is_kept_on_held_out_images_only():
    with pytest.raises(
        ConfigError, match=r"error=3 is kept on held-out images, and this run trains"
    ):
        job(DIGITS, SMALL | {"budget": "error=3"}, final=True)
