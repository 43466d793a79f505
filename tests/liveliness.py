"""Networks whose answers depend on everything in them, so that a wrong cut shows.

A freshly made network hides faults: its batch norms know nothing of its data, its biases are
near zero, some heads start at zero. `lively` mends that, `liveness` measures it.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_leaves, tree_map

NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.modules.instancenorm._InstanceNorm)
WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd, nn.Bilinear, nn.Embedding)
PASSES = 12


def another(example, seed):
    """A random example of the same kind: new floats, the same integers in another order."""
    generator = torch.Generator().manual_seed(seed)

    def draw(leaf):
        if not isinstance(leaf, Tensor):
            return leaf
        if leaf.is_floating_point():
            return torch.randn(leaf.shape, generator=generator, dtype=torch.float64).to(leaf)
        order = torch.randperm(leaf.numel(), generator=generator)
        return leaf.flatten()[order].reshape(leaf.shape)

    return tree_map(draw, example)


def call(model, example):
    """The model on an example: a tuple of arguments, a dict of keyword arguments or one tensor.

    Floats are cast to the type of the model's parameters.
    """
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)

    def cast(leaf):
        return leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

    example = tree_map(cast, example)
    if isinstance(example, dict):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)


def tensors(tree):
    """The floating point tensors of an output, whatever its structure."""
    if hasattr(tree, "to_tuple"):  # the output classes of transformers
        tree = tree.to_tuple()
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor) and x.is_floating_point()]


def liveness(model, a, b):
    """How far the outputs of two examples are apart, as a part of the largest output."""
    with torch.no_grad():
        first = [x.clone() for x in tensors(call(model, a))]
        second = tensors(call(model, b))
    scale = max(x.abs().max().item() for x in first)
    gap = max((x - y).abs().max().item() for x, y in zip(first, second, strict=True))
    return gap / scale if scale > 0 else 0.0


def lively(model, example, seed):
    """Make a model lively in place; it comes back in eval mode and float64.

    Weights keep their directions, unless all are zero, and are scaled until every layer's output
    has a spread of one; norms, biases and other parameters of one number a channel are drawn;
    batch norms, the frozen ones too, see random data. Flags and ties stay.
    """
    model.double()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        _draw_parameters(model)
        _scale_and_calibrate(model, example, seed)
    return model.eval()


def _signed(parameter, low, high):
    return (
        torch.empty_like(parameter).uniform_(low, high) * (torch.rand_like(parameter) - 0.5).sign()
    )


def _draw_parameters(model):
    owners = [(module, *item) for module in model.modules() for item in module._parameters.items()]
    done = set()
    for module, name, parameter in owners:
        if parameter is None or id(parameter) in done:
            continue
        done.add(id(parameter))
        one_a_channel = sum(size > 1 for size in parameter.shape) <= 1
        if "bias" in name or "shift" in name:
            parameter.normal_(0, 0.3)
        elif isinstance(module, NORMS):
            parameter.copy_(_signed(parameter, 0.5, 1.5))
        elif isinstance(module, nn.PReLU):
            parameter.copy_(_signed(parameter, 0.1, 0.6))
        elif one_a_channel and not isinstance(module, WEIGHTED):
            parameter.copy_(_signed(parameter, 0.5, 1.5))
        else:
            if not parameter.any():
                parameter.normal_()
            fan_in = max(1, parameter.numel() // parameter.shape[0]) if parameter.ndim else 1
            rms = parameter.square().mean().sqrt()
            parameter.mul_(fan_in**-0.5 / rms)


def scaling(model):
    """Hooks that scale every layer's weight when it is first called, until it spreads by one."""
    scaled = set()

    def scale(module, _, output):
        weight = module.weight
        if id(weight) in scaled or parametrize.is_parametrized(module):
            return None
        scaled.add(id(weight))
        spread = output.std()
        if not 1e-12 < spread < 1e12:
            return None
        weight.div_(spread)
        bias = getattr(module, "bias", None)
        if bias is None:
            return output / spread
        bias = bias if output.ndim < 3 or isinstance(module, nn.Linear) else _column(bias, output)
        return (output - bias) / spread + bias

    return [m.register_forward_hook(scale) for m in model.modules() if isinstance(m, WEIGHTED)]


def _scale_and_calibrate(model, example, seed):
    """Forward passes in training mode: layers are scaled in the first, batch norms see them all."""
    model.train()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    before = [(norm.training, norm.momentum) for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = None  # a plain average over all passes
    hooks = scaling(model)
    for n in range(PASSES):
        if n == 1:
            for hook in hooks:
                hook.remove()
            for norm in norms:
                norm.reset_running_stats()
        call(model, another(example, 1000 * seed + n))
    for norm, (training, momentum) in zip(norms, before, strict=True):
        norm.training, norm.momentum = training, momentum


def _column(bias, output):
    return bias.reshape(-1, *[1] * (output.ndim - 2))
