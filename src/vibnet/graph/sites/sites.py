"""Units, and the sites they form: who writes them, who reads them, why they may not be cut."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from vibnet.graph.capture.trace import Trace
from vibnet.graph.labels.events import Read
from vibnet.graph.labels.labeller import Labeller
from vibnet.graph.labels.labels import Array
from vibnet.graph.labels.names import Names
from vibnet.graph.sites.constraints import EqualBlocks
from vibnet.graph.sites.detours import Detour, detour
from vibnet.graph.sites.following import Norm
from vibnet.graph.sites.overlooked import overlooked, owner
from vibnet.graph.sites.places import find, scattered
from vibnet.graph.sites.structure import Graph, Reader, Site, Source, fingerprint
from vibnet.graph.sites.written import survey

SCATTERED = (
    "{} reads a tensor whose first dimension is not seen to count the examples that the model is "
    "given, so no gate knows which row is whose; attach to the part of the model that is given a "
    "batch"
)


class _Builder:
    def __init__(self, engine: Labeller, traces: list[Trace], model: nn.Module) -> None:
        self.engine, self.traces, self.model = engine, traces, model
        self.roots, self.pins = engine.labels.resolve()
        self.open = self.roots.copy()  # the classes that may be cut, the others as no unit
        self.open[np.isin(self.roots, list(self.pins))] = 0
        self.written = survey(engine, traces, self.roots, self.open)
        self.pins |= self.written.pins
        self.open[np.isin(self.open, list(self.written.pins))] = 0
        self.late = np.isin(self.open, self.written.roots[self.written.roots > 0])
        self.read = np.where(self.late, 0, self.open)  # the classes that close where they are read
        self.places = find(engine, traces, self.read, self.open)
        count = engine.labels.count
        self.writers, self.readers, self.ungated, self.inexact = (Names(count) for _ in range(4))
        done: dict[str, Array] = {}
        written = [np.arange(0)]
        for write in engine.writes:
            if np.array_equal(done.get(write.parameter, ()), write.atoms):
                continue  # the other trace saw the same
            done[write.parameter] = write.atoms
            written.append(self.roots[write.atoms])
            self.writers.add(written[-1], owner(write.parameter))
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
        odd: set[tuple[int, int]] | None = None
        for read in self.engine.reads:
            call = self.traces[read.trace].calls[read.call]
            roots = self.roots[read.atoms[0]]
            reason = ""
            if (read.trace, read.call) not in self.places:
                reason = f"{call} does not read its module's own input, so no gate can stand there"
                if (self.read[roots] > 0).any():
                    odd = scattered(self.engine, self.traces) if odd is None else odd
                    reason = SCATTERED.format(call) if (read.trace, read.call) in odd else reason
            elif not self.foldable[read.parameter] and not self._detour(read):
                reason = f"{read.parameter} is also used elsewhere, so no multiplier fits into it"
            self.readers.add(roots, owner(read.parameter))
            if reason:
                self.ungated.first(self.read[roots], reason)
        for atoms, reason in self.engine.blended:
            self.inexact.first(self.open[self.roots[atoms]], reason)
        for root, reason in self.written.ungated.items():
            self.ungated.first(np.array([root]), reason)

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
        for names in (pins, self.ungated, self.inexact):
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
            ungated, inexact = (
                "".join(names.lists[names.number[roots[0]]])
                for names in (self.ungated, self.inexact)
            )
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
            told = tuple(readers), reason, ungated, inexact if not reason else ""
            site = Site(name, len(roots), units, writers, *told)
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
        late = np.unique(index[self.roots[self.late]])
        late = late[late >= 0]
        found = (*self.places.values(), *self.written.places)
        places = {(p.module, p.argument, p.late): replace(p, units=index[p.units]) for p in found}
        sources = [
            Source(name, dim, parameters[name][dim]) for name, dim in sorted(self.written.stored)
        ]
        blocks = [EqualBlocks(of(b.atoms[0]), b.blocks, b.why) for b in engine.blocks]
        names = {name for name, _ in self.model.named_parameters()}
        layers = {name for site in (*sites, *pinned) for name in (*site.writers, *site.readers)}
        seen = self.engine, self.traces, self.roots, self.pins, self.order
        pinned += overlooked(*seen, layers)
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
            norms=[replace(n, inverse=n.weight in self.written.inverse) for n in self._norms(of)],
            sources=[s for s in sources if np.isin(s.units, late).any()],
            late=late,
        )

    def _norms(self, of: Callable[[Array], Array]) -> list[Norm]:
        """The root-mean-square norms over units that may be cut."""
        out: dict[tuple[str, str, str], Norm] = {}
        for normed in self.engine.normed:
            found = normed.found
            units = of(self.engine.parameters[found.weight][0][0])
            if (units >= 0).any():
                key = found.weight, found.module, found.attribute
                out[key] = Norm(key[0], units, found.offset, found.eps, *key[1:], len(units))
        return list(out.values())

    def _widths(self, of: Callable[[Array], Array]) -> dict[str, Array]:
        """The channels of norms that hold no tensor to tell them by."""
        modules = dict(self.model.named_modules())
        out: dict[str, Array] = {}
        for number, trace in enumerate(self.traces):
            for call in trace.modules:
                layer = modules[call.name]
                if isinstance(layer, _NormBase) and layer.weight is layer.running_mean is None:
                    dims = self.engine.dims_of[number].get(id(call.inputs[0]), ())
                    if len(dims) > 1:
                        out[call.name] = of(dims[1][0])
        return out


def build(engine: Labeller, traces: list[Trace], model: nn.Module) -> Graph:
    """The graph of a labelled model, before any trial cut."""
    return _Builder(engine, traces, model).graph()
