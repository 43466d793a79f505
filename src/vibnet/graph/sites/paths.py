"""What of a forward's outputs depends on its inputs when some layers have become constants."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vibnet.graph.capture.memory import storage
from vibnet.graph.capture.trace import Call, Trace

SHAPES = {  # operators that take of a tensor its shape alone
    *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"),
    *("randint_like", "new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided"),
}
LOOKUPS = {  # operators that look up by whole numbers
    *("embedding", "_embedding_bag", "index", "index_select", "gather", "take", "take_along_dim"),
    *("scatter", "index_put", "index_add", "index_copy", "scatter_add", "one_hot"),
}
Place = tuple[int, int]  # of a tensor: its identity, and the memory that it lies in


@dataclass(frozen=True)
class Step:
    """A call: the tensors that it is given and those that it makes, whether it writes, its module.

    What is taken for its shape alone is not among those given.
    """

    given: tuple[Place, ...]
    made: tuple[Place, ...]
    writes: bool
    module: str


@dataclass(frozen=True)
class Branches:
    """The sites that may lose all their units.

    Attributes:
        readers: the layers that read them, by site.
        steps: what a forward does.
        inputs: its tensors that hold what the model is asked about, not masks.
        outputs: its tensors that depend on some of these, with a bit for each of those.
    """

    readers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    inputs: tuple[Place, ...] = ()
    outputs: tuple[tuple[Place, int], ...] = ()

    def layers(self, sites: Collection[str]) -> tuple[str, ...]:
        """The layers that become constants when these sites are empty."""
        return tuple(dict.fromkeys(r for site in sites for r in self.readers[site]))

    def reached(self, empty: Collection[str], places: Sequence[Place]) -> list[int]:
        """The inputs that tensors depend on, a bit for each, when sites have no unit left."""
        constant = set(self.layers(empty))
        found = {x: 1 << number for number, (x, _) in enumerate(self.inputs)}
        written: dict[int, int] = {}  # what was written into memory depends on them

        def depends(places: Sequence[Place]) -> int:
            bits = 0
            for x, memory in places:
                bits |= found.get(x, 0) | written.get(memory, 0)
            return bits

        for step in self.steps:
            if step.module in constant or not (bits := depends(step.given)):
                continue
            for x, memory in step.made:
                found[x] = found.get(x, 0) | bits
                if step.writes:
                    written[memory] = written.get(memory, 0) | bits
        return [depends([place]) for place in places]

    def answers(self, empty: Collection[str]) -> bool:
        """Whether every output depends on all inputs it did when sites have no unit left."""
        left = self.reached(empty, [place for place, _ in self.outputs])
        return left == [bits for _, bits in self.outputs]


NO_BRANCHES = Branches()


def paths(trace: Trace) -> Branches:
    """What a forward in evaluation mode does, and its outputs that depend on its inputs.

    What is true or false says where to look, not what is there: it depends on nothing, unless it
    tells which of several numbers one is. Nor do whole numbers count that nothing is looked up by,
    unless the model is given no others.
    """
    steps, chosen = [], set[int]()
    for call in trace.calls:
        given = [] if call.op in SHAPES else [x for x in call.given if _counts(x, chosen)]
        if _names(call) or any(id(x) in chosen for x in given):
            chosen.update(id(x) for x in call.results)
        made = [x for x in call.results if _counts(x, chosen)]
        steps.append(Step(_places(given), _places(made), call.writes, call.module))
    numbers = [x for x in trace.inputs if x.dtype != torch.bool]
    asked = [x for x in numbers if x.is_floating_point()]
    whole = Branches({}, tuple(steps), _places(x for x in numbers if not x.is_floating_point()))
    looking = [c for c in trace.calls if c.op.removesuffix("_") in LOOKUPS or _names(c)]
    keys = [x for call in looking for x in call.given if not x.is_floating_point()]
    used = 0
    for bits in whole.reached((), _places(keys)):
        used |= bits
    inputs = _places(asked) + tuple(x for n, x in enumerate(whole.inputs) if used >> n & 1)
    every = Branches({}, tuple(steps), inputs or whole.inputs)
    places = _places(trace.outputs)
    found = zip(places, every.reached((), places), strict=True)
    return Branches({}, tuple(steps), every.inputs, tuple((p, bits) for p, bits in found if bits))


def _names(call: Call) -> bool:
    """Whether a call tells which of several numbers one is, as for a one in its place."""
    return call.op == "eq" and len(call.given) == 2


def _counts(x: Tensor, chosen: set[int]) -> bool:
    """Whether what depends on a tensor depends on what that one does."""
    return x.dtype != torch.bool or id(x) in chosen


def _places(tensors: Iterable[Tensor]) -> tuple[Place, ...]:
    return tuple((id(x), storage(x)) for x in tensors)
