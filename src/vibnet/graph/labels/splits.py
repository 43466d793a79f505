"""Which axis of a view carries the units of the axis that it splits.

``(batch, tokens, 512)`` viewed as ``(batch, tokens, 8, 64)`` holds 64 units, the same places of
eight blocks, or 8 units, whole heads. A channel shuffle means the first, an attention the second.
So labelling starts with the last axis of every view; where the units meet a product of two
activations, another axis carries them, the next to last first, until one is found that may be cut.
"""

from collections.abc import Sequence

import numpy as np

from vibnet.graph.capture.trace import Trace
from vibnet.graph.labels.labeller import Labeller
from vibnet.graph.labels.labels import Array
from vibnet.graph.labels.rules import TABLE

MOST_PASSES = 5


def label(
    traces: Sequence[Trace], batch: int, values: dict[str, Array], inexact: bool = False
) -> Labeller:
    """The labels of all traces, with carriers chosen; `values`: of whole-number buffers."""
    tried: dict[tuple[int, int], list[int]] = {}
    carriers: dict[tuple[int, int], int] = {}
    for _ in range(MOST_PASSES):
        engine = Labeller(dict(TABLE), values=values, carriers=dict(carriers), inexact=inexact)
        engine.add_model(traces[0].model)
        for trace in traces:
            engine.add(trace, batch)
        if not _choose(engine, tried, carriers):
            break
    return engine


def _choose(
    engine: Labeller,
    tried: dict[tuple[int, int], list[int]],
    carriers: dict[tuple[int, int], int],
) -> bool:
    """Choose other carriers where the present ones fail; whether any changed."""
    split = {key: s for key, s in engine.splits.items() if len(s.axes) > 1 and not s.stored}
    if not split or not engine.crossed:
        return False
    roots, pins = engine.labels.resolve()
    crossed = np.zeros(engine.labels.count, dtype=np.bool_)
    for dim in engine.crossed:
        crossed[roots[dim[0]]] = True
    pinned = np.zeros(engine.labels.count, dtype=np.bool_)
    pinned[list(pins)] = True
    crossed[0] = pinned[0] = False
    changed = False
    for key, view in split.items():
        mine = roots[view.atoms]
        past = tried.setdefault(key, [])
        if not (pinned[mine].any() if past else crossed[mine].any()):
            continue
        left = [axis for axis in reversed(view.axes[:-1]) if axis not in past]
        chosen = left[0] if left else past[0]
        past.append(chosen)
        if carriers.get(key) != chosen:
            carriers[key] = chosen
            changed = True
    return changed
