"""Parameters that the example never uses, and the sites that they could meet all the same."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from vibnet.errors import NoSitesError
from vibnet.graph.sites.structure import Graph


def unread(graph: Graph, model: nn.Module, ignore: Sequence[str]) -> dict[str, str]:
    """Why sites may not be cut because of parameters that neither trace has seen, by name.

    A parameter could meet a site if one of its dimensions is a multiple of the site's size.

    Raises:
        NoSitesError: a pattern in `ignore` names no such parameter.
    """
    for pattern in ignore:
        if not any(fnmatchcase(name, pattern) for name in graph.unused):
            raise NoSitesError(
                f"ignore names {pattern!r}, which is no parameter that the example leaves unused. "
                f"There are: {', '.join(graph.unused) or 'none'}."
            )
    shapes = {name: value.shape for name, value in model.named_parameters()}
    idle = [n for n in graph.unused if not any(fnmatchcase(n, p) for p in ignore)]
    why: dict[str, str] = {}
    for site in graph.sites:
        names = [name for name in idle if any(n % site.size == 0 for n in shapes[name])]
        if names:
            are = "is" if len(names) == 1 else "are"
            why[site.name] = (
                f"{', '.join(names)} {are} never used with this example and could meet it. If "
                f"nothing will use them, pass ignore={names}"
            )
    return why
