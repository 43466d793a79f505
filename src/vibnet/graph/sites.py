"""Units, and the sites they form: who writes them, who reads them, why they may not be cut."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from vibnet.graph import checks
from vibnet.graph.constraints import EqualBlocks
from vibnet.graph.detours import Detour, detour
from vibnet.graph.labeller import Labeller, Read
from vibnet.graph.labels import Array
from vibnet.graph.names import Names
from vibnet.graph.numbers import Numbers
from vibnet.graph.places import Place, find
from vibnet.graph.trace import Trace


@dataclass(frozen=True)
class Site:
    """Units that the same weights write. `units` are numbers of the graph, empty when pinned.

    `reason` says why the site may not be cut, `ungated` why it may be cut but not gated. `first` is
    its size, and `original` the numbers of its units, before the model was first cut.
    """

    name: str
    size: int
    units: Array
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    reason: str = ""
    ungated: str = ""
    weight: float = 1.0
    costs: Mapping[str, float] = field(default_factory=dict)
    nested: bool = False
    original: Array | None = None
    first: int = 0

    @property
    def positions(self) -> Array:
        """The number that every unit had before the model was first cut."""
        return np.arange(self.size) if self.original is None else self.original


@dataclass(frozen=True)
class Reader:
    """A stored weight that reads units: its name, the dimension of its columns, its groups."""

    parameter: str
    dim: int
    groups: int
    units: Array
    foldable: bool
    detour: Detour | None = None


@dataclass(frozen=True)
class Nested:
    """The features that a linear layer is given, position by position.

    `units` holds the unit of every feature, or -1 where it is cut already; `parents` that of what
    writes it, or -1 where nothing that can be cut does.
    """

    module: str
    units: Array
    parents: Array


@dataclass(frozen=True)
class Request:
    """What was asked of a model: layers whose single features may go, whether its inputs may,
    globs on parameters that the example never uses and that will never be used, and whether stock
    attentions are to be replaced.
    """

    features: tuple[str, ...] = ()
    inputs: bool = False
    ignore: tuple[str, ...] = ()
    attention: bool = False

    @staticmethod
    def of(
        features: Sequence[str], inputs: bool, ignore: Sequence[str], attention: bool = False
    ) -> "Request":
        """A request from lists of names; a single string is one name, not its letters.

        Raises:
            ConfigError: something else than names, or `inputs` neither True nor False.
        """
        return Request(
            tuple(checks.names("features", features)),
            checks.flag("inputs", inputs),
            tuple(checks.names("ignore", ignore)),
            checks.flag("replace_attention", attention),
        )


NO_REQUEST = Request()


@dataclass
class Graph:
    """Everything surgery needs to know of a model; no tensor of the model is in it."""

    source: str
    sites: list[Site]
    pinned: list[Site]
    parameters: dict[str, tuple[Array, ...]]
    readers: list[Reader]
    blocks: list[EqualBlocks]
    within_group: dict[str, tuple[Array, int]]
    depthwise: set[str]
    places: list[Place]
    unused: list[str]
    total: int = 0
    widths: dict[str, Array] = field(default_factory=dict)  # of norms without parameters
    nested: list[Nested] = field(default_factory=list)
    request: Request = field(default_factory=Request)
    uses: dict[str, float] = field(default_factory=dict)  # of every number of a weight, an example
    remaps: dict[str, Array] = field(default_factory=dict)  # the units that a buffer's numbers name
    numbers: Numbers = field(default_factory=dict)  # the units that modules' attributes count
    cuttable: dict[str, float] = field(default_factory=dict)  # shares of the whole model in sites


def fingerprint(model: nn.Module) -> str:
    """A hash of a model's class, and the names, shapes and types of its state."""
    lines = [type(model).__qualname__]
    lines += [f"{k} {tuple(v.shape)} {v.dtype}" for k, v in sorted(model.state_dict().items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def _owner(parameter: str) -> str:
    return parameter.rpartition(".")[0] or parameter


class _Builder:
    def __init__(self, engine: Labeller, traces: list[Trace], model: nn.Module) -> None:
        self.engine, self.traces, self.model = engine, traces, model
        self.roots, self.pins = engine.labels.resolve()
        self.open = self.roots.copy()  # the classes that may be cut, the others as no unit
        self.open[np.isin(self.roots, list(self.pins))] = 0
        self.places = find(engine, traces, self.open)
        count = engine.labels.count
        self.writers, self.readers, self.ungated = (Names(count) for _ in range(3))
        done: dict[str, Array] = {}
        written = [np.arange(0)]
        for write in engine.writes:
            if np.array_equal(done.get(write.parameter, ()), write.atoms):
                continue  # the other trace saw the same
            done[write.parameter] = write.atoms
            written.append(self.roots[write.atoms])
            self.writers.add(written[-1], _owner(write.parameter))
        found, first = np.unique(np.concatenate(written), return_index=True)
        self.order = found[np.argsort(first)]
        self.detours: dict[tuple[str, int], Detour | None] = {}
        self._reads()

    def _reads(self) -> None:
        """Who reads every class, and which classes cannot be gated, with the reason."""
        calls: dict[str, set[tuple[int, int]]] = defaultdict(set)
        dims: dict[str, set[int]] = defaultdict(set)
        for read in self.engine.reads:
            calls[read.parameter].add((read.trace, read.call))
            dims[read.parameter].add(read.parameter_dim)
        self.foldable = {
            name: self.engine.used.get(name, set()) <= calls[name] and len(dims[name]) == 1
            for name in calls
        }
        for read in self.engine.reads:
            call = self.traces[read.trace].calls[read.call]
            roots = self.roots[read.atoms[0]]
            reason = ""
            if (read.trace, read.call) not in self.places:
                reason = f"{call} does not read its module's own input, so no gate can stand there"
            elif not self.foldable[read.parameter] and not self._detour(read):
                reason = f"{read.parameter} is also used elsewhere, so no multiplier fits into it"
            self.readers.add(roots, _owner(read.parameter))
            if reason:
                self.ungated.first(self.open[roots], reason)

    def _detour(self, read: Read) -> bool:
        """Whether the multipliers of a read can go elsewhere: the same place in all its calls."""
        key = read.parameter, read.parameter_dim
        if read.trace == len(self.traces) - 1:
            found = detour(self.engine, self.traces, self.roots, read)
            if self.detours.setdefault(key, found) != found:
                self.detours[key] = None
        else:  # judged by the read of the last trace
            twins = [r for r in self.engine.reads if (r.parameter, r.parameter_dim) == key]
            return any(r.trace == len(self.traces) - 1 and self._detour(r) for r in twins)
        return self.detours[key] is not None

    def sites(self) -> tuple[list[Site], list[Site], Array]:
        """Cuttable sites, pinned sites, and the number of every class."""
        pins = Names(self.engine.labels.count)
        for root, reason in self.pins.items():
            pins.number[root] = pins.index((reason,))
        unread = (pins.number == 0) & (self.readers.number == 0)
        pins.first(np.flatnonzero(unread), "nothing reads it with a stored weight")
        kinds = self.writers.number[self.order]
        for names in (pins, self.ungated):
            kinds = kinds * len(names.lists) + names.number[self.order]
        _, first, kind = np.unique(kinds, return_index=True, return_inverse=True)
        index = np.full(self.engine.labels.count, -1, dtype=np.int64)
        good: list[Site] = []
        bad: list[Site] = []
        made: dict[str, int] = defaultdict(int)
        total = 0
        for number in np.argsort(first).tolist():
            roots = self.order[kind == number]
            writers = self.writers.lists[self.writers.number[roots[0]]]
            reason = "".join(pins.lists[pins.number[roots[0]]])
            ungated = "".join(self.ungated.lists[self.ungated.number[roots[0]]])
            readers: dict[str, None] = {}
            for reader in dict.fromkeys(self.readers.number[roots].tolist()):
                readers.update(dict.fromkeys(self.readers.lists[reader]))
            made[writers[0]] += 1
            name = writers[0] + (f"#{made[writers[0]]}" if made[writers[0]] > 1 else "")
            units = np.arange(0)
            if not reason:
                units = np.arange(total, total + len(roots))
                index[roots] = units
                total += len(roots)
            site = Site(name, len(roots), units, writers, tuple(readers), reason, ungated)
            (bad if reason else good).append(site)
        return good, bad, index

    def graph(self) -> Graph:
        sites, pinned, index = self.sites()
        roots, engine = self.roots, self.engine

        def of(atoms: Array) -> Array:
            numbers: Array = index[roots[atoms]]
            return numbers

        parameters = {
            name: tuple(of(dim[0]) for dim in dims) for name, dims in engine.parameters.items()
        }
        readers: dict[tuple[str, int], Reader] = {}
        for read in engine.reads:
            readers[read.parameter, read.parameter_dim] = Reader(
                read.parameter,
                read.parameter_dim,
                read.groups,
                of(read.atoms[0])
                if read.groups > 1
                else parameters[read.parameter][read.parameter_dim],
                self.foldable[read.parameter],
                self.detours.get((read.parameter, read.parameter_dim)),
            )
        places = {
            (p.module, p.argument): replace(p, units=index[p.units]) for p in self.places.values()
        }
        blocks = [EqualBlocks(of(b.atoms[0]), b.blocks, b.why) for b in engine.blocks]
        names = {name for name, _ in self.model.named_parameters()}
        return Graph(
            fingerprint(self.model),
            sites,
            pinned,
            parameters,
            list(readers.values()),
            [b for b in blocks if (b.units >= 0).any()],
            {name: (of(a[0]), groups) for (name, _), (a, groups) in engine.within_group.items()},
            engine.depthwise,
            [p for p in places.values() if (p.units >= 0).any()],
            sorted(names - set(engine.used)),
            sum(s.size for s in sites),
            self._widths(of),
            remaps={name: of(dim[0]) for name, dim in engine.remaps.items()},
        )

    def _widths(self, of: Callable[[Array], Array]) -> dict[str, Array]:
        """The channels of norms that hold no tensor to tell them by."""
        modules = dict(self.model.named_modules())
        out: dict[str, Array] = {}
        for number, trace in enumerate(self.traces):
            for call in trace.modules:
                owner = modules[call.name]
                if isinstance(owner, _NormBase) and owner.weight is owner.running_mean is None:
                    dims = self.engine.dims_of[number].get(id(call.inputs[0]), ())
                    if len(dims) > 1:
                        out[call.name] = of(dims[1][0])
        return out


def build(engine: Labeller, traces: list[Trace], model: nn.Module) -> Graph:
    """The graph of a labelled model, before any trial cut."""
    return _Builder(engine, traces, model).graph()
