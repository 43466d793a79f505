"""Many runs of recipes, each in its own folder: what is over, and how one is made."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vibnet.errors import ArtefactError, ConfigError
from vibnet.recipes.catalog import recipe
from vibnet.recipes.controls import control
from vibnet.recipes.run import Job, fingerprint_of_weights, job, options_over, run
from vibnet.recipes.summary import FIGURES
from vibnet.surgery.files import write
from vibnet.train.loop import fit

RUN, POINT = "run.json", "point.json"


@dataclass(frozen=True)
class Point:
    """One run of a recipe, or one control of such a run.

    Attributes:
        name: of its folder.
        recipe: of the catalogue.
        changes: settings by name, as text.
        options: of `vibnet.attach`, over those of the recipe.
        final: train on all images.
        device: "cpu", "cuda" ...
        download: fetch data that are missing.
        control: of `vibnet.recipes.controls`; "" for the run itself.
        of: the name of the run's point, for a control.
    """

    name: str
    recipe: str
    changes: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    final: bool = False
    device: str = "cpu"
    download: bool = False
    control: str = ""
    of: str = ""

    def job(self) -> Job:
        """What is run."""
        return job(
            recipe(self.recipe),
            dict(self.changes),
            options=self.options,
            final=self.final,
            device=self.device,
            download=self.download,
        )

    def identity(self) -> dict[str, Any]:
        """What must be the same when a folder is gone on with, as JSON gives it back."""
        body = dataclasses.asdict(self)
        body.pop("download")
        again: dict[str, Any] = json.loads(json.dumps(body))
        return again


def done(point: Point, out: Path) -> dict[str, Any] | None:
    """What a point gave, None while it is not over.

    Raises:
        ArtefactError: its record is damaged, its recipe has other settings by now, or it is a
            control of another run than the one that is there.
    """
    path = out / point.name / RUN
    try:
        body: dict[str, Any] = json.loads(path.read_text())
        if not body["done"]:
            return None
        wrong = _wrong(body, bool(point.control))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        wrong = [repr(error)]
    if wrong:
        raise ArtefactError(
            f"{path} is truncated or no record ({', '.join(wrong)}). Take its folder away, and it "
            f"is made again."
        )
    if other := [] if point.control else _others(point, body):
        raise ArtefactError(
            f"{path} was made when {point.recipe} had other {', '.join(other)}. Take its folder "
            f"away, and it is made again, or name another --out."
        )
    if point.control and not _of_the_same(body, out / point.of / RUN):
        raise ArtefactError(
            f"{path} was made from another run than {point.of} is now. Take its folder away, and "
            f"it is made again."
        )
    return body


def _wrong(body: Mapping[str, Any], control: bool) -> list[str]:
    """What a finished record lacks, or has that is no finite number."""
    if control:
        test = body["test"]
        numbers: dict[str, Any] = dict(test) if isinstance(test, dict) else {"test": test}
        numbers |= {name: body[name] for name in ("weights", "macs") if name in body}
        missing = [] if numbers else ["test"]
    else:
        numbers = {name: read(body) for name, read in FIGURES.items()}
        numbers |= {"before": body["before"]["weights"], "timing": body["timing"]["cpu_seconds"]}
        numbers |= {f"sites {site['name']}": site["after"] for site in body["sites"]}
        missing = [name for name in ("settings", "notes") if not isinstance(body[name], dict)]
    return missing + [
        f"{name} is {value!r}"
        for name, value in numbers.items()
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)
    ]


def _of_the_same(body: Mapping[str, Any], run: Path) -> bool:
    """Whether a control was made from the run whose record is there, as far as both tell."""
    try:
        main = json.loads(run.read_text())["weights_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return True  # said where the run itself is looked at
    return bool(body.get("weights_sha256", main) == main)


def _others(point: Point, body: dict[str, Any]) -> list[str]:
    """The settings, and the options of attach, that a record has and its recipe no longer."""
    now = recipe(point.recipe)
    settings = dataclasses.asdict(now.settings.replaced(**point.changes))
    settings |= {"options": options_over(now.options, point.options)}
    found = {**body["settings"], **({"options": body["options"]} if "options" in body else {})}
    wanted = json.loads(json.dumps(settings))
    return [name for name, value in found.items() if wanted.get(name, value) != value]


def over(
    points: Iterable[Point], out: Path, wrong: dict[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    """What those points gave that are over and whose folders hold just them, by name.

    Args:
        points: that may be there.
        out: where their folders are.
        wrong: takes, by name, what is wrong with those that are there and cannot be read.
    """
    found: dict[str, dict[str, Any]] = {}
    wrong = {} if wrong is None else wrong
    for point in points:
        path = out / point.name / POINT
        if not path.exists():
            continue
        try:
            same = json.loads(path.read_text()) == point.identity()
            body = done(point, out) if same else None
        except (OSError, ValueError, ArtefactError) as error:
            wrong[point.name] = str(error)
            continue
        if not same:
            wrong[point.name] = f"{path} is of another run than {point.name} of this command."
        if body is not None:
            found[point.name] = body
    return found


def claim(points: Iterable[Point], out: Path) -> None:
    """Write down what goes into which folder.

    Raises:
        ConfigError: two points of one name, or a folder that holds something else. Nothing has
            been written.
    """
    points = list(points)
    names = [point.name for point in points]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two runs are called {', '.join(twice)}.")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file. Name a folder.")
    for point in points:
        folder = out / point.name
        if not folder.exists() or all(path.name.startswith(".") for path in folder.iterdir()):
            continue
        try:
            found = json.loads((folder / POINT).read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{folder} holds something else than a run of this grid, or {POINT} in it is "
                f"damaged. Take another --out, or that folder away: nothing is overwritten."
            ) from error
        if found != point.identity():
            wanted, known = _flat(point.identity()), _flat(found)
            differ = [k for k in wanted | known if known.get(k) != wanted.get(k)]
            raise ConfigError(
                f"{folder} holds another run of that name: {', '.join(differ)} differ. Take "
                f"another --out: nothing is overwritten."
            )
    if (out / RUN).exists():
        raise ConfigError(f"--out {out} is the folder of one run. Name another: many go in there.")
    for point in points:
        (out / point.name).mkdir(parents=True, exist_ok=True)
        text = json.dumps(point.identity(), indent=1)
        write(out / point.name / POINT, text.encode())


def _flat(identity: Any) -> dict[str, Any]:
    """A point's fields, with its settings and options beside them by name."""
    if not isinstance(identity, dict):
        return {}
    inner = {k: v for k, v in identity.items() if k in ("changes", "options")}
    flat = {k: v for k, v in identity.items() if k not in inner}
    for value in inner.values():
        flat |= value if isinstance(value, dict) else {}
    return flat


def make(point: Point, out: Path, command: str = "") -> None:
    """Make one point in this process; goes on from a checkpoint, and does nothing when over."""
    if done(point, out) is not None:
        return
    folder = out / point.name
    if not point.control:
        resume = any((folder / "checkpoint").glob("*.json"))
        try:
            run(point.job(), folder, resume=resume, command=command)
        except ConfigError:
            if done(point, out) is None:  # else another process has just made it
                raise
        return
    main = _main_of(point, out)
    made = point.job()
    fitted = fit(
        made.model,
        made.data,
        made.objective,
        made.settings,
        options=made.options,
        folder=out / point.of,
        resume=True,
    )
    small = fitted.small
    if small is None or fingerprint_of_weights(small) != main["weights_sha256"]:
        raise ArtefactError(
            f"{point.name}: the checkpoint of {point.of} does not give the network of its record. "
            f"Take the folder of {point.of} away, and it is made again."
        )
    body = {"done": True, "name": point.control, "of": point.of, "control": True}
    body["weights_sha256"] = main["weights_sha256"]
    body |= control(point.control, made, fitted)
    write(folder / RUN, json.dumps(body, indent=1).encode())


def _main_of(point: Point, out: Path) -> dict[str, Any]:
    """The record of the run that a control starts from.

    Raises:
        ArtefactError: it is not over, or its checkpoint is gone.
    """
    record = done(dataclasses.replace(point, name=point.of, control="", of=""), out)
    if record is None or not any((out / point.of / "checkpoint").glob("*.json")):
        raise ArtefactError(
            f"{point.name}: {out / point.of} holds no finished run with its checkpoint. Take that "
            f"folder away, and it is made again."
        )
    return record
