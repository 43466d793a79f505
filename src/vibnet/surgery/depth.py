"""Take layers and branches out of a small model that have become constants."""

import copy
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_map

from vibnet.errors import ArtefactError
from vibnet.graph import checks
from vibnet.graph.capture import capture as cap
from vibnet.graph.capture.example import arguments
from vibnet.graph.capture.reach import Reach, output_of
from vibnet.graph.capture.trace import ModuleCall
from vibnet.graph.sites.branches import SAME, outputs_of, padded, several_names
from vibnet.layers import Constant

T = TypeVar("T")
Spec = dict[str, Any]  # the arguments of a Constant, and whether it holds numbers
Specs = dict[str, Spec]
KINDS = {"width": int, "dim": int, "windows": list[list[int]], "others": int, "value": bool}
KEEPS = "cache", "past"  # in names of parameters of a forward that keeps something for later


def removed(small: nn.Module, example: Any, readers: Sequence[str]) -> Specs:
    """Put constants in the place of layers without a unit to read, in place, and of what follows.

    The layers' weights must be zero. Whole modules that have become constants by that are replaced
    too, and modules that make what nothing reads any more. Where the model does not run then, only
    the layers are, and where it does not run with those, nothing is.

    Args:
        small: a model that has been cut.
        example: what it is called with.
        readers: the layers.

    Returns:
        By name what was put where, for `put`.
    """
    if not readers:
        return {}
    layers = {name: _layer(small.get_submodule(name)) for name in readers}
    shapes = _shapes(small, example)
    for more in (True, False):
        trial = copy.deepcopy(small)
        try:
            put(trial, layers, example)
            specs = _outermost({**layers, **(_further(trial, small, example) if more else {})})
            put(trial, {k: v for k, v in specs.items() if k not in layers}, example)
            if _shapes(trial, example) != shapes:
                continue
        except Exception:  # whatever a model says to a layer of another class
            continue
        put(small, specs, example)
        return specs
    return {}


def put(model: nn.Module, specs: Specs, example: Any = None) -> None:
    """Put constants in the place of modules, in place.

    With an example their numbers are what the modules give on it; else they are zero, to be loaded.

    Raises:
        ArtefactError: the model has no such module.
    """
    check(model, specs)
    modules = dict(model.named_modules())
    made = {}
    values = _values(model, specs, example) if specs and example is not None else {}
    for name, spec in specs.items():
        module = modules[name]
        like = next((p for p in module.parameters() if p.is_floating_point()), None)
        new = Constant(**_arguments(spec), like=like if spec["value"] else None)
        new.train(module.training)
        if new.value is not None and name in values:
            new.value.data.copy_(values[name])
        made[id(module)] = new
    for owner in list(model.modules()):
        for leaf, child in owner._modules.items():
            if id(child) in made:
                owner._modules[leaf] = made[id(child)]


def check(model: nn.Module, specs: Specs) -> None:
    """Refuse constants for modules that a model does not have.

    Raises:
        ArtefactError: there are such, or a constant is not described as `put` needs it.
    """
    for name, spec in specs.items():
        if wrong := checks.misfits(spec, KINDS):
            raise ArtefactError(
                f"load: the constant in the place of {name}: {wrong}. Save it again."
            )
    modules = dict(model.named_modules())
    if missing := [name for name in specs if name not in modules]:
        raise ArtefactError(
            f"load: the plan has a constant in the place of {', '.join(missing)}, but this "
            f"{type(model).__name__} has no such module. Pass the model as it was before the cut."
        )


def outside(named: Mapping[str, T], specs: Specs) -> dict[str, T]:
    """What is named after something that is not in a module that a constant replaces."""
    gone = tuple(f"{name}." for name in specs)
    return {name: x for name, x in named.items() if not name.startswith(gone)}


def renamed(names: Iterable[str], specs: Specs) -> set[str]:
    """The names of a state when constants stand in the place of modules."""
    values = {f"{name}.value" for name, spec in specs.items() if spec["value"]}
    return values | {*outside(dict.fromkeys(names), specs)}


def _arguments(spec: Spec) -> Spec:
    windows = tuple(tuple(window) for window in spec["windows"])
    return {k: spec[k] for k in ("width", "dim", "others")} | {"windows": windows}


def _spec(
    width: int, dim: int, value: bool, windows: Sequence[list[int]] = (), others: int = 0
) -> Spec:
    return {"width": width, "dim": dim, "windows": [*windows], "others": others, "value": value}


def _layer(module: nn.Module, value: bool | None = None) -> Spec:
    """The constant that a layer is whose inputs are all zero: its bias."""
    bias, weight = getattr(module, "bias", None), module.weight
    assert isinstance(weight, Tensor)
    value = isinstance(bias, Tensor) if value is None else value
    if not isinstance(module, _ConvNd):
        return _spec(outputs_of(weight, 0 if type(module).__name__ == "Conv1D" else 1), -1, value)
    assert not isinstance(module.padding, str)
    numbers = module.kernel_size, module.stride, module.padding, module.dilation
    windows = [
        [k, stride, 2 * pad, dilation] for k, stride, pad, dilation in zip(*numbers, strict=True)
    ]
    return _spec(module.out_channels, -1 - len(windows), value, windows)


def _outermost(specs: Specs) -> Specs:
    """Those that are not inside another one."""
    return {
        name: spec
        for name, spec in specs.items()
        if not any(name.startswith(f"{other}.") for other in specs)
    }


def _values(model: nn.Module, specs: Specs, example: Any) -> dict[str, Tensor]:
    """What modules give on an example along the dimension of their constants.

    Those are left out whose numbers differ along the others, as at the borders of an image.
    """
    found: dict[str, Tensor] = {}
    handles = []
    for name, spec in specs.items():
        if not spec["value"]:
            continue

        def note(_m: nn.Module, _x: Any, out: Any, name: str = name, spec: Spec = spec) -> None:
            first = out[0] if isinstance(out, tuple) else out
            lines = first.detach().movedim(spec["dim"], 0).reshape(spec["width"], -1)
            spread = (lines - lines[:, :1]).abs().max()
            if spread <= 10 * torch.finfo(lines.dtype).eps * lines.abs().max():
                found[name] = lines[:, 0].clone()

        handles.append(model.get_submodule(name).register_forward_hook(note))
    try:
        _run(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _run(model: nn.Module, example: Any) -> None:
    dtypes = [p.dtype for p in model.parameters() if p.is_floating_point()]
    kind = next(iter(dtypes), torch.float32)

    def given(x: Any) -> Any:
        moves = isinstance(x, Tensor) and x.is_floating_point() and len(set(dtypes)) == 1
        return (x.to(kind) if moves else x).clone() if isinstance(x, Tensor) else x

    args, kwargs = tree_map(given, arguments(example))
    modes = {m: m.training for m in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng():
            model(*args, **kwargs)
    finally:
        for module, mode in modes.items():
            module.training = mode


def _shapes(model: nn.Module, example: Any) -> list[tuple[int, ...]]:
    return [tuple(x.shape) for x in cap.capture(model, example)[-1].outputs]


def _further(model: nn.Module, before: nn.Module, example: Any) -> Specs:
    """Modules that are constants, or make what nothing reads, when the layers are constants.

    `before` is the model with the layers.
    """
    reach = Reach(cap.capture(model, example)[-1])
    found: Specs = {}
    tied = several_names(model)
    for name, module in model.named_modules():
        calls = [call for call in reach.trace.modules if call.name == name]
        own = {f"{name}.{leaf}" for leaf, _ in module.named_parameters()}
        if not name or not calls or not own or own & tied or not _plain(module):
            continue
        mine = reach.inside(name)
        dead = reach.live.isdisjoint(mine)
        if dead or (len(calls) == 1 and reach.constant(mine, calls[0])):
            spec = _shaped(before.get_submodule(name), calls[0], dead)
            found |= {} if spec is None else {name: spec}
    values = _values(copy.deepcopy(model).double(), found, example)
    return {k: v for k, v in found.items() if not v["value"] or k in values}


def _plain(module: nn.Module) -> bool:
    """Whether a module may be replaced: it holds weights, nobody listens, it keeps nothing."""
    heard = any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    names = inspect.signature(type(module).forward).parameters
    keeps = any(word in name for name in names for word in KEEPS)
    return any(True for _ in module.parameters()) and not heard and not keeps


def _shaped(module: nn.Module, call: ModuleCall, dead: bool) -> Spec | None:
    """The constant of a module's shape; None where its shape does not follow from what it gets."""
    if dead and any(type(module).forward is kind.forward for kind in SAME) and not padded(module):
        return _layer(module, False)
    output = output_of(call.output)
    every = (*call.inputs, *call.named.values())
    given = next((x for x in every if isinstance(x, Tensor)), None)
    if output is None or given is None or given.ndim != output.ndim or output.ndim < 2:
        return None
    others = len(call.output) - 1 if isinstance(call.output, tuple) else 0
    differ = [d for d in range(output.ndim) if given.shape[d] != output.shape[d]]
    if len(differ) > 1 or 0 in differ:
        return None
    dim = differ[0] if differ else _channels(module, output)
    if dim is None:
        return None
    return _spec(output.shape[dim], dim - output.ndim, not dead, (), others)


def _channels(module: nn.Module, output: Tensor) -> int | None:
    """The dimension along which a module's last weights lie, where there is one such."""
    if isinstance(module, _NormBase):
        return 1
    width = list(module.parameters())[-1].shape[0]
    found = {d for d in (1, output.ndim - 1) if output.shape[d] == width}
    return found.pop() if len(found) == 1 else None
