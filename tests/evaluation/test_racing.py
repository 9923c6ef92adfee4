from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from rlnas.evaluation import racing as module
from rlnas.evaluation.racing import Champions, Race, Racing, _Bets


def no_champions(n_items):
    return Champions(np.zeros(0), np.zeros((0, n_items), dtype=bool))


def run_race(racing, latency_ms, correct, champions=None, number=0, prepare=None, watch=None):
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
        if watch is not None:
            watch(race)
    return race.alive, n_seen


def without_stand_in(indifference, latency_ms, correct, champions, alive):
    """Candidates that left although nobody who stayed, nor a champion, is better and not slower."""
    latency = np.concatenate([np.asarray(latency_ms)[alive], champions.latency_ms])
    n_right = np.concatenate([correct[alive].sum(axis=1), champions.correct.sum(axis=1)])
    lost = []
    for row in sorted(set(range(len(correct))) - set(alive.tolist())):
        is_better = n_right > correct[row].sum() - indifference * correct.shape[1] + 1e-9
        if not np.any((latency <= latency_ms[row]) & is_better):
            lost.append(row)
    return lost


# The bound

six_answers = st.lists(st.booleans(), min_size=6, max_size=6)


@given(
    mine=six_answers,
    theirs=st.lists(six_answers, min_size=1, max_size=4),
    below=st.floats(0, 1),
    stake=st.floats(0, 1),
    chunk=st.integers(1, 6),
)
def test_a_bet_with_a_bound_that_holds_is_no_better_than_fair(mine, theirs, below, stake, chunk):
    """Exactly, over all chunks that may be drawn: the mean of what multiplies the wealth is at most 1."""
    everyone = np.array([mine, *theirs])
    n_references = len(theirs)
    difference = everyone[0] - everyone[1:].mean(axis=0)
    bound = np.array([difference.mean() - below])
    bets = _Bets(
        references=np.arange(1, n_references + 1)[None],
        weights=np.full((1, n_references), 1 / n_references),
        bound=bound,
        stake=stake * 0.9 / np.maximum(1 - bound, 1e-9),
    )
    logs = [bets.pay(np.array([0]), everyone[:, list(items)])[0] for items in combinations(range(6), chunk)]
    products = [
        np.prod(1 + bets.stake * (bound - difference[list(items)]))
        for items in combinations(range(6), chunk)
    ]
    assert np.exp(logs) == pytest.approx(products, rel=1e-6)
    assert np.mean(products) <= 1 + 1e-6


@cache
def orders_of(n_items, chunk):
    """All ways to see the items in chunks."""
    starts = range(0, n_items, chunk)
    ways = {
        tuple(tuple(sorted(order[i : i + chunk])) for i in starts) for order in permutations(range(n_items))
    }
    return [[np.array(items) for items in way] for way in sorted(ways)]


def exact_wealth(indifference, correct, chunk):
    """Mean wealth of the bets against candidate 0 at each chunk end, over all orders of the items.

    Shape ``(n_chunks, n_gamblers)``.
    """
    n_items = correct.shape[1]
    champions = Champions(np.zeros(len(correct) - 1), correct[1:])
    racing = Racing(confidence=1 - 1e-15, indifference=indifference)
    wealths = []
    for way in orders_of(n_items, chunk):
        race = Race(racing, np.zeros(1), champions, n_items)
        path = []
        for items in way:
            race.enter(items, correct[:1, items])
            path.append(np.exp(race._log_wealth[0]))
        assert len(race.alive) == 1
        wealths.append(path)
    return np.mean(wealths, axis=0)


@settings(max_examples=20)
@given(
    mine=six_answers,
    theirs=st.lists(six_answers, min_size=1, max_size=5),
    n_ahead=st.integers(0, 2),
    chunk=st.integers(2, 3),
)
def test_a_race_against_the_truth_is_no_better_than_fair(mine, theirs, n_ahead, chunk):
    """Exactly, over all orders, while references change: nobody gets rich on one that beats them all."""
    rivals = [row for row in theirs if sum(mine) - sum(row) >= n_ahead]
    assume(rivals)
    wealth = exact_wealth(n_ahead / 6, np.array([mine, *rivals]), chunk)
    assert wealth.max() <= 1 + 1e-9


def test_a_bet_for_the_truth_pays():
    correct = np.array([[0, 0, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0], [1, 0, 1, 1, 1, 0]], dtype=bool)
    assert (exact_wealth(0.0, correct, 2)[-1] > 1.2).all()


def boundary_races(indifference, n_races=200, prepare=None):
    """Share of races in which a candidate leaves that beats four faster rivals by the indifference."""
    n_items, n_rivals, rng, n_left = 600, 4, np.random.default_rng(0), 0
    n_ahead = round(indifference * n_items)
    racing = Racing(indifference=indifference, chunk_items=30)
    for number in range(n_races):
        mine = rng.random(n_items) < 0.7
        theirs = np.tile(mine, (n_rivals, 1))
        for row in theirs:
            row[rng.choice(np.flatnonzero(mine), 20 + n_ahead, replace=False)] = False
            row[rng.choice(np.flatnonzero(~mine), 20, replace=False)] = True
        assert (mine.sum() - theirs.sum(axis=1) == n_ahead).all()
        rivals = Champions(np.full(n_rivals, 0.5), theirs)
        alive, _ = run_race(racing, [1.0], mine[None], rivals, number, prepare)
        n_left += len(alive) == 0
    return n_left / n_races


@pytest.mark.parametrize("indifference", [0.0, 0.02])
def test_who_is_at_the_boundary_leaves_in_five_percent_of_races_at_most(indifference):
    share = boundary_races(indifference)
    assert 0 < share <= 0.05


def shift_limit(race):
    race._limit -= np.log(20)


def shift_bound(race):
    bet = race._bet

    def bet_too_high(n_averaged):
        bets = bet(n_averaged)
        return replace(bets, bound=bets.bound + 0.05)

    race._bet = bet_too_high


@pytest.mark.parametrize("breaks", [shift_limit, shift_bound])
def test_the_simulation_shows_a_broken_bound(breaks):
    assert boundary_races(0.0, 60, breaks) > 0.2


@pytest.mark.parametrize("shares", [True, False], ids=["shared out", "not shared out"])
def test_the_confidence_is_that_of_the_whole_batch(shares):
    """Twenty candidates that all tie with the champion: each that leaves is a mistake."""
    n_items, m, n_races, rng = 300, 20, 100, np.random.default_rng(0)
    racing, n_wrong = Racing(confidence=0.9, chunk_items=15), 0
    champion = np.arange(n_items) % 4 > 0
    correct = champion[np.array([rng.permutation(n_items) for _ in range(m)])]

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
        assert n_wrong > 0.2 * n_races


# Who stands in for whom


def population(rng, latencies, n_items=200):
    """Random candidates and champions that answer hard items alike."""
    m, h = int(rng.integers(2, 9)), int(rng.integers(0, 3))
    hardness, skill = rng.normal(size=n_items), rng.normal(0.5, 0.4, size=m + h)
    correct = skill[:, None] + 0.7 * rng.normal(size=(m + h, n_items)) > hardness
    if rng.random() < 0.3:
        correct[m - 1] = correct[0]  # a tie
    latency = np.ones(m + h) if latencies == "equal" else rng.integers(1, 4, size=m + h).astype(float)
    return latency[:m], correct[:m], Champions(latency[m:], correct[m:])


@pytest.mark.parametrize("latencies", ["equal", "mixed"])
@pytest.mark.parametrize("indifference", [0.0, 0.01, 0.05])
def test_nothing_is_lost_with_the_stated_confidence(latencies, indifference):
    rng, n_races, confidence = np.random.default_rng(3), 100, 0.7
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


@pytest.mark.parametrize("indifference", [0.0, 0.01, 0.2])
def test_without_champions_somebody_always_stays(indifference):
    rng = np.random.default_rng(4)
    racing = Racing(confidence=0.05, indifference=indifference, chunk_items=5)  # almost anything goes
    for number in range(60):
        latency_ms, correct, _ = population(rng, "equal", n_items=100)
        alive, _ = run_race(racing, latency_ms, correct, None, number)
        assert len(alive) >= 1


def test_with_an_indifference_only_anchors_are_bet_on_and_they_never_leave():
    rng, racing = np.random.default_rng(5), Racing(confidence=0.05, indifference=0.1, chunk_items=5)
    n_behind = 0  # anchors that would have had to leave
    for number in range(60):
        latency_ms, correct, champions = population(rng, "mixed", n_items=100)
        m, anchors = len(latency_ms), set()

        def watch(race, m=m, anchors=anchors):
            now = set(np.flatnonzero(race._anchors).tolist())
            assert anchors <= now <= set(race.alive.tolist())
            anchors |= now
            for bets in race._bets:
                bet_on = bets.references[race.alive][bets.weights[race.alive] > 0]
                assert set(bet_on[bet_on < m].tolist()) <= anchors

        def count(race, watch=watch):
            nonlocal n_behind
            watch(race)
            n_behind += np.sum(race._log_wealth[race._anchors].max(axis=-1, initial=0) > race._limit)

        run_race(racing, latency_ms, correct, champions, number, watch=count)
    assert n_behind > 100


def test_an_indifference_never_adds_up_along_a_chain():
    """Each is a little better than the next: without somebody who has to stay all would leave at last."""
    n_items, m = 2000, 8
    rng = np.random.default_rng(0)
    racing = Racing(indifference=0.02)
    correct = np.tile(rng.permutation(n_items) < 1500, (m, 1))
    for row in range(m):
        correct[row, rng.choice(np.flatnonzero(correct[0]), 30 * row, replace=False)] = False
    for number in range(20):
        alive, n_seen = run_race(racing, np.ones(m), correct, number=number)
        assert not without_stand_in(0.02, np.ones(m), correct, no_champions(n_items), alive)
        assert n_seen.min() < n_items


def test_equals_stay_together_without_an_indifference_and_one_stands_for_all_with_it():
    correct = np.tile(np.random.default_rng(0).random(1000) < 0.6, (5, 1))
    alive, n_seen = run_race(Racing(chunk_items=10), np.ones(5), correct)
    assert len(alive) == 5
    assert (n_seen == 1000).all()
    alive, n_seen = run_race(Racing(chunk_items=10, indifference=0.02), np.ones(5), correct)
    assert alive.tolist() == [0]
    assert n_seen[1:].max() < 600


def test_the_slower_never_stands_in_for_the_faster():
    correct = np.array([np.arange(400) % 10 < 1, np.ones(400, dtype=bool)])
    alive, _ = run_race(Racing(chunk_items=10), [1.0, 2.0], correct)
    assert alive.tolist() == [0, 1]
    alive, n_seen = run_race(Racing(chunk_items=10), [2.0, 1.0], correct)
    assert alive.tolist() == [1]
    assert n_seen[0] < 100


@pytest.mark.parametrize("indifference", [0.0, 0.05])
def test_latencies_that_are_not_known_let_nobody_leave(indifference):
    correct = np.array([np.zeros(400, dtype=bool), np.ones(400, dtype=bool)])
    racing = Racing(chunk_items=10, indifference=indifference)
    for latency_ms in ([np.nan, 1.0], [1.0, np.nan], [np.nan, np.nan]):
        assert len(run_race(racing, latency_ms, correct)[0]) == 2


@pytest.mark.parametrize(("indifference", "n_needed"), [(0.0, 60), (0.25, 40)])
def test_who_cannot_catch_up_any_more_leaves_with_certainty(indifference, n_needed):
    """A limit that no bet can reach: only what the items left cannot change."""
    correct = np.array([np.zeros(100, dtype=bool), np.ones(100, dtype=bool)])

    def prepare(race):
        race._limit = 1e6

    racing = Racing(chunk_items=10, indifference=indifference)
    alive, n_seen = run_race(racing, [1.0, 1.0], correct, prepare=prepare)
    assert alive.tolist() == [1]
    assert n_seen.tolist() == [n_needed, 100]  # at 50 of 100 a tie was still possible


def test_rounding_makes_nobody_certain():
    """The candidate may still be seven of 100 ahead, by all of the last, but 0.07 * 100 is above 7."""
    assert 0.07 * 100 > 7
    for n_behind, n_alive in [(0, 1), (1, 0)]:
        champion = np.arange(100) < n_behind
        race = Race(
            Racing(confidence=1 - 1e-15, indifference=0.07),
            np.ones(1),
            Champions(np.full(1, 0.5), champion[None]),  # faster, so that the candidate is no anchor
            100,
        )
        race.enter(np.arange(93), np.zeros((1, 93), dtype=bool))
        assert len(race.alive) == n_alive


def test_a_bet_on_one_who_has_left_pays_no_more_than_on_the_one():
    """His answers are not asked for any more: he counts as wrong, which favours the candidate."""
    correct = np.random.default_rng(2).random((2, 100)) < 0.7
    wealth = []
    for has_left in (False, True):
        race = Race(Racing(chunk_items=50), np.ones(2), no_champions(100), 100)
        race.enter(np.arange(50), np.array([np.arange(50) % 2 == 0, np.arange(50) % 4 > 0]))
        assert race._bets[0].references[0].tolist() == [1]
        race._alive[1] = not has_left
        assert race._bet(1).weights[0].sum() == (not has_left)  # no new bet on him
        race.enter(np.arange(50, 100), correct[race.alive, 50:])
        wealth.append(race._log_wealth[0])
    assert (wealth[1] < wealth[0]).all()


# The bets


@pytest.mark.parametrize("indifference", [0.0, 0.05])
def test_bets_rest_on_what_was_seen_however_many_references_there_are(indifference):
    """One without a reference, others with 1 to 6 of them, against the difference item by item."""
    n_items, n_seen, rng = 400, 150, np.random.default_rng(6)
    skill = np.array([0.1, 0.4, 0.5, 0.6, 0.3, 0.3, 0.5])  # 0 is the first by latency, with no reference
    correct = rng.random((7, n_items)) < skill[:, None]
    champions = Champions(np.array([5.0]), rng.random((1, n_items)) < 0.7)
    race = Race(Racing(indifference=indifference), np.arange(7.0), champions, n_items)
    seen = rng.permutation(n_items)[:n_seen]
    race.enter(seen, correct[:, seen])
    everyone = np.concatenate([correct, champions.correct]).astype(float)
    latency = np.append(np.arange(7.0), 5.0)
    counts = set()
    for n_averaged in (1, 4):
        bets = race._bet(n_averaged)
        for row in range(7):
            others = [r for r in range(8) if r != row and latency[r] <= latency[row]]
            if indifference:
                others = [r for r in others if r == 7 or race._anchors[r]]
            best = sorted((everyone[r, seen].sum() for r in others), reverse=True)[:n_averaged]
            found = bets.references[row][bets.weights[row] > 0]
            assert set(found.tolist()) <= set(others)
            assert sorted((everyone[r, seen].sum() for r in found), reverse=True) == best
            counts.add(len(found))
            if not len(found):
                assert bets.stake[row] == 0
                assert bets.bound[row] < 1
                continue
            assert bets.weights[row].sum() == pytest.approx(1)
            difference = everyone[row, seen] - everyone[found][:, seen].mean(axis=0)
            bound = (n_items * indifference - difference.sum()) / (n_items - n_seen)
            gap = max(0.5 * (bound - difference.mean()), 0)
            stake = min(gap / (difference.var() + gap**2), 0.9 / (1 - bound))
            assert bets.bound[row] == pytest.approx(bound)
            assert bets.stake[row] == pytest.approx(stake)
    assert {0, 1, 2} <= counts
    assert 4 in counts or indifference


@settings(max_examples=40)
@given(
    data=st.data(), m=st.integers(1, 5), h=st.integers(0, 3), indifference=st.sampled_from([0.0, 0.1, 0.9])
)
def test_no_item_takes_all_of_a_wealth(data, m, h, indifference):
    """A gambler keeps his reserve whatever comes, also where the bound is below 0 or above 1."""
    n_items = 12
    answers = st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=m + h, max_size=m + h)
    everyone = np.array(data.draw(answers))
    race = Race(
        Racing(confidence=1 - 1e-15, indifference=indifference),
        np.ones(m),
        Champions(np.ones(h), everyone[m:]),
        n_items,
    )
    for start in (0, 4, 8):
        items, rows = np.arange(start, start + 4), race.alive
        race.enter(items, everyone[np.ix_(rows, items)])
        for bets in race._bets:
            assert (bets.stake >= 0).all()
            assert (1 + bets.stake * (bets.bound - 1))[bets.bound <= 1].min(initial=1) >= 0.1 - 1e-9
        assert not np.isnan(race._log_wealth).any()


# What is saved


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


@pytest.mark.parametrize("indifference", [0.0, 0.01])
def test_large_gaps_need_well_under_half_of_the_items(indifference):
    rng = np.random.default_rng(0)
    correct = rng.random((16, 2000)) < np.linspace(0.5, 0.95, 16)[:, None]
    alive, n_seen = run_race(Racing(indifference=indifference), np.ones(16), correct)
    assert 15 in alive
    assert n_seen.sum() < 0.35 * correct.size


def test_averages_of_references_save_items(monkeypatch):
    """Many of about the same skill, each with noise of its own, which averages have less of."""
    rng, n_seen = np.random.default_rng(0), {}
    n_items, m = 4000, 16
    hardness = rng.normal(size=n_items)
    skill = np.concatenate([np.full(8, 0.6), np.linspace(0.0, 0.5, 8)])
    correct = skill[:, None] + 0.7 * rng.normal(size=(m, n_items)) > hardness
    for averaged in ((1,), (1, 4)):
        monkeypatch.setattr(module, "_AVERAGED", averaged)
        n_seen[averaged] = sum(
            run_race(Racing(indifference=0.01), np.ones(m), correct, number=number)[1].sum()
            for number in range(5)
        )
    assert n_seen[1, 4] < n_seen[1,]


def test_champions_let_candidates_leave_that_nobody_beside_them_beats():
    rng = np.random.default_rng(0)
    correct = rng.random((4, 1000)) < 0.6
    strong = Champions(np.array([1.0]), (rng.random(1000) < 0.9)[None])
    alive, n_seen = run_race(Racing(), np.ones(4), correct, strong)
    assert len(alive) == 0
    assert n_seen.max() < 600
    slow = Champions(np.array([1.1]), strong.correct)
    assert len(run_race(Racing(), np.ones(4), correct, slow)[0]) > 0


# Sizes and orders


def test_one_candidate_sees_everything():
    correct = np.zeros((1, 500), dtype=bool)
    alive, n_seen = run_race(Racing(indifference=0.1), [1.0], correct)
    assert (alive.tolist(), n_seen.tolist()) == ([0], [500])
    assert len(run_race(Racing(confidence=1e-17), [1.0], correct)[0]) == 1


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
    expected = size or max(64, -(-n_items // 40))
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
        ({"chunk_items": 0}, "chunk_items must be an integer of at least 1, but got chunk_items=0"),
        ({"chunk_items": 2.5}, "but got chunk_items=2.5"),
        ({"seed": -1}, "seed must be an integer of at least 0, but got seed=-1"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Racing(**changes)
