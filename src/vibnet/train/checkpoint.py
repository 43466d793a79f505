"""Checkpoints that are whole or not there: tensors beside JSON, the last two kept, no pickle."""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from vibnet.errors import ArtefactError, ConfigError
from vibnet.surgery.files import write
from vibnet.surgery.plan import digest

KEPT = 2


def place(folder: str | Path | None, resume: bool) -> Path | None:
    """Where the checkpoints of a run go; None without a folder.

    Raises:
        ConfigError: nothing to resume from, or a folder that holds checkpoints already.
    """
    if folder is None:
        if resume:
            raise ConfigError("fit: resume needs the folder that holds the checkpoints.")
        return None
    where = Path(folder) / "checkpoint"
    if not resume and any(where.glob("*.json")):
        raise ConfigError(
            f"fit: {where} holds checkpoints. Resume them, or name another folder: nothing is "
            f"overwritten."
        )
    return where


def save(folder: Path, number: int, tensors: dict[str, Tensor], body: dict[str, Any]) -> None:
    """Write a checkpoint, then take away all but the last two.

    The JSON is written last and holds the checksum of the tensors, so a checkpoint with a JSON is
    whole whenever the program is stopped.

    Args:
        folder: made if missing.
        number: of the checkpoint; the highest is the newest.
        tensors: any tensors; each is stored by itself.
        body: anything JSON holds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = save_tensors({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()})
    body = {"body": body, "sha256": hashlib.sha256(content).hexdigest()}
    body["digest"] = digest(body)
    write(folder / f"{number:06}.safetensors", content)
    write(folder / f"{number:06}.json", json.dumps(body).encode())
    tidy(folder)


def tidy(folder: Path) -> None:
    """Take away all but the last two, and what a program that was stopped has left."""
    for old in sorted(folder.glob("*.json"))[:-KEPT]:
        old.unlink(missing_ok=True)
    numbers = {path.stem for path in folder.glob("*.json")}
    for old in (*folder.glob("*.safetensors"), *folder.glob(".*")):
        if old.stem not in numbers:
            old.unlink(missing_ok=True)


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest whole checkpoint, or None where none was ever finished.

    Raises:
        ArtefactError: there are checkpoints, but all of them are damaged.
    """
    found = sorted(folder.glob("*.json"), reverse=True)
    for path in found:
        try:
            body = json.loads(path.read_text())
            stated = body.pop("digest")
            content = path.with_suffix(".safetensors").read_bytes()
        except (OSError, ValueError, AttributeError, KeyError, TypeError):
            continue
        if digest(body) == stated and hashlib.sha256(content).hexdigest() == body["sha256"]:
            tensors = {k: v.clone() for k, v in load_tensors(content).items()}
            return tensors, body["body"]
    if found:
        raise ArtefactError(
            f"resume: all {len(found)} checkpoints in {folder} are truncated or altered. Start "
            f"again without resuming."
        )
    return None
