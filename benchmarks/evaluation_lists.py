"""Write the lists of subnets that `benchmarks.evaluation` times: random ones, and what PPO proposes.

The lists are data (`benchmarks/data/evaluation_lists.json`), so that every machine times the same work.
A search by PPO is stopped at a share of the trials that it takes as a whole; its policy then goes on
proposing, without learning, until it has brought enough subnets that were never scored. Latency counts
matrix products.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from stable_baselines3 import PPO

from benchmarks.sst2 import load_searched, operations_latency
from rlnas import ChoiceSpace, LatencyTarget, LayerwiseSpace, search
from rlnas.controllers.ppo import PPOController
from rlnas.controllers.vec_env import SubnetVecEnv
from rlnas.evaluation import SupernetEvaluator
from rlnas.metrics import Metrics
from rlnas.protocols import Problem
from rlnas.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from rlnas.space import SearchSpace, SubnetConfig
    from rlnas.supernet import Supernet

LISTS = Path(__file__).parent / "data" / "evaluation_lists.json"
N_CONFIGS = 256
MAX_EPISODES = 200_000
TARGET = LatencyTarget(ratio=0.5)


class _Stop(Exception):  # noqa: N818 - how a search is left
    pass


def main() -> None:
    """Make and write all lists."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the folder sst2")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="trained weights, kept")
    parser.add_argument("--budget", type=int, default=512, help="trials of a whole search")
    parser.add_argument("--items", type=int, default=200, help="search items of the PPO searches")
    options = parser.parse_args()
    torch.set_num_threads(1)
    supernet, task = load_searched(options.data, options.cache, options.items)
    lists: dict[str, dict[str, list[object]]] = {}
    for name, space in spaces(supernet).items():
        evaluator = SupernetEvaluator(supernet, task, operations_latency(supernet, task))
        early, late = _proposals(space, evaluator, options.budget, (0.25, 0.75))
        found = {"random": random_members(space, N_CONFIGS), "ppo25": early, "ppo75": late}
        lists[name] = {key: [list(space.encode(c)) for c in configs] for key, configs in found.items()}
    LISTS.parent.mkdir(exist_ok=True)
    LISTS.write_text(json.dumps(lists, separators=(",", ":")) + "\n", encoding="utf-8")
    print(
        json.dumps({name: {key: len(found) for key, found in row.items()} for name, row in lists.items()})
    )


def spaces(supernet: Supernet) -> dict[str, LayerwiseSpace | ChoiceSpace]:
    """The 4-option space and the default one."""
    shape = supernet.shape
    return {"four_options": ChoiceSpace.for_model(shape), "default": LayerwiseSpace.for_model(shape)}


def random_members(space: SearchSpace, n: int, seed: int = 0) -> list[SubnetConfig]:
    """Distinct members, drawn uniformly."""
    rng = np.random.default_rng(seed)
    members: dict[SubnetConfig, None] = {}
    while len(members) < n:
        members[space.sample(rng)] = None
    return list(members)


class _Judge:
    """The evaluator, which remembers what it has scored and stops a search after some trials."""

    def __init__(self, evaluator: SupernetEvaluator, n_trials: int) -> None:
        self.scored: set[SubnetConfig] = set()
        self._evaluator = evaluator
        self._n_trials = n_trials

    def __call__(self, configs: Sequence[SubnetConfig]) -> Sequence[Metrics]:
        if len(self.scored) >= self._n_trials:
            raise _Stop
        self.scored.update(configs)
        return self._evaluator(configs)


def _proposals(
    space: SearchSpace, evaluator: SupernetEvaluator, budget: int, shares: Sequence[float]
) -> list[list[SubnetConfig]]:
    """What the policy proposes when a share of a search is over, never scored before."""
    whole = search(space, evaluator, TARGET, PPOController(), budget=budget)
    n_trials = len(whole.trials)
    print(f"the search ended after {n_trials} trials: {whole.stop_reason}", flush=True)
    found = []
    for share in shares:
        judge = _Judge(evaluator, round(share * n_trials))
        with tempfile.TemporaryDirectory() as folder:
            policy = Path(folder) / "policy.zip"
            with contextlib.suppress(_Stop):
                controller = PPOController(save_path=policy)
                search(
                    space,
                    judge,
                    TARGET,
                    controller,
                    budget=budget,
                    latency=evaluator.latency,
                    importance=_importance(space, evaluator),
                )
            model = PPO.load(policy, device="cpu")
        found.append(_sample(model, _problem(space, evaluator), judge.scored))
    return found


def _importance(space: SearchSpace, evaluator: SupernetEvaluator) -> npt.NDArray[np.float64] | None:
    """As `search` finds it: an evaluator knows its blocks, not the space."""
    importance = evaluator.importance
    return importance if importance is not None and len(importance) == len(space.nvec) else None


def _problem(space: SearchSpace, evaluator: SupernetEvaluator) -> Problem:
    (reference_ms,) = evaluator.latency([space.largest()])
    reward = TARGET.resolve(float(reference_ms))
    return Problem(
        space=space,
        reward=reward,
        latency=evaluator.latency,
        target_ms=reward.target_ms,
        reference_ms=float(reference_ms),
        importance=_importance(space, evaluator),
    )


def _sample(model: PPO, problem: Problem, scored: set[SubnetConfig]) -> list[SubnetConfig]:
    """Distinct proposals of a policy that does not learn any more."""
    proposed: dict[SubnetConfig, None] = {}
    blank = Metrics(0.0, latency_ms=1.0)

    def note(configs: Sequence[SubnetConfig]) -> list[Trial]:
        proposed.update(dict.fromkeys(config for config in configs if config not in scored))
        return [Trial(0, config, blank, 0.0) for config in configs]

    environment = SubnetVecEnv(problem, note, 64)
    observations, n_episodes = environment.reset(), 0
    torch.manual_seed(0)
    while len(proposed) < N_CONFIGS:
        actions, _ = model.predict(observations, deterministic=False)
        observations, _, dones, _ = environment.step(actions)
        n_episodes += int(dones.sum())
        if n_episodes > MAX_EPISODES:
            raise SystemExit(f"the policy brings only {len(proposed)} new subnets")
    print(f"{len(scored)} trials, then {n_episodes} episodes for {N_CONFIGS} new subnets", flush=True)
    return list(proposed)[:N_CONFIGS]


if __name__ == "__main__":
    main()
