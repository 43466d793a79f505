"""What depends on the inputs in a forward, and what the outputs depend on."""

from typing import Any

from torch import Tensor

from vibnet.graph.capture.memory import storage
from vibnet.graph.capture.trace import Call, ModuleCall, Trace


class Reach:
    """A forward's calls, followed from the inputs and from the outputs.

    Attributes:
        trace: the forward, in evaluation mode.
        since: the storages that depend on an input, and since which call.
        live: the numbers of the calls that an output depends on.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.since = {storage(x): -1 for x in trace.inputs}
        for number, call in enumerate(trace.calls):
            if call.draws or any(storage(x) in self.since for x in call.given):
                for result in call.results:
                    self.since.setdefault(storage(result), number)
        left = [x for x in (*trace.outputs, *trace.kept) if id(x) not in trace.state]
        needed, written = set(map(id, left)), set(map(storage, left))
        self.live: set[int] = set()
        for number in reversed(range(len(trace.calls))):
            call = trace.calls[number]
            stays = writing(call) and any(storage(x) in written for x in call.results)
            if stays or any(id(x) in needed for x in call.results):
                self.live.add(number)
                needed.update(map(id, call.given))
                written.update(map(storage, call.given))

    def inside(self, name: str) -> set[int]:
        """The numbers of the calls that a module makes."""
        mine = {k for k, module in enumerate(self.trace.modules) if module.name == name}
        return {k for k, call in enumerate(self.trace.calls) if not mine.isdisjoint(call.stack)}

    def constant(self, calls: set[int], module: ModuleCall) -> bool:
        """Whether a module gives what no input moves, and nothing else leaves it."""
        output = output_of(module.output)
        if output is None or self.since.get(storage(output), max(calls) + 1) <= max(calls):
            return False
        every = self.trace.calls
        earlier = (x for call in every[: min(calls)] for x in call.results)
        before = {storage(x) for x in (*self.trace.inputs, *self.trace.kept, *earlier)}
        own = {storage(x) for k in calls for x in every[k].results} - before
        outside = (x for k in self.live - calls for x in every[k].given)
        used = {storage(x) for x in (*outside, *self.trace.outputs)}
        writes = any(
            storage(x) in before
            for k in calls & self.live
            if writing(every[k])
            for x in every[k].results
        )
        return not writes and own & used <= {storage(output)} <= own


def writing(call: Call) -> bool:
    """Whether a call writes into a tensor that it is given."""
    return call.op.endswith("_") or "out" in call.kwargs


def output_of(output: Any) -> Tensor | None:
    """The tensor that a module gives, alone or with None beside it."""
    if isinstance(output, tuple) and output and all(x is None for x in output[1:]):
        output = output[0]
    return output if isinstance(output, Tensor) else None
