"""Where tensors lie in memory: views share it, and ``x.data = y`` moves a tensor without a call."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def storage(x: Tensor) -> int:
    """The memory that a tensor lies in, by number: views share it."""
    return int(x.untyped_storage()._cdata)


class Memory:
    """Where the tensors of a forward lay when they were first seen, and who gave them."""

    def __init__(self) -> None:
        self._first: dict[int, tuple[Tensor, int, Any]] = {}

    def note(self, given: Iterable[Tensor], who: Any) -> None:
        """Remember where tensors lie that were not seen before; they are kept."""
        for x in given:
            if id(x) not in self._first and x.layout == torch.strided:
                self._first[id(x)] = x, storage(x), who

    def moved(self) -> list[tuple[Tensor, Any]]:
        """The tensors that lie elsewhere now, those that they lie with, and who gave them."""
        now = [(x, was, storage(x), who) for x, was, who in self._first.values()]
        taken = {at for _, was, at, _ in now if was != at}
        return [(x, who) for x, _, at, who in now if at in taken]
