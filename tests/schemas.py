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
