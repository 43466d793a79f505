"""Walks traces and gives every dimension of every tensor its labels."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from vibnet.graph.capture.memory import storage
from vibnet.graph.capture.trace import Call, Trace
from vibnet.graph.labels import norms
from vibnet.graph.labels.events import Normed, Read, Write
from vibnet.graph.labels.labels import Array, Blocks, Labels, Split, plain

Dims = tuple[Array, ...]
Rule = Callable[["Labeller", Call], Any]


@dataclass
class Labeller:
    """The state of labelling: labels of tensors and parameters, writes, reads, constraints.

    `like` is the labeller of the whole model, where the trace is that of a trial cut; `remaps`
    the dimension that a buffer of numbers picks from; `sole` the calls that it and
    `within_group` know; `carriers` the axis of a view that carries its units, where not the
    last one does; `crossed` the dimensions of products of two activations, and those along
    constants; `blended` the units that a statistic goes over and which may go all the same, for
    outputs may move (`inexact`); `normed` the root-mean-square norms; `one_group` weights of
    group norms with one group; `unequal` splits into unequal parts; `runs` those of views
    (`Split`).
    """

    table: dict[str, Rule]
    labels: Labels = field(default_factory=Labels)
    like: "Labeller | None" = None
    batch: int = 0
    parameters: dict[str, Dims] = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    normed: list[Normed] = field(default_factory=list)
    inexact: bool = False
    blended: list[tuple[Array, str]] = field(default_factory=list)
    one_group: set[str] = field(default_factory=set)
    unequal: set[str] = field(default_factory=set)
    blocks: list[Blocks] = field(default_factory=list)
    depthwise: set[str] = field(default_factory=set)
    within_group: dict[tuple[str, int], tuple[Array, int]] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)
    remaps: dict[str, Array] = field(default_factory=dict)
    sole: dict[str, set[tuple[int, int]]] = field(default_factory=dict)
    dims_of: list[dict[int, Dims]] = field(default_factory=list)
    used: dict[str, set[tuple[int, int]]] = field(default_factory=dict)
    carriers: dict[tuple[int, int], int] = field(default_factory=dict)
    runs: dict[tuple[int, int], tuple[tuple[int, int], ...]] = field(default_factory=dict)
    splits: dict[tuple[int, int], Split] = field(default_factory=dict)
    crossed: list[Array] = field(default_factory=list)
    trace: Trace | None = None
    _known: dict[int, Dims] = field(default_factory=dict)
    _origin: dict[int, str] = field(default_factory=dict)
    _index: int = 0
    _views: int = 0
    _maybe_copies: set[int] = field(default_factory=set)
    _constants: set[int] = field(default_factory=set)
    _norms: dict[int, norms.Found] = field(default_factory=dict)

    def add_model(self, model: nn.Module) -> None:
        """New labels for every dimension of every parameter and buffer (shared ones once)."""
        seen: dict[int, str] = {}
        for name, value in (
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ):
            if id(value) not in seen:
                seen[id(value)] = name
                self.parameters[name] = tuple(
                    self.labels.new(n) if value.is_floating_point() else plain(n)
                    for n in value.shape
                )

    def add(self, trace: Trace, batch: int = 0) -> None:
        """Label everything in a trace; `batch` is the inputs' dimension that counts examples."""
        self.trace, self.batch = trace, batch
        self._known, self._origin, self._maybe_copies = {}, dict(trace.state), set()
        self.dims_of.append(self._known)
        self._views = len(self.splits)
        for x in trace.inputs:
            dims = [plain(n) for n in x.shape]
            if len(dims) > batch:
                dims[batch][1] = np.arange(1, x.shape[batch] + 1)
            self._known[id(x)] = tuple(dims)
        self._norms = norms.find(trace)
        for self._index, call in enumerate(trace.calls):
            self._apply(call)
        for x in trace.outputs:
            for dim in self.dims(x):
                self.labels.pin(dim, "it is an output of the model")
        for x, who in trace.moved:
            what = f"what {who} gives" if isinstance(who, Call) else who
            for dim in self.dims(x):
                self.labels.pin(
                    dim, f"{what} is given other data (x.data = y), which no call shows"
                )
        for name, x in trace.carried:
            for dim in self.dims(x):
                self.labels.pin(dim, f"{name} keeps it for the next call")
        self._finish()

    def _apply(self, call: Call) -> None:
        rule = self.table.get(call.op) or self.table.get(call.op.removesuffix("_"))
        if rule is None and call.pointwise:
            rule = self.table["pointwise"]
        if rule is None:
            for x in call.given:
                for dim in self.dims(x):
                    self.labels.pin(dim, f"there is no rule for {call}")
            result = None
        else:
            result = rule(self, call)
        self._note_uses(call)
        self._watch_copies(call)
        outputs = call.results
        results = result if isinstance(result, list) else [result] * len(outputs)
        for x, given in zip(outputs, results, strict=True):
            dims = given
            if dims is None or len(dims) != x.ndim:
                dims = tuple(plain(n) for n in x.shape)
            if tuple(d.shape[1] for d in dims) != tuple(x.shape):
                for dim in dims:
                    self.labels.pin(dim, f"{call} gives another shape than its rule")
                dims = tuple(plain(n) for n in x.shape)
            self._known[id(x)] = dims
            if all(id(y) in self._constants for y in call.given):
                self._constant(x, dims)
            if call.draws and self.trace is not None and not self.trace.training:
                for dim in dims:
                    self.labels.pin(dim, f"{call} draws random numbers for it in evaluation")

    def _watch_copies(self, call: Call) -> None:
        """`contiguous` and `reshape` copy or not, depending on sizes: later writes are unsafe.

        After a cut the copy may be the tensor itself, and a write into one then reaches the other.
        """
        x = call.args[0] if call.args else None
        if not isinstance(x, Tensor):
            return
        if call.may_copy:
            self._maybe_copies.update(storage(t) for t in (x, *call.results))
        elif call.op.endswith("_") and storage(x) in self._maybe_copies:
            for dim in self.dims(x):
                self.labels.pin(dim, f"{call} writes in place into what may not be a copy")

    def _note_uses(self, call: Call) -> None:
        """Remember which calls compute with a parameter, rather than give it another shape."""
        if self._origin and (id(call.out) not in self._origin or call.op.endswith("_")):
            for x in call.given:
                if (name := self._origin.get(id(x))) is not None:
                    self.used.setdefault(name, set()).add((len(self.dims_of) - 1, self._index))

    def dims(self, x: Tensor) -> Dims:
        """The labels of a tensor; one never seen before is a constant of the code, and no unit."""
        found = self._known.get(id(x))
        if found is None:
            name = self._origin.get(id(x))
            if name is not None:
                self.used.setdefault(name, set())
                found = self.parameters[name]
            else:
                found = tuple(plain(n) for n in x.shape)
                self._constant(x, found)
            self._known[id(x)] = found
        return found

    def _constant(self, x: Tensor, dims: Dims) -> None:
        """Remember that a tensor is made of the code's own numbers."""
        self._constants.update((id(x), *(id(dim) for dim in dims)))

    def derive(self, x: Tensor, out: Any) -> None:
        """A layout call on a parameter gives the same parameter in another shape."""
        name = self._origin.get(id(x))
        if name is not None and isinstance(out, Tensor):
            self._origin[id(out)] = name

    def origin(self, x: Tensor) -> str | None:
        """The parameter a tensor is, or is a view of."""
        return self._origin.get(id(x))

    @property
    def call(self) -> Call | None:
        """The call that is being labelled."""
        return self.trace.calls[self._index] if self.trace else None

    @property
    def before(self) -> Call | None:
        """The call made just before."""
        return self.trace.calls[self._index - 1] if self.trace and self._index else None

    @property
    def norm(self) -> norms.Found | None:
        """The root-mean-square norm that the call being labelled takes."""
        return self._norms.get(self._index)

    @property
    def lives(self) -> bool:
        """Whether an output depends on the call that is being labelled."""
        return self.trace is not None and self._index in self.trace.live

    def split(self, x: Tensor) -> Split:
        """How the view that is being labelled gives out units; views are counted by trace."""
        key = len(self.dims_of) - 1, len(self.splits) - self._views
        stored, runs = self.origin(x) is not None, self.runs.get(key, ())
        made = Split(self.carriers.get(key), stored=stored, runs=runs)
        return self.splits.setdefault(key, made)

    def join(self, a: Array, b: Array, call: Call) -> Array:
        """A dimension that two tensors have in common, as it comes out."""
        if a is b:
            return a
        left, right = bool(a[0].any()), bool(b[0].any())
        if self.like is not None and a.shape[1] == 1 and left != right:
            units = a if left else b  # a trial cut a site to one unit; the other is spread over it
        elif not (left or right):
            units = a
        else:
            constant = not self._constants.isdisjoint((id(a), id(b)))
            with_what = "a constant made inside forward" if constant else "an axis that is no unit"
            self.crossed.extend((a, b) if constant else ())
            self.labels.same(a, b, f"{call} joins it with {with_what}")
            units = b if left and not right else a
        examples = b if b[1].any() and not a[1].any() else a
        return a if units is examples is a else np.stack([units[0], examples[1]])

    def keeps_channels(self, weight: Tensor, groups: int, channels: int) -> bool:
        """Whether a convolution is depthwise, or was before a trial cut."""
        name = self.origin(weight)
        if self.like is not None and name is not None:
            return name in self.like.depthwise
        return groups == channels > 1

    def read(self, x: Tensor, dim: int, weight: Tensor, weight_dim: int, call: Call) -> None:
        """A weighted sum over `dim` of x and `weight_dim` of a weight."""
        units, columns = self.dims(x)[dim], self.dims(weight)[weight_dim]
        name = self.origin(weight)
        self.labels.same(columns, units, f"{call} reads an axis that is no unit")
        if name is None:
            for d in (units, columns):
                self.labels.pin(d, f"{call} reads it with a weight that is computed, not stored")
            return
        position = self._parameter_dim(name, columns)
        if position is None:
            self.labels.pin(units, f"{call} reads it through a reshaped weight")
            return
        self.note_read(x, dim, name, position, units, 1)

    def relabel(self, name: str, dim: Array) -> None:
        """A buffer, and what was cast from it, has these labels."""
        self.parameters[name] = (dim,)
        for x, origin in self._origin.items():
            if origin == name and len(self._known.get(x, ())) == 1:
                self._known[x] = (dim,)

    def only_use(self, name: str) -> None:
        """This call uses a parameter or buffer as it must be used to be cut; others may not."""
        self.sole.setdefault(name, set()).add((len(self.dims_of) - 1, self._index))

    def _finish(self) -> None:
        """Pin what is cut in a way that only some of its uses can bear."""
        special = {name: units for (name, _), (units, _) in self.within_group.items()}
        for name, units in {**special, **self.remaps}.items():
            if self.used.get(name, set()) - self.sole.get(name, set()):
                self.labels.pin(units, f"{name} numbers it, and has another use too")

    def note_read(
        self, x: Tensor, dim: int, name: str, position: int, units: Array, groups: int
    ) -> None:
        """A weighted sum by a stored weight."""
        trace = len(self.dims_of) - 1
        self.reads.append(Read(self._index, trace, x, dim, name, position, groups, units))

    def _parameter_dim(self, name: str, columns: Array) -> int | None:
        for position, dim in enumerate(self.parameters[name]):
            if dim is columns:
                return position
        atoms = np.unique(columns[0])
        for position, dim in enumerate(self.parameters[name]):
            if np.array_equal(np.unique(dim[0]), atoms):
                return position
        return None

    def write(self, weight: Tensor, dim: Array, call: Call, bias: Tensor | None = None) -> None:
        """A weight makes the units of a dimension, and a bias is added."""
        name = self.origin(weight)
        if name is None:
            self.labels.pin(dim, f"{call} makes it with a weight that is computed, not stored")
            return
        at = self._parameter_dim(name, dim)
        added = "" if bias is None else self.origin(bias) or "?"
        where = self._index, len(self.dims_of) - 1, -1 if at is None else at
        self.writes.append(Write(name, dim[0], call.module, *where, added))
