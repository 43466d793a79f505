"""What one forward did: its aten calls, with their modules and source lines."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from vibnet.graph.capture.picks import Pick

VALUES = {  # the argument that is a value, of operators that also take sizes
    **{"full": 1, "new_full": 2, "full_like": 1, "fill": 1, "scalar_tensor": 0},
    **{
        "avg_pool2d": 6,
        "avg_pool3d": 6,
        "constant_pad_nd": 2,
        "lift_fresh": 0,
        "lift_fresh_copy": 0,
    },
}
VIEWS = {"view", "_unsafe_view", "reshape", "_reshape_alias", "unflatten", "expand"}
PARTS = {"split", "split_with_sizes", "slice"}
SHAPED = {  # operators that are told the sizes of what they give
    *(VIEWS | PARTS | {"repeat", "narrow", "constant_pad_nd"}),
    *("zeros", "ones", "full", "empty", "rand", "randn"),
    *("new_zeros", "new_ones", "new_full", "new_empty"),
}
SIZED = SHAPED | {  # operators whose whole numbers are sizes, places or groups: results tell those
    *("unsafe_split", "select", "roll", "chunk", "unfold", "repeat_interleave"),
    *("randint", "randperm", "as_strided", "new_empty_strided", "empty_strided"),
    *("native_group_norm", "native_layer_norm", "_fused_rms_norm"),
    *("slice_scatter", "select_scatter"),
}
RANDOM = {
    *("rand", "randn", "randint", "rand_like", "randn_like", "randint_like", "randperm"),
    *("bernoulli", "normal", "uniform", "exponential", "poisson", "multinomial", "random"),
    *("native_dropout", "dropout", "alpha_dropout", "feature_dropout", "geometric", "log_normal"),
}


@dataclass(frozen=True)
class Call:
    """One aten call: operator, arguments, results, the modules it ran in, its source line."""

    op: str
    pointwise: bool
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    stack: tuple[int, ...]
    module: str
    line: str

    @cached_property
    def given(self) -> list[Tensor]:
        """The tensors among the arguments."""
        return [x for x in tree_leaves((self.args, self.kwargs)) if isinstance(x, Tensor)]

    @cached_property
    def results(self) -> list[Tensor]:
        """The tensors among the results."""
        if isinstance(self.out, Tensor):
            return [self.out]
        return [x for x in tree_leaves(self.out) if isinstance(x, Tensor)]

    @cached_property
    def numbers(self) -> list[Any]:
        """The numbers that it computes with; not those that are sizes, dimensions or positions."""
        name, leaves = self.op.removesuffix("_"), [*self.args, *self.kwargs.values()]
        if name == "convolution":
            return tree_leaves(self.args[3:8])  # all but the groups
        value = VALUES.get(name)
        if value is not None and not self.pointwise:
            return leaves[value : value + 1]
        kinds = (float, complex) if name in SIZED else (float, int, complex)
        return [x for x in tree_leaves(leaves) if isinstance(x, kinds)]

    @property
    def may_copy(self) -> bool:
        """Whether it is the copy that `contiguous` and `reshape` make for some sizes only."""
        return self.op == "clone" and self.kwargs.get("memory_format") is not None

    @property
    def writes(self) -> bool:
        """Whether it writes into a tensor that it is given."""
        return self.op.endswith("_") or "out" in self.kwargs

    @property
    def kind(self) -> str:
        """The operator, whether or not `reshape` had to copy before it."""
        return "view" if self.op == "_unsafe_view" else self.op

    @property
    def draws(self) -> bool:
        """Whether it draws random numbers, as many as its result is wide."""
        name = self.op.removesuffix("_").removesuffix("_functional")
        return name in RANDOM and not (name.endswith("dropout") and False in self.args[1:3])

    def __str__(self) -> str:
        return f"{self.op} in {self.module or 'the model itself'} ({self.line})"


@dataclass
class ModuleCall:
    """One call of a module: its dotted name, positional and keyword inputs, and output."""

    name: str
    inputs: tuple[Any, ...]
    named: dict[str, Any] = field(default_factory=dict)
    output: Any = None

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors of what it gives."""
        return [x for x in tree_leaves(self.output) if isinstance(x, Tensor)]

    def once(self, x: Tensor) -> bool:
        """Whether a tensor is given to the module in one place only."""
        return sum(leaf is x for leaf in tree_leaves((self.inputs, self.named))) == 1


@dataclass
class Trace:
    """What one forward did. All tensors are kept, so that identities stay unique.

    `held` are the tensors that modules hold afterwards, by the module's name; `moved` those that
    were given other data without a call, and those whose data they were given; `picks` what was
    picked by value, where tensors have values; `carried` what modules hold in the place of a tensor
    that the forward used, by the attribute's name, so that the next call uses it.
    """

    training: bool
    model: nn.Module
    example: Any = None
    inputs: list[Tensor] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    modules: list[ModuleCall] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    held: list[tuple[str, Tensor]] = field(default_factory=list)
    moved: list[tuple[Tensor, Any]] = field(default_factory=list)
    carried: list[tuple[str, Tensor]] = field(default_factory=list)
    state: dict[int, str] = field(default_factory=dict)
    picks: Sequence[Pick] = ()
    failed: tuple[Exception, Call] | None = None

    @property
    def kept(self) -> list[Tensor]:
        """The tensors that modules hold after the forward."""
        return [x for _, x in self.held]

    @cached_property
    def live(self) -> set[int]:
        """The calls that the outputs depend on, by number; of a trace that is complete.

        Not the attention weights that nobody asked for. What modules hold after the forward counts
        as an output, and so do writes in place, statistics of batch norms and calls that give no
        tensor.
        """
        needed, found = {id(x) for x in (*self.outputs, *self.kept)}, set()
        for number in reversed(range(len(self.calls))):
            call = self.calls[number]
            writes = call.op.endswith("_") or "batch_norm" in call.op or "out" in call.kwargs
            if writes or not call.results or any(id(x) in needed for x in call.results):
                found.add(number)
                needed.update(id(x) for x in call.given)
        return found

    @property
    def way(self) -> list[Call]:
        """The calls that are made whatever the sizes are."""
        return [call for call in self.calls if not call.may_copy]
