"""Pack what `build_bench` judged into the files of rlnas-bench, one a task.

A file holds the answers of all subnets, and what is known of a subnet beforehand: its parameters, the
Fisher importance that it keeps, and its latency. Latencies come from the tables that lie beside the
files; with ``--calibrate`` these are measured first, on this machine. Without any, operations are
counted, which is said in the file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.build_bench import N_FIRST, N_ITEMS, N_LAYERS, OPTIONS, RECIPES
from rlnas import SubnetConfig
from rlnas.additive import AdditiveModel
from rlnas.calibration import Effort, calibrate
from rlnas.data import load_task
from rlnas.errors import DataError
from rlnas.latency import LatencyTable
from rlnas.latency.correction import count_flops
from rlnas.space import ChoiceSpace, ModelShape
from rlnas.supernet import Supernet
from rlnas.supernet.importance import Importance, estimate_importance
from rlnas.tabular import BenchLatency, TabularBench, load_bench, save_bench
from rlnas.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


DATA = Path(__file__).parent / "data" / "rlnas_bench"
CACHE = Path("runs/cache/bench")
SUFFIX = ".rlnasbench"
WORKLOADS = (Workload(1, 32), Workload(32, 32, "bfloat16"))
N_WEIGHED = 512
"""Training items that importance is estimated on."""
CONSTANT_SHARE = 0.05
"""Of the full model's time, what embeddings and head take, where operations are counted."""


def main() -> None:
    """Pack every task of which all parts are there, and print the size of each file."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--tasks", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--cache", type=Path, default=CACHE, help="where build_bench left its parts")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the tasks' folders")
    parser.add_argument("--out", type=Path, default=DATA, help="folder of the files")
    parser.add_argument("--calibrate", action="store_true", help="measure the latency tables first")
    parser.add_argument("--seconds", type=float, default=40.0, help="of timing, for each latency table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.calibrate:
        _calibrate(options.cache, options.out, options.seconds)
    sizes = {}
    for task in options.tasks:
        folder = options.cache / task
        if len(list(folder.glob("part-???.npy"))) < len(OPTIONS) ** N_FIRST:
            print(f"{task}: not all parts are there yet", flush=True)
            continue
        path = options.out / f"{task}{SUFFIX}"
        bench = load_parts(folder, options.data, options.out)
        save_bench(bench, path)
        if not np.array_equal(load_bench(path).right, bench.right):
            raise DataError(f"{path} does not read as it was written")
        sizes[task] = path.stat().st_size
        print(f"{task}: {describe(bench)}, {sizes[task]:,} bytes", flush=True)
    print(json.dumps({"bytes": sizes}))


def load_parts(folder: Path, data: Path, tables: Path = DATA) -> TabularBench:
    """A bench from the parts that are there, also while `build_bench` is still at work.

    Of an unfinished table the bench is that of the last layers, five or four or three of them, with
    those before as they are in the parts that are there, as large as possible.

    Args:
        folder: The task's folder in the cache.
        data: Folder that holds the task's folder; only read the first time.
        tables: Folder of latency tables.

    Raises:
        DataError: If no part is there.
    """
    first, parts = _largest_product(folder)
    space = ChoiceSpace(N_LAYERS - len(first), OPTIONS)
    supernet = Supernet.load(folder / "supernet")
    full = supernet.shape
    note_file = folder / "note.json"
    note: dict[str, Any] = json.loads(note_file.read_text()) if note_file.is_file() else {}

    def whole(config: SubnetConfig) -> SubnetConfig:
        return SubnetConfig(tuple(OPTIONS[entry] for entry in first) + config.layers)

    return TabularBench(
        name=folder.name,
        space=space,
        shape=ModelShape(
            space.num_layers, full.num_attention_heads, full.intermediate_size, full.hidden_size
        ),
        n_items=int(note.get("n_items", N_ITEMS)),
        chance=1 / len(supernet.label_names),
        right=np.concatenate([np.load(part, allow_pickle=False) for part in parts]),
        kept=_kept(_importance(folder, supernet, data), len(first)),
        n_params=AdditiveModel.probe(space, lambda configs: [supernet.n_params(whole(c)) for c in configs]),
        latencies=_latencies(space, full, whole, tables),
        recipe={"model": "MiniLM-L6, mean pooling", **asdict(RECIPES[folder.name]), **note},
    )


def _largest_product(folder: Path) -> tuple[tuple[int, ...], list[Path]]:
    """Choices of the first layers, as few as possible, of which all parts are there; and these parts."""
    n_options = len(OPTIONS)
    for n_fixed in range(N_FIRST + 1):
        for first in itertools.product(reversed(range(n_options)), repeat=n_fixed):
            n_parts = n_options ** (N_FIRST - n_fixed)
            start = n_parts * sum(entry * n_options**i for i, entry in enumerate(reversed(first)))
            parts = [folder / f"part-{part:03d}.npy" for part in range(start, start + n_parts)]
            if all(part.is_file() for part in parts):
                return first, parts
    raise DataError(f"{folder} holds no part-*.npy; run benchmarks.build_bench first")


def describe(bench: TabularBench) -> str:
    """Sizes and extreme accuracies of a bench in one line."""
    accuracies = bench.accuracy()
    return (
        f"{len(bench.right):,} subnets on {bench.n_items:,} items, accuracy {accuracies.min():.3f} to "
        f"{accuracies.max():.3f}, full model {accuracies[-1]:.3f}"
    )


def _importance(folder: Path, supernet: Supernet, data: Path) -> Importance:
    """Fisher importance of heads and units of the trained supernet, kept beside its parts."""
    file = folder / "importance.npz"
    if not file.is_file():
        train = load_task(data / folder.name, search_items=RECIPES[folder.name].carved_items).train
        chosen = np.random.default_rng(0).permutation(len(train))[:N_WEIGHED]
        found = estimate_importance(supernet, train.take(np.sort(chosen)))
        temporary = file.with_name("importance.tmp.npz")
        np.savez(temporary, heads=found.heads, units=found.units)
        temporary.replace(file)
    with np.load(file, allow_pickle=False) as stored:
        return Importance(stored["heads"], stored["units"])


def _kept(importance: Importance, dropped: int) -> AdditiveModel:
    """Importance that every option of every layer keeps; heads and units stand in order of theirs."""
    parts = [
        [heads[: o.num_attention_heads].sum() + units[: o.intermediate_size].sum() for o in OPTIONS]
        for heads, units in zip(importance.heads[dropped:], importance.units[dropped:], strict=True)
    ]
    return AdditiveModel(0.0, tuple(np.array(part) for part in parts))


def _latencies(
    space: ChoiceSpace, full: ModelShape, whole: Callable[[SubnetConfig], SubnetConfig], tables: Path
) -> dict[str, BenchLatency]:
    """The measured ones, and last the one that counts operations."""
    latencies = {}
    for workload in WORKLOADS:
        file = tables / table_name(workload)
        if file.is_file():
            table = LatencyTable.load(file, workload=workload, shape=full)
            latencies[latency_name(workload)] = _measured(space, table, whole)
    first = WORKLOADS[0]
    largest = count_flops(full.full, full, first)

    def counted(configs: Sequence[SubnetConfig]) -> list[float]:
        return [
            CONSTANT_SHARE + (1 - CONSTANT_SHARE) * count_flops(whole(config), full, first) / largest
            for config in configs
        ]

    latencies["operations"] = BenchLatency(
        space, AdditiveModel.probe(space, counted), 0.0, "operations are counted, not timed; full model = 1"
    )
    return latencies


def _measured(
    space: ChoiceSpace, table: LatencyTable, whole: Callable[[SubnetConfig], SubnetConfig]
) -> BenchLatency:
    """A table as a sum over layers.

    It is one but for the model without any block, which has a timing of its own; here it gets the sum
    too, so that the latency is additive throughout.
    """
    model = AdditiveModel.probe(space, lambda configs: table([whole(config) for config in configs]))
    # Of two measurements with relative deviation s each, the mean difference is 2 s / sqrt(pi).
    noise = 0.0 if table.error is None or table.error.noise is None else table.error.noise
    note = f"ms, {table.workload} on {table.device}; {table.error}"
    return BenchLatency(space, model, noise * math.sqrt(math.pi) / 2, note)


def table_name(workload: Workload) -> str:
    """File of a latency table."""
    return f"latency-minilm-{workload.batch_size}x{workload.seq_len}-{workload.dtype}.json"


def latency_name(workload: Workload) -> str:
    """Name of a latency inside a bench."""
    return f"{workload.batch_size}x{workload.seq_len} {workload.dtype}"


def _calibrate(cache: Path, out: Path, seconds: float) -> None:
    """Measure the tables of all workloads; any task's supernet will do, as weights cost no time."""
    supernet = Supernet.load(next(folder for folder in sorted(cache.glob("*/supernet"))))
    space = ChoiceSpace(N_LAYERS, OPTIONS)
    for workload in WORKLOADS:
        effort = Effort(n_held_out=15, n_rounds=30, max_seconds=seconds)
        table = calibrate(supernet, space, workload, "cpu", effort=effort)
        table.save(out / table_name(workload))
        print(table, flush=True)


if __name__ == "__main__":
    main()
