"""What a few hundred labelled items can tell: intervals, folds, transfer, importance.

Parts, each a figure of its own:

``table``  rlnas-bench: searches that see 200 of 2,000 items; does the interval of the chosen subnet cover
           its accuracy on the other 1,800? The honest interval beside Wilson's, which does not account
           for the choice.
``tiny``   the whole recipe with tiny models on made-up texts: supernets in folds, a search on the
           out-of-fold answers, the chosen subnet with the weights of all 200 items, judged on 4,000 others.
           Also what a carved search part would have said.
``import`` MiniLM: does the order by importance from 50, 100 or 200 items agree with that from 2,000?
``start``  MiniLM: a supernet from the checkpoint beside one from a supernet of another task, on few items.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.random_checkpoint import write_checkpoint
from benchmarks.record import make_parser, record
from rlnas import LatencyTarget, LayerwiseSpace, Split, Task, search
from rlnas.cli import minilm_path
from rlnas.controllers.evolution import EvolutionController
from rlnas.controllers.random import RandomController
from rlnas.controllers.surrogate import AutoController
from rlnas.data import load_task
from rlnas.data.folds import assign_folds
from rlnas.evaluation import FoldedEvaluator, SupernetEvaluator
from rlnas.scores import wilson_interval
from rlnas.selection import honest_interval
from rlnas.supernet import FullTrainer, SandwichTrainer, Supernet
from rlnas.supernet.importance import estimate_importance
from rlnas.supernet.optimisation import Optimisation
from rlnas.supernet.training import prepare
from rlnas.tabular import load_bench

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rlnas.history import Result
    from rlnas.protocols import Evaluator
    from rlnas.selection import HonestScore
    from rlnas.space import SearchSpace, SubnetConfig

BENCH = Path(__file__).parent / "data" / "rlnas_bench" / "sst2.rlnasbench"
PARTS = ("table", "tiny", "import", "start")
CONTROLLERS = {"random": RandomController, "evolution": EvolutionController, "auto": AutoController}
TARGET = 0.5
WORDS = [
    "film",
    "story",
    "actor",
    "plot",
    "scene",
    "long",
    "short",
    "quite",
    "never",
    "often",
    "people",
    "world",
    "city",
    "music",
    "voice",
    "light",
]
TELLING = (
    ["bad", "dull", "awful", "boring", "poor", "weak", "flat", "cold"],
    ["good", "bright", "great", "funny", "warm", "rich", "deep", "fine"],
)
FAIRNESS = 0.8
"""How often a telling word tells the truth: no model is right on everything."""


def main() -> None:
    """Run the parts that are asked for."""
    options = _options()
    torch.set_num_threads(1)
    runs = {"table": _table, "tiny": _tiny, "import": _importance, "start": _start}
    record("small_data", options, {part: runs[part](options) for part in options.parts})


def _options() -> argparse.Namespace:
    parser = make_parser(__doc__, "small_data.jsonl")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=50, help="of the parts table and tiny")
    parser.add_argument("--items", type=int, default=200, help="labelled items")
    parser.add_argument("--unseen", type=int, default=4000, help="items that judge tiny models")
    parser.add_argument("--budget", type=int, default=100, help="subnets of a search")
    parser.add_argument("--controllers", nargs="+", choices=CONTROLLERS, default=list(CONTROLLERS)[:2])
    parser.add_argument("--steps", type=int, default=60, help="of each training of MiniLM")
    parser.add_argument("--data", type=Path, help="folder that holds sst2 and cola, for import and start")
    parser.add_argument("--bench", type=Path, default=BENCH)
    options = parser.parse_args()
    if options.quick:
        vars(options).update(seeds=2, budget=20, parts=["table", "tiny"])
    if options.data is None and {"import", "start"} & set(options.parts):
        parser.error("--parts import and start need --data, the folder that holds sst2 and cola")
    return options


def _table(options: argparse.Namespace) -> dict[str, Any]:
    bench = load_bench(options.bench)
    figures = {}
    for name in options.controllers:
        rows = []
        for seed in range(options.seeds):
            order = np.random.default_rng([7, seed]).permutation(bench.n_items)
            seen, rest = np.sort(order[: options.items]), np.sort(order[options.items :])
            result = _search(bench.space, bench.evaluator(items=seen), options.budget, seed, name)
            score = _honest(result, options.items, TARGET * float(bench.latency_ms()[-1]))
            truth = float(bench.accuracy(rest)[bench.row_of(result.best.config)])
            rows.append(_row(score, truth))
        figures[name] = _covered(rows, bench.n_items - options.items)
    return figures


def _tiny(options: argparse.Namespace) -> dict[str, Any]:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint("tiny", Path(folder))
        start = Supernet.from_pretrained(folder, None, max_seq_len=16, pooling="mean")
    pairs = [_tiny_seed(start, options, seed) for seed in range(options.seeds)]
    return {
        "folds": _covered([folds for folds, _ in pairs], options.unseen),
        "carved": _covered([carved for _, carved in pairs], options.unseen),
        "seconds": round(time.monotonic() - started, 1),
    }


def _tiny_seed(start: Supernet, options: argparse.Namespace, seed: int) -> tuple[dict[str, float], ...]:
    """One search in folds and one on a third of the items, each judged on unseen ones."""
    names = ("no", "yes")
    few, rest = _texts(options.items, seed, "labelled"), _texts(options.unseen, 10_000 + seed, "unseen")
    folds = assign_folds(few, 5, seed=seed, label_names=names)
    task = Task("made up", few, few, rest, names, folds=folds)
    supernet = _trained(start, task, seed)
    judge = FoldedEvaluator(
        supernet, [_trained(start, task.fold(k), seed) for k in range(5)], task, _latency
    )
    n_search = options.items // 3
    order = np.random.default_rng(seed).permutation(options.items)
    parted = Task("made up", few.take(order[n_search:]), few.take(order[:n_search]), rest, names)
    carved = _trained(start, parted, seed)
    rows = []
    for own, evaluator, n_items in (
        (supernet, judge, options.items),
        (carved, SupernetEvaluator(carved, parted, _latency), n_search),
    ):
        result = _search(LayerwiseSpace.for_model(own.shape), evaluator, options.budget, seed, "random")
        score = _honest(result, n_items, TARGET * _latency([own.shape.full])[0])
        unseen = SupernetEvaluator(own, task, _latency, split=rest)([result.best.config])
        rows.append(_row(score, unseen[0].accuracy))
    return tuple(rows)


def _texts(n: int, seed: int, name: str) -> Split:
    """Texts of seven words, three of which tell the class, mostly rightly."""
    rng = np.random.default_rng([3, seed])
    labels = rng.permutation(n) % 2
    texts = []
    for label in labels:
        words = list(rng.choice(WORDS, size=4))
        for is_right in rng.uniform(size=3) < FAIRNESS:
            words.insert(rng.integers(len(words)), rng.choice(TELLING[label if is_right else 1 - label]))
        texts.append(" ".join(words))
    return Split(name, tuple(texts), None, labels)


def _trained(start: Supernet, task: Task, seed: int) -> Supernet:
    supernet = start.for_task(task, seed=seed)
    settings = Optimisation(batch_size=16, learning_rate=2e-3, freeze_embeddings=True, seed=seed)
    trainer = SandwichTrainer(epochs=4, full_epochs=4, optimisation=settings)
    trainer.train(supernet, task, progress=False)
    return supernet


def _latency(configs: Sequence[SubnetConfig]) -> list[float]:
    """Weights that are kept, and something for embeddings and head."""
    return [
        2.0 + sum(layer.num_attention_heads + layer.intermediate_size / 32 for layer in config.layers)
        for config in configs
    ]


def _search(space: SearchSpace, judge: Evaluator, budget: int, seed: int, controller: str) -> Result:
    return search(space, judge, LatencyTarget(TARGET), CONTROLLERS[controller](), budget=budget, seed=seed)


def _honest(result: Result, n_items: int, target_ms: float) -> HonestScore:
    """Of the most accurate within the target, as the reward says; `Result.best` is the one on all items."""
    packed = [np.frombuffer(trial.metrics.correct or b"", dtype=np.uint8) for trial in result.trials]
    correct = np.unpackbits(np.stack(packed), axis=1, count=n_items)
    reward = LatencyTarget(target_ms=target_ms)
    penalties = np.array([reward(replace(t.metrics, accuracy=0.0, correct=None)) for t in result.trials])
    return honest_interval(correct, lambda accuracies: int(np.argmax(accuracies + penalties)))


def _row(score: HonestScore, truth: float) -> dict[str, float]:
    low, high = wilson_interval(round(score.seen * score.n_items), score.n_items)
    return {
        "truth": truth,
        "seen": score.seen,
        "honest": score.estimate,
        "covered_honest": score.low <= truth <= score.high,
        "covered_wilson": low <= truth <= high,
        "width_honest": score.high - score.low,
        "width_wilson": high - low,
        "n_seen": score.n_items,
    }


def _covered(rows: Sequence[dict[str, float]], n_unseen: int) -> dict[str, float]:
    """Means over seeds, and how far the two estimates are off in root mean square."""
    figures = {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}
    for name in ("seen", "honest"):
        errors = np.array([row[name] - row["truth"] for row in rows])
        figures[f"rmse_{name}"] = round(float(np.sqrt(np.mean(errors**2))), 4)
    return {**figures, "n_seeds": len(rows), "n_unseen": n_unseen}


def _few(data: Path, name: str, n_items: int, seed: int) -> Task:
    """So many whole texts of a task, and up to 4,000 others as its search part."""
    task = load_task(data / name, search_items=4000 if name == "sst2" else 800, seed=seed)
    order = np.random.default_rng(seed).permutation(len(task.search))
    return replace(
        task, train=task.search.take(order[:n_items], "train"), search=task.search.take(order[n_items:])
    )


def _settings(n_items: int, steps: int) -> Optimisation:
    epochs = max(1, round(steps * 32 / n_items))
    return Optimisation(epochs=epochs, learning_rate=2e-4, freeze_embeddings=True)


def _importance(options: argparse.Namespace) -> dict[str, Any]:
    task = _few(options.data, "sst2", options.items, 0)
    supernet = Supernet.from_pretrained(minilm_path(), task, max_seq_len=32)
    FullTrainer(_settings(options.items, options.steps)).train(supernet, task, progress=False)
    goal = estimate_importance(supernet, task.search.take(np.arange(2000)))
    figures: dict[str, Any] = {}
    for n_items in (50, 100, options.items):
        for where, split in (
            ("trained_on", task.train),
            ("unseen", task.search.take(np.arange(2000, 2000 + n_items))),
        ):
            found = estimate_importance(supernet, split.take(np.arange(n_items)))
            figures[f"{where}_{n_items}"] = {
                "heads": _within(found.heads, goal.heads),
                "units": _within(found.units, goal.units),
                "blocks": round(float(spearmanr(found.blocks.ravel(), goal.blocks.ravel()).statistic), 3),
                "units_top_half": _overlap(found.units, goal.units),
            }
    return figures


def _within(found: np.ndarray, goal: np.ndarray) -> float:
    """Spearman correlation within each layer, on average."""
    return round(float(np.mean([spearmanr(a, b).statistic for a, b in zip(found, goal, strict=True)])), 3)


def _overlap(found: np.ndarray, goal: np.ndarray) -> float:
    """Share of the importance of the best half that the half chosen by few items keeps."""
    half = found.shape[1] // 2
    kept = [
        goal[i, np.argsort(-found[i])[:half]].sum() / np.sort(goal[i])[-half:].sum()
        for i in range(len(goal))
    ]
    return round(float(np.mean(kept)), 3)


def _start(options: argparse.Namespace) -> dict[str, Any]:
    other = _few(options.data, "cola", 780, 0)
    task = _few(options.data, "sst2", options.items, 1)
    judged = task.search.take(np.arange(500))
    checkpoint = Supernet.from_pretrained(minilm_path(), other, max_seq_len=32)
    _share(checkpoint, other, 2 * options.steps, 2 * options.steps)
    rng = np.random.default_rng(0)
    configs = [checkpoint.shape.full]
    configs += [LayerwiseSpace.for_model(checkpoint.shape).sample(rng) for _ in range(7)]
    figures = {}
    for name, steps in (("half", options.steps // 2), ("whole", options.steps)):
        for start, supernet in (
            ("checkpoint", Supernet.from_pretrained(minilm_path(), task, max_seq_len=32)),
            ("other_task", checkpoint.for_task(task)),
        ):
            _share(supernet, task, options.steps, steps)
            found = SupernetEvaluator(supernet, task, _latency, split=judged)(configs)
            figures[f"{start}_{name}"] = {
                "full": round(found[0].accuracy, 4),
                "random_subnets": round(float(np.mean([m.accuracy for m in found[1:]])), 4),
                "share_steps": steps,
                "n_items": len(judged),
            }
    return figures


def _share(supernet: Supernet, task: Task, full_steps: int, steps: int) -> None:
    n_items = len(task.train)
    FullTrainer(_settings(n_items, full_steps)).train(supernet, task, progress=False)
    prepare(supernet, task.train, 256, 0)
    settings = _settings(n_items, steps)
    SandwichTrainer(epochs=settings.epochs, optimisation=settings).share(
        supernet, task.train, progress=False
    )


if __name__ == "__main__":
    main()
