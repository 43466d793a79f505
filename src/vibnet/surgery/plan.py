"""What is going to be cut: a plan one can read, edit, save and check."""

import dataclasses
import hashlib
import json
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from vibnet.errors import PlanError
from vibnet.graph import checks
from vibnet.graph.sites.branches import binding, empty
from vibnet.graph.sites.constraints import Mask
from vibnet.graph.sites.nested import nesting
from vibnet.graph.sites.stock import ready
from vibnet.graph.sites.structure import NO_REQUEST, Graph, Request
from vibnet.graph.trial.probe import analyse
from vibnet.surgery.gated import Gated

SCHEMA, VERSION = "vibnet.plan", 1


@dataclass(frozen=True)
class Plan:
    """Kept units per site of one model, and why the other sites stay whole.

    `kept` maps a site's name to the positions kept, counted from 0 in the order of its units;
    `ungated` says why a site that can be cut cannot be gated. `features`, `inputs`, `ignore` and
    `replace_attention`, `allow_inexact` and `remove_branches` are what was asked of the model: see
    `vibnet.attach`;
    `inexact` says for sites why outputs move when they are cut. `cuttable` holds the shares, 0 to
    1, of "weights" and "macs" of convolutions and linear layers in rows and columns of sites.
    """

    source: str
    kept: dict[str, list[int]]
    sizes: dict[str, int]
    writers: dict[str, tuple[str, ...]]
    readers: dict[str, tuple[str, ...]]
    pinned: dict[str, str]
    ungated: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    inputs: bool = False
    ignore: tuple[str, ...] = ()
    cuttable: dict[str, float] = field(default_factory=dict)
    replace_attention: bool = False
    allow_inexact: bool = False
    inexact: dict[str, str] = field(default_factory=dict)
    remove_branches: bool = False

    @property
    def request(self) -> Request:
        """What has to be asked of the model for its sites to be those of the plan."""
        asked = self.features, self.inputs, self.ignore
        return Request(*asked, self.replace_attention, self.allow_inexact, self.remove_branches)

    def cut(self, site: str) -> bool:
        """Whether units of a site go."""
        return len(self.kept.get(site, range(self.sizes[site]))) < self.sizes[site]

    def to_json(self) -> str:
        """The plan as JSON, with schema, version and a digest of its content."""
        body: dict[str, Any] = {"schema": SCHEMA, "version": VERSION, **self.__dict__}
        body["digest"] = digest(body)
        return json.dumps(body, indent=1)

    @staticmethod
    def from_json(text: str) -> "Plan":
        """A plan from its JSON.

        Raises:
            PlanError: not a plan, another version, altered since it was written, or fields that
                are missing, unknown or of another type.
        """
        try:
            body = json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise PlanError(f"this is not a complete plan ({error!r}). Write it again.") from error
        if not isinstance(body, dict) or not {"schema", "version"} <= set(body):
            raise PlanError(
                f"this is not a complete plan, a dict with schema and version: {reprlib.repr(body)}"
                f". Write it again."
            )
        stated = body.pop("digest", None)
        schema, version = body.pop("schema"), body.pop("version")
        if (schema, version) != (SCHEMA, VERSION):
            raise PlanError(
                f"this is a {schema} of version {version}; this program reads {VERSION}."
            )
        if stated not in (None, digest({"schema": schema, "version": version, **body})):
            raise PlanError(
                "the plan was altered after it was written: its digest does not fit. If that was "
                "meant, take the digest out of it."
            )
        younger = {
            "cuttable": {},
            "replace_attention": False,
            "allow_inexact": False,
            "inexact": {},
            "remove_branches": False,
        }
        body = {**younger, **body}
        if wrong := checks.misfits(body, _KINDS):
            raise PlanError(f"this plan has wrong fields: {wrong}. Write it again.")
        for name in ("writers", "readers"):
            body[name] = {k: tuple(v) for k, v in body[name].items()}
        for name in ("unused", "features", "ignore"):
            body[name] = tuple(body[name])
        return Plan(**body)

    def __str__(self) -> str:
        lines = [f"{'site':24} {'kept':>6} {'of':>6}  written by -> read by"]
        for name, size in self.sizes.items():
            flow = " -> ".join(", ".join(w.get(name, ())) for w in (self.writers, self.readers))
            kept = len(self.kept[name]) if name in self.kept else size
            lines.append(f"{name:24} {kept:6} {size:6}  {flow}")
            if reason := self.ungated.get(name):
                lines.append(f"{'':24} has no gate: {reason}")
            if reason := self.inexact.get(name):
                lines.append(f"{'':24} moves outputs: {reason}")
        lines += [f"{name:24}  whole: {reason}" for name, reason in self.pinned.items()]
        if self.cuttable:
            told = ", ".join(f"{100 * v:.1f} % of the {k}" for k, v in self.cuttable.items())
            lines.append(f"in rows and columns of these sites: {told}")
        if self.unused:
            lines.append(f"never used by the example: {', '.join(self.unused)}")
        return "\n".join(lines)


_KINDS = {field.name: field.type for field in dataclasses.fields(Plan)}


def digest(body: dict[str, Any]) -> str:
    """A hash of JSON content, independent of its layout."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def of_graph(graph: Graph, kept: Mask) -> Plan:
    """The plan of a set of kept units."""
    return Plan(
        graph.source,
        {s.name: s.positions[kept[s.units]].tolist() for s in graph.sites},
        {s.name: s.first or s.size for s in graph.sites},
        {s.name: s.writers for s in graph.sites},
        {s.name: s.readers for s in graph.sites},
        {s.name: s.reason for s in graph.pinned},
        {s.name: s.ungated for s in graph.sites if s.ungated},
        tuple(graph.unused),
        graph.request.features,
        graph.request.inputs,
        graph.request.ignore,
        graph.cuttable,
        graph.request.attention,
        graph.request.inexact,
        {s.name: s.inexact for s in graph.sites if s.inexact},
        graph.request.branches,
    )


def plan(
    model: nn.Module,
    example: Any = None,
    *,
    inputs: bool = False,
    features: Sequence[str] = (),
    ignore: Sequence[str] = (),
    replace_attention: bool = False,
    allow_inexact: bool = False,
    remove_branches: bool = False,
) -> Plan:
    """What `prune` would cut: of a gated model as trained, of a plain one everything whole.

    Args:
        model: what `attach` returned, or any module together with an example.
        example: for a plain module, what it is called with.
        inputs: as in `vibnet.attach`; for a plain module.
        features: as in `vibnet.attach`; for a plain module.
        ignore: as in `vibnet.attach`; for a plain module.
        replace_attention: as in `vibnet.attach`; for a plain module.
        allow_inexact: as in `vibnet.attach`; for a plain module.
        remove_branches: as in `vibnet.attach`; for a plain module.

    Raises:
        ConfigError: no module, or an argument of the wrong type.
        PlanError: a plain module without an example, or a gated one with another request.
        CaptureError: the model does not run on the example.
        NoSitesError: single features or inputs cannot be cut where asked.
    """
    checks.module("plan", model)
    asked = Request.of(features, inputs, ignore, replace_attention, allow_inexact, remove_branches)
    if isinstance(model, Gated):
        if asked != NO_REQUEST:
            raise PlanError("plan: inputs, features and ignore are those that attach was given.")
        return of_graph(model.graph, model.kept())
    if example is None:
        raise PlanError("plan: a model without gates needs an example: plan(model, example).")
    graph = analyse(ready(model, asked), example, asked)
    return of_graph(graph, np.ones(graph.total, dtype=np.bool_))


def check(wanted: object, source: str | None = None) -> None:
    """Refuse what is no plan of a model.

    Args:
        wanted: anything.
        source: the hash of the model, where it is known.

    Raises:
        PlanError: no plan, a plan with fields of another type, or one of another model.
    """
    if not isinstance(wanted, Plan):
        raise PlanError(
            f"the plan must be a vibnet.Plan, got {type(wanted).__name__}. Make one with "
            f"vibnet.plan, or read one with vibnet.Plan.from_json(text)."
        )
    if wrong := checks.misfits(vars(wanted), _KINDS):
        raise PlanError(f"the plan has wrong fields: {wrong}. Make it again.")
    if source is not None and wanted.source != source:
        raise PlanError(
            f"the plan was made for another model, or for this one before it was cut (hash "
            f"{wanted.source}, this model has {source}). Make a plan of this model."
        )


def mask(graph: Graph, wanted: Plan) -> Mask:
    """The kept units of a plan, checked against a model.

    Raises:
        PlanError: a plan of another model, fields of another type, unknown sites, positions out of
            range, a site with no unit left, or positions that a constraint forbids.
    """
    check(wanted, graph.source)
    sites = {s.name: s for s in graph.sites}
    unknown = sorted(set(wanted.kept) - set(sites))
    if unknown:
        raise PlanError(
            f"the plan names sites that this model cannot cut: {', '.join(unknown)}. It can cut: "
            f"{', '.join(sites) or 'nothing'}."
        )
    kept = np.ones(graph.total, dtype=np.bool_)
    for name, positions in wanted.kept.items():
        site = sites[name]
        if not positions and name not in graph.branches.readers:
            why = ""
            if not graph.request.branches:
                why = ", or make the plan with remove_branches=True where it is a branch's"
            raise PlanError(f"the plan keeps no unit of {name}. Keep at least one{why}.")
        chosen = np.asarray(positions)
        if not np.isin(chosen, site.positions).all() or len(set(positions)) != len(positions):
            left = f"0 to {site.size - 1}" if site.original is None else str(site.original.tolist())
            raise PlanError(
                f"the plan keeps {positions} of {name}, which has units {left}. "
                f"Name each kept unit once."
            )
        kept[site.units] = np.isin(site.positions, chosen)
    if (gone := empty(graph.sites, kept)) and not graph.branches.answers(gone):
        raise PlanError(
            f"the plan keeps no unit of {', '.join(gone)}, and without them an output does not "
            f"depend on the input any more. Keep a unit of one of them."
        )
    inner = nesting(graph)
    for name in sorted({s.name for s in graph.sites if s.nested} - set(wanted.kept)):
        units = sites[name].units
        inside = np.isin(inner.children, units)
        kept[inner.children[inside]] &= kept[inner.parents[inside]]
    orphans = inner.broken(kept)
    if len(orphans):
        name, number = next(
            (s.name, int(s.positions[s.units == orphans[0]][0]))
            for s in graph.sites
            if orphans[0] in s.units
        )
        raise PlanError(
            f"the plan keeps feature {number} of {name}, but not the unit that makes it. Keep "
            f"both or neither."
        )
    for block in binding(graph, gone):
        if block.broken(kept):
            counts = block.counts(kept).tolist()
            raise PlanError(
                f"the plan breaks a constraint: {block.why} must keep as many units each (at least "
                f"one), but keep {counts}. Keep equal numbers."
            )
    return kept
