"""Cut the files of a model that need not fit into memory: one shard after the other."""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vibnet.errors import ArtefactError, PlanError
from vibnet.graph import checks
from vibnet.graph.capture.example import arguments
from vibnet.graph.sites.branches import empty
from vibnet.graph.sites.constraints import Mask
from vibnet.graph.sites.stock import ready, replaceable
from vibnet.graph.sites.structure import Graph, fingerprint
from vibnet.graph.trial.cut import remaining
from vibnet.graph.trial.outputs import outputs
from vibnet.graph.trial.probe import followed
from vibnet.surgery import plan as planning
from vibnet.surgery import pretrained
from vibnet.surgery.artefact import described, first_names, put
from vibnet.surgery.files import path_of
from vibnet.surgery.plan import Plan
from vibnet.surgery.prune import Report, smaller, told
from vibnet.surgery.shard_check import Check

Shapes = dict[str, tuple[int, ...]]


def prune_files(
    model: nn.Module,
    plan: Plan,
    example: Any,
    source: str | Path,
    target: str | Path,
    *,
    verify: bool = False,
) -> Report:
    """Cut safetensors files by a plan, one file after the other, into a folder for `vibnet.load`.

    No more than one file, and what stays of it, is in memory. Unless `verify` is set, no model
    runs, and the report says "not verified".

    Args:
        model: of the files' class and shapes; it may be on the meta device, and is left untouched.
        plan: what to keep.
        example: what the model is called with, for tracing; small.
        source: a folder with safetensors files, or one such file.
        target: a folder, as `vibnet.save` writes it; made if missing.
        verify: run the whole model and the small one on the example in double precision, on the
            CPU, with weights read from the files one operation at a time, and compare what every
            module gives.

    Returns:
        The report of the cut.

    Raises:
        ConfigError: no module, no paths, or an example without a tensor; to verify, a tensor that
            is on the meta device and in no file.
        CaptureError: the model does not run on the example.
        PlanError: the plan does not fit the model, or picks single features or inputs.
        ArtefactError: the files lack a tensor of the model, hold one that it does not have or one
            of another shape, or cannot be read; or there can be no such target.
        VerificationError: the small model computes something else.

    Whatever is raised, nothing is left of the target that was not there before.
    """
    checks.module("prune_files", model)
    checks.flag("verify", verify)
    folder, out = path_of("prune_files", source), path_of("prune_files", target)
    planning.check(plan)
    if plan.features or plan.inputs:
        raise PlanError(
            "prune_files: the plan picks single features or inputs by index, which only a loaded "
            "model can be given. Use vibnet.prune."
        )
    if plan.request.attention and replaceable(model):
        raise PlanError(
            "prune_files: the plan was made with replace_attention=True, and the files hold the "
            "weights of the attentions that are replaced. Use vibnet.prune."
        )
    arguments(example)
    inner = ready(model, plan.request)
    planning.check(plan, fingerprint(inner))
    files = _files(folder)
    names = _checked(inner, files)
    if out.resolve() == (folder if folder.is_dir() else folder.parent).resolve():
        raise ArtefactError(
            f"prune_files: {out} is where the files of the whole model lie. Name another folder."
        )
    graph, engine, traces = followed(inner, example, plan.request)
    listed, inputs = outputs(engine, traces, graph) if verify else [], traces[-1].example
    del engine, traces  # they are large
    kept = planning.mask(graph, plan)
    if gone := empty(graph.sites, kept):
        raise PlanError(
            f"prune_files: the plan keeps no unit of {', '.join(gone)}. Whole branches go only "
            f"from a model in memory, with vibnet.prune; or keep a unit of each."
        )
    small, tensors = smaller(inner, graph, kept, None)
    counts = [sum(p.numel() for p in m.parameters()) for m in (inner, small)]
    report = told(small, graph, kept, tensors, (counts[0], counts[1]), None, example)
    body, _ = described(small, report)
    parts = chain(_parts(files, names, graph, kept), _unsaved(small, body["buffers"]))
    config = pretrained.uniform_or_dense(small, report, body["config"])
    if not verify:
        put(out, parts, body, config)
        return report
    check = Check(model, inner, graph, kept, _places(files, names), listed, inputs)
    done: list[Report] = []
    put(out, parts, body, config, lambda new: done.append(check.verified(report, body, new)))
    return done[0]


def _files(folder: Path) -> list[Path]:
    """The safetensors files of a model: those its index names, else all of the folder."""
    if folder.is_file():
        return [folder]
    index = folder / pretrained.INDEX
    if index.is_file():
        try:
            found = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            if wrong := [name for name in found if not isinstance(name, str)] or not found:
                raise TypeError(f"weight_map names no files: {wrong}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtefactError(
                f"prune_files: {index} cannot be read ({error!r}). Write it again, or take it "
                f"away: then all safetensors files of the folder are read."
            ) from error
        return [folder / name for name in found]
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ArtefactError(
            f"prune_files: there is no safetensors file in {folder}. Name the folder of a model."
        )
    return files


def _shapes(files: list[Path]) -> dict[str, Shapes]:
    """The shapes of the tensors in every file, from their heads alone."""
    out: dict[str, Shapes] = {}
    for path in files:
        try:
            with safe_open(path, "pt") as held:
                out[path.name] = {
                    k: tuple(held.get_slice(k).get_shape()) for k in held.offset_keys()
                }
        except (OSError, SafetensorError) as error:
            raise ArtefactError(f"prune_files: {path} cannot be read ({error}).") from error
    return out


def _checked(model: nn.Module, files: list[Path]) -> dict[str, str]:
    """Under which name the cut files hold every tensor that is copied, by its name now."""
    held = model.state_dict(keep_vars=True)
    known = first_names(held)
    shapes = {name: tuple(value.shape) for name, value in model.named_buffers()}
    shapes.update((name, tuple(value.shape)) for name, value in held.items())
    names: dict[str, str] = {}
    wanted = set(known.values())
    kind, where = type(model).__name__, files[0].parent
    seen: dict[str, str] = {}
    for file, found in _shapes(files).items():
        for name, shape in found.items():
            if name in seen:
                raise ArtefactError(
                    f"prune_files: {name} is in {seen[name]} and in {file}, and which of them "
                    f"counts is not known. Leave one out, or write an index that names the files."
                )
            seen[name] = file
            if name not in shapes:
                raise ArtefactError(
                    f"prune_files: {file} in {where} holds {name}, which this {kind} does not have "
                    f"(it has {', '.join(list(known)[:3])} ...). Pass a model of the class that "
                    f"the files were saved from."
                )
            if shapes[name] != shape:
                raise ArtefactError(
                    f"prune_files: {name} has shape {shape} in {file}, but {shapes[name]} in this "
                    f"{kind}. Pass a model of the configuration that the files were saved from."
                )
            if known.get(name) in wanted:
                names[name] = known[name]
                wanted.remove(known[name])
    if missing := sorted(wanted):
        raise ArtefactError(
            f"prune_files: the files in {where} lack {len(missing)} tensors of this {kind}: "
            f"{', '.join(missing[:3])}. Name the folder of the whole model."
        )
    return names


def _unsaved(small: nn.Module, names: list[str]) -> list[dict[str, Tensor]]:
    """Buffers that were cut and that no file of the whole model holds, as a part of their own.

    Raises:
        ArtefactError: one is on the meta device.
    """
    held = dict(small.named_buffers())
    if empty := [name for name in names if held[name].is_meta]:
        raise ArtefactError(
            f"prune_files: {empty[0]} is cut, but it is on the meta device, and models of this "
            f"kind do not save it. Make the model with its parameters alone on the meta device."
        )
    return [{name: held[name].contiguous() for name in names}] if names else []


def _places(files: list[Path], names: dict[str, str]) -> dict[str, tuple[Path, str]]:
    """The file of every tensor that is copied, and its name there."""
    out: dict[str, tuple[Path, str]] = {}
    for path in files:
        with safe_open(path, "pt") as held:
            out.update((names[key], (path, key)) for key in held.offset_keys() if key in names)
    return out


def _parts(
    files: list[Path], names: dict[str, str], graph: Graph, kept: Mask
) -> Iterator[dict[str, Tensor]]:
    """What stays of every file."""
    for path in files:
        with safe_open(path, "pt") as held:
            part = {
                own: remaining(held.get_tensor(name), own, graph, kept)
                for name in held.offset_keys()
                if (own := names.get(name)) is not None
            }
        if part:
            yield part
