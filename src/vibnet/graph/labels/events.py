"""What labelling notes of single calls: units that are written, read, and normed."""

from dataclasses import dataclass

from torch import Tensor

from vibnet.graph.capture.trace import Call
from vibnet.graph.labels.labels import Array
from vibnet.graph.labels.norms import Found


@dataclass(frozen=True)
class Write:
    """Units that a weight (or a bare parameter) makes: its name and their labels.

    `position` is the dimension of the parameter that holds them, -1 where none does; `bias` the
    parameter that the same call adds, "" for none and "?" for one that is computed.
    """

    parameter: str
    atoms: Array
    module: str
    call: int
    trace: int
    position: int
    bias: str = ""


@dataclass(frozen=True)
class Read:
    """A weighted sum over a dimension: the only use that lets a closed unit vanish exactly.

    `groups` is 1 except in grouped convolutions, whose weight columns count within a group.
    """

    call: int
    trace: int
    source: Tensor
    source_dim: int
    parameter: str
    parameter_dim: int
    groups: int
    atoms: Array


@dataclass(frozen=True)
class Normed:
    """A root-mean-square norm over units, their labels, and the call that adds its eps."""

    trace: int
    found: Found
    atoms: Array
    adding: Call | None
