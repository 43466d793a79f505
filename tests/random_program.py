"""The module that runs a random network's program, and the builder that writes the program."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

MAP, TOKENS, VECTOR = "map", "tokens", "vector"  # (B, C, *space), (B, T, C), (B, C)
MAX_CHANNELS = 20


class Skip(Exception):
    """No tensor fits this step: the step is left out."""


def to_tokens(x):
    return x.flatten(2).transpose(1, 2)


def mean_space(x):
    return x.mean(tuple(range(2, x.ndim)))


@dataclass(frozen=True, eq=False)
class Op:
    """One line of a program: a call of a layer (by name) or of a function."""

    call: str | Callable
    sources: tuple[int, ...]
    options: dict
    parameters: tuple[str, ...]  # names of parameters that the function gets after its tensors
    shapes: list[tuple[int, ...]]  # of the results


class Program(nn.Module):
    """A network whose forward runs the lines of a program over a pool of tensors."""

    def __init__(self, layers, program, outputs, form="tuple", frozen=()):
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.program = program
        self.outputs = outputs
        self.form = form
        self.frozen = tuple(frozen)

    def train(self, mode=True):
        super().train(mode)
        for name in self.frozen:
            self.layers[name].eval()
        return self

    def forward(self, *inputs):
        pool = list(inputs)
        for op in self.program:
            call = self.layers[op.call] if isinstance(op.call, str) else op.call
            parameters = [self.get_parameter(name) for name in op.parameters]
            result = call(*[pool[i] for i in op.sources], *parameters, **op.options)
            pool += [result] if isinstance(result, Tensor) else result
        results = tuple(pool[i] for i in self.outputs)
        if self.form == "dict":
            return {"logits": results[0], "others": list(results[1:])}
        return results[0] if len(results) == 1 else results

    def source(self, indent=""):
        """The program as text, one line an operation, nested programs indented."""
        number = 1  # v0 is the input
        lines = []
        for op in self.program:
            results = [f"v{number + k}" for k in range(len(op.shapes))]
            number += len(results)
            name = f"self.{op.call}" if isinstance(op.call, str) else op.call.__name__
            arguments = [f"v{i}" for i in op.sources] + list(op.parameters)
            arguments += [f"{key}={value!r}" for key, value in op.options.items()]
            layer = self.layers[op.call] if isinstance(op.call, str) else None
            note = "" if layer is None or isinstance(layer, Program) else f"  # {layer}"
            head = ", ".join(results) or "_"
            lines.append(f"{indent}{head} = {name}({', '.join(arguments)}): {op.shapes}{note}")
            if isinstance(layer, Program):
                lines.append(layer.source(indent + "    "))
        lines.append(f"{indent}return " + ", ".join(f"v{i}" for i in self.outputs))
        return "\n".join(lines)


@dataclass(frozen=True)
class Step:
    """A way to lengthen a program: what it does, how often it is drawn, what it may write."""

    run: Callable
    weight: int
    constructs: tuple[str, ...]


def table_of(steps):
    """A decorator that enters functions into a table of steps under their own names."""

    def step(weight, *constructs):
        def enter(run):
            steps[run.__name__] = Step(run, weight, constructs or (run.__name__,))
            return run

        return enter

    return step


@dataclass
class Builder:
    """A program in the making: every line is run at once on real tensors, to know its shape."""

    inputs: list[Tensor]
    layouts: list[str]
    dims: int
    nested: bool = False
    layers: dict[str, nn.Module] = field(default_factory=dict)
    program: list[Op] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    frozen: list[str] = field(default_factory=list)
    read: set[int] = field(default_factory=set)
    constructs: set[str] = field(default_factory=set)
    writes_in_place: bool = False
    entry: int = 0  # the tensor that the nested program now being written is called with

    def __post_init__(self):
        self.values = [x.clone() for x in self.inputs]

    def shape(self, index):
        return tuple(self.values[index].shape)

    def channels(self, index):
        return self.shape(index)[-1 if self.layouts[index] == TOKENS else 1]

    def space(self, index):
        return self.shape(index)[2:]

    def find(self, layout=MAP, where=lambda i: True):
        """All tensors of a layout that a condition admits."""
        return [i for i, kind in enumerate(self.layouts) if kind == layout and where(i)]

    def pick(self, rng, layout=MAP, where=lambda i: True):
        """One such tensor, mostly the newest; Skip where there is none.

        Tokens and vectors are made from a map where there are none of them.
        """
        if layout != MAP and not self.find(layout):
            x = self.pick(rng)
            self.call(to_tokens if layout == TOKENS else mean_space, x, layout=layout)
        found = self.find(layout, where)
        if not found:
            raise Skip
        return found[-1] if rng.random() < 0.65 else rng.choice(found)

    def layer(self, module, *sources, layout=None):
        """Call a new layer; the index of its (first) result."""
        name = self.next_name(module)
        self.layers[name] = module.train()
        return self.call(name, *sources, layout=layout)

    def next_name(self, module):
        return f"{type(module).__name__.lower()}{len(self.layers)}"

    def call(self, call, *sources, layout=None, parameters=(), **options):
        """Write a line and run it; the index of its (first) result.

        Results have the layout of the first tensor read, unless told otherwise.
        """
        run = self.layers[call] if isinstance(call, str) else call
        given = [self.parameter(name) for name in parameters]
        with torch.no_grad():
            result = run(*[self.values[i] for i in sources], *given, **options)
        results = [result] if isinstance(result, Tensor) else list(result)
        shapes = [tuple(x.shape) for x in results]
        self.program.append(Op(call, sources, options, tuple(parameters), shapes))
        self.read.update(sources)
        first = len(self.values)
        self.values += results
        self.layouts += [layout or self.layouts[sources[0]]] * len(results)
        return first

    def parameter(self, name):
        _, layer, rest = name.split(".", 2)
        return self.layers[layer].get_parameter(rest)

    def in_place(self, write, source):
        """Write lines that change a tensor in place; on a clone where autograd or the caller's
        own input forbids it. `write` gets the index of the tensor."""
        before = len(self.program), len(self.values), set(self.layers), set(self.read)
        self.writes_in_place = True
        write(source)
        if not self.works():
            program, values, layers, self.read = before
            del self.program[program:], self.values[values:], self.layouts[values:]
            self.layers = {name: x for name, x in self.layers.items() if name in layers}
            write(self.call(torch.clone, source))

    def works(self):
        """Whether the program so far bears a backward pass, and leaves the root's inputs alone."""
        everything = list(range(len(self.values)))
        model = Program(self.layers, self.program, everything, frozen=self.frozen)
        for mode in (True, False):
            leaves = [x.clone().requires_grad_(self.nested) for x in self.inputs]
            given = [x * 1.0 for x in leaves] if self.nested else leaves
            try:
                results = model.train(mode)(*given)
                results = [results] if isinstance(results, Tensor) else results
                sum(x.sum() for x in results if x.requires_grad).backward()
            except RuntimeError:
                return False
            if not all(map(torch.equal, leaves, self.inputs)):
                return False
        model.train()
        return True

    def results_of(self, op):
        """The tensors that a line of the program makes."""
        before = self.program[: self.program.index(op)]
        first = len(self.inputs) + sum(len(o.shapes) for o in before)
        return range(first, first + len(op.shapes))

    def unread(self):
        """Tensors that nothing has read yet, the newest last."""
        return [i for i in range(len(self.inputs), len(self.values)) if i not in self.read]

    def close(self, rng):
        """A nested program as a module: its last tensor and up to two that nothing has read."""
        if not self.program:
            raise Skip
        last = len(self.values) - 1
        others = [i for i in self.unread() if i != last]
        outputs = [last, *rng.sample(others, min(2, len(others)))]
        block = Program(self.layers, self.program, outputs, frozen=self.frozen)
        return block, [self.layouts[i] for i in outputs]
