"""The files of a saved model: written whole or not at all, read with every checksum."""

import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from vibnet.errors import ArtefactError, ConfigError
from vibnet.graph import checks
from vibnet.surgery.plan import digest

PLAN = "plan.json"
KINDS: dict[str, Any] = {
    "plan": dict,
    "files": dict[str, str],
    "aliases": dict[str, str],
    "buffers": list[str],
    "depthwise": list[str],
    "widths": dict[str, int],
    "selected": list[str],
    "numbers": dict[str, int],
    "eps": dict[str, float],
    "given": dict[str, int],
    "constants": dict[str, dict[str, Any]],
    "config": dict,
}


def path_of(function: str, folder: object) -> Path:
    """A folder as a path; anything else is refused."""
    if not isinstance(folder, (str, os.PathLike)):
        raise ConfigError(f"{function}: the folder must be a path, got {folder!r}.")
    return Path(folder)


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; one that is there keeps its mode, a link its target."""
    path = path.resolve() if path.is_symlink() else path
    name = str(path.with_name(f".{path.name}.{secrets.token_hex(4)}"))
    try:
        with Path(name).open("xb") as file:
            if path.is_file():
                shutil.copymode(path, name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno:
            error.filename = str(path)  # a full disk does not say where, others name our own file
        Path(name).unlink(missing_ok=True)
        raise


def body_of(folder: Path) -> dict[str, Any]:
    """What the plan file of a folder holds, with the fields that are younger than it.

    Raises:
        ArtefactError: it is missing, truncated or altered, or has fields of another type.
    """
    try:
        body = json.loads((folder / PLAN).read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "it is a file" if folder.is_file() else f"there is no {PLAN} in it"
        raise ArtefactError(
            f"load: {folder} holds no saved model, for {what}. Name the folder of a save."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ArtefactError(
            f"load: {folder / PLAN} is not complete ({error}). Save the model again."
        ) from error
    if not isinstance(body, dict) or "digest" not in body:
        raise ArtefactError(
            f"load: {folder / PLAN} is not complete: it holds no dict with a digest. Save the "
            f"model again."
        )
    stated = body.pop("digest")
    if digest(body) != stated:
        raise ArtefactError(
            f"load: {folder / PLAN} was altered after it was written: its digest does not fit."
        )
    younger: dict[str, Any] = {"numbers": {}, "eps": {}, "given": {}, "config": {}, "constants": {}}
    body = {**younger, **body}
    if {"weights", "sha256"} <= set(body):  # older: a single file
        body["files"] = {body.pop("weights"): body.pop("sha256")}
    if wrong := checks.misfits(body, KINDS):
        raise ArtefactError(f"load: {folder / PLAN}: {wrong}. Save the model again.")
    return body


def weights_of(folder: Path, body: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of all files of a folder, checked.

    Raises:
        ArtefactError: a file is missing, truncated or altered.
    """
    out: dict[str, Tensor] = {}
    for name, checksum in body["files"].items():
        path = folder / name
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise ArtefactError(f"load: {path} is missing. Save the model again.") from error
        except (OSError, ValueError) as error:
            raise ArtefactError(f"load: {path} cannot be read ({error}).") from error
        if hashlib.sha256(content).hexdigest() != checksum:
            raise ArtefactError(f"load: {path} is truncated or altered: its checksum does not fit.")
        try:
            out.update(load_tensors(content))
        except SafetensorError as error:  # pragma: no cover - the checksum has caught it
            raise ArtefactError(f"load: {path} cannot be read ({error}).") from error
    return out
