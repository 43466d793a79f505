"""What of a forward's outputs depends on its inputs when some layers have become constants."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from vibnet.graph.capture.memory import storage
from vibnet.graph.capture.trace import Trace

SHAPES = {  # operators that take of a tensor its shape alone
    *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"),
    *("randint_like", "new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided"),
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
        inputs: its tensors.
        outputs: its tensors that depend on the inputs.
    """

    readers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    inputs: tuple[Place, ...] = ()
    outputs: tuple[Place, ...] = ()

    def layers(self, sites: Collection[str]) -> tuple[str, ...]:
        """The layers that become constants when these sites are empty."""
        return tuple(dict.fromkeys(r for site in sites for r in self.readers[site]))

    def reached(self, empty: Collection[str]) -> list[Place]:
        """The outputs that depend on an input when sites have no unit left."""
        constant = set(self.layers(empty))
        found = {x for x, _ in self.inputs}
        written: set[int] = set()  # memory that something was written into which does

        def depends(places: Sequence[Place]) -> bool:
            return any(x in found or memory in written for x, memory in places)

        for step in self.steps:
            if step.module not in constant and depends(step.given):
                found.update(x for x, _ in step.made)
                written.update(memory for _, memory in step.made if step.writes)
        return [place for place in self.outputs if depends([place])]

    def answers(self, empty: Collection[str]) -> bool:
        """Whether every output still depends on an input when sites have no unit left."""
        return len(self.reached(empty)) == len(self.outputs)


NO_BRANCHES = Branches()


def paths(trace: Trace) -> Branches:
    """What a forward in evaluation mode does, and its outputs that depend on its inputs."""
    steps = tuple(
        Step(
            () if call.op in SHAPES else _places(call.given),
            _places(call.results),
            call.writes,
            call.module,
        )
        for call in trace.calls
    )
    inputs = _places(trace.inputs)
    outputs = Branches({}, steps, inputs, _places(trace.outputs)).reached(())
    return Branches({}, steps, inputs, tuple(outputs))


def _places(tensors: Sequence[Tensor]) -> tuple[Place, ...]:
    return tuple((id(x), storage(x)) for x in tensors)
