"""Toy data and gated networks for the tests of training, and what is compared of them."""

import copy

import torch
from laws import close_units
from networks import NETWORKS, call, lively, tensors
from torch import nn
from torch.utils._pytree import tree_map

from vibnet import attach, penalty
from vibnet.config import Settings
from vibnet.recipes.run import fingerprint_of_weights
from vibnet.zoo import LeNet5Caffe, LeNet300100

UNGATED = {"tied_transposed"}  # a test holds that there are no others
IMAGE = (2, 1, 28, 28)
X = torch.randn(8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

SHORT = Settings(batch=16, dense_epochs=2, gate_epochs=7, gate_lr=0.2, gamma=0.05, patience=1)


class FlatConv(nn.Module):
    """Three channels of four pixels, flattened: features 0-3, 4-7 and 8-11."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 2)
        self.fc = nn.Linear(12, 5)
        self.out = nn.Linear(5, 2)

    def forward(self, x):
        return self.out(torch.relu(self.fc(torch.relu(self.conv(x)).flatten(1))))


def bare_norm():
    """Norms that hold no tensor to tell their channels by."""
    norms = nn.InstanceNorm2d(6), nn.BatchNorm2d(5, affine=False, track_running_stats=False)
    layers = nn.Conv2d(3, 6, 3), norms[0], nn.ReLU(), nn.Conv2d(6, 5, 3), norms[1], nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(80, 4))


def _seeded(make, *shape):
    def build(seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return make(), (torch.randn(shape),)

    return build


CASES = {name: (build, {}) for name, build in NETWORKS.items() if name not in UNGATED}
CASES |= {
    "flat_conv": (_seeded(FlatConv, 2, 1, 3, 3), {"features": ["fc"]}),
    "bare_norm": (_seeded(bare_norm, 3, 3, 8, 8), {}),
    "lenet300": (_seeded(LeNet300100, *IMAGE), {"inputs": True}),
    "lenet5": (_seeded(LeNet5Caffe, *IMAGE), {"features": ["fc1"]}),
}


def case(name, share=0.4, seed=0):
    """A lively gated network in float64 and eval, some units closed; the network, its example."""
    build, options = CASES[name]
    model, example = build(seed)
    lively(model, example, seed)
    example = tree_map(lambda x: x.double(), example)
    gated = attach(model, example, **options)
    close_units(gated, share, seed)
    return gated.eval(), model, example


def snapshot(module, optimizer=None):
    """All that an in-place verb could change, copied: tensors and who holds them, sizes, state."""
    tensors = [*module.named_parameters(remove_duplicate=False)]
    tensors += [*module.named_buffers(remove_duplicate=False)]
    state = optimizer.state if optimizer is not None else {}
    return {
        "tensors": {k: (id(v), v.detach().clone()) for k, v in tensors},
        "grads": {k: copy.deepcopy(v.grad) for k, v in module.named_parameters()},
        "sizes": [(type(m), repr(m), m.training, len(m._forward_hooks)) for m in module.modules()],
        "state": {id(k): copy.deepcopy(dict(v)) for k, v in state.items()},
        "groups": copy.deepcopy([{**g, "params": [id(p) for p in g["params"]]}
                                 for g in (optimizer.param_groups if optimizer else [])]),
        "random": torch.get_rng_state(),
    }  # fmt: skip


def same(a, b):
    """Whether two trees of anything are equal, tensors by every number."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items())
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


class Toy:
    """Points in two overlapping clouds a class; the order is a function of the epoch."""

    def __init__(self, examples=64, batch=16, size=6, classes=3, seed=0):
        random = torch.Generator().manual_seed(seed)
        centres = torch.randn(classes, size, generator=random)
        self.y = torch.arange(examples) % classes
        self.x = centres[self.y] + 0.5 * torch.randn(examples, size, generator=random)
        self.batch, self.example = batch, self.x[:2].clone()
        self.steps = -(-examples // batch)
        self.epochs = []  # as they were asked for

    def train(self, epoch):
        self.epochs.append(epoch)
        order = torch.randperm(len(self.y), generator=torch.Generator().manual_seed(epoch))
        return [(self.x[i], self.y[i]) for i in order.split(self.batch)]

    def validation(self):
        return [(self.x[:32] + 0.1, self.y[:32])]


def mlp(size=6, classes=3, dropout=0.0, norm=False, seed=0):
    """A small network with what may go wrong: random masks, running statistics."""
    torch.manual_seed(seed)
    layers = [nn.Linear(size, 16), nn.BatchNorm1d(16) if norm else nn.Identity(), nn.ReLU()]
    layers += [nn.Dropout(dropout), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, classes)]
    return nn.Sequential(*layers)


def gated_mlp(share=0.5, **options):
    gated = attach(mlp(norm=True).double(), X, **options)
    close_units(gated, share, 0)
    return gated.eval()


def backward(gated, example):
    gated.zero_grad()
    loss = sum(y.square().mean() for y in tensors(call(gated, example))) + penalty(gated, 1e-2)
    loss.backward()
    return loss


def step(gated, optimizer, example=(X,)):
    backward(gated.train(), example)
    optimizer.step()
    gated.eval()


def told(fitted):
    """All of a run that must be the same when it is repeated."""
    out = {k: getattr(fitted, k) for k in ("history", "warnings", "done")}
    for name in ("dense", "small"):
        model = getattr(fitted, name)
        if model is not None:
            out[name] = fingerprint_of_weights(model), [m.training for m in model.modules()]
    if fitted.gated is not None:
        out["gated"] = fingerprint_of_weights(fitted.gated)
    if fitted.report is not None:
        out["report"] = fitted.report.plan, fitted.report.difference
    return out
