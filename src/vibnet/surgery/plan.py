"""What is going to be cut: a plan one can read, edit, save and check."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from vibnet.errors import PlanError
from vibnet.graph.constraints import Mask
from vibnet.graph.probe import analyse
from vibnet.graph.sites import Graph
from vibnet.surgery.gated import Gated

SCHEMA, VERSION = "vibnet.plan", 1


@dataclass(frozen=True)
class Plan:
    """Kept units per site of one model, and why the other sites stay whole.

    `kept` maps a site's name to the positions kept, counted from 0 in the order of its units.
    """

    source: str
    kept: dict[str, list[int]]
    sizes: dict[str, int]
    writers: dict[str, tuple[str, ...]]
    readers: dict[str, tuple[str, ...]]
    pinned: dict[str, str]
    unused: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The plan as JSON, with schema, version and a digest of its content."""
        body: dict[str, Any] = {"schema": SCHEMA, "version": VERSION, **self.__dict__}
        body["digest"] = digest(body)
        return json.dumps(body, indent=1)

    @staticmethod
    def from_json(text: str) -> "Plan":
        """A plan from its JSON.

        Raises:
            PlanError: not a plan, another version, or altered since it was written.
        """
        try:
            body = json.loads(text)
            stated = body.pop("digest")
            schema, version = body.pop("schema"), body.pop("version")
        except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
            raise PlanError(f"this is not a complete plan ({error!r}). Write it again.") from error
        if (schema, version) != (SCHEMA, VERSION):
            raise PlanError(
                f"this is a {schema} of version {version}; this program reads {VERSION}."
            )
        if digest({"schema": schema, "version": version, **body}) != stated:
            raise PlanError("the plan was altered after it was written: its digest does not fit.")
        try:
            for name in ("writers", "readers"):
                body[name] = {k: tuple(v) for k, v in body[name].items()}
            body["unused"] = tuple(body["unused"])
            return Plan(**body)
        except (KeyError, TypeError, AttributeError) as error:
            raise PlanError(f"this plan has wrong fields ({error!r}). Write it again.") from error

    def __str__(self) -> str:
        lines = [f"{'site':24} {'kept':>6} {'of':>6}  written by -> read by"]
        for name, size in self.sizes.items():
            flow = f"{', '.join(self.writers[name])} -> {', '.join(self.readers[name])}"
            lines.append(f"{name:24} {len(self.kept[name]):6} {size:6}  {flow}")
        lines += [f"{name:24}  whole: {reason}" for name, reason in self.pinned.items()]
        if self.unused:
            lines.append(f"never used by the example: {', '.join(self.unused)}")
        return "\n".join(lines)


def digest(body: dict[str, Any]) -> str:
    """A hash of JSON content, independent of its layout."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def of_graph(graph: Graph, kept: Mask) -> Plan:
    """The plan of a set of kept units."""
    pinned = {s.name: s.reason for s in graph.pinned}
    return Plan(
        graph.source,
        {s.name: np.flatnonzero(kept[s.units]).tolist() for s in graph.sites},
        {s.name: s.size for s in graph.sites},
        {s.name: s.writers for s in graph.sites},
        {s.name: s.readers for s in graph.sites},
        pinned,
        tuple(graph.unused),
    )


def plan(model: nn.Module, example: Any = None) -> Plan:
    """What `prune` would cut: of a gated model as trained, of a plain one everything whole.

    Args:
        model: what `attach` returned, or any module together with an example.
        example: for a plain module, what it is called with.
    """
    if isinstance(model, Gated):
        return of_graph(model.graph, model.kept())
    if example is None:
        raise PlanError("plan: a model without gates needs an example: plan(model, example).")
    graph = analyse(model, example)
    return of_graph(graph, np.ones(graph.total, dtype=np.bool_))


def mask(graph: Graph, wanted: Plan) -> Mask:
    """The kept units of a plan, checked against a model.

    Raises:
        PlanError: a plan of another model, unknown sites, positions out of range, a site with no
            unit left, or positions that a constraint forbids.
    """
    if wanted.source != graph.source:
        raise PlanError(
            f"the plan was made for another model (hash {wanted.source}, this model has "
            f"{graph.source}). Make a plan of this model."
        )
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
        if not positions:
            raise PlanError(f"the plan keeps no unit of {name}. Keep at least one.")
        chosen = np.asarray(positions)
        if (
            chosen.dtype.kind != "i"
            or chosen.min() < 0
            or chosen.max() >= site.size
            or len(set(positions)) != len(positions)
        ):
            raise PlanError(
                f"the plan keeps {positions} of {name}, which has units 0 to {site.size - 1}. "
                f"Name each kept unit once."
            )
        kept[site.units] = False
        kept[site.units[chosen]] = True
    for block in graph.blocks:
        if block.broken(kept):
            counts = block.counts(kept).tolist()
            raise PlanError(
                f"the plan breaks a constraint: {block.why} must keep as many units each (at least "
                f"one), but keep {counts}. Keep equal numbers."
            )
    return kept
