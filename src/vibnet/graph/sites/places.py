"""Where a gate can stand so that it multiplies exactly what a reader reads."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.utils._pytree import tree_leaves

from vibnet.graph.capture.trace import Call, Trace
from vibnet.graph.labels.events import Read
from vibnet.graph.labels.labeller import Dims, Labeller
from vibnet.graph.labels.labels import Array

KEEPS_ELEMENTS = {
    *("view", "_unsafe_view", "reshape", "_reshape_alias", "permute", "transpose", "t", "alias"),
    *("unsqueeze", "squeeze", "detach", "clone", "contiguous", "_to_copy", "expand"),
}
PADS = {  # what repeats positions of space, channel by channel
    *("reflection_pad1d", "reflection_pad2d", "reflection_pad3d"),
    *("replication_pad1d", "replication_pad2d", "replication_pad3d"),
}


@dataclass(frozen=True)
class Place:
    """The input (`argument` >= 0) or the output (-1) of a module, and the dimension to multiply.

    `units` holds the label class of every position, `rank` is how many dimensions the tensor has,
    `repeat` how many rows an example has in it. Those units are multiplied that close where they
    are written (`late`), or the others.
    """

    module: str
    argument: int
    dim: int
    units: Array
    rank: int
    repeat: int
    late: bool = False


class Flow:
    """Who uses which tensor in one trace."""

    def __init__(self, trace: Trace, reads: Iterable[Read]) -> None:
        self.trace = trace
        self.reads = {(r.call, id(r.source)): r for r in reads}
        self.users: dict[int, list[int]] = defaultdict(list)
        self.maker: dict[int, int] = {}
        self.final = {id(x) for x in trace.outputs}
        for k, call in enumerate(trace.calls):
            for x in {id(x) for x in call.given}:
                self.users[x].append(k)
            if isinstance(call.out, Tensor):
                self.maker.setdefault(id(call.out), k)
        self.held: dict[int, set[str]] = defaultdict(set)
        for name, kept in trace.held:
            for step in self.chain(kept) if id(kept) in self.maker else ():
                self.held[id(step)].add(name)
        self.output_of: dict[int, int] = {}
        for k, module in enumerate(trace.modules):
            if isinstance(module.output, Tensor):
                self.output_of[id(module.output)] = k

    def chain(self, x: Tensor, padded: bool = False) -> list[Tensor]:
        """A tensor and what it is a view of, back to where it was computed.

        With `padded`, also what a padding repeats, which a multiplier goes through.
        """
        out = [x]
        while (k := self.maker.get(id(out[-1]))) is not None:
            call = self.trace.calls[k]
            if call.op not in KEEPS_ELEMENTS and not (padded and _pads(call)):
                break
            out.append(call.args[0])
        return out

    def own_output(self, made: Tensor, inside: int) -> Tensor | None:
        """The output of a module call that is this tensor, unchanged, with no other use by it.

        `inside` is the number of the module's call.
        """
        x = self.trace.modules[inside].output
        chain = self.chain(x) if isinstance(x, Tensor) else []
        at = next((k for k, step in enumerate(chain) if step is made), -1)
        if at < 0:
            return None
        makers = {self.maker[id(step)] for step in chain[:at]}
        used = {k for step in chain[: at + 1] for k in self.users[id(step)]} - makers
        used &= self.trace.live
        alone = all(inside not in self.trace.calls[k].stack for k in used)
        return chain[0] if alone and not self.keeps(made, inside) else None

    def keeps(self, x: Tensor, inside: int) -> bool:
        """Whether a module, called by number, holds a tensor or a view of it after the forward.

        Others that find it there do not see what a gate in front of the module, or behind it, does.
        """
        name = self.trace.modules[inside].name
        return any(f"{owner}.".startswith(f"{name}." if name else "") for owner in self.held[id(x)])

    def maker_of(self, x: Tensor) -> str:
        """The operator that made a tensor."""
        return self.trace.calls[self.maker[id(x)]].op

    def own_inputs(self, read: Read) -> Iterator[tuple[str, int, Tensor]]:
        """The inputs of a read's module that it reads, unchanged, and uses for nothing else.

        Not one that the module is given twice: a gate would stand before one of them only.
        """
        stack = self.trace.calls[read.call].stack
        if not stack:
            return
        module = self.trace.modules[stack[-1]]
        for x in self.chain(read.source, padded=True):
            for argument, value in enumerate(module.inputs):
                given_back = any(x is y for y in tree_leaves(module.output))
                if (
                    value is x
                    and module.once(x)
                    and not given_back
                    and not self.keeps(x, stack[-1])
                    and self.only_read(x, stack[-1])
                ):
                    yield module.name, argument, x

    def only_read(self, x: Tensor, inside: int | None, own: bool = True) -> list[Read] | None:
        """The reads that all uses of a tensor come to, or None where there is another use.

        With `inside`, the number of a module's call, the uses in there; those elsewhere do not
        count if the tensor is the module's `own` input, and are others if it is a view of that.
        Nor does what no output depends on, unless it is a read.
        """
        if inside is None and id(x) in self.final:
            return None
        found: list[Read] = []
        for k in self.users[id(x)]:
            call = self.trace.calls[k]
            if inside is not None and inside not in call.stack:
                if own:
                    continue
                return None
            read = self.reads.get((k, id(x)))
            if read is not None:
                if inside is not None and call.stack[-1] != inside:
                    return None
                found.append(read)
                continue
            further = None
            if call.op in KEEPS_ELEMENTS or _pads(call):
                further = self.only_read(call.out, inside, own=False)
            if further is not None:
                found.extend(further)
            elif k in self.trace.live:
                return None
        return found


def _pads(call: Call) -> bool:
    """Whether a call pads with what is there, or with zeros."""
    zeros = call.op == "constant_pad_nd" and not any(call.args[2:3])
    return zeros or call.op in PADS


def rows(dims: Dims) -> int | None:
    """How many rows every example has in a tensor, if its first dimension counts examples."""
    batch = dims[0][1]
    examples = int(batch.max(initial=0))
    if not examples or any(d[1].any() for d in dims[1:]):
        return None
    repeat = len(batch) // examples
    whole = np.array_equal(batch, np.repeat(np.arange(1, examples + 1), repeat))
    return repeat if whole else None


def laid_out(dims: Dims, roots: Array, module: str, argument: int, every: Array) -> Place | None:
    """The place at a tensor, if its units lie along one dimension and examples come first.

    `every` holds the classes of all units; the place multiplies those in `roots` only.
    """
    carrying = [k for k, dim in enumerate(dims) if roots[dim[0]].any()]
    repeat = rows(dims)
    if len(carrying) != 1 or repeat is None:
        return None
    units = every[dims[carrying[0]][0]]
    return Place(module, argument, carrying[0], units, len(dims), repeat)


def _own_input(
    flow: Flow, read: Read, dims: dict[int, Dims], roots: Array, every: Array
) -> Place | None:
    for module, argument, x in flow.own_inputs(read):
        return laid_out(dims[id(x)], roots, module, argument, every)
    return None


def scattered(engine: Labeller, traces: Sequence[Trace]) -> set[tuple[int, int]]:
    """Reads of modules' own inputs that do not have one example after the other."""
    out: set[tuple[int, int]] = set()
    for number, trace in enumerate(traces):
        reads = [r for r in engine.reads if r.trace == number]
        flow, dims = Flow(trace, reads), engine.dims_of[number]
        for read in reads:
            if any(rows(dims[id(x)]) is None for *_, x in flow.own_inputs(read)):
                out.add((number, read.call))
    return out


def find(
    engine: Labeller, traces: Sequence[Trace], roots: Array, every: Array
) -> dict[tuple[int, int], Place]:
    """The place of every read, keyed by (trace, call); a read without one is missing.

    `roots` holds the class of every label that closes where it is read, or 0; `every` the class
    of every label, or 0 where it may not be cut.
    """
    out: dict[tuple[int, int], Place] = {}
    for number, trace in enumerate(traces):
        # a sum over another axis hands the units on, and is a use like any other
        reads = [r for r in engine.reads if r.trace == number and every[r.atoms[0]].any()]
        flow, dims = Flow(trace, reads), engine.dims_of[number]
        for read in reads:
            place = _own_input(flow, read, dims, roots, every)
            if place is not None:
                out[number, read.call] = place
        for read in reads:
            if (number, read.call) in out:
                continue
            for x in flow.chain(read.source, padded=True):
                k = flow.output_of.get(id(x))
                if k is None or flow.keeps(x, k):
                    continue
                covered = flow.only_read(x, None)
                if not covered or any((number, r.call) in out for r in covered):
                    continue
                place = laid_out(dims[id(x)], roots, trace.modules[k].name, -1, every)
                if place is not None:
                    out.update({(number, r.call): place for r in covered})
                break
    return _consistent(out, traces)


def _consistent(
    places: dict[tuple[int, int], Place], traces: Sequence[Trace]
) -> dict[tuple[int, int], Place]:
    """Without the places of modules that read different units in different calls."""
    kinds: dict[tuple[str, int], list[Place]] = defaultdict(list)
    calls: dict[tuple[str, int], set[tuple[int, int]]] = defaultdict(set)
    total: dict[str, int] = defaultdict(int)
    for trace in traces:
        for module in trace.modules:
            total[module.name] += 1
    for (number, call), place in places.items():
        key = (place.module, place.argument)
        if not any(equal(place, other) for other in kinds[key]):
            kinds[key].append(place)
        stack = traces[number].calls[call].stack
        calls[key].add((number, stack[-1] if stack and place.argument >= 0 else -1 - call))
    good = {
        key
        for key, different in kinds.items()
        if len(different) == 1 and (key[1] < 0 or len(calls[key]) == total[key[0]])
    }
    outputs = {key for key in good if key[1] < 0 and total[key[0]] > len(traces)}
    return {k: p for k, p in places.items() if (p.module, p.argument) in good - outputs}


def equal(a: Place, b: Place) -> bool:
    """Whether two places hold the same units in the same layout."""
    same = (a.dim, a.rank, a.repeat) == (b.dim, b.rank, b.repeat)
    return same and np.array_equal(a.units, b.units)
