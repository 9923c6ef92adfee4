"""Checks of plugs: do they keep the laws that the rest of the library relies on?

Call them from a test of a plug of your own::

    def test_my_reward_keeps_the_laws():
        check_reward(my_reward)

Each raises `ConformanceError`, which names the broken law, or returns None. The library's own
plugs are tested with the same functions.
"""

from __future__ import annotations

import math
import operator
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlnas.errors import ConformanceError, HistoryError, InvalidSubnetError
from rlnas.loop import search
from rlnas.metrics import Metrics
from rlnas.protocols import RelativeReward, TargetedReward
from rlnas.rewards import LatencyTarget
from rlnas.space import LayerConfig, LayerwiseSpace, ModelShape, SubnetConfig
from rlnas.tabular import AdditiveTask, additive_task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlnas.history import Result
    from rlnas.protocols import Controller, Evaluator, LatencyModel, Reward
    from rlnas.space import SearchSpace

_REFERENCE_MS = 20.0


def check_reward(reward: Reward, examples: Sequence[Metrics] | None = None) -> None:
    """A reward is finite, says the same twice, and never falls when only accuracy rises.

    A relative reward must resolve to one that needs no further resolving; a reward with a target
    must give the same reward for another target, and stay as it is itself.

    Args:
        reward: The reward, resolved or not.
        examples: Metrics to try; by default accuracies in [0, 1] and latencies up to 40 ms. Give
            your own if the reward reads ``Metrics.extra``.

    Raises:
        ConformanceError: If a law is broken.
    """
    if isinstance(reward, RelativeReward):
        resolved = reward.resolve(_REFERENCE_MS)
        _require(callable(resolved), f"resolve() must give a reward, but gave {resolved!r}")
        reward = resolved
    if examples is None:
        examples = [
            Metrics(accuracy=accuracy, latency_ms=latency_ms, n_params=1000, n_items=100)
            for accuracy in (0.0, 0.25, 0.5, 0.75, 0.99)
            for latency_ms in (0.5, 5.0, 10.0, 20.0, 40.0)
        ]
    _check_scores(reward, examples)
    if isinstance(reward, TargetedReward):
        _check_targets(reward, examples)


def _check_scores(reward: Reward, examples: Sequence[Metrics]) -> None:
    for metrics in examples:
        value = reward(metrics)
        _require(
            isinstance(value, float | int | np.floating | np.integer) and math.isfinite(value),
            f"a reward must be a finite number, but it is {value!r} for {metrics}",
        )
        again = reward(metrics)
        _require(
            again == value,
            f"a reward must say the same twice, but it says {value} and {again} for {metrics}",
        )
        better = replace(metrics, accuracy=metrics.accuracy + 0.01)
        _require(
            reward(better) >= value,
            f"a reward must not fall when only accuracy rises, but it falls from {value} to "
            f"{reward(better)} between accuracy={metrics.accuracy} and accuracy={better.accuracy} "
            f"at latency_ms={metrics.latency_ms}",
        )


def _check_targets(reward: TargetedReward, examples: Sequence[Metrics]) -> None:
    target_ms = float(reward.target_ms)
    before = [reward(metrics) for metrics in examples]
    moved = reward.at(2.0 * target_ms)
    _require(
        isinstance(moved, TargetedReward) and moved.target_ms == 2.0 * target_ms,
        f"at({2.0 * target_ms}) must give a reward with that target_ms, but gave {moved!r}",
    )
    _check_scores(moved, examples)
    _require(
        reward.target_ms == target_ms and [reward(metrics) for metrics in examples] == before,
        f"at() must leave the reward itself as it is, but it changed {reward!r}",
    )


def check_latency_model(latency: LatencyModel, space: SearchSpace, *, n: int = 16, seed: int = 0) -> None:
    """A latency model gives one finite number above 0 per config, whatever the batch.

    Args:
        latency: The model.
        space: Members of it are tried.
        n: Number of random members.
        seed: Which members.

    Raises:
        ConformanceError: If a law is broken.
    """
    configs = _members(space, n, seed)
    answers = [float(answer) for answer in latency(configs)]
    _require(
        len(answers) == len(configs),
        f"a latency model must give one number per config, but gave {len(answers)} for {len(configs)}",
    )
    for config, answer in zip(configs, answers, strict=True):
        _require(
            math.isfinite(answer) and answer > 0,
            f"a latency must be a finite number above 0 ms, but it is {answer} for {config}",
        )
        alone = float(latency([config])[0])
        _require(
            math.isclose(alone, answer, rel_tol=1e-6),
            f"a predicted latency must not depend on the batch, but it is {answer} ms in a batch "
            f"and {alone} ms alone for {config}",
        )
    smallest, largest = answers[:2]
    _require(
        smallest <= largest,
        f"the smallest member must not be slower than the largest, but it takes {smallest} ms "
        f"and the largest {largest} ms",
    )


def check_space(space: SearchSpace, *, n: int = 64, seed: int = 0) -> None:
    """A space codes its members one to one, smallest option first, and refuses all others.

    Args:
        space: The space.
        n: Number of random members that are tried.
        seed: Which members.

    Raises:
        ConformanceError: If a law is broken.
    """
    nvec = tuple(space.nvec)
    _require(
        len(nvec) > 0 and all(isinstance(k, int | np.integer) and k >= 1 for k in nvec),
        f"nvec must hold integers of at least 1, but it is {nvec}",
    )
    ends = (("smallest", [0] * len(nvec)), ("largest", [k - 1 for k in nvec]))
    for name, action in ends:
        member, expected = getattr(space, name)(), space.decode(action)
        _require(
            member == expected,
            f"{name}() must be decode({tuple(action)}), but they are {member} and {expected}",
        )
    rng = np.random.default_rng(seed)
    for _ in range(n):
        _check_coding(space, tuple(int(rng.integers(k)) for k in nvec))
    for index in range(n):
        first, second = (space.sample(np.random.default_rng((seed, index))) for _ in range(2))
        _require(first in space, f"sample() must give a member, but gave {first}")
        _require(
            first == second,
            f"sample() must draw from its generator only, but equal ones gave {first} and {second}",
        )
    _check_refusals(space, nvec)


def _check_coding(space: SearchSpace, action: tuple[int, ...]) -> None:
    config = space.decode(action)
    _require(config in space, f"decode({action}) must be a member of the space, but {config} is not")
    code = tuple(space.encode(config))
    _require(code == action, f"encode must undo decode, but {action} came back as {code}")
    for position, n_options in enumerate(space.nvec):
        for option, is_bound in ((0, operator.ge), (n_options - 1, operator.le)):
            end = space.decode((*action[:position], option, *action[position + 1 :]))
            _require(
                all(is_bound(a, b) for a, b in zip(_sizes(config), _sizes(end), strict=True)),
                f"the first option of a position must be its smallest and the last one its largest, but "
                f"option {option} of position {position} gives {end} beside {config}",
            )


def _sizes(config: SubnetConfig) -> tuple[int, int]:
    heads = sum(layer.num_attention_heads for layer in config.layers)
    units = sum(layer.intermediate_size for layer in config.layers)
    return heads, units


def _check_refusals(space: SearchSpace, nvec: tuple[int, ...]) -> None:
    largest = space.largest()
    foreign = SubnetConfig((*largest.layers, LayerConfig(1, 1)), largest.precision)
    for stranger in (foreign, None, "a text"):
        _require(
            stranger not in space,
            f"what is no config of the space must not be in it, but {stranger!s} is",
        )
    _require(
        _refuses(space.encode, foreign),
        f"encode must raise InvalidSubnetError for a stranger, but took {foreign}",
    )
    for action in ((*nvec,), (*(-1 for _ in nvec),), (0,) * (len(nvec) + 1)):
        _require(
            _refuses(space.decode, action),
            f"decode must raise InvalidSubnetError outside nvec={nvec}, but took {action}",
        )


def _refuses(call: Any, argument: object) -> bool:  # noqa: ANN401 - decode and encode differ in type
    try:
        call(argument)
    except InvalidSubnetError:
        return True
    return False


def check_evaluator(
    evaluator: Evaluator, space: SearchSpace, *, n: int = 6, seed: int = 0, tolerance: float = 0.0
) -> None:
    """An evaluator gives one `Metrics` per config, in order, whatever the batch.

    One that races configs may race some out: on fewer items than the others, and never all of the
    first batch. An estimate on a part of the items may depend on the batch.

    Args:
        evaluator: The evaluator; one that races must not have judged anything yet.
        space: Members of it are evaluated.
        n: Number of random members beside the smallest and the largest.
        seed: Which members.
        tolerance: Difference of accuracies that rounding may make between batches.

    Raises:
        ConformanceError: If a law is broken.
    """
    configs = _members(space, n, seed)
    batch = list(evaluator(configs))
    _require(
        len(batch) == len(configs),
        f"an evaluator must give one Metrics per config, but gave {len(batch)} for {len(configs)}",
    )
    for config, metrics in zip(configs, batch, strict=True):
        _require(
            isinstance(metrics, Metrics) and math.isfinite(metrics.accuracy),
            f"an evaluator must give a Metrics with a finite accuracy, but gave {metrics!r} for {config}",
        )
    backwards = list(evaluator(configs[::-1]))[::-1]
    alone = [evaluator([config])[0] for config in configs]
    _check_race(configs, batch, [*batch, *backwards, *alone])
    for name, others in (("in a batch in reverse", backwards), ("alone", alone)):
        for config, metrics, other in zip(configs, batch, others, strict=True):
            _require(
                metrics.raced_out or other.raced_out or abs(metrics.accuracy - other.accuracy) <= tolerance,
                f"an accuracy must not depend on the batch, but it is {metrics.accuracy} in a batch "
                f"and {other.accuracy} {name} for {config}",
            )


def _check_race(
    configs: Sequence[SubnetConfig], first: Sequence[Metrics], answers: Sequence[Metrics]
) -> None:
    """`answers` are those of some batches of `configs`, one after the other."""
    complete = [metrics.n_items for metrics in first if not metrics.raced_out]
    _require(
        len(complete) > 0,
        f"an evaluator must judge at least one config of a first batch on all items, but all "
        f"{len(first)} were raced out",
    )
    for index, metrics in enumerate(answers):
        _require(
            not metrics.raced_out or metrics.n_items < min(complete),
            f"what is raced out must be judged on fewer items than the {min(complete)} of the others, "
            f"but has n_items={metrics.n_items} for {configs[index % len(configs)]}",
        )


def check_controller(
    controller: Controller, task: AdditiveTask | None = None, *, budget: int = 33, seed: int = 0
) -> None:
    """A controller proposes until the search ends it, and depends on its seed and answers alone.

    It is run on a small task: with a budget of 1 and of `budget` trials, twice with the same
    seed, and once interrupted and resumed.

    Args:
        controller: The controller.
        task: What to search; by default two layers, of 625 subnets.
        budget: Number of trials, at least 2.
        seed: Seed of the controller.

    Raises:
        ConformanceError: If a law is broken.
    """
    if task is None:
        shape = ModelShape(num_hidden_layers=2, num_attention_heads=4, intermediate_size=8, hidden_size=8)
        task = additive_task(LayerwiseSpace.for_model(shape))
    for n_trials in (1, budget):
        result = _search(controller, task, task, n_trials, seed)
        _require(
            result.stop_reason != "the controller stopped",
            f"a controller must propose until evaluate ends the search, but it returned after "
            f"{len(result.trials)} of budget={n_trials} trials",
        )
        _require(
            len(result.trials) == n_trials,
            f"a controller must find budget={n_trials} new subnets where there are more, but it ended "
            f"after {len(result.trials)} because {result.stop_reason}",
        )
    again = _search(controller, task, task, budget, seed)
    _require(
        again.trials == result.trials and np.array_equal(again.episode_rewards, result.episode_rewards),
        f"a controller must do the same again with the same seed, but it did not with seed={seed}",
    )
    _check_resume(controller, task, result, budget, seed)


def _check_resume(
    controller: Controller, task: AdditiveTask, unbroken: Result, budget: int, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        with suppress(_InterruptionError):
            _search(controller, task, _Interrupted(task, budget // 2), budget, seed, path)
        try:
            resumed = _search(controller, task, task, budget, seed, path).trials
        except HistoryError as error:
            raise ConformanceError(
                f"a controller must do the same again when resumed, but {error}"
            ) from error
    _require(
        resumed == unbroken.trials,
        f"a resumed search must end like an unbroken one, but it did not with seed={seed}",
    )


def _search(
    controller: Controller,
    task: AdditiveTask,
    evaluator: Evaluator,
    budget: int,
    seed: int,
    path: Path | None = None,
) -> Result:
    return search(
        task.space,
        evaluator,
        LatencyTarget(ratio=0.5),
        controller,
        budget=budget,
        seed=seed,
        path=path,
        resume=True,
        latency=task.latency,
        importance=task.importance,
    )


class _InterruptionError(Exception):
    """Stands for whatever stops a process."""


class _Interrupted:
    """An evaluator that fails once it has judged so many configs."""

    def __init__(self, task: AdditiveTask, n_left: int) -> None:
        self._task = task
        self._n_left = n_left

    def __call__(self, configs: Sequence[SubnetConfig], /) -> list[Metrics]:
        if self._n_left <= 0:
            raise _InterruptionError
        self._n_left -= len(configs)
        return self._task(configs)


def _members(space: SearchSpace, n: int, seed: int) -> list[SubnetConfig]:
    rng = np.random.default_rng(seed)
    return [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(n))]


def _require(is_kept: bool, law: str) -> None:
    if not is_kept:
        raise ConformanceError(law)
