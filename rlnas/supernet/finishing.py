"""The last training of a chosen subnet, alone, taught by the labels and by a teacher."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from rlnas.errors import InvalidSubnetError
from rlnas.supernet.distillation import distillation_loss, hidden_loss, hidden_states, kept_layers
from rlnas.supernet.encoding import sorted_batches
from rlnas.supernet.importance import task_loss
from rlnas.supernet.looks import Looks, share_right
from rlnas.supernet.optimisation import Optimisation, optimise

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from rlnas.supernet.encoding import Batch, EncodedSplit
    from rlnas.supernet.looks import Metric
    from rlnas.supernet.modeling_subnet import SubnetModel
    from rlnas.supernet.supernet import Supernet
    from rlnas.task import Split


ANSWER_BATCH = 32
"""Items that a teacher answers in one pass."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a last training went.

    Attributes:
        looks: The metric on the validation items before the training and after each pass, or part of one;
            empty without such items.
        best_look: Number of the best one, the first of equal ones; None without looks.
        kept_look: Number of the one whose weights the model has: with a patience the last that is not worse
            than the best one beyond noise, see `rlnas.supernet.looks.Looks`; else the last. None without
            looks.
        n_items: Validation items.
        stopped_early: Whether the looks have ended the training before its last pass was over.
    """

    looks: tuple[float, ...] = ()
    best_look: int | None = None
    kept_look: int | None = None
    n_items: int = 0
    stopped_early: bool = False


@dataclass(frozen=True, slots=True)
class SubnetFinisher:
    """The last training of a chosen subnet, taught by labels, and by a teacher's answers and hidden states.

    Attributes:
        optimisation: Settings of the optimiser.
        teacher_weight: Share of the teacher's answers in the loss beside the labels, in [0, 1].
        hidden_weight: Weight of the hidden states, which are added to that loss, at least 0; see
            `rlnas.supernet.distillation.hidden_loss`. Behind each layer of which a block is kept, they
            are to be those of the teacher behind the same layer.
        patience: Looks at the validation items without gain after which the training ends, at least 1;
            good weights are kept then, be it those before the training. None: no early end, and the
            last weights count.
        looks_per_epoch: Looks in each pass, at least 1.

    Raises:
        ValueError: If a number is out of range.
    """

    optimisation: Optimisation = field(default_factory=lambda: Optimisation(epochs=1))
    teacher_weight: float = 0.5
    hidden_weight: float = 0.0
    patience: int | None = None
    looks_per_epoch: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.teacher_weight <= 1:
            raise ValueError(
                f"teacher_weight must be in [0, 1], but got teacher_weight={self.teacher_weight}"
            )
        if not (math.isfinite(self.hidden_weight) and self.hidden_weight >= 0):
            raise ValueError(
                f"hidden_weight must be a number of at least 0, but got hidden_weight={self.hidden_weight}"
            )
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be at least 1 look, but got patience={self.patience}")
        if self.looks_per_epoch < 1:
            raise ValueError(
                f"looks_per_epoch must be at least 1, but got looks_per_epoch={self.looks_per_epoch}"
            )

    def finish(
        self,
        subnet: SubnetModel,
        teacher: Supernet,
        split: Split,
        *,
        validation: Split | None = None,
        metric: Metric = share_right,
        checkpoint: Path | None = None,
        progress: bool = True,
    ) -> Finished:
        """Train a stand-alone subnet in place; the teacher stays as it is.

        Interrupted and started again with the same `checkpoint`, it ends with the same weights and looks
        as an unbroken training.

        Args:
            subnet: Its weights are changed.
            teacher: Its model teaches, and its tokenizer reads; ``Supernet(model, tokenizer)`` makes one of
                any `SubnetModel`, such as the full model fine-tuned alone.
            split: Training items.
            validation: Items that the looks judge on; they choose the weights, so a score on them flatters.
            metric: From their labels and the predictions to a number, higher is better; by default the
                share of right answers.
            checkpoint: File to save to and go on from, removed at the end; None for none.
            progress: Whether to show a bar.

        Raises:
            ValueError: If there is a patience and nothing to look at.
            InvalidSubnetError: If the hidden states of both models do not match.
            TrainingError: If the loss is not a finite number.
            RunFolderError: If the checkpoint cannot be written or read.
        """
        if validation is None and self.patience is not None:
            raise ValueError(
                f"patience={self.patience} needs validation items to look at; give some, or patience=None"
            )
        kept = kept_layers(subnet) if self.hidden_weight else []
        if kept:
            _check_match(subnet, teacher.model)
        looks = None
        if validation is not None:
            looks = Looks(
                subnet,
                teacher.encode(validation),
                metric,
                patience=self.patience,
                per_epoch=self.looks_per_epoch,
            )

        def backward(batch: Batch, _step: int) -> float:
            states, logits = hidden_states(subnet, batch)
            if answers is None:
                with torch.no_grad():
                    goals, goal = hidden_states(teacher.model, batch)
            else:
                goal = answers[batch.indices]
            loss = (1 - self.teacher_weight) * task_loss(logits, batch.labels)
            loss = loss + self.teacher_weight * distillation_loss(logits, goal)
            if kept:
                own, other = ([side[i] for i in kept] for side in (states, goals))
                loss = loss + self.hidden_weight * hidden_loss(own, other, batch.attention_mask)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.item()

        teacher.model.eval()  # type: ignore[no-untyped-call]
        encoded = teacher.encode(split)
        answers = None  # with hidden states, which are too large to keep
        if not kept and self.optimisation.epochs:
            answers = _answers(teacher, encoded)
        optimise(
            subnet,
            encoded,
            self.optimisation,
            backward,
            label="finish the subnet",
            watch=looks,
            checkpoint=checkpoint,
            progress=progress,
        )
        if looks is None:
            return Finished()
        looks.restore_kept()
        n_batches = math.ceil(len(split) / self.optimisation.batch_size)
        n_planned = self.optimisation.epochs * min(self.looks_per_epoch, n_batches) + 1
        return Finished(
            tuple(looks.accuracies),
            looks.best,
            looks.kept,
            n_items=len(validation or ()),
            stopped_early=len(looks.accuracies) < n_planned,
        )


def _answers(teacher: Supernet, encoded: EncodedSplit) -> Tensor:
    """The teacher's logits for all items, shape ``(n, num_labels)``: it need not say them in every pass."""
    parts, order = [], []
    with torch.no_grad():
        for batch in sorted_batches(encoded, ANSWER_BATCH, teacher.model.device):
            parts.append(hidden_states(teacher.model, batch)[1].float())
            order.append(batch.indices)
    return torch.cat(parts)[np.argsort(np.concatenate(order))]


def _check_match(subnet: SubnetModel, teacher: SubnetModel) -> None:
    """Refuse a teacher whose hidden states are of other layers, or of another width."""
    own, other = ((len(model.layers), model.config.hidden_size) for model in (subnet, teacher))
    if own != other:
        raise InvalidSubnetError(
            f"the teacher has {other[0]} layers of hidden size {other[1]}, but the subnet "
            f"{own[0]} of {own[1]}; give the full model that the subnet is a part of"
        )
