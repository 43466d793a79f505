"""What of a forward's outputs depends on its inputs when some layers have become constants."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vibnet.graph.capture.memory import storage
from vibnet.graph.capture.trace import Trace

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

    What is true or false says where to look, not what is there: it depends on nothing. Nor do
    whole numbers count that nothing is looked up by, unless the model is given no others.
    """
    steps = tuple(
        Step(
            () if call.op in SHAPES else _places(x for x in call.given if x.dtype != torch.bool),
            _places(x for x in call.results if x.dtype != torch.bool),
            call.writes,
            call.module,
        )
        for call in trace.calls
    )
    numbers = [x for x in trace.inputs if x.dtype != torch.bool]
    asked = [x for x in numbers if x.is_floating_point()]
    whole = Branches({}, steps, _places(x for x in numbers if not x.is_floating_point()))
    keys = [x for c in trace.calls if c.op in LOOKUPS for x in c.given if not x.is_floating_point()]
    used = 0
    for bits in whole.reached((), _places(keys)):
        used |= bits
    inputs = _places(asked) + tuple(x for n, x in enumerate(whole.inputs) if used >> n & 1)
    every = Branches({}, steps, inputs or whole.inputs)
    places = _places(trace.outputs)
    found = zip(places, every.reached((), places), strict=True)
    return Branches({}, steps, every.inputs, tuple((p, bits) for p, bits in found if bits))


def _places(tensors: Iterable[Tensor]) -> tuple[Place, ...]:
    return tuple((id(x), storage(x)) for x in tensors)
