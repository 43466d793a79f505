"""Gates: what multiplies a unit, what it costs, and how sure it is."""

from vibnet.methods.vib import VIBGate as VIBGate
