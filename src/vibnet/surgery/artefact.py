"""Save a small model as a plan and its weights; load it into the caller's own class."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from vibnet.errors import ArtefactError
from vibnet.graph.cut import select, state_sizes
from vibnet.graph.sites import fingerprint
from vibnet.surgery.plan import Plan, digest
from vibnet.surgery.prune import Report, report_of

PLAN = "plan.json"


def save(small: nn.Module, folder: str | Path, report: Report | None = None) -> None:
    """Write a pruned model as `plan.json` and a safetensors file; no pickle.

    The plan is replaced last and names its weights by their checksum, so that a folder holds the
    old model or the new one, complete, whenever the program is stopped.

    Args:
        small: what `prune` returned.
        folder: where to; made if missing.
        report: of the cut, where `small` is a copy of what `prune` returned.

    Raises:
        ArtefactError: nothing is known of how this model was cut.
    """
    report = report or report_of(small)
    if report is None:
        raise ArtefactError(
            f"save: this {type(small).__name__} is not what vibnet.prune returned. Pass the report "
            f"that came with it: vibnet.save(small, folder, report)."
        )
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    seen: dict[int, str] = {}
    for name, value in small.state_dict(keep_vars=True).items():
        if id(value) in seen:
            aliases[name] = seen[id(value)]
        else:
            seen[id(value)] = name
            tensors[name] = value.detach().contiguous()
    content = save_tensors(tensors)
    checksum = hashlib.sha256(content).hexdigest()
    body: dict[str, Any] = {
        "plan": json.loads(report.plan.to_json()),
        "weights": f"model-{checksum[:16]}.safetensors",
        "sha256": checksum,
        "aliases": aliases,
        "depthwise": sorted(report.depthwise),
        "widths": report.widths,
        "selected": sorted(report.selected),
    }
    body["digest"] = digest(body)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    write(target / body["weights"], content)
    write(target / PLAN, json.dumps(body, indent=1).encode())
    for old in target.glob("model-*.safetensors"):
        if old.name != body["weights"]:
            old.unlink()


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _body(folder: Path) -> dict[str, Any]:
    try:
        body: dict[str, Any] = json.loads((folder / PLAN).read_text())
        stated = body.pop("digest")
    except FileNotFoundError as error:
        raise ArtefactError(
            f"load: there is no {PLAN} in {folder}. Name the folder of a save."
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError) as error:
        raise ArtefactError(
            f"load: {folder / PLAN} is not complete. Save the model again."
        ) from error
    if digest(body) != stated:
        raise ArtefactError(
            f"load: {folder / PLAN} was altered after it was written: its digest does not fit."
        )
    return body


def _weights(folder: Path, body: dict[str, Any]) -> dict[str, Tensor]:
    path = folder / body["weights"]
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ArtefactError(f"load: {path} is missing. Save the model again.") from error
    if hashlib.sha256(content).hexdigest() != body["sha256"]:
        raise ArtefactError(f"load: {path} is truncated or altered: its checksum does not fit.")
    try:
        return load_tensors(content)
    except SafetensorError as error:  # pragma: no cover - the checksum has caught it
        raise ArtefactError(f"load: {path} cannot be read ({error}).") from error


def load(folder: str | Path, model: nn.Module) -> nn.Module:
    """Put a saved small model into a fresh model of the class it was cut from.

    Args:
        folder: of a `save`.
        model: a model as it was before the cut, any weights; changed only when all checks passed.

    Returns:
        The same object, now small.

    Raises:
        ArtefactError: files missing, truncated or altered, or a model of another shape.
    """
    folder = Path(folder)
    body = _body(folder)
    plan = Plan.from_json(json.dumps(body["plan"]))
    found = fingerprint(model)
    if found != plan.source:
        raise ArtefactError(
            f"load: {folder} was cut from another model (hash {plan.source}, this "
            f"{type(model).__name__} has {found}). Pass the model as it was before the cut."
        )
    tensors = _weights(folder, body)
    selected = [n for n in body["selected"] if type(_linear(model, n)) is nn.Linear]
    state = {**tensors, **{name: tensors[first] for name, first in body["aliases"].items()}}
    expected = {*model.state_dict(), *(f"{name}.index" for name in selected)}
    if expected != set(state):
        raise ArtefactError(f"load: the weights in {folder} do not have the names of the model's.")
    for name in selected:
        select(_linear(model, name), [])
    _fill(model, state, body)
    return model


def _linear(model: nn.Module, name: str) -> nn.Linear:
    module = model.get_submodule(name)
    if not isinstance(module, nn.Linear):
        raise ArtefactError(f"load: {name} is a {type(module).__name__}, not a linear layer.")
    return module


def _fill(model: nn.Module, state: dict[str, Tensor], body: dict[str, Any]) -> None:
    done: dict[int, Any] = {}
    for prefix, owner in model.named_modules():
        for table in (owner._parameters, owner._buffers):
            for leaf, value in table.items():
                name = f"{prefix}.{leaf}" if prefix else leaf
                if value is None or name not in state:
                    continue
                if id(value) not in done:
                    new: Tensor = state[name].to(value.device)
                    if isinstance(value, nn.Parameter):
                        new = nn.Parameter(new, requires_grad=value.requires_grad)
                    done[id(value)] = new
                table[leaf] = done[id(value)]
        state_sizes(owner, f"{prefix}.weight" if prefix else "weight", set(body["depthwise"]))
        if prefix in body["widths"]:
            owner.num_features = int(body["widths"][prefix])
