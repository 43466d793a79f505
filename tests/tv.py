"""torchvision, where it is installed: without CUDA it wants two operator schemas declared first."""

import contextlib
import importlib.util

import pytest
import torch

HERE = importlib.util.find_spec("torchvision") is not None
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_LIBRARY = torch.library.Library("torchvision", "FRAGMENT") if HERE else None
for _schema in SCHEMAS if _LIBRARY else ():
    with contextlib.suppress(RuntimeError):  # a build with its operators has declared them
        _LIBRARY.define(_schema)

torchvision = pytest.mark.skipif(not HERE, reason="torchvision is not installed (extra: zoo)")
