"""Take layers out of a small model that have become constants, and those that only fed them."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from vibnet.errors import ArtefactError
from vibnet.graph import checks
from vibnet.graph.capture.capture import capture
from vibnet.graph.sites.branches import computes_as, empty, feeding, heard, padded, stock
from vibnet.graph.sites.constraints import Mask
from vibnet.graph.sites.structure import Graph
from vibnet.layers import Constant
from vibnet.surgery.verify import answers, difference

T = TypeVar("T")
Spec = dict[str, Any]  # the arguments of a Constant, and whether it holds a bias
Specs = dict[str, Spec]
KINDS = {"width": int, "dim": int, "windows": list[list[int]], "bias": bool}
NORMS = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm
ALIKE = 1e-5  # of the answers' scale: nothing but zeros has gone


def removed(small: nn.Module, example: Any, graph: Graph, kept: Mask) -> Specs:
    """Put constants in the place of layers without a unit to read, and of what feeds them.

    Their weights are zero: they give their bias, whatever they are given. Stock layers and norms
    that make or carry the units that went, and no others, give zeros then, in the shape they had:
    nothing else reads those units. Where the model does not answer as before then, only the first
    are replaced, or nothing is.

    Args:
        small: a model that has been cut.
        example: what it is called with.
        graph: of the model before the cut.
        kept: the units that stay.

    Returns:
        By name what was put where, for `put`.
    """
    readers = graph.branches.layers(empty(graph.sites, kept))
    if not readers:
        return {}
    feeds = feeding(graph, kept)
    layers = {
        name: _layer(module, True)
        for name in readers
        if not heard(module := small.get_submodule(name))
    }
    for found in ({**_fed(small, feeds), **layers}, layers):
        specs = _everywhere(small, found)
        trial = copy.deepcopy(small)
        try:
            put(trial, specs)
            good = _alike(small, trial, example)
        except Exception:  # whatever a model says to a layer of another class
            continue
        if good:
            put(small, specs)
            return specs
    return {}


def put(model: nn.Module, specs: Specs) -> None:
    """Put constants in the place of layers, in place; with the layers' biases, where they fit.

    Raises:
        ArtefactError: the model has no such module.
    """
    check(model, specs)
    modules = dict(model.named_modules(remove_duplicate=False))
    made: dict[int, Constant] = {}
    biases: dict[int, nn.Parameter | None] = {}  # one that several layers share stays shared
    for name, spec in specs.items():
        module = modules[name]
        bias = getattr(module, "bias", None)
        like = bias if isinstance(bias, nn.Parameter) and spec["bias"] else None
        windows = tuple(tuple(window) for window in spec["windows"])
        new = Constant(spec["width"], spec["dim"], windows, like).train(module.training)
        if like is not None:
            fits = new.bias is not None and like.shape == new.bias.shape
            new.bias = biases.setdefault(id(like), like if fits else new.bias)
        made.setdefault(id(module), new)
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
                f"load: the constant in the place of {name}: {wrong}. Save the model again."
            )
    modules = dict(model.named_modules(remove_duplicate=False))
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
    biases = {f"{name}.bias" for name, spec in specs.items() if spec["bias"]}
    return biases | {*outside(dict.fromkeys(names), specs)}


def _everywhere(model: nn.Module, specs: Specs) -> Specs:
    """Specs under every name that a module has."""
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(name)
    own = {id(model.get_submodule(name)): spec for name, spec in specs.items()}
    return {name: spec for key, spec in own.items() for name in names[key]}


def _layer(module: nn.Module, alive: bool) -> Spec:
    """The constant that a linear layer or a convolution is; without its bias if not `alive`."""
    bias, weight = getattr(module, "bias", None), module.weight
    assert isinstance(weight, Tensor)
    windows: list[list[int]] = []
    if isinstance(module, _ConvNd):
        assert not isinstance(module.padding, str)
        sizes = module.kernel_size, module.stride, module.padding, module.dilation
        windows = [[k, stride, 2 * pad, wide] for k, stride, pad, wide in zip(*sizes, strict=True)]
        width = module.out_channels
    else:
        width = weight.shape[1 if type(module).__name__ == "Conv1D" else 0]
    told = {"width": width, "dim": -1 - len(windows), "windows": windows}
    return told | {"bias": alive and isinstance(bias, Tensor)}


def _fed(model: nn.Module, names: Sequence[str]) -> Specs:
    """The stock layers and norms among modules, with zeros for what they give."""
    found: Specs = {}
    for name in names:
        module = model.get_submodule(name)
        if heard(module):
            continue
        if stock(module) and not padded(module):
            found[name] = _layer(module, False)
        elif any(computes_as(module, kind) for kind in NORMS):
            found |= _norm(name, module)
    return found


def _norm(name: str, module: nn.Module) -> Specs:
    """The constant of a norm's shape: channels come second, or last under a layer norm."""
    weight = module.weight
    if not isinstance(weight, Tensor) or weight.ndim != 1:
        return {}
    dim = 1 if isinstance(module, (_BatchNorm, nn.GroupNorm)) else -1
    return {name: {"width": len(weight), "dim": dim, "windows": [], "bias": False}}


def _alike(one: nn.Module, other: nn.Module, example: Any) -> bool:
    """Whether two models answer alike, and in the same shapes and types, in training too."""
    laid = [
        [[(x.shape, x.dtype) for x in trace.outputs] for trace in capture(m, example)]
        for m in (one, other)
    ]
    if laid[0] != laid[1] or any(p.is_meta for p in one.parameters()):
        return laid[0] == laid[1]
    found = [answers(m, example, None) for m in (one, other)]
    return difference(*found) <= ALIKE
