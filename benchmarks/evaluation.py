"""What it costs to judge subnets: by masks, one by one as extracted models, and as rlnas does it.

(a) masks on the full model in float32, eight items at a time as they come, padded to the longest;
(b) every subnet extracted as a model of transformers, in the number format of (c), items sorted by length,
    at its best batch size; the extraction itself is not counted;
(c) rlnas without racing; (d) rlnas with racing.

All on one thread, in processor time, and interleaved. (c) is timed on whole lists; (a) and (b) on 16
subnets of each, a few in every repeat, and scaled: (a) costs the same for all, (b) goes by the operations
of a subnet. In every repeat (a) and (c) take another part of the items, so that a whole run sees all of
them once (half of them in lists of thousands); (b) takes all items every time, as parts of a sorted list
would be padded more. Times are per real token. The lists come from `benchmarks.evaluation_lists`. Item
shares and final choices of races (d) are replayed, in many orders of the items, on answers that were
computed once for all items.
"""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.evaluation_lists import LISTS, spaces
from benchmarks.evaluation_roofline import own_share, roofline
from benchmarks.race_replay import replay
from benchmarks.record import make_parser, record
from benchmarks.sst2 import SEARCH_ITEMS, load_searched, operations_latency
from rlnas.evaluation import SupernetEvaluator
from rlnas.supernet.encoding import collate
from rlnas.supernet.inference import predict
from rlnas.supernet.masking import masked_forward

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from rlnas.space import SubnetConfig
    from rlnas.supernet import Supernet
    from rlnas.supernet.encoding import EncodedSplit
    from rlnas.task import Task

MASKS_BATCH_SIZE = 8
BATCH_SIZES = (8, 16, 32, 64, 128)
MANY = 1000
Lists = dict[str, dict[str, "list[SubnetConfig]"]]


def main() -> None:
    """Time all ways on all lists, compare their answers, and record the ratios."""
    parser = make_parser(__doc__, "evaluation.jsonl")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the folder sst2")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="trained weights, kept")
    parser.add_argument("--items", type=int, default=872, help="search items")
    parser.add_argument("--repeats", type=int, default=5, help="parts of the items, at least 1")
    parser.add_argument("--baseline-configs", type=int, default=16, help="subnets of (a) and (b) a list")
    parser.add_argument(
        "--parts", choices=["all", "timings", "races", "roofline"], default="all", help="what to run"
    )
    options = parser.parse_args()
    if not 1 <= options.repeats <= options.baseline_configs:
        parser.error("--repeats must be at least 1 and no more than --baseline-configs")
    if options.quick:
        options.repeats, options.baseline_configs = 1, 2
    torch.set_num_threads(1)
    supernet, task = load_searched(options.data, options.cache, options.items)
    lists = _lists(supernet, quick=options.quick)
    figures: dict[str, Any] = {}
    if options.parts in ("all", "timings"):
        figures |= _timings(supernet, task, lists, options)
        figures |= _exactness(supernet, task, lists["four_options"]["random"], n=2 if options.quick else 16)
    if options.parts in ("all", "races"):
        figures |= _races(options, lists)
    if options.parts == "roofline" or (options.parts == "all" and not options.quick):
        figures["roofline"] = roofline(supernet, task, lists)
    record("evaluation", options, figures)


def _lists(supernet: Supernet, *, quick: bool) -> Lists:
    stored = json.loads(LISTS.read_text(encoding="utf-8"))
    found: Lists = {}
    for name, space in spaces(supernet).items():
        found[name] = {key: [space.decode(a) for a in actions] for key, actions in stored[name].items()}
        if space.size == 4096:
            everything = itertools.product(*(range(n) for n in space.nvec))
            found[name]["all"] = [space.decode(action) for action in everything]
    if quick:
        return {"four_options": found["four_options"]}
    del found["default"]["ppo25"]
    return found


def _timings(supernet: Supernet, task: Task, lists: Lists, options: argparse.Namespace) -> dict[str, Any]:
    """Microseconds per subnet and token of every way, list and repeat, and their ratios."""
    rng = np.random.default_rng(0)
    latency, encoded = operations_latency(supernet, task), supernet.encode(task.search)
    whole = SupernetEvaluator(supernet, task, latency)
    chosen = {
        (space, name): [
            configs[i] for i in rng.choice(len(configs), options.baseline_configs, replace=False)
        ]
        for space, rows in lists.items()
        for name, configs in rows.items()
    }
    sample = chosen["four_options", "random"][:4]
    sizes = BATCH_SIZES[1:2] if options.quick else BATCH_SIZES
    batch_size = _best_batch_size(supernet, encoded, sample, whole.precision, sizes)
    times: dict[str, dict[str, list[float]]] = {}
    masks: list[float] = []
    for repeat in range(options.repeats):
        masked, evaluator, of_half = _shares(supernet, task, options, repeat)
        for each in (evaluator, of_half):
            each.predict(lists["four_options"]["random"][:2])
        for (space, name), models in chosen.items():
            row = times.setdefault(f"{space}/{name}", {"masks": [], "extracted": [], "rlnas": []})
            turn = models[repeat :: options.repeats]
            by_masks = [_us_per_token(partial(_by_masks, supernet, c, masked), masked) for c in turn]
            extracted = [_extract(supernet, config, whole.precision) for config in turn]
            by_models = [
                _us_per_token(partial(predict, m, encoded, batch_size), encoded) for m in extracted
            ]
            typical = _mean_share(supernet, lists[space][name]) / _mean_share(supernet, turn)
            configs = lists[space][name]
            judge = evaluator if len(configs) < MANY else of_half
            before = judge.cost.n_tokens
            seconds = _seconds(partial(judge.predict, configs))
            own = 1e6 * seconds / (judge.cost.n_tokens - before)
            for key, value in (
                ("masks", np.mean(by_masks)),
                ("extracted", np.mean(by_models) * typical),
                ("rlnas", own),
            ):
                row[key].append(float(value))
            masks += by_masks
            print(_line(f"{space}/{name}", row), flush=True)
    return _ratios(times, masks, batch_size, whole, task)


def _shares(
    supernet: Supernet, task: Task, options: argparse.Namespace, repeat: int
) -> tuple[EncodedSplit, SupernetEvaluator, SupernetEvaluator]:
    """Items of a repeat: for (a) in their own order, for (c) with all lengths, and half of these."""
    stride = options.repeats * (64 if options.quick else 1)
    by_length = np.argsort(supernet.encode(task.search).lengths, kind="stable")
    latency = operations_latency(supernet, task)
    in_order = task.search.take(np.arange(len(task.search))[repeat::stride])
    whole, half = (
        SupernetEvaluator(supernet, replace(task, search=task.search.take(np.sort(items))), latency)
        for items in (by_length[repeat::stride], by_length[repeat :: 2 * stride])
    )
    return supernet.encode(in_order), whole, half


def _ratios(
    times: dict[str, dict[str, list[float]]],
    masks: list[float],
    batch_size: int,
    evaluator: SupernetEvaluator,
    task: Task,
) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, row in times.items():
        space, batch = name.split("/")
        prefix = "" if space == "four_options" else f"{space}_"
        for rival in ("masks", "extracted"):
            ratios = [theirs / ours for theirs, ours in zip(row[rival], row["rlnas"], strict=True)]
            figures[f"{prefix}vs_{rival}_{batch}"] = float(np.median(ratios))
            figures[f"{prefix}vs_{rival}_{batch}_range"] = [min(ratios), max(ratios)]
        figures[f"{prefix}us_per_token_{batch}"] = {key: float(np.median(row[key])) for key in row}
    figures["masks_spread"] = float(np.std(masks) / np.mean(masks))
    figures["extracted_batch_size"] = batch_size
    figures["precision"], figures["traversal"] = evaluator.precision, evaluator.traversal
    figures["padding_share"] = evaluator.padding_share
    figures["n_items"] = len(task.search)
    return figures


def _line(name: str, row: dict[str, list[float]]) -> str:
    last = {key: values[-1] for key, values in row.items()}
    ratios = ", ".join(f"{key} {last[key] / last['rlnas']:.1f} x" for key in ("masks", "extracted"))
    return f"{name:<20} rlnas {last['rlnas']:6.1f} us per subnet and token, cheaper than: {ratios}"


def _seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def _us_per_token(call: Callable[[], object], encoded: EncodedSplit) -> float:
    return 1e6 * _seconds(call) / float(encoded.lengths.sum())


def _mean_share(supernet: Supernet, configs: Sequence[SubnetConfig]) -> float:
    return sum(own_share(supernet, config) for config in configs) / len(configs)


def _by_masks(supernet: Supernet, config: SubnetConfig, encoded: EncodedSplit) -> None:
    with torch.inference_mode():
        for start in range(0, len(encoded), MASKS_BATCH_SIZE):
            items = np.arange(start, min(start + MASKS_BATCH_SIZE, len(encoded)))
            masked_forward(supernet, config, collate(encoded, items, supernet.device)).argmax(dim=1)


def _extract(supernet: Supernet, config: SubnetConfig, precision: str) -> Any:  # noqa: ANN401 - a model
    return supernet.extract(config).to(getattr(torch, precision))


def _best_batch_size(
    supernet: Supernet,
    encoded: EncodedSplit,
    configs: Sequence[SubnetConfig],
    precision: str,
    sizes: Sequence[int],
) -> int:
    """The batch size at which extracted models are fastest, for all lists that of the random one."""
    models = [_extract(supernet, config, precision) for config in configs]
    for model in models:
        predict(model, encoded, max(sizes))  # warm
    seconds = {
        size: sum(_seconds(partial(predict, model, encoded, size)) for model in models) for size in sizes
    }
    return min(seconds, key=seconds.__getitem__)


def _exactness(supernet: Supernet, task: Task, configs: Sequence[SubnetConfig], n: int) -> dict[str, Any]:
    """Largest difference of logits to the extracted models, and what bfloat16 does to accuracies."""
    latency, encoded = operations_latency(supernet, task), supernet.encode(task.search)
    exact = SupernetEvaluator(supernet, task, latency, precision="float32")
    logits = exact.logits(configs[:n])
    worst, n_flips = 0.0, 0
    for config, ours in zip(configs[:n], logits, strict=True):
        model = supernet.extract(config)
        for start in range(0, len(encoded), 32):
            items = np.arange(start, min(start + 32, len(encoded)))
            batch = collate(encoded, items)
            with torch.inference_mode():
                theirs = model(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits.numpy()
            worst = max(worst, float(np.abs(theirs - ours[items]).max()))
            n_flips += int((theirs.argmax(axis=1) != ours[items].argmax(axis=1)).sum())
    labels = task.search.labels
    rounded = SupernetEvaluator(supernet, task, latency, precision="bfloat16").logits(configs[:n])
    accuracies = [(table.argmax(axis=2) == labels).mean(axis=1) for table in (logits, rounded)]
    change = float(np.abs(accuracies[0] - accuracies[1]).max())
    return {"max_logit_diff": worst, "argmax_flips": n_flips, "bfloat16_accuracy_change": change}


def _races(options: argparse.Namespace, lists: Lists) -> dict[str, Any]:
    """Item shares and final choices of races on stored answers; the headline is 5,000 items, one point."""
    cache = options.cache / "answers-random.npz"
    if options.quick and not cache.is_file():  # it takes half an hour
        return {"racing_item_share": None, "racing_same_choice": None}
    supernet, task = load_searched(options.data, options.cache, SEARCH_ITEMS)
    seeds = range(5 if options.quick else 20)
    found = replay(supernet, task, lists["four_options"]["random"], cache, seeds)
    headline = found["5000 items, 0.01"]
    return {
        "racing_item_share": headline["item_share"],
        "racing_same_choice": headline["same_choice"],
        "races": found,
    }


if __name__ == "__main__":
    main()
