"""Training states for tests, at the start of the phase with gates."""

import torch
from training import Toy, mlp

from vibnet.config import Settings
from vibnet.train.phases import State

X = Toy().example


def gate_state(model=None, options=None, **settings):
    """A state at the start of the phase with gates."""
    torch.manual_seed(0)
    state = State(Settings(**settings), X, options or {}, model if model is not None else mlp())
    state.advance()
    return state


def step(state):
    state.model.train()
    state.optimizer.zero_grad()
    state.model(torch.randn(8, 6)).square().mean().backward()
    state.optimizer.step()
    if state.average is not None:
        state.average.update_parameters(state.model)


def set_snr(gated, site, ratios):
    gate = gated.gate(site)
    with torch.no_grad():
        gate.log_var.fill_(0.0)
        gate.mu.copy_(torch.tensor(ratios, dtype=gate.mu.dtype).sqrt())
