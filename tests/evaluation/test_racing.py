from __future__ import annotations

from functools import cache
from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from rlnas.evaluation.racing import Champions, Race, Racing


def no_champions(n_items):
    return Champions(np.zeros(0), np.zeros((0, n_items), dtype=bool))


def run_race(racing, latency_ms, correct, champions=None, number=0, prepare=None):
    """Who stayed, and how many items each candidate saw; `correct` has shape (m, n_items)."""
    n_items = correct.shape[1]
    champions = no_champions(n_items) if champions is None else champions
    race = Race(racing, np.asarray(latency_ms, dtype=float), champions, n_items)
    if prepare is not None:
        prepare(race)
    n_seen = np.zeros(len(correct), dtype=int)
    for items in racing.chunks(n_items, number):
        rows = race.alive
        n_seen[rows] += len(items)
        race.enter(items, correct[np.ix_(rows, items)])
    return race.alive, n_seen


def without_stand_in(indifference, latency_ms, correct, champions, alive):
    """Candidates that left although nobody who stayed, nor a champion, is as good and not slower."""
    latency = np.concatenate([np.asarray(latency_ms)[alive], champions.latency_ms])
    accuracy = np.concatenate([correct[alive].mean(axis=1), champions.correct.mean(axis=1)])
    lost = []
    for row in sorted(set(range(len(correct))) - set(alive.tolist())):
        is_enough = accuracy > correct[row].mean() - indifference - 1e-12
        if not np.any((latency <= latency_ms[row]) & is_enough):
            lost.append(row)
    return lost


# The bound


@cache
def orders_of(n_items, chunk):
    """All ways to see the items in chunks."""
    starts = range(0, n_items, chunk)
    ways = {
        tuple(tuple(sorted(order[i : i + chunk])) for i in starts) for order in permutations(range(n_items))
    }
    return [[np.array(items) for items in way] for way in sorted(ways)]


def exact_wealth(margin, correct, chunk):
    """Mean wealth of the bets against candidate 0 at each chunk end, over all orders of the items.

    Shape ``(n_chunks, n_gamblers)``; the last gambler is that of the margin.
    """
    n_items = correct.shape[1]
    champions = Champions(np.zeros(len(correct) - 1), correct[1:])
    racing = Racing(confidence=1 - 1e-15, indifference=margin)
    wealths = []
    for way in orders_of(n_items, chunk):
        race = Race(racing, np.zeros(1), champions, n_items)
        path = []
        for items in way:
            race.enter(items, correct[:1, items])
            path.append([np.exp(gambler.log_wealth[0]) for gambler in race._gamblers])
        wealths.append(path)
    return np.mean(wealths, axis=0)


six_answers = st.lists(st.booleans(), min_size=6, max_size=6)


@settings(max_examples=30)
@given(
    mine=six_answers,
    theirs=st.lists(six_answers, min_size=1, max_size=4),
    n_ahead=st.integers(0, 2),
    chunk=st.integers(2, 3),
)
def test_a_bet_against_the_truth_is_no_better_than_fair(mine, theirs, n_ahead, chunk):
    """Exactly, over all orders: wealth shrinks where the candidate beats all references by the margin."""
    rivals = [row for row in theirs if sum(mine) - sum(row) >= n_ahead]
    assume(rivals)
    wealth = exact_wealth(n_ahead / 6, np.array([mine, *rivals]), chunk)
    assert wealth[:, -1].max() <= 1 + 1e-9


def test_a_bet_for_the_truth_pays():
    correct = np.array([[0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1]], dtype=bool)
    assert exact_wealth(0.0, correct, 2)[-1, 0] > 1.2


def boundary_races(indifference, n_races=400, prepare=None):
    """Share of races in which a candidate leaves that beats the one faster rival, barely, by the margin."""
    n_items, rng, n_left = 400, np.random.default_rng(0), 0
    n_ahead = round(indifference * n_items) + 1
    racing = Racing(indifference=indifference, chunk_items=20)
    for number in range(n_races):
        kinds = np.zeros(n_items, dtype=int)
        kinds[: 40 + n_ahead], kinds[40 + n_ahead : 80 + n_ahead] = 1, -1  # only one of the two is right
        rng.shuffle(kinds)
        correct = (kinds == 1)[None] | ((kinds == 0) & (rng.random(n_items) < 0.8))[None]
        rival = Champions(np.array([0.5]), ((kinds == -1) | (correct[0] & (kinds == 0)))[None])
        assert correct.sum() - rival.correct.sum() == n_ahead
        alive, _ = run_race(racing, [1.0], correct, rival, number, prepare)
        n_left += len(alive) == 0
    return n_left / n_races


@pytest.mark.parametrize("indifference", [0.0, 0.02])
def test_who_beats_the_margin_barely_leaves_in_five_percent_of_races_at_most(indifference):
    share = boundary_races(indifference)
    assert 0 < share <= 0.05


def shift_limit(race):
    race._limit -= np.log(20)


def shift_margin(race):
    for gambler in race._gamblers:
        gambler.margin += 0.05


@pytest.mark.parametrize("breaks", [shift_limit, shift_margin])
def test_the_simulation_shows_a_broken_bound(breaks):
    assert boundary_races(0.0, 200, breaks) > 0.1


@pytest.mark.parametrize("shares", [True, False], ids=["shared out", "not shared out"])
def test_the_confidence_is_that_of_the_whole_batch(shares):
    """Twenty candidates that all tie with the champion: each that leaves is a mistake."""
    n_items, m, n_races, rng = 300, 20, 150, np.random.default_rng(0)
    racing, n_wrong = Racing(confidence=0.9, chunk_items=15), 0
    champion = np.arange(n_items) % 4 > 0
    tie = np.array([rng.permutation(n_items) for _ in range(m)])
    correct = champion[tie]

    def prepare(race):
        if not shares:
            race._limit = np.log(10)

    for number in range(n_races):
        latency_ms = 2.0 + np.arange(m)[::-1]  # nobody but the champion and those behind is faster
        faster = Champions(np.array([1.0]), champion[None])
        alive, _ = run_race(racing, latency_ms, correct, faster, number, prepare)
        n_wrong += len(alive) < m
    if shares:
        assert n_wrong <= stats.binom.ppf(0.999, n_races, 0.1)
    else:
        assert n_wrong > 0.3 * n_races


def test_everybody_that_was_bet_on_may_be_the_one_that_is_better():
    """The wealth comes from all bets, so that each of their references may be the true one."""
    correct = np.zeros((1, 100), dtype=bool)
    first, second = np.arange(100) < 20, np.arange(100) >= 10
    race = Race(
        Racing(confidence=0.999999), np.ones(1), Champions(np.ones(2), np.array([first, second])), 100
    )
    for start in range(0, 50, 10):
        race.enter(np.arange(start, start + 10), correct[:, start : start + 10])
    assert race._gamblers[0].references == [{1, 2}]


def population(rng, latencies):
    """Random candidates and champions that answer hard items alike."""
    n_items, m, h = 200, int(rng.integers(2, 9)), int(rng.integers(0, 3))
    hardness, skill = rng.normal(size=n_items), rng.normal(0.5, 0.4, size=m + h)
    correct = skill[:, None] + 0.7 * rng.normal(size=(m + h, n_items)) > hardness
    if rng.random() < 0.3:
        correct[m - 1] = correct[0]  # a tie
    latency = np.ones(m + h) if latencies == "equal" else rng.integers(1, 4, size=m + h).astype(float)
    return latency[:m], correct[:m], Champions(latency[m:], correct[m:])


@pytest.mark.parametrize("latencies", ["equal", "mixed"])
@pytest.mark.parametrize("indifference", [0.0, 0.01, 0.05])
def test_nothing_is_lost_with_the_stated_confidence(latencies, indifference):
    rng, n_races, confidence = np.random.default_rng(3), 200, 0.7
    racing = Racing(confidence=confidence, indifference=indifference, chunk_items=10)
    n_lost = n_left = n_candidates = 0
    for number in range(n_races):
        latency_ms, correct, champions = population(rng, latencies)
        alive, _ = run_race(racing, latency_ms, correct, champions, number)
        n_lost += bool(without_stand_in(indifference, latency_ms, correct, champions, alive))
        n_candidates += len(correct)
        n_left += len(correct) - len(alive)
    assert n_lost <= stats.binom.ppf(0.999, n_races, 1 - confidence)
    assert 0.2 * n_candidates < n_left < n_candidates


@pytest.mark.parametrize("indifference", [0.0, 0.01])
def test_without_champions_somebody_always_stays(indifference):
    rng = np.random.default_rng(4)
    racing = Racing(confidence=0.05, indifference=indifference, chunk_items=5)  # almost anything goes
    for number in range(100):
        latency_ms, correct, _ = population(rng, "equal")
        alive, _ = run_race(racing, latency_ms, correct, None, number)
        assert len(alive) >= 1


def test_equals_stay_together():
    correct = np.tile(np.random.default_rng(0).random(300) < 0.6, (5, 1))
    alive, n_seen = run_race(Racing(chunk_items=10), np.ones(5), correct)
    assert len(alive) == 5
    assert (n_seen == 300).all()


def test_the_slower_never_stands_in_for_the_faster():
    correct = np.array([np.arange(400) % 10 < 1, np.ones(400, dtype=bool)])
    alive, _ = run_race(Racing(chunk_items=10), [1.0, 2.0], correct)
    assert alive.tolist() == [0, 1]
    alive, n_seen = run_race(Racing(chunk_items=10), [2.0, 1.0], correct)
    assert alive.tolist() == [1]
    assert n_seen[0] < 100


def test_latencies_that_are_not_known_let_nobody_leave():
    correct = np.array([np.zeros(400, dtype=bool), np.ones(400, dtype=bool)])
    for latency_ms in ([np.nan, 1.0], [1.0, np.nan], [np.nan, np.nan]):
        assert len(run_race(Racing(chunk_items=10), latency_ms, correct)[0]) == 2


def test_who_cannot_catch_up_any_more_leaves_with_certainty():
    """A confidence that no bet can bring: only what the items left cannot change."""
    correct = np.array([np.zeros(100, dtype=bool), np.ones(100, dtype=bool)])
    alive, n_seen = run_race(Racing(confidence=1 - 1e-15, chunk_items=10), [1.0, 1.0], correct)
    assert alive.tolist() == [1]
    assert n_seen.tolist() == [60, 100]  # at 50 of 100 a tie was still possible


def test_indifference_lets_near_equals_leave():
    rng = np.random.default_rng(1)
    base = rng.random(3000) < 0.8
    correct = np.tile(base, (6, 1))
    for row in range(1, 6):
        correct[row, rng.choice(3000, 5, replace=False)] ^= True
    strict, lax = (
        run_race(Racing(indifference=indifference), np.ones(6), correct)[1].sum()
        for indifference in (0.0, 0.01)
    )
    assert lax < 0.6 * strict


def test_large_gaps_need_well_under_half_of_the_items():
    rng = np.random.default_rng(0)
    correct = rng.random((16, 2000)) < np.linspace(0.5, 0.95, 16)[:, None]
    alive, n_seen = run_race(Racing(), np.ones(16), correct)
    assert 15 in alive
    assert n_seen.sum() < 0.35 * correct.size


def test_champions_let_candidates_leave_that_nobody_beside_them_beats():
    rng = np.random.default_rng(0)
    correct = rng.random((4, 1000)) < 0.6
    strong = Champions(np.array([1.0]), (rng.random(1000) < 0.9)[None])
    alive, n_seen = run_race(Racing(), np.ones(4), correct, strong)
    assert len(alive) == 0
    assert n_seen.max() < 600
    slow = Champions(np.array([1.1]), strong.correct)
    assert len(run_race(Racing(), np.ones(4), correct, slow)[0]) > 0


def test_a_bet_on_one_who_has_left_pays_no_more_than_on_the_one():
    """His answers are not asked for any more: he counts as wrong, which favours the candidate."""
    correct = np.random.default_rng(2).random((2, 100)) < 0.7
    wealth = []
    for has_left in (False, True):
        race = Race(Racing(chunk_items=50), np.ones(2), no_champions(100), 100)
        race.enter(np.arange(50), np.array([np.arange(50) % 2 == 0, np.arange(50) % 4 > 0]))
        assert race._gamblers[0]._bets[0].tolist() == [1, -1]
        race._alive[1] = not has_left
        race.enter(np.arange(50, 100), correct[race.alive, 50:])
        wealth.append(race._gamblers[0].log_wealth[0])
    assert wealth[1] < wealth[0]


# Who stands in for whom


def make_race(m=5, h=0, indifference=0.01):
    champions = Champions(np.zeros(h), np.zeros((h, 100), dtype=bool))
    return Race(Racing(indifference=indifference), np.zeros(m), champions, 100)


def leave(race, *steps):
    """Steps are (row, references) or (row, references, "margin"); those who are still there."""
    for row, references, *how in steps:
        race._let_go(row, references, by_margin=bool(how))
    return race.alive.tolist()


MARGIN = "margin"


def test_one_leaves_for_another_that_stays():
    assert leave(make_race(3), (0, {1})) == [1, 2]


def test_two_never_leave_for_each_other():
    assert leave(make_race(2), (0, {1}), (1, {0})) == [1]
    assert leave(make_race(2), (0, {1}, MARGIN), (1, {0})) == [1]


def test_a_ring_is_not_closed():
    assert leave(make_race(4), (0, {1}), (1, {2}), (2, {3}), (3, {0})) == [3]
    assert leave(make_race(4), (0, {1, 3}), (1, {2}), (2, {0, 3})) == [2, 3]


def test_a_champion_can_stand_in_for_all():
    assert leave(make_race(2, h=1), (0, {2}), (1, {0, 2})) == []


def test_of_a_chain_only_one_link_may_cost_the_indifference():
    assert leave(make_race(3), (0, {1}, MARGIN), (1, {2}, MARGIN)) == [1, 2]  # behind it
    assert leave(make_race(3), (0, {1}, MARGIN), (1, {2})) == [2]
    assert leave(make_race(3), (1, {2}, MARGIN), (0, {1}, MARGIN)) == [0, 2]  # in front of it
    assert leave(make_race(3), (1, {2}, MARGIN), (0, {1})) == [2]
    chain = [(0, {1}, MARGIN), (1, {2}), (2, {3})]
    assert leave(make_race(5), *chain, (3, {4}, MARGIN)) == [3, 4]
    assert leave(make_race(5), *chain, (3, {4})) == [4]


def test_a_link_without_margin_may_not_join_two_that_cost_it():
    assert leave(make_race(4), (0, {1}, MARGIN), (2, {3}, MARGIN), (1, {2})) == [1, 3]


@settings(max_examples=300)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 5), st.sets(st.integers(0, 7), min_size=1, max_size=3), st.booleans()),
        max_size=20,
    )
)
def test_whoever_leaves_has_stand_ins_within_one_indifference(steps):
    race, left = make_race(6, h=2), {}
    for row, references, by_margin in steps:
        if row not in race.alive or row in references:
            continue
        race._let_go(row, references, by_margin=by_margin)
        if row not in race.alive:
            left[row] = (references, by_margin)

    def margins(row, way):
        """Most margins on any way from `row` to somebody who stayed."""
        assert row not in way
        if row not in left:
            return 0
        references, by_margin = left[row]
        return by_margin + max(margins(other, [*way, row]) for other in references)

    assert all(margins(row, []) <= 1 for row in range(6))


# Sizes and orders


def test_one_candidate_sees_everything():
    correct = np.zeros((1, 500), dtype=bool)
    alive, n_seen = run_race(Racing(indifference=0.1), [1.0], correct)
    assert (alive.tolist(), n_seen.tolist()) == ([0], [500])


@pytest.mark.parametrize("n_champions", [0, 2])
def test_a_race_of_nobody_is_none(n_champions):
    champions = Champions(np.zeros(n_champions), np.ones((n_champions, 300), dtype=bool))
    alive, n_seen = run_race(Racing(), [], np.zeros((0, 300), dtype=bool), champions)
    assert len(alive) == len(n_seen) == 0


def test_one_chunk_of_all_items_lets_nobody_leave():
    correct = np.array([np.zeros(50, dtype=bool), np.ones(50, dtype=bool)])
    alive, n_seen = run_race(Racing(chunk_items=80), [1.0, 1.0], correct)
    assert len(alive) == 2
    assert n_seen.tolist() == [50, 50]


@given(n_items=st.integers(1, 3000), size=st.none() | st.integers(1, 200), number=st.integers(0, 10**6))
def test_chunks_hold_every_item_once(n_items, size, number):
    chunks = Racing(chunk_items=size).chunks(n_items, number)
    assert sorted(np.concatenate(chunks)) == list(range(n_items))
    expected = size or max(64, -(-n_items // 20))
    assert {len(chunk) for chunk in chunks[:-1]} <= {expected}
    assert 1 <= len(chunks[-1]) <= expected


def test_every_race_has_an_order_of_its_own_and_keeps_it():
    def order(seed, number):
        return tuple(np.concatenate(Racing(seed=seed).chunks(500, number)))

    orders = {order(seed, number) for seed in (0, 1) for number in (0, 1, 16, 32)}
    assert len(orders) == 8
    assert order(1, 16) == order(1, 16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"confidence": 1.0}, r"confidence must be between 0 and 1, but got confidence=1\.0"),
        ({"confidence": 0.0}, r"confidence must be between 0 and 1, but got confidence=0\.0"),
        ({"confidence": 95}, "got confidence=95"),
        ({"confidence": float("nan")}, "got confidence=nan"),
        ({"indifference": -0.01}, r"at least 0 and less than 1 .* got indifference=-0\.01"),
        ({"indifference": 1.0}, r"got indifference=1\.0"),
        ({"indifference": float("nan")}, "got indifference=nan"),
        ({"chunk_items": 0}, "chunk_items must be at least 1, but got chunk_items=0"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Racing(**changes)
