"""torchvision beside a torch without CUDA: its Python part expects two operators to be declared.

Its compiled part, which declares them, cannot be loaded there.
"""

import contextlib
import functools

import torch


@functools.cache
def declare():
    """Declare them, once; the library is kept, for its schemas go with it."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        with contextlib.suppress(RuntimeError):  # a build with its operators has declared them
            library.define(schema)
    return library


@functools.cache
def with_boxes():
    """Non-maximum suppression in Python, which detectors call; torchvision's own is compiled."""
    library = declare()
    import torchvision

    if torchvision.extension._has_ops():
        return library
    library.impl("nms", suppressed, "CPU")
    torchvision.ops.boxes._assert_has_ops = lambda: None
    return library


def suppressed(boxes, scores, threshold):
    """The boxes that stay, best first: each that overlaps no better one by more."""
    order, keep = scores.argsort(descending=True), []
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    sides = (high.minimum(boxes[:, 2:]) - low.maximum(boxes[:, :2])).clamp(min=0)
    shared, area = sides.prod(2), (boxes[:, 2:] - boxes[:, :2]).prod(1)
    overlap = shared / (area[:, None] + area - shared)
    gone = torch.zeros(len(boxes), dtype=torch.bool)
    for k in order.tolist():
        if not gone[k]:
            keep.append(k)
            gone |= overlap[k] > threshold
    return torch.tensor(keep, dtype=torch.int64)
