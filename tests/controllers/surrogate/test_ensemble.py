from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from rlnas.controllers.surrogate.ensemble import MAX_TUNED, N_FOLDS, Ensemble
from rlnas.controllers.surrogate.features import Features
from rlnas.space import LayerOptions, LayerwiseSpace
from rlnas.tabular import additive_task

SPACE = LayerwiseSpace((LayerOptions((0, 1, 2, 3), (0, 1, 2)),) * 3)  # 1,728 members
FEATURES = Features(SPACE)


def draw(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    distinct = np.unique(rng.integers(SPACE.nvec, size=(4 * n, len(SPACE.nvec))), axis=0)
    return rng.permutation(distinct)[:n]


def accuracies(actions: np.ndarray, seed: int = 0, noise: float = 0.0) -> np.ndarray:
    task = additive_task(SPACE, seed=seed, noise=noise)
    return np.array([m.accuracy for m in task([SPACE.decode(action.tolist()) for action in actions])])


def neighbours_mean(actions: np.ndarray, values: np.ndarray, asked: np.ndarray, k: int = 5) -> np.ndarray:
    distances = (asked[:, None] != actions[None]).sum(axis=2)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return values[nearest].mean(axis=1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_ranks_unseen_subnets_better_than_the_mean_of_their_neighbours(seed: int) -> None:
    seen, unseen = np.split(draw(260, seed), [60])
    truth = accuracies(unseen, seed)
    values = accuracies(seen, seed, noise=0.03)
    ensemble = Ensemble.fit(FEATURES(seen), values, seed=0)
    predicted = ensemble.predict(FEATURES(unseen)).mean
    by_neighbours = spearmanr(neighbours_mean(seen, values, unseen), truth).statistic
    found = spearmanr(predicted, truth).statistic
    assert found > 0.9 > by_neighbours
    assert ensemble.rank_correlation > 0.8
    assert np.abs(predicted - truth).mean() < 0.5 * np.abs(values.mean() - truth).mean()


def test_on_noise_it_says_that_it_knows_nothing() -> None:
    correlations = [
        Ensemble.fit(
            FEATURES(draw(80, seed)), np.random.default_rng(seed).normal(size=80), 0
        ).rank_correlation
        for seed in range(6)
    ]
    assert max(correlations) < 0.4
    assert abs(np.mean(correlations)) < 0.25


def test_values_that_are_all_equal_have_no_order() -> None:
    ensemble = Ensemble.fit(FEATURES(draw(20, 0)), np.full(20, 0.7), seed=0)
    assert ensemble.rank_correlation == 0.0
    np.testing.assert_allclose(ensemble.predict(FEATURES(draw(30, 1))).mean, 0.7, atol=1e-6)


def test_the_unit_and_origin_of_values_do_not_matter() -> None:
    actions, asked = draw(40, 0), FEATURES(draw(30, 1))
    values = accuracies(actions, noise=0.02)
    first, second = (Ensemble.fit(FEATURES(actions), v, seed=0) for v in (values, 64.0 * values - 16.0))
    assert first.rank_correlation == pytest.approx(second.rank_correlation, abs=1e-9)
    np.testing.assert_allclose(
        second.predict(asked).mean, 64.0 * first.predict(asked).mean - 16.0, rtol=1e-5
    )
    np.testing.assert_allclose(second.predict(asked).std, 64.0 * first.predict(asked).std, rtol=1e-4)


def test_it_is_less_sure_of_what_is_unlike_all_that_it_saw() -> None:
    actions = draw(200, 0)
    is_narrow = (actions[:, ::2] <= 1).all(axis=1)
    rest = np.minimum(actions, 1)[~is_narrow]
    seen = np.unique(np.concatenate([actions[is_narrow], rest]), axis=0)
    ensemble = Ensemble.fit(FEATURES(seen), accuracies(seen, noise=0.02), seed=0)
    largest = np.array([SPACE.nvec]) - 1
    assert ensemble.predict(FEATURES(largest)).std[0] > 1.5 * ensemble.predict(FEATURES(seen)).std.max()


def test_weights_are_shares() -> None:
    actions = draw(40, 0)
    ensemble = Ensemble.fit(FEATURES(actions), accuracies(actions), seed=0)
    assert ensemble.weights.sum() == pytest.approx(1.0)
    assert (ensemble.weights > 0).all()


def test_equal_seeds_give_equal_ensembles() -> None:
    actions = draw(40, 0)
    first, again = (
        Ensemble.fit(FEATURES(actions), accuracies(actions, noise=0.1), seed=3) for _ in range(2)
    )
    assert first.rank_correlation == again.rank_correlation
    np.testing.assert_array_equal(
        first.predict(FEATURES(actions)).mean, again.predict(FEATURES(actions)).mean
    )


@pytest.mark.parametrize("n", [N_FOLDS, 2 * N_FOLDS, MAX_TUNED + 40])
def test_few_and_many_trials_are_fitted(n: int) -> None:
    actions = draw(n, 0)
    prediction = Ensemble.fit(FEATURES(actions), accuracies(actions), seed=0).predict(FEATURES(actions))
    assert prediction.mean.shape == prediction.std.shape == (n,)
    assert np.isfinite(prediction.mean).all()
    assert (prediction.std >= 0).all()
