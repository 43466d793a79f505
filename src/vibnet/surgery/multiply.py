"""The multiplications of a gated model: one draw per forward, taken at every place."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vibnet.errors import ConfigError
from vibnet.graph.sites.places import Place
from vibnet.layers import SelectedLinear


def _itself(x: Tensor) -> Tensor:
    return x


class Draw:
    """The multipliers of the forward under way; a copy of a model starts without one.

    A tensor per site, of shape ``(examples or 1, units)``, and at the end a column of ones.
    """

    def __init__(self) -> None:
        self.value: tuple[Tensor, ...] | None = None
        self.again: Callable[[], tuple[Tensor, ...]] | None = None

    def multipliers(self) -> tuple[Tensor, ...]:
        """Those of the forward under way, or of the one that a backward recomputes."""
        if self.value is not None:
            return self.value
        if self.again is not None:
            # Out of sight of a checkpoint that counts what its part saves for the backward.
            with torch.autograd.graph.saved_tensors_hooks(_itself, _itself):
                return self.again()
        raise ConfigError(
            "a gate was reached outside a forward of its gated model. Call the gated model, "
            "not the model inside it."
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> "Draw":
        return Draw()

    def __reduce__(self) -> tuple[type["Draw"], tuple[()]]:
        return Draw, ()


class Multiply(nn.Module):
    """Multiplies one dimension of what a module reads (or gives) by the draw of its units.

    `parts` says which parts of the draw it takes, `columns` for every position which entry of
    those. Where every entry stands for `times` positions in a row, no index is needed. In front of
    a layer that picks some features (`picked`, their positions), only those are multiplied.
    """

    columns: Tensor

    def __init__(
        self,
        place: Place,
        column_of_unit: np.ndarray,
        starts: np.ndarray,
        draw: Draw,
        picked: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        columns = np.where(place.units < 0, starts[-1], column_of_unit[place.units])
        self.given = len(columns)
        columns = columns if picked is None else columns[picked]
        parts, which = np.unique(
            np.searchsorted(starts, columns, side="right") - 1, return_inverse=True
        )
        sizes = np.append(np.diff(starts), 1)[parts]
        columns = columns - (starts[parts] - (np.cumsum(sizes) - sizes))[which]
        times, rest = divmod(len(columns), int(sizes.sum()))
        in_rows = not rest and bool((columns == np.repeat(np.arange(sizes.sum()), times)).all())
        self.parts, self.times = parts.tolist(), times if in_rows else 0
        self.register_buffer("columns", torch.as_tensor(columns), persistent=False)
        self.dim, self.rank, self.repeat = place.dim, place.rank, place.repeat
        self.argument = place.argument
        self.at, self.draw = place.module, draw

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as x, every unit multiplied by its draw.

        Raises:
            ConfigError: x is not laid out as it was in the example.
        """
        self._fits(x, len(self.columns))
        drawn = self.draw.multipliers()
        parts = [drawn[k] for k in self.parts]
        z = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        if self.times > 1:
            z = z.repeat_interleave(self.times, 1)
        elif not self.times:
            z = z.index_select(1, self.columns)
        if len(z) > 1 and len(x) != len(z):
            if self.repeat == 1 or len(x) % len(z):
                self._misfit(x, f"{self.repeat} rows for each of {len(z)} examples")
            z = z.repeat_interleave(len(x) // len(z), 0)
        shape = [1] * x.ndim
        shape[self.dim], shape[0] = z.shape[1], len(z)
        return x * z.reshape(shape).to(x.dtype)

    def _fits(self, x: Tensor, width: int) -> None:
        if x.ndim != self.rank or x.shape[self.dim] != width:
            self._misfit(x, f"{width} units in dimension {self.dim} of {self.rank}")

    def _misfit(self, x: Tensor, wanted: str) -> None:
        what = "output" if self.argument < 0 else f"input {self.argument}"
        raise ConfigError(
            f"the gate at {what} of {self.at or 'the model itself'} was made for {wanted}, but "
            f"gets a tensor of shape {tuple(x.shape)}. Call the model with tensors laid out as in "
            f"the example that attach was given, examples first, or attach again."
        )

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """A forward pre-hook."""
        if isinstance(module, SelectedLinear):
            if len(args) == 1:  # else another gate in front of it has picked
                self._fits(args[0], self.given)
            return self(args[0] if len(args) > 1 else module.pick(args[0])), True
        return (*args[: self.argument], self(args[self.argument]), *args[self.argument + 1 :])

    def after(self, _module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        """A forward hook."""
        result: Tensor = self(output)
        return result


def is_ours(hook: Any) -> bool:
    """Whether a hook is one of a gated model."""
    return isinstance(getattr(hook, "__self__", None), Multiply)


def without_hooks(model: nn.Module) -> nn.Module:
    """The model, without the hooks of a gated model."""
    for module in model.modules():
        for table in (module._forward_pre_hooks, module._forward_hooks):
            for number in [k for k, hook in table.items() if is_ours(hook)]:
                del table[number]
    return model
