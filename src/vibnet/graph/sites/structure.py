"""What surgery needs to know of a model: sites, readers, nested features, and what was asked."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn

from vibnet.graph import checks
from vibnet.graph.labels.labels import Array
from vibnet.graph.sites.constraints import EqualBlocks
from vibnet.graph.sites.detours import Detour
from vibnet.graph.sites.following import Norm
from vibnet.graph.sites.numbers import Numbers
from vibnet.graph.sites.paths import NO_BRANCHES, Branches
from vibnet.graph.sites.places import Place


@dataclass(frozen=True)
class Site:
    """Units that the same weights write. `units` are numbers of the graph, empty when pinned.

    `reason` says why the site may not be cut, `ungated` why it may be cut but not gated, `inexact`
    why outputs move when it is cut. `first` is its size, and `original` the numbers of its units,
    before the model was first cut.
    """

    name: str
    size: int
    units: Array
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    reason: str = ""
    ungated: str = ""
    inexact: str = ""
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
class Source:
    """A parameter that makes units which close where they are written, and its dimension.

    `units` are all that the dimension holds; only those that are `late` in the graph count.
    """

    parameter: str
    dim: int
    units: Array


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
    globs on parameters that the example never uses and that will never be used, whether stock
    attentions are to be replaced, whether outputs may move, and whether branches may go whole.
    """

    features: tuple[str, ...] = ()
    inputs: bool = False
    ignore: tuple[str, ...] = ()
    attention: bool = False
    inexact: bool = False
    branches: bool = False

    @staticmethod
    def of(
        features: Sequence[str],
        inputs: bool,
        ignore: Sequence[str],
        attention: bool = False,
        inexact: bool = False,
        branches: bool = False,
    ) -> "Request":
        """A request from lists of names; a single string is one name, not its letters.

        Raises:
            ConfigError: something else than names, or a flag that is neither True nor False.
        """
        return Request(
            tuple(checks.names("features", features)),
            checks.flag("inputs", inputs),
            tuple(checks.names("ignore", ignore)),
            checks.flag("replace_attention", attention),
            checks.flag("allow_inexact", inexact),
            checks.flag("remove_branches", branches),
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
    norms: list[Norm] = field(default_factory=list)  # root-mean-square ones over units
    sources: list[Source] = field(default_factory=list)  # of units that close where written
    late: Array = field(default_factory=lambda: np.arange(0))  # those units
    cuttable: dict[str, float] = field(default_factory=dict)  # shares of the whole model in sites
    branches: Branches = NO_BRANCHES  # sites that may go whole


def fingerprint(model: nn.Module) -> str:
    """A hash of a model's class, and the names, shapes and types of its state."""
    lines = [type(model).__qualname__]
    for name, value in sorted(model.state_dict().items()):
        told = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else "other state"
        lines.append(f"{name} {told}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]
