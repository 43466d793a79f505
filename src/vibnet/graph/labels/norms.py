"""Root-mean-square norms: how they are recognised in a trace, however they are spelled."""

from collections import defaultdict
from dataclasses import dataclass, replace

from torch import Tensor

from vibnet.graph.capture.trace import Call, Trace

CASTS = {"_to_copy", "detach", "alias", "clone", "contiguous"}
FUSED = "_fused_rms_norm"
SINGLE = 1e-6  # numbers of one single precision differ by less


@dataclass(frozen=True)
class Found:
    """A norm in a trace.

    Attributes:
        call: the number of the call that takes the mean, or of the fused one.
        source: what is normed.
        weight: the name of its parameter.
        offset: what the forward adds to the weight, as in ``(1 + w) * x``.
        scaling: the number of the call that computes with the weight.
        gives: the number of the call that gives the result.
        eps: the number under the root.
        adding: the number of the call that takes `eps`, or -1.
        module: whose attribute holds `eps`.
        attribute: its name, "" where `eps` is 0.
        reason: why it cannot follow a cut, or "".
    """

    call: int
    source: Tensor
    weight: str = ""
    offset: float = 0.0
    scaling: int = -1
    gives: int = -1
    eps: float = 0.0
    adding: int = -1
    module: str = ""
    attribute: str = ""
    reason: str = ""


class Users:
    """Who makes and who uses which tensor in a trace."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.users: dict[int, list[int]] = defaultdict(list)
        self.makers: dict[int, list[int]] = defaultdict(list)
        for k, call in enumerate(trace.calls):
            for key in {id(x) for x in call.given}:
                self.users[key].append(k)
            for x in call.results:
                self.makers[id(x)].append(k)
        self.outputs = {id(x) for x in (*trace.outputs, *trace.kept)}

    def only_user(self, x: Tensor, after: int) -> int:
        """The one call that uses a tensor after another call, casts that nobody uses aside; or -1.

        Casts on the way are passed.
        """
        if id(x) in self.outputs:
            return -1
        found = [k for k in self.users[id(x)] if k > after and not self._idle(k)]
        if not found:
            return -1
        call = self.trace.calls[found[0]]
        if len(found) > 1 and call.out is not x:  # written into in place, it is a new one
            return -1
        return self.only_user(call.out, found[0]) if call.op in CASTS else found[0]

    def _idle(self, number: int) -> bool:
        """Whether a call only gives another name to a tensor, which nobody uses or gets."""
        call = self.trace.calls[number]
        used = self.users[id(call.out)] or id(call.out) in self.outputs
        return call.op in CASTS and not used

    def only_seen_by(self, x: Tensor, user: int) -> bool:
        """Whether one call alone uses a tensor."""
        seen = [k for k in self.users[id(x)] if not self._idle(k)]
        return seen == [user] and id(x) not in self.outputs

    def uncast(self, x: Tensor, before: int) -> Tensor:
        """What a tensor was cast from."""
        while (k := self.maker(x, before)) >= 0 and self.trace.calls[k].op in CASTS:
            x, before = self.trace.calls[k].args[0], k
        return x

    def maker(self, x: Tensor, before: int) -> int:
        """The last call before another that gave a tensor, or -1."""
        return max((k for k in self.makers[id(x)] if k < before), default=-1)


def find(trace: Trace) -> dict[int, Found]:
    """The root-mean-square norms of a trace, by the number of the call that takes the mean."""
    out: dict[int, Found] = {}
    flow: Users | None = None
    for number, call in enumerate(trace.calls):
        if call.op == FUSED:
            out[number] = _fused(trace, number, call)
        elif call.op == "mean" and _over_last(call):
            flow = flow or Users(trace)
            if (found := _spelled(flow, number, call)) is not None:
                out[number] = found
    return out


def _over_last(call: Call) -> bool:
    """Whether a mean goes over the last axis alone, and leaves it there."""
    x, axes, kept = (*call.args, None, None)[:3]
    return kept is True and axes in ([-1], [x.ndim - 1])


def _fused(trace: Trace, number: int, call: Call) -> Found:
    x, shape, weight, eps = (*call.args, None, None)[:4]
    name = trace.state.get(id(weight), "") if weight is not None else ""
    why = ""
    if len(shape) != 1:
        why = f"{call} takes a statistic over several axes"
    elif not name:
        why = _weightless(call)
    elif eps is None:
        why = f"{call} takes a root mean square over it with no eps of its own; state one"
    found = Found(number, x, name, scaling=number, gives=number, eps=eps or 0.0, adding=number)
    return _with_eps(trace, replace(found, reason=why))


def _spelled(flow: Users, number: int, call: Call) -> Found | None:
    """A norm written out as a mean of squares, a root and products; None if it is none."""
    calls = flow.trace.calls
    maker = flow.maker(call.args[0], number)
    if maker < 0:
        return None
    square = calls[maker]
    x = square.args[0]
    if not (square.op == "pow" and square.args[1] == 2) and not (
        square.op == "mul" and square.args[1] is x
    ):
        return None
    eps, adding, at = 0.0, -1, flow.only_user(call.out, number)
    if at >= 0 and calls[at].op in ("add", "add_") and _number(calls[at]) is not None:
        eps, adding = _number(calls[at]) or 0.0, at
        at = flow.only_user(calls[at].out, at)
    if at < 0 or not _is_root(calls[at]):
        return None
    root = calls[at]
    divided = flow.only_user(root.out, at)
    if divided < 0:
        return None
    product = calls[divided]
    wanted = "div" if root.op.removesuffix("_") == "sqrt" else "mul"
    below = flow.uncast(root.out, divided)
    others = [y for y in product.given if flow.uncast(y, divided) is not below]
    if product.op.removesuffix("_") != wanted or len(others) != 1:
        return None
    if flow.uncast(others[0], divided) is not flow.uncast(x, number):
        return None
    if wanted == "div" and product.args[0] is not others[0]:
        return None
    found = Found(number, x, eps=eps, adding=adding)
    return _with_eps(flow.trace, _with_weight(flow, found, divided))


def _number(call: Call) -> float | None:
    """The number that a call adds, None where it adds a tensor, or a multiple of something."""
    number = call.args[1]
    return float(number) if isinstance(number, (int, float)) and not call.kwargs else None


def _is_root(call: Call) -> bool:
    name = call.op.removesuffix("_")
    return name in ("rsqrt", "sqrt") or (name == "pow" and call.args[1] == -0.5)


def _with_weight(flow: Users, found: Found, divided: int) -> Found:
    """The norm with the parameter that its result is multiplied with."""
    out = flow.trace.calls[divided].out
    at = flow.only_user(out, divided)
    call = flow.trace.calls[max(at, 0)]
    if at >= 0 and call.op.removesuffix("_") == "mul":
        for y in call.given:
            weight, offset, use = flow.uncast(y, at), 0.0, at
            maker = flow.maker(weight, at)
            adds = flow.trace.calls[max(maker, 0)]
            if maker >= 0 and adds.op == "add" and _number(adds) is not None:
                weight, offset, use = flow.uncast(adds.args[0], maker), _number(adds) or 0.0, maker
            name = flow.trace.state.get(id(weight), "")
            if name and weight.ndim == 1 and weight.shape[0] == found.source.shape[-1]:
                return replace(found, weight=name, offset=offset, scaling=use, gives=at)
    return replace(found, reason=_weightless(flow.trace.calls[found.call]))


def _weightless(call: Call) -> str:
    return (
        f"{call} takes a root mean square over it, and no parameter of that width follows that "
        f"could make up for a smaller one; give the norm a weight"
    )


def _with_eps(trace: Trace, found: Found) -> Found:
    """The norm with the attribute of its module that holds `eps`."""
    if found.reason or not found.eps:
        return found
    call = trace.calls[found.adding]
    module = trace.model.get_submodule(call.module)
    held = [k for k, v in vars(module).items() if type(v) is float and close(v, found.eps)]
    if len(held) == 1:
        value = getattr(module, held[0])
        return replace(found, module=call.module, attribute=held[0], eps=value)
    kind = type(module).__name__
    why = (
        f"{call} takes a root mean square over it with eps = {found.eps:g}, which must follow the "
        f"width, but {len(held) or 'no'} attributes of {kind} hold that number; keep it in one, "
        f"as in self.eps"
    )
    return replace(found, reason=why)


def close(a: float, b: float) -> bool:
    """Whether two numbers are the same in single precision."""
    return abs(a - b) <= SINGLE * abs(b)
