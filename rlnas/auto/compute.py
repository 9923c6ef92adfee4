"""What work costs, in one unit: a training pass of the whole reference model over the training items.

Operations of matrix products within layers are counted, item by item at its own length: the same on every
machine and in every run, as seconds are not. A backward pass takes twice its forward pass. Embeddings, head
and optimiser are left out on all sides, as are the importance of heads and units, from 256 items, and all
that is timed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rlnas.latency.correction import count_flops
from rlnas.space import LayerConfig
from rlnas.supernet.training import narrowest_subnet
from rlnas.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlnas.run import Schedule
    from rlnas.space import LayerwiseSpace, ModelShape, SubnetConfig

FORWARD_SHARE = 1 / 3
"""Of a training pass: an answer alone."""


def forward_flops(config: SubnetConfig, shape: ModelShape, lengths: Sequence[int]) -> float:
    """Operations of a subnet's answers to items of these lengths, in tokens."""
    counts = Counter(lengths)
    return sum(n * count_flops(config, shape, Workload(1, length)) for length, n in sorted(counts.items()))


@dataclass(frozen=True, slots=True)
class ArmCost:
    """What a model's work costs, in passes of the reference.

    Attributes:
        train: A training pass of the whole model.
        judge: Its answers to all search items.
    """

    train: float
    judge: float

    def look(self, n_passes: int) -> float:
        """That many passes of training, and the answers that judge them."""
        return n_passes * self.train + self.judge


def arm_cost(
    shape: ModelShape, train_lengths: Sequence[int], search_lengths: Sequence[int], unit: float
) -> ArmCost:
    """What a model's work costs.

    Args:
        shape: Its sizes.
        train_lengths: Tokens of the training items.
        search_lengths: Tokens of the search items.
        unit: `forward_flops` of the reference on the training items.
    """
    train, search = (
        forward_flops(shape.full, shape, lengths) for lengths in (train_lengths, search_lengths)
    )
    return ArmCost(train / unit, search / unit * FORWARD_SHARE)


@dataclass(frozen=True, slots=True)
class SearchCost:
    """What the search of one model's architecture costs, in passes of the reference.

    Attributes:
        share: The training of shared weights.
        search: Answers of the subnets that are judged.
        finish: The last training of what is delivered, its teacher's answers included.
        baseline: The full model beside it.
    """

    share: float
    search: float
    finish: float
    baseline: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.share + self.search + self.finish + self.baseline

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def search_at_most(
    cost: ArmCost,
    shape: ModelShape,
    space: LayerwiseSpace,
    schedule: Schedule,
    *,
    budget: int,
    n_models: int,
) -> SearchCost:
    """What a search may cost at most, which is known beforehand; random subnets count at their mean.

    Args:
        cost: Of the model.
        shape: Its sizes.
        space: The subnets on offer.
        schedule: Of the search.
        budget: Subnets that may be judged.
        n_models: Subnets that may be finished.
    """
    # The largest, the narrowest and a random subnet in every step.
    trained = 1 + kept_share(narrowest_subnet(space), shape) + mean_share(space, shape)
    return SearchCost(
        share=cost.train * schedule.epochs * trained,
        search=cost.judge * budget,
        finish=cost.train * finish_passes(1.0, schedule) * n_models,
        baseline=cost.train * (schedule.epochs + schedule.finish_epochs),
    )


def finish_passes(share: float, schedule: Schedule) -> float:
    """The last training of a subnet in passes of its full model, whose answers teach it.

    Args:
        share: Of the full model's work that is the subnet's.
        schedule: Of the search.
    """
    return schedule.finish_epochs * share + (FORWARD_SHARE if schedule.finish_epochs else 0.0)


def kept_share(config: SubnetConfig, shape: ModelShape) -> float:
    """Weights of a subnet's layers over those of the full model; their operations are in proportion."""
    return _weights(config.layers, shape) / _weights(shape.full.layers, shape)


def mean_share(space: LayerwiseSpace, shape: ModelShape) -> float:
    """Mean `kept_share` of the random subnets of a training with shared weights.

    `rlnas.supernet.training.sample_by_size` takes each option of a position equally often.
    """
    total = 0.0
    for options in space.layers:
        heads, units = options.num_attention_heads, options.intermediate_size
        total += sum(_weights([LayerConfig(h, 0)], shape) for h in heads) / len(heads)
        total += sum(_weights([LayerConfig(0, u)], shape) for u in units) / len(units)
    return total / _weights(shape.full.layers, shape)


def _weights(layers: Sequence[LayerConfig], shape: ModelShape) -> float:
    head_size = shape.hidden_size // shape.num_attention_heads
    inner = sum(4 * layer.num_attention_heads * head_size + 2 * layer.intermediate_size for layer in layers)
    return float(shape.hidden_size * inner)
