"""Multi-objective arithmetic. All objectives are costs: lower is better.

References:
    .. [Fonseca2006] C. M. Fonseca, L. Paquete, M. Lopez-Ibanez. An improved
       dimension-sweep algorithm for the hypervolume indicator. CEC 2006.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


def is_pareto_optimal(costs: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which points no other point dominates.

    A point dominates another if it is nowhere worse and somewhere better. Of equal points
    the first counts. A point with a NaN is never optimal.

    Args:
        costs: Array of shape ``(n, m)``, n points with m costs each.

    Returns:
        Boolean array of shape ``(n,)``.

    Raises:
        ValueError: If `costs` is not two-dimensional.
    """
    points = np.asarray(costs, dtype=np.float64)
    if points.ndim != 2:
        raise ValueError(f"costs must have shape (n, m), but got shape {points.shape}")
    optimal: npt.NDArray[np.bool_] = np.logical_not(np.isnan(points).any(axis=1))
    seen: set[bytes] = set()
    for i in np.flatnonzero(optimal):
        others = points[optimal]
        dominated = np.any(np.all(others <= points[i], axis=1) & np.any(others < points[i], axis=1))
        key = (points[i] + 0.0).tobytes()  # + 0.0 makes -0.0 and 0.0 one key
        optimal[i] = not dominated and key not in seen
        seen.add(key)
    return optimal


def hypervolume(costs: npt.ArrayLike, ref_point: npt.ArrayLike) -> float:
    """Area that the points dominate below the reference point, for two costs [Fonseca2006]_.

    Args:
        costs: Array of shape ``(n, 2)``; points with NaN or not below `ref_point` add nothing.
        ref_point: Array of shape ``(2,)``, the worst corner.

    Returns:
        The dominated area, at least 0.

    Raises:
        ValueError: If a shape is not as stated.
    """
    points = np.asarray(costs, dtype=np.float64)
    reference = np.asarray(ref_point, dtype=np.float64)
    if points.size == 0:
        points = points.reshape(0, 2)
    if points.ndim != 2 or points.shape[1] != 2 or reference.shape != (2,):
        raise ValueError(
            "costs must have shape (n, 2) and ref_point shape (2,), "
            f"but got {points.shape} and {reference.shape}"
        )
    points = points[np.all(points < reference, axis=1)]
    front = points[is_pareto_optimal(points)]
    front = front[np.argsort(front[:, 0])]
    area, ceiling = 0.0, float(reference[1])
    for first, second in front:
        area += (float(reference[0]) - first) * (ceiling - second)
        ceiling = second
    return float(area)
