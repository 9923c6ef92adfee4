"""What evaluations have cost, beside what masks would have cost."""

from __future__ import annotations

from dataclasses import astuple, dataclass


@dataclass(frozen=True, slots=True)
class EvaluationCost:
    """Work of an evaluator; two of them add up.

    Operations are those within matrix products of the layers, two for each multiplication;
    embeddings, head, softmax, activations and LayerNorm are left out on both sides.

    Attributes:
        n_configs: Subnets judged.
        n_items: Items answered, summed over the subnets.
        n_tokens: Tokens of those items, none of which is padding.
        flops: Operations spent.
        filler_flops: Those among them that only filled up groups of a fixed number of subnets.
        masked_flops: Operations of the full model on all items for every subnet, raced out or not, which
            is what scoring by masks takes, its padding not counted.
    """

    n_configs: int = 0
    n_items: int = 0
    n_tokens: int = 0
    flops: int = 0
    filler_flops: int = 0
    masked_flops: int = 0

    def __add__(self, other: EvaluationCost) -> EvaluationCost:
        return EvaluationCost(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: EvaluationCost) -> EvaluationCost:
        return EvaluationCost(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __str__(self) -> str:
        saved = f", masks would take {self.masked_flops / self.flops:.1f} times that" if self.flops else ""
        return (
            f"{self.n_configs:,} subnets, {self.n_items:,} items, {self.n_tokens:,} tokens, "
            f"{self.flops / 1e12:.3g} TFLOP{saved}"
        )
