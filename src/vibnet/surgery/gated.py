"""A model with gates: noise in training, the mean of the kept units in evaluation."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from vibnet.errors import ConfigError
from vibnet.graph.sites.branches import fewest
from vibnet.graph.sites.constraints import Mask
from vibnet.graph.sites.nested import nesting
from vibnet.graph.sites.structure import Graph, Site
from vibnet.layers import SelectedLinear
from vibnet.methods import METHODS, Columns, Gate, joined
from vibnet.surgery.multiply import Draw, Multiply, without_hooks


def key(site: str) -> str:
    """The name of a site's gate in the ModuleDict, which allows no dots."""
    return site.replace(".", "/")


class Gated(nn.Module):
    """A thin wrapper round a copy of a model, with a gate for every site.

    In training every forward draws one multiplier per site, example and unit, used by all its
    readers. In evaluation kept units are multiplied by their mean, the others by zero.

    Attributes:
        threshold: units with a score above it stay; 1, unless a budget says otherwise.
        shut: names of sites that are closed for good, in training too.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: Graph,
        sites: list[Site],
        example: Any,
        multiple: int = 1,
        method: str = "vib",
    ) -> None:
        super().__init__()
        self.example = example
        self.model, self.multiple, self.method = model, multiple, method
        self.threshold = 1.0
        self.shut: frozenset[str] = frozenset()
        kind = METHODS[method]
        like = next((p for p in model.parameters() if p.is_floating_point()), None)
        self.gates = nn.ModuleDict({key(s.name): kind(s.size, like) for s in sites})
        self._draw = Draw()
        self.places = nn.ModuleList()
        self._wire(graph, sites)
        for module in (self, self.gates, *self.gates.values(), self.places, *self.places):
            module.training = model.training  # the model's own modules keep their modes

    def _wire(self, graph: Graph, sites: list[Site]) -> None:
        """Put the multiplications where the graph says, instead of those there are."""
        self.graph, self.sites, self.nesting = graph, sites, nesting(graph)
        starts = np.cumsum([0, *(s.size for s in sites)])
        self._columns = np.full(graph.total, starts[-1], dtype=np.int64)
        for site, start in zip(sites, starts, strict=False):
            self._columns[site.units] = np.arange(start, start + site.size)
        without_hooks(self.model)
        places = []
        late = np.zeros(graph.total, dtype=np.bool_)
        late[graph.late] = True
        like = next((p for p in self.model.parameters() if p.is_floating_point()), None)
        modules = dict(self.model.named_modules())
        for place in graph.places:
            columns = np.where(late == place.late, self._columns, starts[-1])
            if not (columns[place.units[place.units >= 0]] < starts[-1]).any():
                continue
            target = modules[place.module]
            picked = target.index.cpu().numpy() if isinstance(target, SelectedLinear) else None
            multiply = Multiply(place, columns, starts, self._draw, picked)
            places.append(multiply.to(like.device) if like is not None else multiply)
            if place.argument < 0:
                target.register_forward_hook(multiply.after)
            else:
                target.register_forward_pre_hook(multiply.before)
        self.places = nn.ModuleList(places)

    def rewire(self, graph: Graph) -> None:
        """Follow a cut that has been made in the model and the gates: this is the graph now."""
        sites = {s.name: s for s in graph.sites}
        mode = self.places.training
        self._wire(graph, [replace(sites[s.name], weight=s.weight) for s in self.sites])
        for module in (self.places, *self.places):
            module.training = mode

    def gate(self, site: str) -> Gate:
        """The gate of a site, by the site's name."""
        if key(site) not in self.gates:
            names = ", ".join(s.name for s in self.sites)
            raise ConfigError(f"there is no gate {site!r}. The gated sites are: {names}.")
        gate = self.gates[key(site)]
        assert isinstance(gate, Gate)
        return gate

    def all_gates(self) -> Iterator[tuple[Site, Gate]]:
        """Every gated site and its gate."""
        for site in self.sites:
            yield site, self.gate(site.name)

    def joined(self) -> Columns:
        """The columns of all gates, site after site: of VIB's, mu and log sigma^2."""
        return joined([gate for _, gate in self.all_gates()])

    def score(self) -> npt.NDArray[np.float64]:
        """How much every unit of the graph matters, infinite without a gate.

        With VIB's gates that is the signal-to-noise ratio.

        Raises:
            ConfigError: one of them is not a number.
        """
        score = np.full(self.graph.total, np.inf)
        for site, gate in self.all_gates():
            score[site.units] = gate.score().detach().double().cpu().numpy()
        if np.isnan(score).any():
            raise ConfigError("the score of a gate is not a number. Training diverged.")
        return score

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch has no types here
    def kept(self) -> Mask:
        """Which units of the graph stay: scores above the threshold, then the constraints."""
        wanted = self.score() > self.threshold
        for site in self.sites:
            wanted[site.units] &= site.name not in self.shut
        return self.legal(wanted)

    def open(self) -> None:
        """Multipliers of exactly one: the answers of the model without gates."""
        with torch.no_grad():
            for _, gate in self.all_gates():
                gate.mu.fill_(1.0)

    def settle(self, shut: Collection[str]) -> None:
        """Keep all units that there are now, whatever becomes of their scores.

        Args:
            shut: sites that are to be empty, of which one unit is left for want of a width of 0:
                it is zero from here on.
        """
        self.threshold, self.shut = -1.0, frozenset(shut)

    def legal(self, wanted: Mask) -> Mask:
        """The units that stay when some are wanted: the constraints, the floor, the multiple."""
        return fewest(self.graph, wanted, self.score(), self.multiple, self.nesting)

    def _means(self, kept: Mask) -> Tensor:
        """The mean of every unit's own gate, 0 for those that go, float64, shape ``(units,)``."""
        out = torch.ones(self.graph.total, dtype=torch.float64)
        for site, gate in self.all_gates():
            out[torch.as_tensor(site.units)] = gate.mu.detach().double().cpu()
        return out * torch.as_tensor(kept)

    def multipliers(self, kept: Mask) -> Tensor:
        """What evaluation multiplies every unit's readers with, float64, shape ``(units,)``.

        For a single feature that is its own mean times that of the unit it is nested in.
        """
        out = self._means(kept)
        children = torch.as_tensor(self.nesting.children)
        out[children] *= out[torch.as_tensor(self.nesting.parents)]
        return out

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch has no types here
    def _mean(self) -> tuple[Tensor, ...]:
        mu = self.joined()[0]
        order = torch.as_tensor(np.argsort(self._columns, kind="stable")[: len(mu)])
        values = self._means(self.kept())[order].to(mu)
        return self._parts(values[None])

    def _noise(self, examples: int) -> Tensor:
        mu = next(iter(self.gates.parameters()))
        units = sum(site.size for site in self.sites)
        return torch.randn(examples, units, dtype=mu.dtype, device=mu.device)

    def _sample(self, noise: Tensor) -> tuple[Tensor, ...]:
        z = METHODS[self.method].draw(self.joined(), noise)
        if METHODS[self.method].observes and z.requires_grad:
            z.register_hook(self._observe)  # type: ignore[no-untyped-call]  # torch has no types here
        return self._parts(z)

    def _observe(self, gradient: Tensor) -> None:
        """Show every gate that wants it the gradient of its multipliers."""
        sizes = [site.size for site in self.sites]
        for (_, gate), part in zip(self.all_gates(), torch.split(gradient, sizes, 1), strict=True):
            gate.observe(part)

    def _parts(self, z: Tensor) -> tuple[Tensor, ...]:
        sizes = [site.size for site in self.sites]
        parts = torch.split(z, sizes, 1)
        if self.shut:
            named = zip(self.sites, parts, strict=True)
            parts = tuple(torch.zeros_like(p) if s.name in self.shut else p for s, p in named)
        return (*parts, z.new_ones(1, 1).expand(len(z), 1))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own forward, with gates."""
        leaves = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.ndim]
        noise = self._noise(len(leaves[0])) if self.training else None
        self._draw.value = self._mean() if noise is None else self._sample(noise)
        try:
            output = self.model(*args, **kwargs)
        finally:
            self._draw.value = None
        if noise is not None and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            self._keep_for_recomputation(output, noise)
        return output

    def _keep_for_recomputation(self, output: Any, noise: Tensor) -> None:
        """Activation checkpointing runs gates again in the backward: give it the same noise.

        The multipliers are made anew each time, for every recomputed part has its own backward.
        """
        draw = self._draw

        def forget() -> None:
            draw.again = None

        def again(grad: Tensor) -> Tensor:
            if draw.again is None:
                torch.autograd.Variable._execution_engine.queue_callback(forget)
            draw.again = lambda: self._sample(noise)
            return grad

        values = output.to_tuple() if hasattr(output, "to_tuple") else output
        for leaf in tree_leaves(values):
            if isinstance(leaf, Tensor) and leaf.requires_grad:
                leaf.register_hook(again)  # type: ignore[no-untyped-call]  # torch has no types here
