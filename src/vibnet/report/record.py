"""Read what a run wrote, and refuse what is not whole."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vibnet.errors import ArtefactError
from vibnet.recipes.run import SCHEMA, VERSION

RUN, EXPORT, PAGE = "run.json", "export.json", "report.html"
EXPORT_SCHEMA, EXPORT_VERSION = "vibnet.export", 1
ALWAYS = {
    "name": str,
    "notes": dict,
    "settings": dict,
    "options": dict,
    "metric": str,
    "done": bool,
    "history": list,
    "timing": dict,
    "warnings": list,
    "host": dict,
}
WHEN_DONE = {
    "before": dict,
    "after": dict,
    "ratios": dict,
    "test": dict,
    "validation": dict,
    "sites": list,
    "pinned": dict,
    "snr": dict,
}


@dataclass(frozen=True)
class Recorded:
    """A run as it was written down.

    Attributes:
        folder: where it lies.
        run: the content of `run.json`.
        export: the content of `export.json`, empty where nothing was exported.
    """

    folder: Path
    run: dict[str, Any]
    export: dict[str, Any]

    @property
    def done(self) -> bool:
        """Whether all epochs are over and the small model is there."""
        return bool(self.run["done"])

    @property
    def held_out(self) -> bool:
        """Whether validation images were kept out of training."""
        return bool(self.run["notes"].get("images", {}).get("validation", 1))

    @property
    def model(self) -> Path:
        """The folder of the small model."""
        return self.folder / "model"


def read(folder: str | Path) -> Recorded:
    """The record of a run.

    Raises:
        ArtefactError: there is none, or it is truncated or of another version.
    """
    folder = Path(folder)
    run = _json(folder / RUN, SCHEMA, VERSION)
    _check(folder / RUN, run, ALWAYS)
    if run["done"]:
        _check(folder / RUN, run, WHEN_DONE)
    export = {}
    if (folder / EXPORT).exists():
        export = _json(folder / EXPORT, EXPORT_SCHEMA, EXPORT_VERSION)
    return Recorded(folder, run, export)


def finished(folder: str | Path) -> Recorded:
    """The record of a run that is over.

    Raises:
        ArtefactError: as `read`, or the run is not over.
    """
    found = read(folder)
    if not found.done:
        raise ArtefactError(
            f"the run in {found.folder} is not over: there is no small model yet. Go on with: "
            f"{found.run['host'].get('command') or 'vibnet run ...'} "
            f"--out {shlex.quote(str(found.folder))} --resume"
        )
    return found


def _json(path: Path, schema: str, version: int) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ArtefactError(
            f"there is no {path.name} in {path.parent}. Name the folder of a run."
        ) from error
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path} is truncated or no JSON ({error}).") from error
    found = (body.get("schema"), body.get("version")) if isinstance(body, dict) else None
    if not isinstance(body, dict) or found != (schema, version):
        raise ArtefactError(
            f"{path} is no {schema} of version {version}, which this program reads; it says "
            f"{found}."
        )
    return body


def _check(path: Path, body: dict[str, Any], fields: Mapping[str, type]) -> None:
    wrong = [name for name, kind in fields.items() if not isinstance(body.get(name), kind)]
    if wrong:
        raise ArtefactError(f"{path} is not complete: {', '.join(wrong)} missing or wrong.")
