from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest

from rlnas.errors import ConformanceError, InvalidSubnetError
from rlnas.loop import SearchEnd
from rlnas.metrics import Metrics
from rlnas.rewards import LatencyTarget
from rlnas.space import LayerOptions, LayerwiseSpace, ModelShape, UniformSpace
from rlnas.tabular import additive_task
from rlnas.testing import (
    check_controller,
    check_evaluator,
    check_latency_model,
    check_reward,
    check_space,
)

SHAPE = ModelShape(2, 4, 8, 8)
SPACE = LayerwiseSpace.for_model(SHAPE)
TASK = additive_task(SPACE)


def test_a_conformance_error_is_a_failed_assertion():
    assert issubclass(ConformanceError, AssertionError)


# Rewards


def test_a_reward_of_one_line_passes():
    check_reward(lambda metrics: metrics.accuracy - 0.01 * metrics.latency_ms)


def test_a_reward_of_extra_values_is_tried_on_examples_of_its_own():
    check_reward(lambda metrics: metrics.extra["f1"], [Metrics(0.5, extra={"f1": 0.2})])


@pytest.mark.parametrize("value", [float("nan"), "much", None, 1j])
def test_a_reward_that_is_no_finite_number_is_found(value):
    with pytest.raises(ConformanceError, match=rf"must be a finite number, but it is .*{value!r}"[:60]):
        check_reward(lambda metrics: value)


def test_a_reward_that_changes_its_mind_is_found():
    calls = itertools.count()
    with pytest.raises(ConformanceError, match="must say the same twice, but it says 0 and 1 for Metrics"):
        check_reward(lambda metrics: next(calls))


def test_a_reward_that_falls_with_accuracy_is_found():
    with pytest.raises(ConformanceError, match=r"falls from -0\.0 to -0\.01 between accuracy=0\.0"):
        check_reward(lambda metrics: -metrics.accuracy)


def test_a_reward_that_resolves_to_nothing_is_found():
    class Relative:
        def resolve(self, reference_ms):
            return None

        def __call__(self, metrics):
            return metrics.accuracy

    with pytest.raises(ConformanceError, match=r"resolve\(\) must give a reward, but gave None"):
        check_reward(Relative())


class Targeted:
    def __init__(self, target_ms=10.0, moves=True, hoards=False):
        self.target_ms = target_ms
        self.moves = moves
        self.hoards = hoards

    def at(self, target_ms):
        if self.hoards:
            self.target_ms = target_ms
        return Targeted(target_ms if self.moves else self.target_ms)

    def __call__(self, metrics):
        return metrics.accuracy - abs(metrics.latency_ms - self.target_ms)


def test_a_reward_with_a_target_passes():
    check_reward(Targeted())


def test_a_reward_that_does_not_move_is_found():
    with pytest.raises(ConformanceError, match=r"at\(20\.0\) must give a reward with that target_ms"):
        check_reward(Targeted(moves=False))


def test_a_reward_that_is_changed_by_at_is_found():
    with pytest.raises(ConformanceError, match=r"at\(\) must leave the reward itself as it is"):
        check_reward(Targeted(hoards=True))


# Latency models


@pytest.mark.parametrize(
    ("latency", "message"),
    [
        (lambda configs: [1.0], "one number per config, but gave 1 for 18"),
        (lambda configs: [0.0] * len(configs), r"above 0 ms, but it is 0\.0 for - -"),
        (lambda configs: [float("nan")] * len(configs), "above 0 ms, but it is nan"),
        (
            lambda configs: [float(len(configs))] * len(configs),
            r"it is 18\.0 ms in a batch and 1\.0 ms alone",
        ),
        (
            lambda configs: [20 - ms for ms in TASK.predict(configs)],
            r"it takes 19\.0 ms and the largest 10",
        ),
    ],
    ids=["count", "zero", "nan", "batch", "order"],
)
def test_a_broken_latency_model_is_found(latency, message):
    with pytest.raises(ConformanceError, match=message):
        check_latency_model(latency, SPACE)


# Spaces


@pytest.mark.parametrize(
    "space",
    [
        SPACE,
        LayerwiseSpace.for_model(SHAPE, keep_last_layer=True),
        LayerwiseSpace((LayerOptions((4,), (0, 3)), LayerOptions((0, 1), (7,)))),
        UniformSpace.for_model(ModelShape(7, 4, 8, 8)),
        UniformSpace(3, (2,), (1, 4), (5, 6, 7)),
    ],
    ids=["layerwise", "last layer kept", "few options", "uniform", "one depth"],
)
def test_our_spaces_keep_the_laws(space):
    check_space(space)


class Altered:
    """A sound space with one thing replaced."""

    def __init__(self, **replaced):
        self.replaced = replaced

    def __getattr__(self, name):
        return self.replaced.get(name, getattr(SPACE, name))

    def __contains__(self, config):
        return self.replaced.get("contains", SPACE.__contains__)(config)


def turned(config):
    return tuple(reversed(SPACE.encode(config)))


def lenient(action):
    try:
        return SPACE.decode(action)
    except InvalidSubnetError:
        return SPACE.smallest()


def lenient_code(config):
    return SPACE.encode(config) if config in SPACE else (0, 0, 0, 0)


def descending(action):
    return SPACE.decode([n - 1 - entry for n, entry in zip(SPACE.nvec, action, strict=True)])


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"nvec": ()}, r"nvec must hold integers of at least 1, but it is \(\)"),
        ({"nvec": (5, 0, 5, 5)}, r"at least 1, but it is \(5, 0, 5, 5\)"),
        (
            {"smallest": SPACE.largest},
            r"smallest\(\) must be decode\(\(0, 0, 0, 0\)\), but they are 4h8 4h8",
        ),
        ({"largest": SPACE.smallest}, r"largest\(\) must be decode\(\(4, 4, 4, 4\)\)"),
        ({"contains": lambda config: False}, r"must be a member of the space, but .* is not"),
        (
            {"contains": lambda config: True},
            "what is no config of the space must not be in it, but 4h8 4h8 1h1",
        ),
        ({"encode": turned}, "encode must undo decode, but .* came back as"),
        ({"sample": lambda rng: None}, r"sample\(\) must give a member, but gave None"),
        (
            {"encode": lenient_code},
            "encode must raise InvalidSubnetError for a stranger, but took 4h8 4h8 1h1",
        ),
        (
            {"decode": lenient},
            r"decode must raise InvalidSubnetError outside nvec=\(5, 5, 5, 5\), but took",
        ),
        (
            {
                "decode": descending,
                "smallest": SPACE.largest,
                "largest": SPACE.smallest,
                "encode": lambda config: tuple(4 - entry for entry in SPACE.encode(config)),
            },
            "must be its smallest and the last one its largest, but option 0 of",
        ),
    ],
    ids=[
        "no position",
        "no option",
        "smallest",
        "largest",
        "empty",
        "everything",
        "encode",
        "sample",
        "lenient encode",
        "lenient decode",
        "descending",
    ],
)
def test_a_broken_space_is_found(replaced, message):
    with pytest.raises(ConformanceError, match=message):
        check_space(Altered(**replaced))


def test_a_space_that_draws_from_elsewhere_is_found():
    hidden = np.random.default_rng(0)
    with pytest.raises(ConformanceError, match="must draw from its generator only, but equal ones gave"):
        check_space(Altered(sample=lambda rng: SPACE.sample(hidden)))


# Evaluators


def test_an_evaluator_may_round_within_the_tolerance():
    def rounding(configs):
        return [Metrics(0.5 + 1e-6 * len(configs)) for _ in configs]

    check_evaluator(rounding, SPACE, tolerance=1e-5)
    with pytest.raises(ConformanceError, match=r"it is 0\.500008 in a batch and 0\.500001 alone"):
        check_evaluator(rounding, SPACE)


@pytest.mark.parametrize(
    ("evaluator", "message"),
    [
        (lambda configs: [], "one Metrics per config, but gave 0 for 8"),
        (lambda configs: [0.5] * len(configs), "Metrics with a finite accuracy, but gave 0.5 for - -"),
        (lambda configs: [Metrics(float("nan"))] * len(configs), "but gave Metrics.accuracy=nan"),
        (lambda configs: [Metrics(i / 10) for i, _ in enumerate(configs)], "in a batch in reverse for - -"),
    ],
    ids=["count", "type", "nan", "order"],
)
def test_a_broken_evaluator_is_found(evaluator, message):
    with pytest.raises(ConformanceError, match=message):
        check_evaluator(evaluator, SPACE)


class Racing:
    """Judges on 100 items; what is below the best so far leaves after `n_early` items."""

    def __init__(self, n_early=20, best=0.0):
        self.n_early = n_early
        self.best = best

    def __call__(self, configs):
        answers = [replace(metrics, n_items=100) for metrics in TASK(configs)]
        self.best = max([self.best, *(metrics.accuracy for metrics in answers)])
        return [
            replace(metrics, accuracy=0.01 * len(configs), n_items=self.n_early, raced_out=True)
            if metrics.accuracy < self.best
            else metrics
            for metrics in answers
        ]


def test_an_evaluator_may_race_and_then_estimates_may_depend_on_the_batch():
    check_evaluator(Racing(), SPACE)


@pytest.mark.parametrize("n_early", [100, 200])
def test_what_is_raced_out_on_no_fewer_items_is_found(n_early):
    message = rf"fewer items than the 100 of the others, but has n_items={n_early} for - -"
    with pytest.raises(ConformanceError, match=message):
        check_evaluator(Racing(n_early), SPACE)


def test_a_race_that_nobody_ends_is_found():
    with pytest.raises(ConformanceError, match="of a first batch on all items, but all 8 were raced out"):
        check_evaluator(Racing(best=1.0), SPACE)


def test_a_race_does_not_excuse_what_was_judged_fully():
    calls = itertools.count()

    def drifting(configs):
        complete = Metrics(0.5 + 0.1 * next(calls), n_items=100)
        early = Metrics(0.1, n_items=5, raced_out=True)
        return [early if config == SPACE.smallest() else complete for config in configs]

    with pytest.raises(ConformanceError, match=r"it is 0\.5 in a batch and 0\.6 in a batch in reverse"):
        check_evaluator(drifting, SPACE)


# Controllers


@dataclass(frozen=True)
class Sound:
    def search(self, problem, evaluate, budget, seed):
        rng = np.random.default_rng(seed)
        while True:
            evaluate([problem.space.sample(rng) for _ in range(4)])


def test_a_sound_controller_passes():
    check_controller(Sound())
    check_controller(Sound(), additive_task(UniformSpace.for_model(SHAPE)), budget=2, seed=9)


def test_a_controller_that_gives_up_is_found():
    class Quitter:
        def search(self, problem, evaluate, budget, seed):
            evaluate([problem.space.largest()])

    with pytest.raises(ConformanceError, match="it returned after 1 of budget=1 trials"):
        check_controller(Quitter())


def test_a_controller_that_swallows_the_end_is_found():
    class Swallower:
        def search(self, problem, evaluate, budget, seed):
            try:
                Sound().search(problem, evaluate, budget, seed)
            except SearchEnd:
                return

    with pytest.raises(ConformanceError, match="must propose until evaluate ends the search"):
        check_controller(Swallower())


def test_a_controller_that_finds_nothing_new_is_found():
    class Stubborn:
        def search(self, problem, evaluate, budget, seed):
            while True:
                evaluate([problem.space.largest()] * 8)

    with pytest.raises(
        ConformanceError, match=r"budget=33 new subnets .* ended after 1 because the last 10\d\d"
    ):
        check_controller(Stubborn())


def test_a_controller_that_ignores_its_seed_is_found():
    hidden = np.random.default_rng(0)

    class Unseeded:
        def search(self, problem, evaluate, budget, seed):
            while True:
                evaluate([problem.space.sample(hidden)])

    with pytest.raises(
        ConformanceError, match="the same again with the same seed, but it did not with seed=7"
    ):
        check_controller(Unseeded(), seed=7)


class Ageing:
    """Does otherwise from its fourth search on, when `check_controller` resumes or interrupts."""

    def __init__(self, changes_at):
        self.n_searches = 0
        self.changes_at = changes_at

    def __repr__(self):
        return "Ageing()"

    def search(self, problem, evaluate, budget, seed):
        self.n_searches += 1
        Sound().search(problem, evaluate, budget, seed + (self.n_searches >= self.changes_at))


def test_a_controller_that_does_otherwise_when_resumed_is_found():
    with pytest.raises(
        ConformanceError, match="same again when resumed, but the stored history does not fit"
    ):
        check_controller(Ageing(changes_at=5))
    with pytest.raises(ConformanceError, match="must end like an unbroken one, but it did not with seed=0"):
        check_controller(Ageing(changes_at=4))


def test_our_targeted_reward_is_what_controllers_are_checked_with():
    seen = []

    class Reader(Sound):
        def search(self, problem, evaluate, budget, seed):
            seen.append(problem)
            super().search(problem, evaluate, budget, seed)

    check_controller(Reader(), budget=5)
    assert isinstance(seen[0].reward, LatencyTarget)
    assert seen[0].importance is not None
    assert [len(problem.space.nvec) for problem in seen] == [4] * 5
