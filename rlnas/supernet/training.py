"""Training of the full model and of the shared weights.

References:
    J. Yu, T. Huang. Universally slimmable networks and improved training techniques. ICCV 2019
    (sandwich rule, in-place distillation).
    L. Hou et al. DynaBERT: dynamic BERT with adaptive width and depth. NeurIPS 2020 (order by
    importance, then share).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from rlnas.space import LayerConfig, LayerwiseSpace, SubnetConfig
from rlnas.supernet.distillation import distillation_loss
from rlnas.supernet.importance import estimate_importance, order_by_importance, task_loss
from rlnas.supernet.optimisation import Optimisation, optimise

if TYPE_CHECKING:
    from pathlib import Path

    from rlnas.space import SearchSpace
    from rlnas.supernet.encoding import Batch
    from rlnas.supernet.ranks import Ranks
    from rlnas.supernet.supernet import Supernet
    from rlnas.task import Split, Task


@dataclass(frozen=True, slots=True)
class FullTrainer:
    """Plain fine-tuning of the full model.

    Attributes:
        optimisation: Settings of the optimiser.
    """

    optimisation: Optimisation = field(default_factory=Optimisation)

    def train(
        self,
        supernet: Supernet,
        task: Task,
        *,
        checkpoint: Path | None = None,
        pause_after: int | None = None,
        progress: bool = True,
        ranks: Ranks | None = None,
    ) -> list[float]:
        """Fine-tune all weights on the task's training items.

        Args:
            supernet: Its weights are changed.
            task: Only its training part is used.
            checkpoint: File to save to and go on from; None for none.
            pause_after: Passes after which the training pauses, see `rlnas.supernet.optimisation.optimise`.
            progress: Whether to show a bar.
            ranks: The processes that train it together; None for this one alone.

        Returns:
            The loss of every step that was done here.

        Raises:
            ValueError: If there is a pause and no checkpoint.
            TrainingError: If the loss is not a finite number.
        """

        def backward(batch: Batch, _step: int) -> float:
            logits = supernet.model(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits
            loss = task_loss(logits, batch.labels)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.item()

        losses = optimise(
            supernet.model,
            supernet.encode(task.train),
            self.optimisation,
            backward,
            label="fine-tune the full model",
            checkpoint=checkpoint,
            pause_after=pause_after,
            progress=progress,
            ranks=ranks,
        )
        if self.optimisation.epochs > 0:
            supernet.fine_tuned = True
        return losses


@dataclass(frozen=True, slots=True)
class SandwichTrainer:
    """Training of the shared weights: largest, narrowest and random subnets in every step.

    The largest subnet learns the labels; the others learn the largest one's answers. Random subnets
    are drawn evenly over sizes, dropped blocks and layers included, because a supernet that never
    saw a missing layer answers at chance without it.

    Attributes:
        epochs: Passes over the training items.
        full_epochs: Passes of the full model alone before the weights are shared, for checkpoints that
            are not fine-tuned on the task.
        num_random: Random subnets per step.
        importance_items: Training items behind the order of heads and units.
        space: Where random subnets come from; by default `LayerwiseSpace.for_model`.
        rank_subnets: Whether all ranks draw the ``"same"`` random subnets in a step, which makes it that
            of one process, or each draws ``"different"`` ones: more kinds of subnets in a step, on fewer
            items each, and the ranks wait for the one with the largest.
        optimisation: Settings of the optimiser; `epochs` above overrides its own.

    Raises:
        ValueError: If `rank_subnets` is neither.
    """

    epochs: int = 3
    full_epochs: int = 1
    num_random: int = 1
    importance_items: int = 512
    space: SearchSpace | None = None
    rank_subnets: str = "same"
    optimisation: Optimisation = field(default_factory=Optimisation)

    def __post_init__(self) -> None:
        if self.rank_subnets not in ("same", "different"):
            raise ValueError(
                f"rank_subnets must be same or different, but got rank_subnets={self.rank_subnets!r}"
            )

    def train(
        self,
        supernet: Supernet,
        task: Task,
        *,
        checkpoint: Path | None = None,
        progress: bool = True,
        ranks: Ranks | None = None,
    ) -> None:
        """Fine-tune if need be, order heads and units by importance, share the weights.

        Args:
            supernet: Its weights are changed.
            task: Only its training part is used.
            checkpoint: File prefix to save to and go on from; None for none.
            progress: Whether to show bars.
            ranks: The processes that train it together, all by this call; None for this one alone.

        Raises:
            CheckpointError: If the head is untrained and `full_epochs` is 0.
            TrainingError: If the loss is not a finite number.
        """
        if not supernet.fine_tuned and self.full_epochs > 0:
            full = FullTrainer(replace(self.optimisation, epochs=self.full_epochs))
            place = _suffixed(checkpoint, "full")
            full.train(supernet, task, checkpoint=place, progress=progress, ranks=ranks)
        prepare(supernet, task.train, self.importance_items, self.optimisation.seed)
        place = _suffixed(checkpoint, "shared")
        self.share(supernet, task.train, checkpoint=place, progress=progress, ranks=ranks)

    def share(
        self,
        supernet: Supernet,
        split: Split,
        *,
        checkpoint: Path | None = None,
        progress: bool = True,
        ranks: Ranks | None = None,
    ) -> list[float]:
        """The sandwich rule alone, on a supernet whose heads and units are in order; see `train`.

        Returns:
            The largest subnet's loss in every step that was done here.
        """
        space = LayerwiseSpace.for_model(supernet.shape) if self.space is None else self.space
        largest, narrowest = space.largest(), narrowest_subnet(space)
        own = ranks.rank if ranks is not None and self.rank_subnets == "different" else 0

        def backward(batch: Batch, step: int) -> float:
            # NumPy takes [seed, step, 0] for [seed, step]: the first rank draws what one process draws.
            rng = np.random.default_rng([self.optimisation.seed, step, own])
            teacher = supernet.forward(largest, batch)
            loss = task_loss(teacher, batch.labels)
            loss.backward()  # type: ignore[no-untyped-call]
            for config in (narrowest, *(sample_by_size(space, rng) for _ in range(self.num_random))):
                student = supernet.forward(config, batch)
                distillation_loss(student, teacher).backward()  # type: ignore[no-untyped-call]
            return loss.item()

        return optimise(
            supernet.model,
            supernet.encode(split),
            replace(self.optimisation, epochs=self.epochs),
            backward,
            label="share the weights",
            checkpoint=checkpoint,
            progress=progress,
            ranks=ranks,
        )


def prepare(supernet: Supernet, split: Split, n_items: int, seed: int) -> None:
    """Estimate importance on random training items and put the best heads and units first.

    Raises:
        CheckpointError: If the classifier is untrained.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(split), size=min(n_items, len(split)), replace=False)
    order_by_importance(supernet, estimate_importance(supernet, split.take(chosen)))


def sample_by_size(space: SearchSpace, rng: np.random.Generator) -> SubnetConfig:
    """A random member, spread evenly over sizes rather than crowded around the middle.

    A level in [0, 1] is drawn first; every position then draws its option around that level.
    """
    level = rng.uniform()
    return space.decode([int(rng.binomial(n - 1, level)) for n in space.nvec])


def narrowest_subnet(space: SearchSpace) -> SubnetConfig:
    """The smallest member that drops nothing, as far as the space lets it.

    The sandwich rule wants a small subnet with gradients for every layer; one without blocks would
    train the embeddings alone.
    """
    config = space.smallest()
    second = space.decode([min(1, n - 1) for n in space.nvec])
    layers = [
        LayerConfig(
            a.num_attention_heads or b.num_attention_heads, a.intermediate_size or b.intermediate_size
        )
        for a, b in zip(config.layers, second.layers, strict=True)
    ]
    narrowest = SubnetConfig(tuple(layers), config.precision)
    return narrowest if narrowest in space else config


def _suffixed(path: Path | None, suffix: str) -> Path | None:
    return None if path is None else path.with_name(f"{path.name}-{suffix}.pt")
