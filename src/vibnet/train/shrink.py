"""Take dead units out of a gated model while it trains."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from vibnet.errors import ConfigError
from vibnet.graph.sites.branches import held
from vibnet.graph.sites.constraints import Mask
from vibnet.graph.trial.cut import cut, sliced
from vibnet.graph.trial.restrict import restrict
from vibnet.surgery.attach import find
from vibnet.surgery.gated import Gated

State = dict[str, Tensor]


def shrink(
    gated: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    dead: Mask | None = None,
) -> bool:
    """Cut dead units out of a gated model, in place.

    The gated model, its parameters and the optimiser stay the same objects, with smaller tensors:
    schedulers and gradient scalers stay valid, and the optimiser keeps its steps and the moments
    of what is left. Gradients are dropped. What holds tensors of the old sizes does not follow: an
    average of the weights (shrink its copy with the same `dead`), or a compiled graph.

    Args:
        gated: what `vibnet.attach` returned, not inside a data-parallel wrapper.
        optimizer: whose state follows the parameters; several, where they share them out, as Muon
            for matrices and Adam for the rest.
        dead: bool, one per unit of `gated.graph`; without it, the units that evaluation closes.
            Units that a constraint needs stay, and so do units of sites without a gate. Of a site
            that is dead as a whole one unit stays until `prune`.

    Returns:
        Whether a unit has gone.

    Raises:
        ConfigError: a data-parallel wrapper, an optimiser whose state has a shape that is not that
            of its parameter, or `dead` of another shape or type. Nothing has changed.
        PlanError: the numbers in a buffer are others than when the model was looked at. Nothing
            has changed.
    """
    for module in gated.modules():
        if isinstance(module, (DistributedDataParallel, nn.DataParallel)):
            raise ConfigError(
                f"shrink: the model is inside a {type(module).__name__}, which holds buffers of "
                f"the old sizes. Shrink the gated model itself, and wrap it again."
            )
    owner = find(gated)
    kept = owner.kept() if dead is None else owner.legal(~_gated_only(owner, dead))
    kept = held(owner.graph.sites, kept)
    if kept.all():
        return False
    optimizers = _listed(optimizer)
    states = [_smaller_state(owner, kept, one) for one in optimizers]
    for name, buffer in owner.model.named_buffers():
        sliced(buffer, name, owner.graph, kept)  # raises now rather than half way
    _cut_in_place(owner, kept)
    for one, state in zip(optimizers, states, strict=True):
        for parameter, entries in state.items():
            one.state[parameter].update(entries)
    return True


def _listed(given: Optimizer | Sequence[Optimizer] | None) -> list[Optimizer]:
    """The optimisers, in a list.

    Raises:
        ConfigError: something else is among them.
    """
    found: list[Any] = [given] if given is not None else []
    if isinstance(given, Sequence):
        found = list(given)
    if odd := [x for x in found if not isinstance(x, Optimizer)]:
        raise ConfigError(
            f"shrink: the optimiser must be a torch optimiser, or a list of them, got "
            f"{type(odd[0]).__name__}. One that wraps another: pass the inner one."
        )
    return found


def _gated_only(owner: Gated, dead: Mask) -> Mask:
    """The dead units that have a gate."""
    if not isinstance(dead, np.ndarray) or dead.dtype != np.bool_:
        raise ConfigError(f"shrink: dead must be a numpy array of bool, got {dead!r}.")
    if dead.shape != (owner.graph.total,):
        raise ConfigError(
            f"shrink: dead has shape {dead.shape}, but the model has {owner.graph.total} units. "
            f"Give one number per unit of gated.graph."
        )
    with_gate = np.zeros_like(dead)
    for site in owner.sites:
        with_gate[site.units] = True
    out: Mask = dead & with_gate
    return out


def _smaller_state(owner: Gated, kept: Mask, optimizer: Optimizer) -> dict[nn.Parameter, State]:
    """What is left of the state of every parameter that shrinks."""
    out: dict[nn.Parameter, State] = {}
    names: dict[nn.Parameter, str] = {}
    for name, parameter in owner.model.named_parameters():
        names.setdefault(parameter, name)
    for site, gate in owner.all_gates():
        stay = torch.as_tensor(kept[site.units])
        for leaf, parameter in gate.named_parameters():
            entries = optimizer.state.get(parameter, {})
            _check(f"the gate {leaf} of {site.name}", parameter, entries)
            if entries:
                out[parameter] = {k: v[stay] for k, v in entries.items() if _moves(v, parameter)}
    for parameter, name in names.items():
        entries = optimizer.state.get(parameter, {})
        value = parameter.detach()
        if sliced(value, name, owner.graph, kept) is not value:
            _check(name, parameter, entries)
            if entries:
                out[parameter] = {
                    k: sliced(v, name, owner.graph, kept)
                    for k, v in entries.items()
                    if _moves(v, parameter)
                }
    return out


def _moves(value: object, parameter: nn.Parameter) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape and value.ndim > 0


def _check(name: str, parameter: nn.Parameter, entries: dict[str, object]) -> None:
    for key, value in entries.items():
        if _moves(value, parameter):
            continue
        odd = next((x for x in tree_leaves(value) if isinstance(x, Tensor) and x.numel() > 1), None)
        if odd is not None:
            raise ConfigError(
                f"shrink: the optimiser's {key!r} of {name} has shape {tuple(odd.shape)}, the "
                f"parameter {tuple(parameter.shape)}, so it is not known what to cut from it. Use "
                f"an optimiser with state of the parameter's shape (SGD, Adam, AdamW), or train "
                f"without shrinking."
            )


def _cut_in_place(owner: Gated, kept: Mask) -> None:
    before = {
        (prefix, leaf): value
        for prefix, module in owner.model.named_modules()
        for leaf, value in module._parameters.items()
        if value is not None
    }
    cut(owner.model, owner.graph, kept)
    for (prefix, leaf), old in before.items():
        table = owner.model.get_submodule(prefix)._parameters
        new = table[leaf]
        if new is not None and new is not old:
            if new.shape != old.shape:  # a tied one has been done under its first name
                _put(old, new.data)
            table[leaf] = old
    for site, gate in owner.all_gates():
        stay = torch.as_tensor(kept[site.units])
        for parameter in gate.parameters():
            _put(parameter, parameter.data[stay].clone())
        for buffer in gate.buffers():
            buffer.data = buffer[stay]
    for parameter in owner.parameters():
        parameter.grad = None
    owner.rewire(restrict(owner.graph, kept))


def _put(parameter: nn.Parameter, value: Tensor) -> None:
    """Give a parameter a value of another size.

    Where a graph of the old size still lives, as behind a loss that somebody holds, its gradient
    accumulator would be used again, and refuse: a change of type makes torch drop it.
    """
    parameter.grad = None
    parameter.data = value.to(torch.float32 if value.dtype == torch.float16 else torch.float16)
    parameter.data = value


class Patience:
    """Counts for how many epochs in a row every unit has been dead."""

    def __init__(self, epochs: int, margin: float) -> None:
        self.epochs, self.margin = epochs, margin
        self.counts: dict[str, list[int]] = {}

    def dead(self, gated: Gated) -> Mask:
        """The units that have been dead for long enough, after one more epoch.

        Dead is a score, with VIB's gates a signal-to-noise ratio, below ``1 / margin``.
        """
        out = np.zeros(gated.graph.total, dtype=np.bool_)
        for site, gate in gated.all_gates():
            low = (gate.score().detach() < 1 / self.margin).tolist()
            before = self.counts.get(site.name, [0] * site.size)
            counts = [n + 1 if now else 0 for n, now in zip(before, low, strict=True)]
            self.counts[site.name] = counts
            out[site.units] = np.asarray(counts) >= self.epochs
        return out

    def follow(self, before: dict[str, list[int]], gated: Gated) -> None:
        """Forget the units that have gone. `before`: the positions of every site's units then."""
        for site in gated.sites:
            left = set(site.positions.tolist())
            pairs = zip(before[site.name], self.counts[site.name], strict=True)
            self.counts[site.name] = [n for position, n in pairs if position in left]
