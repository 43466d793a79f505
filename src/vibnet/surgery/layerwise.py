"""Two models side by side, module by module, in double precision and without their weights.

The whole model runs once on every input, with zeros where the units that go are read. What its
modules give is remembered, at the positions that stay. Then the small model runs, and whatever a
module of it gives must be that.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from vibnet.errors import CaptureError, VerificationError
from vibnet.graph.capture.capture import place_of, quiet
from vibnet.graph.capture.example import arguments, tensors
from vibnet.graph.sites.constraints import Mask
from vibnet.graph.trial.outputs import Output
from vibnet.surgery.stored import double, wide
from vibnet.surgery.verify import differences, shuffled

EXACT = 1e-10  # of the scale of what a module gives
LARGEST = 1e-3  # of the largest number so far: what is smaller may be rounding of that
ANSWERS = "the model itself"
FEW = 4  # names that a line shows
Seen = Callable[[int, str, list[Tensor]], None]
Build = Callable[[], nn.Module]


@dataclass(frozen=True)
class Layers:
    """What was compared of files that were verified layer by layer.

    Attributes:
        outputs: modules that gave the same, at the positions that stay.
        parts: parameters of which the example uses some rows at most: their numbers were compared.
        apart: modules that were compared only as a part of what holds them, with the reason.
    """

    outputs: tuple[str, ...]
    parts: tuple[str, ...] = ()
    apart: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"verified layer by layer: outputs of {len(self.outputs)} modules"

    @property
    def lines(self) -> list[str]:
        """What a report says beside that."""
        out = []
        if self.parts:
            out.append(
                f"compared number by number, for the example uses some rows or none: "
                f"{_listed(self.parts)}"
            )
        for why in dict.fromkeys(reason for _, reason in self.apart):
            names = [name for name, reason in self.apart if reason == why]
            out.append(f"compared only as a part of what holds it: {_listed(names)} ({why})")
        return out


def _listed(names: Sequence[str]) -> str:
    """Names, or the first of many."""
    more = f", ... ({len(names)})" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + more


@dataclass
class _Record:
    """What the whole model gave for one input: by call and tensor, and its answers; with scales."""

    example: Any
    given: dict[tuple[int, int], tuple[Tensor, float]]
    answers: list[tuple[Tensor, float]]


class Layerwise:
    """Remembers what the whole model's modules give, and compares the small model's.

    `apart` says which modules could not be compared, and why.
    """

    def __init__(self, found: list[Output], kept: Mask) -> None:
        self.kept, self.known = kept, found
        self.at: dict[int, list[Output]] = defaultdict(list)
        for output in found:
            self.at[output.call].append(output)
        self.apart: dict[str, str] = {}
        self.outputs: dict[str, None] = {}
        self.records: list[_Record] = []

    def remember(self, build: Build, example: Any) -> None:
        """Run the whole model on an example, and on one with its numbers in another order.

        Raises:
            CaptureError: it does not run in double precision.
        """
        try:
            self.records = [self._remember(build(), example)]
        except Exception as error:
            raise CaptureError(
                f"prune_files: the model does not run in double precision, in which layers are "
                f"compared: {error} (at {place_of(error)}). Leave verify out; the report then says "
                f'"not verified".'
            ) from error
        if (other := shuffled(example)) is not None:
            try:
                self.records.append(self._remember(build(), other))
            except Exception:  # the model takes no such input: then without it
                return

    def _remember(self, model: nn.Module, example: Any) -> _Record:
        record, largest = _Record(example, {}, []), 0.0

        def scaled(x: Tensor) -> tuple[Tensor, float]:
            nonlocal largest
            size = _size(x)
            largest = max(largest, size)
            return x, max(size, LARGEST * largest)

        def seen(call: int, module: str, found: list[Tensor]) -> None:
            for output in self.at[call]:
                x = found[output.leaf] if output.leaf < len(found) else None
                if x is None or output.module != module or x.shape != output.shape:
                    way = "its forward takes another way with numbers than without"
                    self.apart.setdefault(output.module, way)
                elif output.reason:
                    self.apart.setdefault(module, output.reason)
                else:
                    record.given[call, output.leaf] = scaled(_taken(x, output.stay(self.kept)))

        record.answers = [scaled(x) for x in forward(model, example, seen)]
        return record

    def compare(self, build: Build) -> float | None:
        """How far what a small model's modules give is from what it should be.

        Returns:
            The largest difference as a part of a tensor's scale, or None where the answers are the
            same whatever the input.

        Raises:
            VerificationError: further than 1e-10.
        """
        gaps = [self._compare(build(), record) for record in self.records]
        answers = [[x for x, _ in record.answers] for record in self.records]
        if len(answers) == 2 and not any(differences(*answers)):
            return None
        if not any(x.numel() for given in answers for x in given):
            return None  # an example without numbers shows nothing
        return max(gaps)

    def _compare(self, model: nn.Module, record: _Record) -> float:
        worst = 0.0

        def seen(call: int, module: str, found: list[Tensor]) -> None:
            nonlocal worst
            for output in self.at[call]:
                held = record.given.pop((call, output.leaf), None)
                if held is None or output.module in self.apart:
                    continue
                x = found[output.leaf] if output.leaf < len(found) else torch.empty(0)
                worst = max(worst, _gap(module or ANSWERS, *held, x))
                self.outputs[module] = None

        try:
            answers = forward(model, record.example, seen)
        except VerificationError:
            raise
        except Exception as error:
            raise VerificationError(
                f"the small model does not run: {error} (at {place_of(error)}). Nothing of it was "
                f"left. Please report the model."
            ) from error
        for held, new in zip(record.answers, answers, strict=True):
            worst = max(worst, _gap(ANSWERS, *held, new))
        return worst


def _taken(x: Tensor, stay: list[Any]) -> Tensor:
    """A copy of the positions that stay."""
    out = _numbers(x)
    for dim, index in enumerate(stay):
        if len(index) != x.shape[dim]:
            out = out.index_select(dim, torch.as_tensor(index))
    return out.clone() if out.data_ptr() == x.data_ptr() else out


def _numbers(x: Tensor) -> Tensor:
    """A tensor as floating point numbers, whatever it holds."""
    return x.detach() if x.is_complex() else x.detach().double()


def _size(x: Tensor) -> float:
    finite = x[x.isfinite()]
    return float(finite.abs().max()) if len(finite) else 0.0


def _gap(module: str, old: Tensor, scale: float, new: Tensor) -> float:
    """How far apart two tensors are, as a part of the scale.

    Raises:
        VerificationError: too far.
    """
    (gap,) = differences([old], [_numbers(new)])
    if not gap <= EXACT * scale:
        what = f"moved by {gap / max(scale, 1e-30):.1e} of their scale, {EXACT:.0e} is allowed"
        if gap == math.inf and new.shape == old.shape:
            what = "are no finite numbers where the whole model's are, or the other way round"
        elif gap == math.inf:
            what = f"have shape {tuple(new.shape)} instead of {tuple(old.shape)}"
        raise VerificationError(
            f"the small model computes something else: outputs of {module} {what}. Nothing of it "
            f"was left. Please report the model."
        )
    return gap / scale if gap else 0.0


def _unseen(_call: int, _module: str, _found: list[Tensor]) -> None:
    """Takes no notice."""


def forward(model: nn.Module, example: Any, seen: Seen = _unseen) -> list[Tensor]:
    """The answers of a model in double precision; `seen` is told what every module gives."""
    count, stack = 0, list[int]()

    def given(x: Any) -> Any:
        return x.detach().to("cpu", wide(x.dtype)).clone() if isinstance(x, Tensor) else x

    def enter(_module: nn.Module, _args: Any) -> None:
        nonlocal count
        stack.append(count)
        count += 1

    def leave(name: str) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            seen(stack.pop(), name, [x for x in tree_leaves(output) if isinstance(x, Tensor)])

        return hook

    args, kwargs = tree_map(given, arguments(example))
    for name, module in model.named_modules():
        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave(name))
    with ExitStack() as stacked:
        stacked.enter_context(quiet())
        stacked.enter_context(double())
        stacked.enter_context(torch.no_grad())
        output = model(*args, **kwargs)
    return [_numbers(x) for x in tensors(output)]
