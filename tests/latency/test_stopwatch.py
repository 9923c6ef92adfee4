from __future__ import annotations

import gc
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlnas.errors import DeviceError
from rlnas.latency.clock import CpuClock, FakeClock
from rlnas.latency.stopwatch import MIN_ROUNDS, compare, measure, sample_ms
from rlnas.latency.timing import level_rounds

positive = st.floats(1e-3, 1e3)


class Sequenced:
    """A call whose costs are given one by one; the last one stays."""

    def __init__(self, clock: FakeClock, costs_ms: list[float]) -> None:
        self.clock, self.costs_ms, self.n_calls = clock, costs_ms, 0

    def __call__(self) -> None:
        self.clock.spend(self.costs_ms[min(self.n_calls, len(self.costs_ms) - 1)])
        self.n_calls += 1


# --- measure


def test_costs_are_found_in_the_order_of_the_calls():
    clock = FakeClock()
    timings = measure([clock.call(ms) for ms in (4.0, 1.0, 9.0)], clock, n_rounds=7)
    assert [timing.median_ms for timing in timings] == pytest.approx([4.0, 1.0, 9.0])
    assert {timing.n_samples for timing in timings} == {7}
    assert all(timing.spread_ms == pytest.approx(0, abs=1e-9) for timing in timings)


def test_every_call_is_timed_once_a_round_in_mirrored_orders():
    clock = FakeClock()
    seen: list[int] = []

    def call(i: int):
        def run() -> None:
            seen.append(i)
            clock.spend(5.0)

        return run

    measure([call(i) for i in range(6)], clock, n_rounds=4)
    rounds = np.array(seen[-24:]).reshape(4, 6)
    assert (np.sort(rounds, axis=1) == np.arange(6)).all()
    assert (rounds[1] == rounds[0][::-1]).all()
    assert (rounds[3] == rounds[2][::-1]).all()
    assert (rounds[0] != rounds[2]).any()


def test_the_order_follows_from_the_seed():
    def order(seed: int) -> list[int]:
        clock, seen = FakeClock(), []
        calls = [lambda i=i: (seen.append(i), clock.spend(5.0)) for i in range(8)]
        measure(calls, clock, n_rounds=3, seed=seed)
        return seen

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_outliers_do_not_move_the_median():
    clock = FakeClock()
    disturbed = itertools.cycle([5.0, 5.0, 500.0, 5.0, 5.0])
    (timing,) = measure([lambda: clock.spend(next(disturbed))], clock, n_rounds=50)
    assert timing.median_ms == pytest.approx(5.0)
    assert timing.quantile_ms(0.99) > 100


def test_a_clock_that_jumps_forward_once_does_not_move_the_median():
    clock = FakeClock(slowdown=lambda now_ms: 1e6 if 400 <= now_ms < 405 else 1.0)
    first, second = measure([clock.call(5.0), clock.call(10.0)], clock, n_rounds=41)
    assert first.median_ms == pytest.approx(5.0)
    assert second.median_ms == pytest.approx(10.0)


def test_a_slow_warm_up_is_left_out():
    clock = FakeClock()
    call = Sequenced(clock, [9_000.0, 80.0, 40.0, 20.0, 12.0, 8.0, 6.0, 5.0, 4.0])
    (timing,) = measure([call], clock, n_rounds=9)
    assert set(timing.samples_ms) == {4.0}


def test_a_warm_up_that_never_settles_ends():
    clock = FakeClock()
    call = Sequenced(clock, [400 * 0.9**k for k in range(500)])
    (timing,) = measure([call], clock, n_rounds=5)
    assert timing.n_samples == 5


def test_a_slow_model_is_warmed_up_with_few_calls():
    clock = FakeClock()
    call = Sequenced(clock, [3_000.0])
    measure([call], clock, n_rounds=1)
    assert call.n_calls <= 4


def test_short_calls_are_repeated_until_the_clock_can_tell():
    clock = FakeClock()
    short, long = measure([clock.call(0.5), clock.call(3.0)], clock, n_rounds=3, min_sample_ms=2.0)
    assert (short.n_calls, long.n_calls) == (4, 1)
    assert short.median_ms == pytest.approx(0.5)


def test_requests_are_waited_for_one_by_one_and_parts_are_not():
    class Asynchronous(FakeClock):
        """Waiting costs 1 ms, once per reading, as on a device that works in the background."""

        def time_ms(self, call, n_calls, /):
            return super().time_ms(call, n_calls) + 1.0

    clock = Asynchronous()
    call = clock.call(0.25)
    request, part = measure([call, call], clock, n_rounds=3, min_sample_ms=5.0, back_to_back=[1])
    assert request.median_ms == pytest.approx(1.25)
    assert part.n_calls == 4
    assert part.median_ms == pytest.approx(0.5)


def test_rounds_stop_when_the_time_is_over():
    clock = FakeClock()
    (timing,) = measure([clock.call(100.0)], clock, n_rounds=1_000, max_seconds=2.0)
    assert timing.n_samples == 20


def test_rounds_stop_when_the_wall_clock_is_ahead_of_the_counted_time(monkeypatch):
    clock, seconds = FakeClock(), itertools.count()
    monkeypatch.setattr("time.monotonic", lambda: float(next(seconds)))
    (timing,) = measure([clock.call(5.0)], clock, n_rounds=1_000, max_seconds=12.0)
    assert timing.n_samples == 12


def test_some_rounds_are_run_even_without_time():
    clock = FakeClock()
    (timing,) = measure([clock.call(100.0)], clock, n_rounds=1_000, max_seconds=0.0)
    assert timing.n_samples == MIN_ROUNDS


def test_progress_is_told_after_each_round():
    clock, seen = FakeClock(), []
    measure([clock.call(5.0)], clock, n_rounds=3, progress=lambda *state: seen.append(state))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_garbage_is_not_collected_while_timing_and_is_afterwards():
    clock, states = FakeClock(), []
    measure([lambda: (states.append(gc.isenabled()), clock.spend(5.0))], clock, n_rounds=2)
    assert not any(states)
    assert gc.isenabled()


def test_garbage_collection_that_was_off_stays_off():
    clock = FakeClock()
    gc.disable()
    try:
        measure([clock.call(5.0)], clock, n_rounds=2)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_nothing_to_measure_is_refused():
    with pytest.raises(ValueError, match="calls is empty"):
        measure([], FakeClock())


def test_no_rounds_are_refused():
    clock = FakeClock()
    with pytest.raises(ValueError, match="n_rounds=0"):
        measure([clock.call(1.0)], clock, n_rounds=0)


def test_a_clock_that_runs_backwards_is_an_error():
    clock = FakeClock()
    with pytest.raises(DeviceError, match=r"ran backwards: a call took -3\.0 ms"):
        measure([Sequenced(clock, [5.0] * 9 + [-3.0])], clock)


def test_a_call_that_takes_no_time_is_an_error():
    clock = FakeClock()
    with pytest.raises(DeviceError, match="showed 0 ms for 1000 calls"):
        measure([clock.call(0.0)], clock)


def test_a_longer_loop_takes_longer_for_real():
    short, long = measure(
        [lambda: sum(range(1_000)), lambda: sum(range(100_000))],
        CpuClock(),
        n_rounds=5,
        min_sample_ms=0.5,
    )
    assert long.median_ms > 10 * short.median_ms


# --- mixes and pacemaker


def test_a_mix_is_timed_request_by_request():
    clock = FakeClock()
    mix, single = measure([[clock.call(3.0), clock.call(9.0)], clock.call(5.0)], clock, n_rounds=4)
    assert (mix.n_requests, mix.n_rounds, mix.n_samples) == (2, 4, 8)
    assert mix.rounds_ms.tolist() == [pytest.approx([3.0, 9.0])] * 4
    assert mix.median_ms == pytest.approx(6.0)
    assert single.n_requests == 1


def test_a_mix_without_requests_is_refused():
    clock = FakeClock()
    with pytest.raises(ValueError, match=r"calls\[1\] is empty"):
        measure([clock.call(1.0), []], clock)


def test_samples_for_a_tail_are_single_calls():
    clock = FakeClock()
    assert sample_ms("p99") == 0
    (timing,) = measure([clock.call(0.01)], clock, n_rounds=3, min_sample_ms=sample_ms("p99"))
    assert timing.n_calls == 1
    assert sample_ms("median") > 0


def test_a_pacemaker_takes_out_drift_that_is_faster_than_a_round():
    # The machine changes its speed every 600 ms; a round of forty calls takes 400 ms and more.
    def slowdown(now_ms: float) -> float:
        return 1.0 + 2.0 * (int(now_ms / 600) % 2)

    def spread(pacemaker_ms: float | None) -> float:
        clock = FakeClock(slowdown)
        pace = None if pacemaker_ms is None else clock.call(pacemaker_ms)
        timings = measure([clock.call(10.0)] * 40, clock, n_rounds=20, pacemaker=pace)
        return float(np.median([timing.noise for timing in level_rounds(timings)]))

    assert spread(None) > 0.4
    assert spread(1.0) < 0.1


def test_a_pacemaker_on_a_steady_machine_changes_nothing():
    clock = FakeClock()
    (timing,) = measure([clock.call(10.0)], clock, n_rounds=6, pacemaker=clock.call(2.0))
    assert timing.slowdowns == pytest.approx([1.0] * 6)
    assert timing.levelled().median_ms == pytest.approx(10.0)


def test_the_pacemaker_runs_before_and_after_every_call():
    clock, seen = FakeClock(), []

    def call(name: str):
        return lambda: (seen.append(name), clock.spend(5.0))

    measure([call("a"), call("b")], clock, n_rounds=2, pacemaker=call("p"))
    timed = "".join(seen[-9:])
    assert timed[::2] == "ppppp"
    assert sorted(timed[1::2]) == ["a", "a", "b", "b"]


# --- compare


@settings(max_examples=25, deadline=None)
@given(first=positive, second=positive)
def test_the_ratio_is_second_to_first(first, second):
    clock = FakeClock()
    comparison = compare(clock.call(first), clock.call(second), clock, n_rounds=5)
    assert comparison.ratio == pytest.approx(second / first, rel=1e-4)
    assert comparison.confidence == 0.95


def test_drift_cancels_in_the_ratio():
    clock = FakeClock(slowdown=lambda now_ms: 1 + now_ms / 2_000)
    comparison = compare(clock.call(10.0), clock.call(5.0), clock, n_rounds=60)
    assert comparison.first.is_noisy
    assert comparison.ratio == pytest.approx(0.5, rel=0.01)
    assert comparison.ratio_ci[0] <= 0.5 <= comparison.ratio_ci[1]


def test_the_interval_is_wide_where_the_machine_is_noisy():
    rng = np.random.default_rng(0)

    def width(noise: float) -> float:
        clock = FakeClock(slowdown=lambda now_ms: float(rng.lognormal(0, noise)))
        low, high = compare(clock.call(10.0), clock.call(5.0), clock, n_rounds=40).ratio_ci
        return high - low

    assert width(0.3) > 5 * width(0.01) > 0


def test_a_comparison_of_tails_sees_what_medians_do_not():
    clock = FakeClock()
    disturbed = itertools.cycle([5.0] * 9 + [50.0])
    pair = clock.call(5.0), lambda: clock.spend(next(disturbed))
    assert compare(*pair, clock, n_rounds=100).ratio == pytest.approx(1.0)
    assert compare(*pair, clock, n_rounds=100, statistic="p99").ratio == pytest.approx(10.0)
