"""Evaluation by the workers of a Ray cluster: speed, balance, and what is left when workers and nodes die.

speed     One worker and two, each with a core, judge the same subnets of MiniLM, in turn; and what this
          machine gives two processes at all: the same work by two that know nothing of each other.
balance   Workers that sleep as long as the subnets of `speed` took here (drawn from their times), each at a
          speed of its own: the share of the workers' time in which they are busy during one call.
equality  A search with workers and one without, same seed: whether the histories are equal.
deaths    A search on two nodes while workers are killed at random moments and one node is lost: whether the
          history is complete and equals an undisturbed one's.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
import torch
from ray.cluster_utils import Cluster as Nodes

from benchmarks.record import make_parser, record
from benchmarks.sleeper import Sleeper
from rlnas import LatencyTarget, LayerwiseSpace, search
from rlnas.cli import minilm_path
from rlnas.controllers.random import RandomController
from rlnas.data import load_task
from rlnas.evaluation import SupernetEvaluator
from rlnas.scale import Cluster, Pool, RayEvaluator, Shares, connect
from rlnas.supernet import Supernet

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rlnas import Metrics, SubnetConfig
    from rlnas.history import Result
    from rlnas.task import Task

MAX_SEQ_LEN = 64
PARTS = ("speed", "balance", "equality", "deaths")


def main() -> None:
    """Run the parts that are asked for, and record what they show."""
    parser = make_parser(__doc__, "workers.jsonl")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to run")
    parser.add_argument("--configs", type=int, default=256, help="subnets of a call in speed")
    parser.add_argument("--items", type=int, default=400, help="search items in speed")
    parser.add_argument("--repeats", type=int, default=3, help="timings of each in speed")
    parser.add_argument("--workers", type=int, default=64, help="in balance")
    parser.add_argument("--sleeps", type=int, default=2048, help="candidates of the call in balance")
    parser.add_argument("--budget", type=int, default=500, help="subnets of the searches")
    parser.add_argument("--kills", type=int, default=5, help="workers that are killed in deaths")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    options = parser.parse_args()
    if options.quick:
        options.parts, options.configs, options.items, options.repeats = ["speed"], 16, 64, 1
    torch.set_num_threads(1)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # A lost node is noticed after seconds instead of half a minute.
    os.environ.setdefault("RAY_health_check_period_ms", "1000")
    os.environ.setdefault("RAY_health_check_failure_threshold", "3")
    figures: dict[str, Any] = {}
    task = load_task("pydocs", max_train_items=64, search_items=options.items, seed=options.seed)
    supernet = Supernet.from_pretrained(minilm_path(), task, max_seq_len=MAX_SEQ_LEN, seed=options.seed)
    parts = {"speed": speed, "balance": balance, "equality": equality, "deaths": deaths}
    for name in options.parts:
        figures[name] = parts[name](supernet, task, options)
        print(f"{name}: {figures[name]}", flush=True)
    record("workers", options, figures)


def latency(configs: Sequence[SubnetConfig]) -> list[float]:
    """Stands for milliseconds: blocks that are kept. Who evaluates does not change it."""
    return [
        float(
            sum(bool(layer.num_attention_heads) + bool(layer.intermediate_size) for layer in config.layers)
        )
        for config in configs
    ]


def speed(supernet: Supernet, task: Task, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of one and two workers for the same subnets, and of two unconnected processes."""
    configs = _configs(supernet, options.configs, options.seed)
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
    judges = {n: RayEvaluator(supernet, task, latency, Cluster(n_workers=n)) for n in (1, 2)}
    for judge in judges.values():
        judge(configs[:4])  # so that they have started
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(options.repeats):
        for n, judge in judges.items():
            start = time.perf_counter()
            judge(configs)
            seconds[n].append(time.perf_counter() - start)
    for judge in judges.values():
        judge.close()
    ray.shutdown()
    ratios = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    return {
        "n_configs": len(configs),
        "n_items": len(task.search),
        "seconds": seconds,
        "speedup": statistics.median(ratios),
        "speedups": ratios,
        "machine_speedup": _machine_speedup(options),
    }


_ALONE = """
import sys, time, torch
from benchmarks.workers import MAX_SEQ_LEN, Supernet, SupernetEvaluator
from benchmarks.workers import _configs, latency, load_task, minilm_path
torch.set_num_threads(1)
n, items, seed = map(int, sys.argv[1:])
task = load_task("pydocs", max_train_items=64, search_items=items, seed=seed)
supernet = Supernet.from_pretrained(minilm_path(), task, max_seq_len=MAX_SEQ_LEN, seed=seed)
judge, configs = SupernetEvaluator(supernet, task, latency), _configs(supernet, n, seed)
judge(configs[:4])
print("ready", flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    judge(configs)
    print(time.perf_counter() - start, flush=True)
"""


def _machine_speedup(options: argparse.Namespace) -> float:
    """How much more two processes do at a time than one; 2 where cores are not shared."""
    arguments = (max(4, options.configs // 8), options.items, options.seed)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _ALONE, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        for _ in range(2)
    ]
    ratios = []
    try:
        for process in processes:
            process.stdout.readline()
        for _ in range(max(2, options.repeats)):
            alone = _timed(processes[:1])
            together = _timed(processes)
            ratios.append(2 * statistics.mean(alone) / statistics.mean(together))
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return statistics.median(ratios)


def _timed(processes: Sequence[subprocess.Popen[str]]) -> list[float]:
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    return [float(process.stdout.readline()) for process in processes]


def balance(supernet: Supernet, task: Task, options: argparse.Namespace) -> dict[str, Any]:
    """The share of their time in which many sleeping workers are busy."""
    judge = SupernetEvaluator(supernet, task, latency)
    measured = []
    for config in _configs(supernet, 32, options.seed):
        start = time.perf_counter()
        judge([config])
        measured.append(time.perf_counter() - start)
    rng = np.random.default_rng(options.seed)
    seconds = rng.choice(measured, options.sleeps).tolist()
    ray.init(address="local", num_cpus=options.workers, include_dashboard=False, log_to_driver=False)
    with closing(Pool(connect("local"), Sleeper, (seconds,), options.workers)) as pool:
        pool.wait_for_all()
        start = time.perf_counter()
        shares = Shares(range(options.sleeps), options.workers)
        busy = sum(answer for _, answer in pool.answers(shares, lambda share: (share,)))
        wall = time.perf_counter() - start
    ray.shutdown()
    return {
        "n_workers": options.workers,
        "n_candidates": options.sleeps,
        "measured_seconds": [min(measured), statistics.median(measured), max(measured)],
        "wall_seconds": wall,
        "busy": busy / (options.workers * wall),
    }


def equality(supernet: Supernet, task: Task, options: argparse.Namespace) -> dict[str, Any]:
    """A search with two workers beside one without."""
    few = _few(task)
    expected = _searched(SupernetEvaluator(supernet, few, latency), supernet, options)
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
    judge = RayEvaluator(supernet, few, latency, Cluster())
    found = _searched(judge, supernet, options)
    judge.close()
    ray.shutdown()
    return {"n_trials": len(found.trials), "equal": _judged(found) == _judged(expected)}


def deaths(supernet: Supernet, task: Task, options: argparse.Namespace) -> dict[str, Any]:
    """A search while workers are killed and a node is lost, beside an undisturbed one."""
    few = _few(task)
    expected = _searched(SupernetEvaluator(supernet, few, latency), supernet, options)
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, log_to_driver=False)
    judge = RayEvaluator(supernet, few, latency, Cluster(address="auto"))
    judge(_configs(supernet, 4, options.seed))
    judge.pool.wait_for_all()
    ended = threading.Event()
    told: list[str] = []
    killer = threading.Thread(target=_kill, args=(nodes, second, ended, told, options))
    start = time.perf_counter()
    killer.start()
    found = _searched(judge, supernet, options, until=killer)
    ended.set()
    killer.join()
    figures = {
        "n_trials": len(found.trials),
        "killed": told.count("worker"),
        "lost_nodes": told.count("node"),
        "n_lost": judge.pool.n_lost,
        "seconds": time.perf_counter() - start,
        "equal": _judged(found) == _judged(expected),
    }
    judge.close()
    ray.shutdown()
    nodes.shutdown()
    return figures


def _kill(
    nodes: Nodes, second: object, ended: threading.Event, told: list[str], options: argparse.Namespace
) -> None:
    """Kill workers at random moments, and take a node away after half of them."""
    rng = random.Random(options.seed)
    while len(told) <= options.kills and not ended.wait(rng.uniform(1, 5)):
        if len(told) == (options.kills + 1) // 2:
            nodes.remove_node(second, allow_graceful=False)
            told.append("node")
            continue
        if processes := own_workers():
            os.kill(rng.choice(processes), signal.SIGKILL)
            told.append("worker")


def own_workers() -> list[int]:
    """Processes of workers that descend from this one."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    parents = {int(process): int(parent) for process, parent, *_ in rows}

    def is_own(process: int) -> bool:
        while process in parents and process != os.getpid():
            process = parents[process]
        return process == os.getpid()

    workers = [int(row[0]) for row in rows if len(row) > 2 and row[2].startswith("ray::SubnetWorker")]
    return [process for process in workers if is_own(process)]


def _searched(
    judge: SupernetEvaluator,
    supernet: Supernet,
    options: argparse.Namespace,
    until: threading.Thread | None = None,
) -> Result:
    """A search of the whole budget; its pace is held until a thread has done its work, if there is one."""

    class Paced:
        """The judge, slowed down so that all deaths fall into the search."""

        def __call__(self, configs: Sequence[SubnetConfig]) -> list[Metrics]:
            if until is not None and until.is_alive():
                time.sleep(0.5)
            return judge(configs)

    with tempfile.TemporaryDirectory() as folder:
        return search(
            LayerwiseSpace.for_model(supernet.shape),
            Paced() if until is not None else judge,
            LatencyTarget(ratio=0.5),
            RandomController(hard_budget=False),
            budget=options.budget,
            seed=options.seed,
            path=Path(folder) / "run",
            latency=latency,
        )


def _few(task: Task) -> Task:
    return replace(task, search=task.search.take(np.arange(min(64, len(task.search)))))


def _judged(result: Result) -> list[Any]:
    return [(trial.config, trial.metrics, trial.reward) for trial in result.trials]


def _configs(supernet: Supernet, n: int, seed: int) -> list[SubnetConfig]:
    space, rng = LayerwiseSpace.for_model(supernet.shape), np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(n)]


if __name__ == "__main__":
    main()
