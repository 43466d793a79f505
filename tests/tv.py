"""A mark for tests that need torchvision, which is made ready where it is installed."""

import importlib.util

import pytest
from schemas import declare

HERE = importlib.util.find_spec("torchvision") is not None
if HERE:
    declare()
torchvision = pytest.mark.skipif(not HERE, reason="torchvision is not installed (make test does)")
