"""The tensors that modules hold, before and after a forward."""

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from vibnet.graph.capture.shadow import empty
from vibnet.graph.capture.trace import Trace

PLAIN = {bool, int, float, str, type(None)}
TABLES = {"_parameters", "_buffers", "_modules"}


def held_by(module: nn.Module) -> list[tuple[str, Tensor]]:
    """The tensors that a module holds itself, with the attribute; in lists and dicts too."""
    own = {**vars(module), **module._parameters, **module._buffers}
    return [
        (name, x)
        for name, value in own.items()
        if name not in TABLES and type(value) not in PLAIN and not empty(value)
        for x in tree_leaves(value)
        if isinstance(x, Tensor)
    ]


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that modules hold as buffers or plain attributes, by name."""
    return {
        f"{name}.{key}" if name else key: x
        for name, module in model.named_modules()
        for table in (module._buffers, vars(module))
        for key, x in table.items()
        if isinstance(x, Tensor)
    }


def carried(trace: Trace, before: dict[str, Tensor], model: nn.Module) -> list[tuple[str, Tensor]]:
    """What is held now in the place of tensors that were used."""
    now = tensors_of(model)
    other = {n: x for n, x in before.items() if n in now and now[n] is not x}
    used = {id(x) for call in trace.calls for x in call.given} if other else set()
    return [(name, now[name]) for name, x in other.items() if id(x) in used]
