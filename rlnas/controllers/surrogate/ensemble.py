"""Light models of the accuracy, fitted to what was evaluated.

Two kinds that err differently: a linear model with priors on its weights, and a Gaussian process.
Both say how sure they are; together they predict with the weights that cross-validation gives them.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, overload

import numpy as np
from scipy.stats import spearmanr
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import BayesianRidge
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlnas.env import FloatArray

N_FOLDS = 5
MAX_TUNED = 160
"""Trials on which the length and noise of the Gaussian process are tuned; all are fitted."""


class _Member(Protocol):
    def fit(self, x: FloatArray, y: FloatArray) -> object: ...

    @overload
    def predict(self, x: FloatArray) -> FloatArray: ...

    @overload
    def predict(self, x: FloatArray, return_std: Literal[True]) -> tuple[FloatArray, FloatArray]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What the ensemble thinks of k subnets.

    Attributes:
        mean: Shape ``(k,)``, in units of what was fitted.
        std: Shape ``(k,)``: how unsure it is, its members' doubts and their disagreement.
    """

    mean: FloatArray
    std: FloatArray


class Ensemble:
    """Members fitted to n subnets, and how well they rank subnets that they did not see.

    Make one with `Ensemble.fit`.

    Attributes:
        rank_correlation: Spearman's, between the values and predictions from the other folds;
            0 where it cannot be computed.
        weights: Of the members; they sum to 1.
        held_out: Shape ``(n,)``: what was predicted of each subnet from the folds without it.
    """

    def __init__(
        self,
        members: Sequence[_Member],
        scaler: StandardScaler,
        location: float,
        scale: float,
        weights: FloatArray,
        rank_correlation: float,
        held_out: FloatArray,
    ) -> None:
        self._members = tuple(members)
        self._scaler = scaler
        self._location, self._scale = location, scale
        self.weights = weights
        self.rank_correlation = rank_correlation
        self.held_out = held_out

    @classmethod
    def fit(
        cls, features: FloatArray, values: FloatArray, seed: int, offset: FloatArray | None = None
    ) -> Ensemble:
        """Fit and cross-validate.

        Args:
            features: Shape ``(n, f)``, n at least `N_FOLDS`.
            values: Shape ``(n,)``.
            seed: Of the folds.
            offset: Shape ``(n,)``: what is added to the predictions before they are ranked, e.g. those of
                an earlier model that `values` are the residuals of; 0 by default.
        """
        scaler = StandardScaler().fit(features)
        x = scaler.transform(features)
        location, scale = float(values.mean()), float(values.std()) or 1.0
        y = (values - location) / scale
        kernel = _tuned_kernel(x, y, seed)
        held_out = np.zeros((2, len(y)))
        for fitted, judged in KFold(N_FOLDS, shuffle=True, random_state=seed % 2**32).split(x):
            for row, member in zip(held_out, _members(kernel), strict=True):
                member.fit(x[fitted], y[fitted])
                row[judged] = member.predict(x[judged])
        weights = _weights(held_out, y)
        added = np.zeros(len(y)) if offset is None else offset / scale
        others = weights @ held_out
        ranked = spearmanr(others + added, y + added).statistic if np.ptp(y) else 0.0
        members = _members(kernel)
        for member in members:
            member.fit(x, y)
        return cls(
            members,
            scaler,
            location,
            scale,
            weights,
            float(np.nan_to_num(ranked)),
            location + scale * others,
        )

    def mean(self, features: FloatArray) -> FloatArray:
        """Expected values alone, at a fraction of the cost; features as in `predict`."""
        x = self._scaler.transform(features)
        mean: FloatArray = self.weights @ np.stack([member.predict(x) for member in self._members])
        return self._location + self._scale * mean

    def predict(self, features: FloatArray) -> Prediction:
        """Expected values, and how unsure they are, of features of shape ``(k, f)``."""
        x = self._scaler.transform(features)
        answers = [member.predict(x, True) for member in self._members]
        means = np.stack([mean for mean, _ in answers])
        stds = np.stack([std for _, std in answers])
        mean = self.weights @ means
        variance = self.weights @ (stds**2 + (means - mean) ** 2)
        return Prediction(self._location + self._scale * mean, self._scale * np.sqrt(variance))


def _members(kernel: object) -> list[_Member]:
    process = GaussianProcessRegressor(kernel, optimizer=None, normalize_y=False)
    return [BayesianRidge(), process]


def _tuned_kernel(x: FloatArray, y: FloatArray, seed: int) -> object:
    """Length scale and noise of highest likelihood on a part of the trials."""
    chosen = np.random.default_rng(seed).permutation(len(y))[:MAX_TUNED]
    length = float(np.sqrt(x.shape[1]))
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * RBF(length, (0.3 * length, 10 * length)) + WhiteKernel(
        0.1, (1e-3, 1.0)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # an end of a range is an answer too
        tuned = GaussianProcessRegressor(kernel).fit(x[chosen], y[chosen])
    return tuned.kernel_


def _weights(held_out: FloatArray, y: FloatArray) -> FloatArray:
    """In inverse proportion to the mean squared error of the members on other folds."""
    precision = 1.0 / (np.mean((held_out - y) ** 2, axis=1) + 1e-9)
    weights: FloatArray = precision / precision.sum()
    return weights
