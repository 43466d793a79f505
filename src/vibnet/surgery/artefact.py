"""Save a small model as a plan and its weights."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from vibnet.errors import ArtefactError, ConfigError
from vibnet.graph import checks
from vibnet.surgery import pretrained
from vibnet.surgery.files import PLAN, path_of, write
from vibnet.surgery.plan import digest
from vibnet.surgery.prune import Report, report_of, shapes_of

OURS = re.compile(r"model-[0-9a-f]{16}\.safetensors")


def save(small: nn.Module, folder: str | Path, report: Report | None = None) -> None:
    """Write a pruned model as `plan.json` and a safetensors file; no pickle.

    The plan is replaced last and names its weights by their checksum, so that a folder holds the
    old model or the new one, complete, whenever the program is stopped.

    A model of transformers gets a `config.json` and an index of its weights too. Where the class
    itself can make the small model, as with equal widths in all layers, they are those of the
    small one, and `from_pretrained` reads the folder; else those of the model before the cut, and
    `vibnet.load(folder)` does.

    Args:
        small: what `prune` returned.
        folder: where to; made if missing.
        report: of the cut, where `small` is a copy of what `prune` returned.

    Raises:
        ConfigError: no module, no path, or no report; or state that is no tensor.
        ArtefactError: nothing is known of how this model was cut, it is not the model that the
            report tells of, or there can be no such folder. Nothing is written.
    """
    checks.module("save", small)
    checks.only_tensors("save", small)
    target = path_of("save", folder)
    report = _report(small, report)
    body, names = described(small, report)
    held = dict(small.state_dict(keep_vars=True))
    held.update((k, v) for k, v in small.named_buffers() if k in body["buffers"])
    tensors = {name: held[name].detach().contiguous() for name in names}
    put(target, [tensors], body, pretrained.uniform_or_dense(small, report, body["config"]))


def described(small: nn.Module, report: Report) -> tuple[dict[str, Any], list[str]]:
    """What a folder says of a small model beside its files, and the tensors that it holds."""
    held = small.state_dict(keep_vars=True)
    cut = {k: v for k, v in small.named_buffers() if k in report.tensors and k not in held}
    firsts = first_names({**held, **cut})
    body = {
        "plan": json.loads(report.plan.to_json()),
        "aliases": {name: first for name, first in firsts.items() if name != first},
        "buffers": sorted(cut),
        "depthwise": sorted(report.depthwise),
        "widths": report.widths,
        "selected": sorted(report.selected),
        "numbers": report.numbers,
        "eps": report.eps,
        "given": report.given,
        "constants": report.constants,
        "config": pretrained.config_of(small),
    }
    return body, list(dict.fromkeys(firsts.values()))


def first_names(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """For every name the first one of the same tensor, under which it is stored."""
    seen: dict[int, str] = {}
    return {name: seen.setdefault(id(value), name) for name, value in tensors.items()}


def put(
    target: Path,
    parts: Iterable[dict[str, Tensor]],
    body: dict[str, Any],
    config: pretrained.Config,
    check: Callable[[list[Path]], None] | None = None,
) -> None:
    """Write the files of a folder, one for every part of the tensors; the plan last.

    What is raised on the way, also by `check`, which is given the files of the tensors before the
    others are written, leaves the folder as it was.

    Raises:
        ArtefactError: there can be no such folder, or it holds the files of another model.
    """
    theirs = [n for n in (pretrained.CONFIG, pretrained.INDEX) if (target / n).exists()]
    if config and theirs and not (target / PLAN).exists():
        raise ArtefactError(
            f"save: {target} holds a {theirs[0]} that no save wrote, and it would be written over. "
            f"Name another folder."
        )
    made = not target.exists()
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtefactError(
            f"save: {target} cannot be made a folder ({error}). Name another."
        ) from error
    before = set(target.iterdir())
    files: dict[str, str] = {}
    places: dict[str, str] = {}
    try:
        for tensors in parts:
            content = save_tensors(tensors, {"format": "pt"})
            checksum = hashlib.sha256(content).hexdigest()
            name = f"model-{checksum[:16]}.safetensors"
            write(target / name, content)
            files[name] = checksum
            places.update(dict.fromkeys(tensors, name))
        if check is not None:
            check([target / name for name in files])
    except BaseException:
        for path in {target / name for name in files} - before:
            path.unlink()
        if made:
            target.rmdir()
        raise
    if config:
        index = {"metadata": {}, "weight_map": places}
        write(target / pretrained.INDEX, json.dumps(index, indent=1).encode())
        write(target / pretrained.CONFIG, json.dumps(config, indent=1).encode())
    elif theirs:  # of a former model
        for name in theirs:
            if (target / PLAN).exists():
                (target / name).unlink()
    body = {**body, "files": files}
    body["digest"] = digest(body)
    write(target / PLAN, json.dumps(body, indent=1).encode())
    for old in target.glob("model-*.safetensors"):
        if OURS.fullmatch(old.name) and old.name not in files:
            old.unlink()


def _report(small: nn.Module, given: object) -> Report:
    """The report of a model, checked against it."""
    report = report_of(small) if given is None else given
    name = type(small).__name__
    if report is None:
        raise ArtefactError(
            f"save: this {name} is not what vibnet.prune returned. Pass the report that came with "
            f"it: vibnet.save(small, folder, report)."
        )
    if not isinstance(report, Report):
        raise ConfigError(
            f"save: the report must be the one that vibnet.prune returned, got {report!r}."
        )
    found, cut = shapes_of(small), report.shapes
    if wrong := [k for k in {**cut, **found} if found.get(k) != cut.get(k)]:
        has, should = (shapes.get(wrong[0], "missing") for shapes in (found, cut))
        raise ArtefactError(
            f"save: this {name} is not the model that the report tells of: {wrong[0]} is {has}, "
            f"after the cut it was {should} ({len(wrong)} tensors differ). Pass the small model "
            f"and the report that prune returned together."
        )
    return report
