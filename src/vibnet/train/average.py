"""An average of a model's weights over its steps."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Average(AveragedModel):
    """torch's exponential moving average, which looks for the parameters only once.

    A step of a small network takes a fifth longer where they are looked for every time. Parameters
    must stay the same objects, as they do when `shrink` cuts the model and its average.

    Args:
        model: whose weights are averaged; its copy is `module`.
        decay: what the average keeps of itself in a step, 0 to 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch's
        super().__init__(model, multi_avg_fn=update)
        self._pairs: list[tuple[list[Tensor], list[Tensor]]] = []

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take a step's weights in."""
        if not self._pairs:
            super().update_parameters(model)
            pairs: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]] = {}
            for own, theirs in zip(self.module.parameters(), model.parameters(), strict=True):
                for held, value in zip(
                    pairs.setdefault((own.device, own.dtype), ([], [])), (own, theirs), strict=True
                ):
                    held.append(value)
            self._pairs = list(pairs.values())
            return
        assert self.multi_avg_fn is not None
        for averaged, given in self._pairs:
            self.multi_avg_fn(averaged, given, self.n_averaged)
        self.n_averaged += 1
