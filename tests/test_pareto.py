from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rlnas.pareto import hypervolume, is_pareto_optimal

# Few distinct values, so that ties and duplicates are common.
values = st.integers(-3, 3).map(float) | st.floats(-3, 3, width=32)
points_of_any_width = hnp.arrays(
    np.float64, st.tuples(st.integers(0, 12), st.integers(1, 4)), elements=values | st.just(float("nan"))
)
plane_points = hnp.arrays(np.float64, st.tuples(st.integers(0, 12), st.just(2)), elements=values)
REFERENCE = (4.0, 4.0)


def as_set(points):
    return {tuple(point + 0.0) for point in points}


def test_a_small_case_by_hand():
    costs = [[1, 4], [2, 2], [3, 3], [4, 1], [2, 2], [np.nan, 0]]
    np.testing.assert_array_equal(is_pareto_optimal(costs), [True, True, False, True, False, False])


def test_no_points_have_no_front():
    assert is_pareto_optimal(np.zeros((0, 3))).shape == (0,)
    assert hypervolume([], REFERENCE) == 0.0


def test_positive_and_negative_zero_are_equal():
    np.testing.assert_array_equal(is_pareto_optimal([[0.0, 1.0], [-0.0, 1.0]]), [True, False])


@pytest.mark.parametrize("costs", [[1.0, 2.0], [[[1.0]]]], ids=["flat", "deep"])
def test_costs_of_another_shape_are_refused(costs):
    with pytest.raises(
        ValueError, match=rf"costs must have shape \(n, m\), but got shape \({np.shape(costs)[0]},"
    ):
        is_pareto_optimal(costs)


@given(points_of_any_width)
def test_the_front_of_a_front_is_itself(points):
    front = points[is_pareto_optimal(points)]
    assert is_pareto_optimal(front).all()


@given(points_of_any_width, st.randoms(use_true_random=False))
def test_the_order_of_the_points_does_not_matter(points, random):
    order = list(range(len(points)))
    random.shuffle(order)
    shuffled = points[order]
    assert as_set(points[is_pareto_optimal(points)]) == as_set(shuffled[is_pareto_optimal(shuffled)])


@given(points_of_any_width)
def test_every_point_is_matched_by_one_of_the_front(points):
    front = points[is_pareto_optimal(points)]
    for point in points[~np.isnan(points).any(axis=1)]:
        assert (front <= point).all(axis=1).any()


@given(st.integers(1, 30))
def test_a_staircase_of_n_points_has_the_closed_form(n):
    costs = [(i, n - 1 - i) for i in range(n)]
    assert hypervolume(costs, (n, n)) == n**2 - n * (n - 1) / 2


@given(plane_points, hnp.arrays(np.float64, (1, 2), elements=values))
def test_a_further_point_never_shrinks_the_hypervolume(points, further):
    more = np.concatenate([points, further])
    assert hypervolume(more, REFERENCE) >= hypervolume(points, REFERENCE) - 1e-9


@given(plane_points)
def test_only_the_front_makes_the_hypervolume(points):
    front = points[is_pareto_optimal(points)]
    assert hypervolume(front, REFERENCE) == hypervolume(points, REFERENCE)


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(0, 8), st.just(2)), elements=st.integers(0, 6).map(float))
)
def test_the_hypervolume_equals_a_count_of_unit_squares(points):
    squares = {
        (x, y) for first, second in points for x in range(int(first), 6) for y in range(int(second), 6)
    }
    assert hypervolume(points, (6, 6)) == len(squares)


@pytest.mark.parametrize("outside", [(5.0, 0.0), (4.0, 0.0), (0.0, 4.0), (np.nan, 0.0), (np.inf, 0.0)])
def test_points_not_below_the_reference_add_nothing(outside):
    assert hypervolume([outside], REFERENCE) == 0.0
    assert hypervolume([outside, (1.0, 1.0)], REFERENCE) == 9.0


@pytest.mark.parametrize(
    ("costs", "reference", "shapes"),
    [
        ([[1.0, 2.0, 3.0]], REFERENCE, r"\(1, 3\) and \(2,\)"),
        ([1.0, 2.0], REFERENCE, r"\(2,\) and \(2,\)"),
        ([[1.0, 2.0]], (1.0, 2.0, 3.0), r"\(1, 2\) and \(3,\)"),
    ],
    ids=["three costs", "flat", "reference"],
)
def test_other_shapes_are_refused(costs, reference, shapes):
    with pytest.raises(ValueError, match=rf"ref_point shape \(2,\), but got {shapes}"):
        hypervolume(costs, reference)
