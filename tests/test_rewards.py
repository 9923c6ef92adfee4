from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlnas.errors import RewardError
from rlnas.metrics import Metrics
from rlnas.protocols import RelativeReward, TargetedReward
from rlnas.rewards import HardBudget, LatencyTarget, LinearPenalty, MnasNetReward
from rlnas.testing import check_reward

AIMED = (LatencyTarget, MnasNetReward, HardBudget)
ALL = (
    LinearPenalty(),
    LinearPenalty(0.3, reference_ms=10.0),
    LatencyTarget(ratio=0.5),
    LatencyTarget(target_ms=10.0, weight=2.0),
    LatencyTarget(ratio=0.5, absolute=True),
    MnasNetReward(ratio=0.5),
    MnasNetReward(target_ms=10.0, exponent=-0.2),
    HardBudget(ratio=0.5),
    HardBudget(target_ms=10.0, tolerance=0.05),
)


def metrics(accuracy: float, latency_ms: float) -> Metrics:
    return Metrics(accuracy=accuracy, latency_ms=latency_ms)


@pytest.mark.parametrize("reward", ALL, ids=repr)
def test_every_reward_keeps_the_laws(reward):
    check_reward(reward)


@pytest.mark.parametrize("reward", ALL, ids=repr)
def test_every_reward_can_be_resolved(reward):
    assert isinstance(reward, RelativeReward)
    assert reward.resolve(20.0).resolve(99.0) == reward.resolve(20.0)


@pytest.mark.parametrize(
    ("reward", "latency_ms", "expected"),
    [
        (LinearPenalty(weight=0.1, reference_ms=10.0), 5.0, 0.8 - 0.05),
        (LatencyTarget(target_ms=10.0), 15.0, 0.8 - 0.5),
        (LatencyTarget(target_ms=10.0, weight=0.2), 15.0, 0.8 - 0.1),
        (LatencyTarget(target_ms=10.0), 5.0, 0.8),
        (LatencyTarget(target_ms=10.0, absolute=True), 15.0, 0.8 - 0.5),
        (LatencyTarget(target_ms=10.0, absolute=True), 5.0, 0.8 - 0.5),
        (MnasNetReward(target_ms=10.0), 10.0, 0.8),
        (MnasNetReward(target_ms=10.0), 20.0, 0.8 * 2**-0.07),
        (MnasNetReward(target_ms=10.0, exponent=-1.0), 5.0, 1.6),
        (HardBudget(target_ms=10.0), 10.0, 0.8),
        (HardBudget(target_ms=10.0), 12.0, -1.2),
        (HardBudget(target_ms=10.0, tolerance=0.25), 12.0, 0.8),
    ],
    ids=str,
)
def test_the_formula_is_as_stated(reward, latency_ms, expected):
    assert reward(metrics(0.8, latency_ms)) == pytest.approx(expected)


def test_the_mnasnet_exponent_makes_twice_the_latency_worth_five_percent():
    reward = MnasNetReward(target_ms=1.0)
    assert reward(metrics(1.0, 2.0)) == pytest.approx(0.95, abs=0.005)


@pytest.mark.parametrize("kind", AIMED)
def test_a_ratio_is_resolved_to_milliseconds_and_keeps_the_rest(kind):
    resolved = kind(ratio=0.5).resolve(30.0)
    assert resolved == kind(target_ms=15.0)
    assert isinstance(resolved, TargetedReward)
    assert kind(ratio=0.5) == kind(0.5)


@pytest.mark.parametrize("kind", AIMED)
def test_a_target_in_milliseconds_does_not_look_at_the_reference(kind):
    assert kind(target_ms=15.0).resolve(math.nan) == kind(target_ms=15.0)


@pytest.mark.parametrize("kind", AIMED)
def test_a_reward_moves_to_another_target(kind):
    assert kind(ratio=0.5).at(4.0) == kind(target_ms=9.0).at(4.0) == kind(target_ms=4.0)


def test_moving_keeps_the_other_settings():
    assert LatencyTarget(ratio=0.5, weight=3.0, absolute=True).at(4.0) == LatencyTarget(
        target_ms=4.0, weight=3.0, absolute=True
    )


def test_a_linear_penalty_is_resolved_once():
    assert LinearPenalty(0.2).resolve(30.0) == LinearPenalty(0.2, 30.0)
    assert LinearPenalty(0.2, 30.0).resolve(math.nan) == LinearPenalty(0.2, 30.0)
    assert not isinstance(LinearPenalty(), TargetedReward)


@pytest.mark.parametrize(
    ("reward", "alternative"),
    [(LinearPenalty(), "reference_ms"), *((kind(ratio=0.5), "target_ms") for kind in AIMED)],
    ids=str,
)
def test_an_unresolved_reward_names_the_fix(reward, alternative):
    with pytest.raises(RewardError, match=rf"call resolve\(reference_ms\) first.*{alternative}=\.\.\."):
        reward(metrics(0.8, 5.0))
    with pytest.raises(RewardError, match=rf"which is not known here.*latency=\.\.\.\).*{alternative}"):
        reward.resolve(math.nan)
    with pytest.raises(RewardError, match="reference_ms must be a number above 0, but got reference_ms=0"):
        reward.resolve(0.0)


@pytest.mark.parametrize("reward", [reward.resolve(20.0) for reward in ALL], ids=repr)
def test_every_reward_needs_a_latency(reward):
    with pytest.raises(
        RewardError, match=rf"{type(reward).__name__}.* needs a latency, but got latency_ms=nan"
    ):
        reward(Metrics(0.8))


def test_the_power_of_no_latency_is_refused():
    with pytest.raises(RewardError, match=r"needs a latency above 0, but got latency_ms=0\.0"):
        MnasNetReward(target_ms=1.0)(metrics(0.8, 0.0))


@pytest.mark.parametrize("kind", AIMED)
@pytest.mark.parametrize("both", [{}, {"ratio": 0.5, "target_ms": 4.0}], ids=["none", "both"])
def test_exactly_one_form_of_the_target_is_given(kind, both):
    message = f"{kind.__name__} needs exactly one of ratio and target_ms, but got ratio={both.get('ratio')}"
    with pytest.raises(RewardError, match=message):
        kind(**both)


@pytest.mark.parametrize("kind", AIMED)
@pytest.mark.parametrize("name", ["ratio", "target_ms"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_target_is_above_0(kind, name, value):
    with pytest.raises(RewardError, match=f"{name} must be a number above 0, but got {name}={value}"):
        kind(**{name: value})


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (LinearPenalty, {"weight": -0.1}, "weight must be a number of at least 0, but got weight=-0.1"),
        (
            LinearPenalty,
            {"reference_ms": 0.0},
            "reference_ms must be a number above 0, but got reference_ms=0",
        ),
        (
            LatencyTarget,
            {"ratio": 0.5, "weight": math.nan},
            "weight must be a number of at least 0, .*=nan",
        ),
        (
            MnasNetReward,
            {"ratio": 0.5, "exponent": 0.07},
            "exponent must be a number of at most 0, .*=0.07",
        ),
        (
            HardBudget,
            {"ratio": 0.5, "tolerance": -1.0},
            "tolerance must be .* at least 0, but got tolerance=-1",
        ),
    ],
)
def test_settings_out_of_range_are_refused(kind, settings, message):
    with pytest.raises(RewardError, match=message):
        kind(**settings)


@given(
    accuracy=st.floats(0.0, 1.0),
    fast=st.floats(0.01, 100.0),
    slow=st.floats(0.01, 100.0),
    reward=st.sampled_from(
        [reward.resolve(20.0) for reward in ALL if not getattr(reward, "absolute", False)]
    ),
)
def test_being_slower_is_never_rewarded(accuracy, fast, slow, reward):
    fast, slow = sorted((fast, slow))
    assert reward(metrics(accuracy, slow)) <= reward(metrics(accuracy, fast))


@given(scale=st.floats(0.01, 100.0), accuracy=st.floats(0.0, 1.0), latency_ms=st.floats(0.1, 100.0))
def test_ratios_travel_between_devices(scale, accuracy, latency_ms):
    for reward in (LinearPenalty(), LatencyTarget(0.5), MnasNetReward(0.5)):
        here = reward.resolve(20.0)(metrics(accuracy, latency_ms))
        there = reward.resolve(20.0 * scale)(metrics(accuracy, latency_ms * scale))
        assert here == pytest.approx(there, abs=1e-9, rel=1e-9)
