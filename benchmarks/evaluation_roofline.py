"""How much cheaper than its rivals an evaluation could be if every way ran at the machine's peak."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.sst2 import operations_latency
from rlnas.evaluation import SupernetEvaluator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rlnas.space import SubnetConfig
    from rlnas.supernet import Supernet
    from rlnas.task import Task

N_ITEMS = 8
MASKS_BATCH_SIZE = 8


def roofline(
    supernet: Supernet, task: Task, lists: Mapping[str, Mapping[str, list[SubnetConfig]]]
) -> dict[str, Any]:
    """Operations counted against measured peaks.

    A way's least time is its operations (matrix products of the layers, padding included) over the peak of
    a product of the model's own shape in its number format. All else that is computed comes on top.

    Args:
        supernet: The shared weights.
        task: Its search items are padded as masks pad them.
        lists: Subnets by space and list.
    """
    lengths = supernet.encode(task.search).lengths
    padding = sum(
        int(part.max()) * len(part) for part in np.split(lengths, range(MASKS_BATCH_SIZE, len(lengths), 8))
    ) / float(lengths.sum())
    peaks = _peaks(supernet)
    middle = np.argsort(lengths, kind="stable")[len(lengths) // 2 :][:N_ITEMS]
    small = replace(task, search=task.search.take(np.sort(middle)))
    found: dict[str, Any] = {"masks_padding": padding, "peak_gflops": peaks}
    for space, rows in lists.items():
        for name, configs in rows.items():
            evaluator = SupernetEvaluator(supernet, small, operations_latency(supernet, small))
            evaluator.predict(configs)
            cost, precision = evaluator.cost, evaluator.precision
            one_by_one = sum(own_share(supernet, config) for config in configs) / len(configs)
            masks_over_ours = cost.masked_flops / cost.flops
            found[f"{space}/{name}"] = {
                "flops_per_token": cost.flops / cost.n_tokens,
                "masks_over_ours": masks_over_ours,
                "best_vs_masks": masks_over_ours * padding * peaks[precision] / peaks["float32"],
                "best_vs_extracted": masks_over_ours * one_by_one,
            }
    return found


def own_share(supernet: Supernet, config: SubnetConfig) -> float:
    """Operations of a subnet by itself over those of the full model, attention pairs left out."""
    shape = supernet.shape
    head_size = shape.hidden_size // shape.num_attention_heads
    kept = sum(4 * head_size * c.num_attention_heads + 2 * c.intermediate_size for c in config.layers)
    return kept / (shape.num_hidden_layers * (4 * shape.hidden_size + 2 * shape.intermediate_size))


def _peaks(supernet: Supernet) -> dict[str, float]:
    """GFLOP/s of the FFN's first product over 1,024 tokens, the best of 30 interleaved calls."""
    shape = supernet.shape
    operands = {
        name: (
            torch.randn(1024, shape.hidden_size, dtype=dtype),
            torch.randn(shape.intermediate_size, shape.hidden_size, dtype=dtype),
        )
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
    }
    best = dict.fromkeys(operands, float("inf"))
    for _ in range(30):
        for name, (states, weights) in operands.items():
            start = time.process_time()
            F.linear(states, weights)
            best[name] = min(best[name], time.process_time() - start)
    n_operations = 2 * 1024 * shape.hidden_size * shape.intermediate_size
    return {name: n_operations / seconds / 1e9 for name, seconds in best.items()}
