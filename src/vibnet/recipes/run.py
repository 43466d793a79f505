"""Run a recipe: train, cut, open the test set once, write everything down."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import FileLock, Timeout
from torch import nn

from vibnet.config import Settings
from vibnet.cost import Cost, latency, measure, ratios
from vibnet.errors import ConfigError
from vibnet.recipes.catalog import Recipe
from vibnet.recipes.host import host
from vibnet.recipes.images import Images
from vibnet.surgery.artefact import save
from vibnet.surgery.files import write
from vibnet.train.budget import ERROR, Budget
from vibnet.train.evaluate import validate
from vibnet.train.loop import Data, Fit, fit
from vibnet.train.objective import Objective, classification
from vibnet.train.phases import Record

SCHEMA, VERSION = "vibnet.run", 1
LOCK = ".lock"  # held while a process runs in the folder


class TestedData(Data, Protocol):
    """Training data with a test set."""

    def test(self) -> Iterable[tuple[Any, Any]]:
        """The test batches, opened once."""


@dataclass
class Job:
    """All that a run needs: of a recipe, or of a person's own model and data."""

    name: str
    model: nn.Module
    data: TestedData
    settings: Settings
    objective: Objective = field(default_factory=classification)
    options: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


def job(
    recipe: Recipe,
    changes: dict[str, Any] | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    final: bool = False,
    device: str = "cpu",
    download: bool = False,
) -> Job:
    """What a recipe stands for.

    Args:
        recipe: of the catalogue.
        changes: settings by name, as values or text.
        options: of `vibnet.attach`, over those of the recipe: `options_over`.
        final: train on all training images, none held out.
        device: of the model and the images.
        download: fetch a data set that is missing.
    """
    settings = recipe.settings.replaced(**(changes or {}))
    check_settings(settings, final)
    held = 0 if final else recipe.validation
    images = Images(
        recipe.data,
        settings.batch,
        recipe.preparation,
        held,
        settings.seed,
        device,
        download=download,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = recipe.network().to(device)
    notes = {
        "about": recipe.about,
        "data": recipe.data,
        "images": images.sizes,
        "preparation": dataclasses.asdict(recipe.preparation),
        "published": {k: list(v) for k, v in recipe.published.items()},
    }
    asked = options_over(recipe.options, options or {})
    return Job(recipe.name, model, images, settings, options=asked, notes=notes)


def options_over(own: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `vibnet.attach` over others; prices of sites replace those of the same sites.

    >>> options_over({"weights": {"fc1": 1.0, "fc2": 2.0}}, {"weights": {"fc2": 3.0}})
    {'weights': {'fc1': 1.0, 'fc2': 3.0}}
    """
    merged = {**own, **options}
    before, now = own.get("weights"), options.get("weights")
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        merged["weights"] = {**before, **now}
    return merged


def check_settings(settings: Settings, final: bool) -> None:
    """Refuse a budget that is none, or one that a final run cannot keep.

    Raises:
        ConfigError: it is so.
    """
    budget = Budget.parse(settings.budget)
    if final and budget is not None and budget.kind == ERROR:
        raise ConfigError(
            f"the budget {settings.budget} is kept on held-out images, and this run trains on all. "
            f"Leave --final out, or give `vibnet reproduce` --held-out."
        )


def run(
    job: Job,
    out: str | Path,
    *,
    resume: bool = False,
    seconds: float = float("inf"),
    save_every: float = 20.0,
    command: str = "",
    on_epoch: Callable[[Record], None] = lambda _record: None,
    on_warning: Callable[[str], None] = lambda _text: None,
) -> dict[str, Any]:
    """Train, cut, test and write `run.json`, the small model and the checkpoints into a folder.

    Args:
        job: what to run.
        out: the folder; made if missing.
        resume: go on from the checkpoint there.
        seconds: stop, with a checkpoint, before this time is over.
        save_every: seconds between checkpoints, at least.
        command: that repeats the run, for the record.
        on_epoch: called with every record.
        on_warning: called with what looks wrong.

    Returns:
        The content of `run.json`; everything under "timing" and "host" may differ when the run is
        repeated, nothing else does. `done` is false where the time was over first.

    Raises:
        ConfigError: the folder holds another run, and `resume` is not set; or a process that lives
            runs in it.
    """
    folder = Path(out)
    if not resume and (folder / "run.json").exists():
        raise ConfigError(
            f"{folder} holds a run. Resume it, or name another folder: nothing is overwritten."
        )
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=0):
            return _run(job, folder, resume, seconds, save_every, command, on_epoch, on_warning)
    except Timeout as error:
        raise ConfigError(f"{folder} is in use: another process runs in it.") from error


def _run(
    job: Job,
    folder: Path,
    resume: bool,
    seconds: float,
    save_every: float,
    command: str,
    on_epoch: Callable[[Record], None],
    on_warning: Callable[[str], None],
) -> dict[str, Any]:
    fitted = fit(
        job.model,
        job.data,
        job.objective,
        job.settings,
        options=job.options,
        folder=folder,
        resume=resume,
        seconds=seconds,
        save_every=save_every,
        on_epoch=on_epoch,
        on_warning=on_warning,
    )
    body = _body(job, fitted)
    body["timing"] |= {"seconds": fitted.seconds, "cpu_seconds": fitted.cpu_seconds}
    if fitted.done and fitted.small is not None:
        save(fitted.small, folder / "model", fitted.report)
        body |= _results(job, fitted)
        body["timing"] |= _latencies(fitted, job.data.example)
    body["host"] = host(job.model) | {"command": command}
    write(folder / "run.json", json.dumps(body, indent=1).encode())
    return body


def _body(job: Job, fitted: Fit) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "name": job.name,
        "notes": {"about": job.name, "data": type(job.data).__name__} | job.notes,
        "settings": dataclasses.asdict(job.settings),
        "options": job.options,
        "metric": job.objective.name,
        "done": fitted.done,
        "history": [dataclasses.asdict(record) for record in fitted.history],
        "warnings": fitted.warnings,
        "timing": {},
    }


def _results(job: Job, fitted: Fit) -> dict[str, Any]:
    """What is known when all epochs are over; the test set is opened here and nowhere else."""
    small, report = fitted.small, fitted.report
    assert small is not None
    assert report is not None
    example, plan = job.data.example, report.plan
    before, after = (
        measure(m, example, inputs=plan.inputs, features=plan.features)
        for m in (fitted.dense, small)
    )
    ratio = ratios(after, before)
    opened = list(job.data.test())
    test = {
        name: validate(model, opened, job.objective)
        for name, model in (("dense", fitted.dense), ("small", small))
    }
    held = {
        name: validate(model, job.data.validation(), job.objective)
        for name, model in (("dense", fitted.dense), ("small", small))
    }
    return {
        "budget": _budget(fitted, after, held["small"], example),
        "before": _numbers(before),
        "after": _numbers(after),
        "ratios": {"r_W": ratio.weights, "macs": ratio.macs, "r_N": ratio.neurons},
        "test": test,
        "test_examples": sum(len(y) for _, y in opened),
        "validation": held,
        "sites": [
            {"name": n, "before": plan.sizes[n], "after": len(plan.kept[n]),
             "writers": plan.writers[n], "readers": plan.readers[n]}
            for n in plan.sizes
        ],
        "pinned": plan.pinned,
        "snr": fitted.snr,
        "difference": report.difference,
        "moved": report.moved,
        "weights_sha256": fingerprint_of_weights(small),
    }  # fmt: skip


def _budget(fitted: Fit, after: Cost, error: float, example: Any) -> dict[str, Any] | None:
    """What was allowed, and what the small model came to."""
    budget = fitted.budget
    if budget is None:
        return None
    assert fitted.small is not None
    kind = budget["kind"]
    sizes = {"macs": after.macs, "weights": after.weights, "memory": after.peak_memory}
    if kind == "latency":
        reached = latency(fitted.small, example, 1)
    else:
        reached = error if kind == ERROR else sizes[kind]
    return budget | {"reached": reached, "met": bool(reached <= budget["limit"])}


def _numbers(cost: Cost) -> dict[str, Any]:
    return {k: v for k, v in dataclasses.asdict(cost).items() if k != "latency"}


def _latencies(fitted: Fit, example: Any) -> dict[str, Any]:
    assert fitted.small is not None
    return {
        f"latency_{name}": {str(n): latency(model, example, n) for n in (1, 32)}
        for name, model in (("dense", fitted.dense), ("small", fitted.small))
    }


def fingerprint_of_weights(model: nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of a model's state."""
    sha = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        sha.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        sha.update(
            value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return sha.hexdigest()
