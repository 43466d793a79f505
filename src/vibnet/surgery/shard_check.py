"""Verify cut files layer by layer: no more than the weights of one operation are in memory."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from vibnet.errors import ConfigError, VerificationError
from vibnet.graph.capture.example import arguments
from vibnet.graph.sites.constraints import Mask
from vibnet.graph.sites.following import by_weight
from vibnet.graph.sites.structure import Graph
from vibnet.graph.trial.cut import remaining
from vibnet.graph.trial.outputs import Output
from vibnet.surgery.fold import shut
from vibnet.surgery.layerwise import Layers, Layerwise, forward
from vibnet.surgery.loading import filled
from vibnet.surgery.prune import Report, exact_part, smaller
from vibnet.surgery.stored import SOME, Stored, bare, doubled, empty, hollow, unfilled, wide
from vibnet.surgery.verify import difference

Places = Mapping[str, tuple[Path, str]]


class Check:
    """The whole model of some files, beside the small one of files that were cut from them.

    Made before the cut, it runs the whole model; `verified` then runs the small one.
    """

    def __init__(
        self,
        model: nn.Module,
        inner: nn.Module,
        graph: Graph,
        kept: Mask,
        places: Places,
        listed: list[Output],
        example: Any,
    ) -> None:
        """Run the whole model.

        Args:
            model: as given; the small one is put into a copy of it.
            inner: with its attentions replaced, where that was asked for.
            graph: of that.
            kept: the units that stay.
            places: the file of every tensor of the whole model, and its name there.
            listed: what its modules give on the example.
            example: what the model is called with.

        Raises:
            ConfigError: the example, or a tensor that no file holds, is on the meta device.
            CaptureError: the model does not run in double precision.
        """
        self.model, self.inner, self.places = model, inner, places
        self.graph, self.kept, self.exact = graph, kept, exact_part(graph, kept)
        self.norms = by_weight(graph.norms)
        self.used: dict[str, set[str]] = {name: set() for name, _ in inner.named_parameters()}
        if any(isinstance(x, Tensor) and x.is_meta for x in tree_leaves(arguments(example))):
            raise ConfigError(
                "prune_files: the example is on the meta device, so nothing can be verified on it. "
                "Pass one with numbers, or leave verify out."
            )
        self.lost = _lost(model)
        self.layers = Layerwise(listed, self.exact)
        self.layers.remember(self._whole, example)

    def verified(self, report: Report, body: dict[str, Any], files: Sequence[Path]) -> Report:
        """The report of a cut, with what was verified.

        Args:
            report: that says so far that nothing was.
            body: what the folder says of the small model.
            files: that were written.

        Raises:
            VerificationError: the small model computes something else.
        """
        written: dict[str, Path] = {}
        for path in files:
            with safe_open(path, "pt") as held:
                written.update(dict.fromkeys(held.offset_keys(), path))
        same, moved = bool((self.exact == self.kept).all()), None

        def small() -> nn.Module:
            return self._small(written, body)

        gap = self.layers.compare(small if same else self._exact)
        if not same:
            inputs = [record.example for record in self.layers.records]
            moved = max(
                difference(*(forward(m(), x) for m in (self._exact, small))) for x in inputs
            )
        parts = [name for name, used in self.used.items() if not same or used <= SOME]
        for name in (*parts, *(k for k, _ in self.inner.named_buffers() if k in self.places)):
            self._equal(name, written[name])
        apart = self.layers.apart
        names = tuple(name for name in self.layers.outputs if name and name not in apart)
        layers = Layers(names, tuple(parts), tuple(apart.items())) if gap is not None else None
        return replace(report, difference=gap, moved=moved, layers=layers)

    def _source(self, name: str) -> Tensor:
        """A tensor of the whole model, in the type of its file; weights of norms are finer."""
        path, key = self.places[name]
        with safe_open(path, "pt") as held:
            value: Tensor = held.get_tensor(key)
        return value.to(wide(value.dtype)) if name in self.norms else value

    def _built(self, model: nn.Module, read: Callable[[str], Tensor]) -> nn.Module:
        """A copy of a model with parameters that stay in the files of the whole one."""
        stored: dict[str, Tensor] = {
            name: Stored.of(tuple(p.shape), p.dtype, partial(read, name), self.used[name])
            for name, p in model.named_parameters()
        }
        stored |= {name: read(name) for name, _ in model.named_buffers() if name in self.places}
        return doubled(_grounded(bare(model, stored), self.lost)).eval()

    def _whole(self) -> nn.Module:
        """The whole model, which ignores the units that go."""
        return self._built(
            self.inner, lambda name: shut(self._source(name), name, self.graph, self.kept)
        )

    def _exact(self) -> nn.Module:
        """The small model with those units, as zeros, that others would feel the lack of."""

        def read(name: str) -> Tensor:
            value = shut(self._source(name), name, self.graph, self.kept)
            return remaining(value, name, self.graph, self.exact)

        model, _ = smaller(hollow(self.inner), self.graph, self.exact, None)
        return self._built(model, read)

    def _small(self, written: Mapping[str, Path], body: dict[str, Any]) -> nn.Module:
        """The small model, as `vibnet.load` makes it."""
        held = {name for name, _ in self.inner.named_buffers()}
        tensors = {
            name: self._written(name, path) if name in held else self._stored(name, path)
            for name, path in written.items()
        }
        model = _grounded(hollow(self.model), self.lost)
        folder = next(iter(written.values())).parent
        return doubled(filled(model, body, folder, lambda *_: tensors)).eval()

    def _stored(self, name: str, path: Path) -> Tensor:
        with safe_open(path, "pt") as held:
            shape = tuple(held.get_slice(name).get_shape())
        return Stored.of(shape, torch.float64, partial(self._written, name, path))

    def _written(self, name: str, path: Path) -> Tensor:
        """A tensor of the small model; a norm's weight before it was rounded."""
        with safe_open(path, "pt") as held:
            value: Tensor = held.get_tensor(name)
        if name not in self.norms:
            return value
        exact = remaining(self._source(name), name, self.graph, self.kept)
        return torch.where(exact.to(value.dtype) == value, exact, value.to(exact.dtype))

    def _equal(self, name: str, path: Path) -> None:
        """Refuse a tensor that is not what the plan leaves of the whole model's.

        Raises:
            VerificationError: it is not.
        """
        found = self._written(name, path)
        exact = remaining(self._source(name), name, self.graph, self.kept)
        alike = found.shape == exact.shape
        if not alike or not bool(((found == exact) | (found.isnan() & exact.isnan())).all()):
            raise VerificationError(
                f"the small model computes something else: {name} is not what the plan leaves of "
                f"the whole model's. Nothing of it was left. Please report the model."
            )


def _lost(model: nn.Module) -> dict[str, Tensor]:
    """Tensors on the meta device that no file holds, with numbers, where their class makes them.

    Raises:
        ConfigError: it does not.
    """
    names = unfilled(model, model.state_dict().keys())
    if not names:
        return {}
    found: dict[str, Tensor] = {}
    if callable(getattr(model, "save_pretrained", None)):  # of transformers
        with empty():
            twin = type(model)(copy.deepcopy(model.config))
        for name in names:
            table, leaf = _table(twin, name)
            if (value := table.get(leaf)) is not None and not value.is_meta:
                found[name] = value
    if missing := [name for name in names if name not in found]:
        raise ConfigError(
            f"prune_files: to verify the cut, {', '.join(missing[:3])} of this "
            f"{type(model).__name__} must have numbers, but they are on the meta device and no "
            f"file holds them. Make the model with its parameters alone on the meta device, or "
            f"leave verify out."
        )
    return found


def _table(model: nn.Module, name: str) -> tuple[dict[str, Any], str]:
    """Where a module holds a tensor that is no parameter."""
    prefix, _, leaf = name.rpartition(".")
    owner = model.get_submodule(prefix)
    return (owner._buffers if leaf in owner._buffers else vars(owner)), leaf


def _grounded(model: nn.Module, lost: Mapping[str, Tensor]) -> nn.Module:
    """A model with these tensors, in place."""
    for name, value in lost.items():
        table, leaf = _table(model, name)
        table[leaf] = value.clone()
    return model
