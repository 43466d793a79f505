"""An average of a model's weights over its steps."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Pairs = list[tuple[list[Tensor], list[Tensor]]]


class Average(AveragedModel):
    """torch's exponential moving average, which looks for parameters and buffers only once.

    A step of a small network takes a tenth longer where they are looked for every time. Buffers
    are those of the last step, as torch's are.

    Args:
        model: whose weights are averaged; its copy is `module`.
        decay: what the average keeps of itself in a step, 0 to 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch's
        super().__init__(model, multi_avg_fn=update)
        self.forget()

    def forget(self) -> None:
        """Look anew at the next step: the model, and its copy, have other tensors now."""
        self._parameters_by_type: Pairs = []
        self._copied: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take a step's weights in."""
        if not self._parameters_by_type:
            super().update_parameters(model)
            self._look(model)
            return
        assert self.multi_avg_fn is not None
        for averaged, given in self._parameters_by_type:
            self.multi_avg_fn(averaged, given, self.n_averaged)
        for own, theirs in self._copied:
            own.copy_(theirs)
        self.n_averaged += 1

    def _look(self, model: nn.Module) -> None:
        pairs: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]] = {}
        for own, theirs in zip(self.module.parameters(), model.parameters(), strict=True):
            averaged, given = pairs.setdefault((own.device, own.dtype), ([], []))
            averaged.append(own)
            given.append(theirs)
        self._parameters_by_type = list(pairs.values())
        self._copied = list(zip(self.module.buffers(), model.buffers(), strict=True))
