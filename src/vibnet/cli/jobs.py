"""What to run, from what was typed, and the folder it goes into."""

import dataclasses
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vibnet.cli import given
from vibnet.config import Settings
from vibnet.errors import ArtefactError, ConfigError
from vibnet.recipes.catalog import recipe
from vibnet.recipes.run import Job
from vibnet.recipes.run import job as recipe_job
from vibnet.report.record import RUN
from vibnet.surgery.files import write

STARTED = "started.json"
RUNS = Path("runs")
ASKED = "replace_attention", "allow_inexact", "remove_branches"  # of `vibnet.attach`


@dataclass(frozen=True)
class Asked:
    """The part of a command that says what is run; the rest says where and for how long."""

    recipe: str | None = None
    model: str | None = None
    data: str | None = None
    changes: dict[str, str] = field(default_factory=dict)
    final: bool = False
    download: bool = False
    device: str = "cpu"
    inputs: bool = False
    features: Sequence[str] = ()
    weights: str | None = None
    threads: int | None = None
    replace_attention: bool = False
    allow_inexact: bool = False
    remove_branches: bool = False

    @property
    def name(self) -> str:
        """What the run is called."""
        return self.recipe or self.model or ""

    @property
    def command(self) -> str:
        """The command that repeats it."""
        words = ["vibnet", "run", *([self.recipe] if self.recipe else [])]
        for option in ("model", "data", "weights"):
            if value := getattr(self, option):
                words += [f"--{option}", value]
        for name in self.features:
            words += ["--features", name]
        for name, value in self.changes.items():
            words += ["--set", f"{name}={value}"]
        for flag in ("final", "inputs", *ASKED):
            words += [f"--{flag.replace('_', '-')}"] if getattr(self, flag) else []
        words += ["--device", self.device] if self.device != "cpu" else []
        words += ["--threads", str(self.threads)] if self.threads is not None else []
        return shlex.join(words)

    @property
    def options(self) -> dict[str, Any]:
        """What is asked of `vibnet.attach`."""
        out: dict[str, Any] = {"inputs": True} if self.inputs else {}
        out |= {"features": list(self.features)} if self.features else {}
        for flag in ASKED:
            out |= {flag: True} if getattr(self, flag) else {}
        return out | given.prices(self.weights)

    def job(self) -> Job:
        """The job.

        Raises:
            ConfigError: neither a recipe nor a model with its data, or something unknown.
            DataError: the recipe's data are not there.
        """
        if (self.recipe is None) == (self.model is None):
            raise ConfigError(
                "name a recipe, or give --model and --data; `vibnet recipes` lists the recipes."
            )
        device = given.device(self.device)
        if self.recipe is not None:
            if self.data is not None:
                raise ConfigError("--data goes with --model; a recipe has its own data.")
            return recipe_job(
                recipe(self.recipe),
                dict(self.changes),
                options=self.options,
                final=self.final,
                device=device,
                download=self.download,
            )
        return self._own(device)

    def _own(self, device: str) -> Job:
        assert self.model is not None
        if self.data is None:
            raise ConfigError("--model needs --data package.module:factory to train on.")
        for flag in ("final", "download"):
            if getattr(self, flag):
                raise ConfigError(f"--{flag} is for recipes: what is held out is up to your data.")
        settings = Settings().replaced(**self.changes)
        data = given.data(self.data, settings.seed)
        model = given.model(self.model, settings.seed).to(device)
        notes = {
            "about": f"{self.model} on {self.data}",
            "data": self.data,
            "model": self.model,
            "images": dict(getattr(data, "sizes", {})),
        }
        return Job(self.model, model, data, settings, options=self.options, notes=notes)


def folder(asked: Asked, out: Path | None, resume: bool) -> Path:
    """The folder of a run, made if it is new.

    Raises:
        ConfigError: it holds something and the run is not resumed, or there is nothing to resume.
    """
    if resume:
        return _resumed(asked, out)
    if out is None:
        safe = re.sub(r"[^A-Za-z0-9_-]+", "-", asked.name).strip("-") or "run"
        number = 1
        while True:
            try:
                (RUNS / f"{safe}-{number}").mkdir(parents=True)
                return RUNS / f"{safe}-{number}"
            except FileExistsError:
                number += 1
    if out.is_dir() and any(out.iterdir()):
        raise ConfigError(
            f"{out} is not empty. Add --resume to go on with the run in it, or name another "
            f"folder: nothing is overwritten."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be made: {error.strerror}.") from error
    return out


def _resumed(asked: Asked, out: Path | None) -> Path:
    if out is None:
        raise ConfigError("--resume needs --out: the folder of the run to go on with.")
    try:
        before = json.loads((out / STARTED).read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"there is no run in {out} to resume.") from error
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{out / STARTED} is truncated or no JSON ({error}).") from error
    found = before.get("command") if isinstance(before, dict) else None
    if found != asked.command:
        raise ConfigError(
            f"{out} holds another run: {found}. Resume it with that command and "
            f"--out {shlex.quote(str(out))} --resume, or take another folder."
        )
    if (out / RUN).exists() and over(out):
        raise ConfigError(f"the run in {out} is over. Its report is {out / 'report.html'}.")
    return out


def over(folder: Path) -> bool:
    """Whether the run in a folder has come to its end."""
    try:
        return bool(json.loads((folder / RUN).read_text())["done"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def start(asked: Asked, job: Job, target: Path) -> None:
    """Write down what was started, so that nothing else is resumed in its place."""
    body = {"command": asked.command, "settings": dataclasses.asdict(job.settings)}
    write(target / STARTED, json.dumps(body, indent=1).encode())
