"""How fast a device judges subnets: a large random batch, and the share of the device's peak it reaches.

The items have the lengths of the 872 sentences of sst2's validation part and random words; the checkpoint
may have random weights (`benchmarks.random_checkpoint`), as time does not depend on them. The peak is that
of one large matrix product in the same number format, measured here.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.evaluation_lists import random_members
from benchmarks.record import make_parser, record
from benchmarks.sst2 import operations_latency
from rlnas import LayerwiseSpace
from rlnas.cli import minilm_path
from rlnas.evaluation import SupernetEvaluator
from rlnas.supernet import Supernet
from rlnas.task import Split, Task

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from transformers import PreTrainedTokenizerBase

    from rlnas.space import SubnetConfig

LENGTHS = Path(__file__).parent / "data" / "sst2_lengths.json"


def main() -> None:
    """Time the batch in every traversal, and record the fastest beside the peak."""
    parser = make_parser(__doc__, "throughput.jsonl")
    parser.add_argument("--model", help="checkpoint; by default MiniLM")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--configs", type=int, default=512, help="random subnets of the default space")
    parser.add_argument("--items", type=int, default=872, help="items at most")
    parser.add_argument("--repeats", type=int, default=3, help="timings of each traversal")
    options = parser.parse_args()
    if options.quick:
        options.configs, options.items, options.repeats = 16, 64, 1
    if options.device == "cpu":
        torch.set_num_threads(1)
    supernet = Supernet.from_pretrained(
        options.model or minilm_path(), None, max_seq_len=128, device=options.device
    )
    task = _task(supernet.tokenizer, options.items)
    configs = random_members(LayerwiseSpace.for_model(supernet.shape), options.configs)
    latency = operations_latency(supernet, task)
    ways: dict[str, dict[str, Any]] = {}
    # None is what the evaluator takes by itself; one walks depth first, one puts subnets together.
    for name, group_tokens, pack_tokens in (
        ("auto", None, None),
        ("depth", 0, None),
        ("breadth", 16384, 2048),
    ):
        evaluator = SupernetEvaluator(
            supernet, task, latency, group_tokens=group_tokens, pack_tokens=pack_tokens
        )
        ways[name] = _time(evaluator, configs, options)
        print(f"{name}: {ways[name]}", flush=True)
    peak = _peak(evaluator.precision, options.device, quick=options.quick)
    best = min(ways.values(), key=lambda way: way["seconds"])
    figures = {
        "seconds": best["seconds"],
        "traversal": best["traversal"],
        "tflops": best["tflops"],
        "peak_tflops": peak,
        "peak_share": best["tflops"] / peak,
        "n_configs": len(configs),
        "n_items": len(task.search),
        "precision": evaluator.precision,
        "padding_share": evaluator.padding_share,
        "ways": ways,
    }
    record("throughput", options, figures, options.device)


def _task(tokenizer: PreTrainedTokenizerBase, n_items: int) -> Task:
    """Texts of random words that are one token each, of the stored lengths."""
    lengths = json.loads(LENGTHS.read_text(encoding="utf-8"))
    lengths = [lengths[i] for i in np.linspace(0, len(lengths) - 1, min(n_items, len(lengths))).astype(int)]
    words = sorted(word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha())
    rng = np.random.default_rng(0)
    texts = tuple(" ".join(rng.choice(words, size=length - 2)) for length in lengths)
    split = Split("texts", texts, None, rng.integers(2, size=len(texts)))
    return Task("throughput", split, split, split, ("one", "two"))


def _time(
    evaluator: SupernetEvaluator, configs: Sequence[SubnetConfig], options: argparse.Namespace
) -> dict[str, Any]:
    evaluator.predict(configs[: 4 if options.device == "cpu" else len(configs)])
    before = evaluator.cost
    seconds = sorted(_seconds(lambda: evaluator.predict(configs)) for _ in range(options.repeats))
    spent, wasted = (
        (getattr(evaluator.cost, name) - getattr(before, name)) / options.repeats
        for name in ("flops", "filler_flops")
    )
    median = seconds[len(seconds) // 2]
    return {
        "seconds": median,
        "seconds_range": [seconds[0], seconds[-1]],
        "tflops": (spent - wasted) / median / 1e12,  # what only fills up groups is no achievement
        "filler_share": wasted / spent,
        "traversal": evaluator.traversal,
    }


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()  # brings predictions to the host, and so waits for the device
    return time.perf_counter() - start


def _peak(precision: str, device: str, *, quick: bool) -> float:
    """TFLOP/s of one large square product, the best of ten."""
    size = 1024 if device == "cpu" or quick else 8192
    left, right = (
        torch.randn(size, size, device=device, dtype=getattr(torch, precision)) for _ in range(2)
    )

    def product() -> float:
        return float((left @ right)[0, 0])

    product()
    return 2 * size**3 / min(_seconds(product) for _ in range(10)) / 1e12


if __name__ == "__main__":
    main()
