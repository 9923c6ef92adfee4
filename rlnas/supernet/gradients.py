"""The gradient of a step whose items come in parts: one after the other, or on several ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from torch import nn

    from rlnas.supernet.ranks import Ranks


class GradientMean:
    """The mean over all items of a step, from the means over its parts.

    A parameter gets a gradient if any part gives it one, as in a step of one part: AdamW leaves alone
    what has none, such as a layer that is skipped. Gradients, the marks of those that are there, and the
    loss lie in one flat buffer, which takes as much memory as the gradients do: ranks exchange one message
    in each step.

    Args:
        parameters: What is trained, at least one, all on one device.
        n_parts: Parts in which each rank takes its items.
        ranks: The processes that share the items of a step; None for this one alone.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], n_parts: int, ranks: Ranks | None) -> None:
        self._parameters, self._n_parts, self._ranks = parameters, n_parts, ranks
        sizes = [parameter.numel() for parameter in parameters]
        self._buffer = torch.zeros(sum(sizes) + len(sizes) + 1, device=parameters[0].device)
        *self._sums, self._marks_and_loss = torch.split(self._buffer, [*sizes, len(sizes) + 1])

    def over(
        self, items: npt.NDArray[np.int64], backward: Callable[[npt.NDArray[np.int64]], float]
    ) -> float:
        """Give the parameters, which have no gradients before, the mean over some items; that of the loss.

        Args:
            items: Of the step, on all ranks together, at least one; parts may be of unequal size, and a
                rank may get none.
            backward: Called with the items of a part; adds the gradients of means over them, and returns
                the mean of the loss.
        """
        self._buffer.zero_()
        own = items if self._ranks is None else self._ranks.share_of(items)
        for part in np.array_split(own, self._n_parts):
            if len(part):
                self._add(backward(part), len(part) / len(items))
        if self._ranks is not None:
            self._ranks.add_up(self._buffer)
        *marks, loss = self._marks_and_loss.tolist()
        for parameter, total, mark in zip(self._parameters, self._sums, marks, strict=True):
            parameter.grad = total.view_as(parameter) if mark else None
        return float(loss)

    def _add(self, loss: float, share: float) -> None:
        """Take the gradients that the parameters hold, weighted."""
        marks = [float(parameter.grad is not None) for parameter in self._parameters]
        self._marks_and_loss += torch.tensor([*marks, share * loss], device=self._buffer.device)
        for parameter, total in zip(self._parameters, self._sums, strict=True):
            if parameter.grad is not None:
                total.add_(parameter.grad.flatten(), alpha=share)
                parameter.grad = None
