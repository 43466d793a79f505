"""Gates and the methods that use them."""

from vibnet.methods.gate import Columns, Gate, joined
from vibnet.methods.twin import L1Twin, RhoTwin
from vibnet.methods.vib import VIBGate

METHODS: dict[str, type[Gate]] = {"vib": VIBGate, "twin-l1": L1Twin, "twin-rho": RhoTwin}

__all__ = ["METHODS", "Columns", "Gate", "L1Twin", "RhoTwin", "VIBGate", "joined"]
