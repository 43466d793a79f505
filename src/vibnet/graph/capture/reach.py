"""Which calls of a forward an output depends on."""

from vibnet.graph.capture.memory import storage
from vibnet.graph.capture.trace import Call, Trace


def live(trace: Trace) -> set[int]:
    """The numbers of the calls that an output depends on, of a forward in evaluation mode.

    What modules hold afterwards counts as an output, and so do calls that give no tensor, for their
    number may decide the way. Finer than `Trace.live`: a look at a tensor that is needed is not
    needed itself, and a write counts where something needed lies in that memory.
    """
    left = [x for x in (*trace.outputs, *trace.kept) if id(x) not in trace.state]
    needed, written = set(map(id, left)), set(map(storage, left))
    found: set[int] = set()
    for number in reversed(range(len(trace.calls))):
        call = trace.calls[number]
        stays = writing(call) and any(storage(x) in written for x in call.results)
        if stays or not call.results or any(id(x) in needed for x in call.results):
            found.add(number)
            needed.update(map(id, call.given))
            written.update(map(storage, call.given))
    return found


def writing(call: Call) -> bool:
    """Whether a call writes into a tensor that it is given."""
    return call.op.endswith("_") or "out" in call.kwargs
