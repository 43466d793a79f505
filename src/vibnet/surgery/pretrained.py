"""Models of the transformers library: their configuration, and a smaller one where it exists."""

import copy
import importlib
import itertools
import json
from typing import Any

import torch
from torch import nn

from vibnet.errors import ArtefactError
from vibnet.graph.capture.capture import capture
from vibnet.graph.labels.norms import close
from vibnet.graph.trial.compare import same_calls
from vibnet.surgery.plan import Plan
from vibnet.surgery.prune import Report, shapes_of
from vibnet.surgery.verify import agree

Config = dict[str, Any]
CONFIG, INDEX = "config.json", "model.safetensors.index.json"
MOST = 100  # combinations of one length that are tried
ATTENTION = "_attn_implementation"


def config_of(model: nn.Module) -> Config:
    """The configuration of a model of transformers as JSON holds it; empty for other models.

    It names the class and the type of the numbers, as in a folder for `from_pretrained`.
    """
    config: Any = getattr(model, "config", None)
    if not callable(getattr(model, "save_pretrained", None)) or not hasattr(config, "to_dict"):
        return {}
    found: Config = json.loads(config.to_json_string(use_diff=False))
    dtypes = [p.dtype for p in model.parameters() if p.is_floating_point()]
    found["architectures"] = [type(model).__name__]
    found["dtype"] = str(next(iter(dtypes), torch.float32)).removeprefix("torch.")
    found[ATTENTION] = getattr(config, ATTENTION, None)
    return found


def built(config: Config, device: str = "cpu") -> nn.Module:
    """A model of a configuration with new weights, in evaluation mode.

    Raises:
        ArtefactError: transformers is not installed, or has no such class.
    """
    name = next(iter(config.get("architectures") or ()), None)
    try:
        kind = getattr(importlib.import_module("transformers"), str(name))
    except (ImportError, AttributeError) as error:
        raise ArtefactError(
            f"load: no model was given, and the class {name} of the saved one cannot be made: "
            f"{error}. Install transformers, or pass the model: vibnet.load(folder, model)."
        ) from error
    given = copy.deepcopy(config)
    attention = given.pop(ATTENTION, None)
    made = kind.config_class.from_dict(given)
    if attention:
        setattr(made, ATTENTION, attention)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, config["dtype"]))
    try:
        with torch.random.fork_rng(), torch.device(device):
            model: nn.Module = kind(made).eval()
    finally:
        torch.set_default_dtype(before)
    return model


def uniform_or_dense(small: nn.Module, report: Report, dense: Config) -> Config:
    """What `config.json` is to say: see `uniform`, else the configuration before the cut."""
    if report.constants:
        return {}  # from_pretrained would make the layers that went anew, with random weights
    return (uniform(small, report, dense) if dense else None) or dense


def uniform(small: nn.Module, report: Report, dense: Config) -> Config | None:
    """The configuration with which the class itself makes the small model, where there is one.

    Numbers of the configuration that count units of sites are changed together until a model on
    the meta device has the small one's shapes. It must also make the same calls, of the same sizes
    and with the same numbers, and give the same answers on the example. None where layers have
    different widths, or the class cannot be told its width.
    """
    wanted = shapes_of(small)
    dense = dense | _eps(dense, report)
    every = sum(map(len, wanted.values()))
    before = _agreement(dense, wanted)
    useful = [c for c in _changes(dense, report.plan) if _agreement(dense | c, wanted) > before]
    for count in range(1, len(useful) + 1):
        for parts in itertools.islice(itertools.combinations(useful, count), MOST):
            change = {key: value for part in parts for key, value in part.items()}
            shaped = len(change) == count and _agreement(dense | change, wanted) == every
            if shaped and _same(small, report, dense | change):
                return dense | change
    return None


def _changes(config: Config, plan: Plan) -> list[Config]:
    """Single numbers of a configuration that follow one cut."""
    cuts = {(size, len(plan.kept.get(name, range(size)))) for name, size in plan.sizes.items()}
    found = {
        (key, value // size * kept)
        for key, value in config.items()
        for size, kept in cuts
        if type(value) is int and kept < size <= value and value % size == 0
    }
    return [{key: value} for key, value in sorted(found)]


def _eps(config: Config, report: Report) -> Config:
    """The number under the root of all norms, where one follows the width and all are equal."""
    wanted, plan = set(report.eps.values()), report.plan
    shares = {size / len(plan.kept.get(name, range(size))) for name, size in plan.sizes.items()}
    return {
        key: eps
        for eps in wanted
        for key, value in config.items()
        if len(wanted) == 1 and type(value) is float and any(close(value * s, eps) for s in shares)
    }


def _agreement(config: Config, wanted: dict[str, tuple[int, ...]]) -> int:
    """How many lengths of the state's tensors are those wanted; -1 without a model."""
    try:
        found = shapes_of(built(config, "meta"))
    except Exception:  # whatever a class says to numbers that do not fit each other
        return -1
    return sum(
        have == want
        for name, shape in wanted.items()
        if len(shape) == len(found.get(name, ()))
        for have, want in zip(found[name], shape, strict=True)
    )


def _same(small: nn.Module, report: Report, config: Config) -> bool:
    """Whether the class with a configuration computes what the small model does."""
    empty = any(p.is_meta for p in small.parameters())
    model = built(config, "meta" if empty else "cpu")
    if not same_calls(*(capture(m, report.example)[-1] for m in (small, model))):
        return False
    if empty:
        return True  # no answers to compare; the report says that nothing was verified
    model.load_state_dict(small.state_dict())
    return agree(small, model, report.example)
