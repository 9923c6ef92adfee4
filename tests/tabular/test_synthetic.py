from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from rlnas.additive import AdditiveModel
from rlnas.errors import DataError, RunFolderError
from rlnas.protocols import InformedEvaluator, WeighingEvaluator
from rlnas.space import LayerwiseSpace, ModelShape
from rlnas.tabular.bench import BenchLatency
from rlnas.tabular.synthetic import Surface, SyntheticBench, load_synthetic, save_synthetic
from rlnas.testing import check_evaluator, check_latency_model

SPACE = LayerwiseSpace.for_model(ModelShape(2, 4, 8, 8), (0, 2, 4), (0, 8))


@pytest.fixture
def synthetic() -> SyntheticBench:
    sizes = np.array([[0.0, 0.5], [0.25, 0.75], [0.5, 1.0]])
    surface = Surface(
        base=-1.0,
        main=np.array([sizes, 2 * sizes]),
        sizes=sizes,
        dropped=np.array([[1.0, 0.5], [0.5, 0.0], [0.5, 0.0]]),
        neighbour_sizes=np.array([0.3]),
        neighbour_dropped=np.array([-0.7]),
        pairs=np.array([[0.0, 0.2], [0.0, 0.0]]),
        depth=np.array([-0.5, -0.1]),
    )
    costs = AdditiveModel(1.0, (np.array([0.0, 1.0, 2.0]), np.array([0.0, 3.0])) * 2)
    return SyntheticBench(
        name="synthetic2",
        space=SPACE,
        surface=surface,
        n_items=1000,
        noise_share=0.5,
        chance=0.1,
        kept=AdditiveModel(0.0, (np.array([0.0, 0.4, 0.5]), np.array([0.0, 1.0])) * 2),
        n_params=AdditiveModel(100.0, (np.array([0.0, 10.0, 20.0]), np.array([0.0, 7.0])) * 2),
        latency=BenchLatency(SPACE, costs, 0.0, "made up"),
        best_known=np.array([[0, 0, 2, 1], [2, 1, 2, 1]]),
        recipe={"synthetic": True},
    )


def members():
    return [SPACE.decode(action) for action in itertools.product(range(3), range(2), range(3), range(2))]


def test_the_formula_is_as_stated(synthetic):
    action = np.array([[1, 0, 2, 1]])  # sizes 0.25 and 1, the first half dropped
    logit = -1.0 + 0.25 + 2.0 + 0.3 * 0.25 + 0.2 * 0.25 - 0.5 * 0.25**2 - 0.1 * 0.25**3
    assert synthetic.surface.accuracy(action)[0] == pytest.approx(1 / (1 + np.exp(-logit)))
    empty = synthetic.surface.accuracy(np.zeros((1, 4), dtype=int))[0]
    assert empty == pytest.approx(1 / (1 + np.exp(1.0 + 0.7 + 0.5 + 0.1)))


def test_the_evaluator_keeps_the_laws_and_brings_what_is_known(synthetic):
    evaluator = synthetic.evaluator(3)
    assert isinstance(evaluator, InformedEvaluator)
    assert isinstance(evaluator, WeighingEvaluator)
    check_evaluator(evaluator, SPACE)
    check_latency_model(evaluator.latency, SPACE)
    np.testing.assert_array_equal(evaluator.importance, [0.5, 1.0, 0.5, 1.0])
    assert evaluator.kept_importance([SPACE.largest(), SPACE.smallest()]).tolist() == [3.0, 0.0]
    (metrics,) = evaluator([SPACE.largest()])
    assert (metrics.latency_ms, metrics.n_params, metrics.n_items) == (11.0, 154, 1000)


def test_noise_is_of_the_stated_size_and_belongs_to_config_and_seed(synthetic):
    config = SPACE.decode((1, 0, 1, 0))
    truth = synthetic.accuracy([config])[0]
    seen = np.array([synthetic.evaluator(seed)([config])[0].accuracy for seed in range(400)])
    assert seen.mean() == pytest.approx(truth, abs=0.002)
    assert seen.std() == pytest.approx(np.sqrt(0.5 * truth * (1 - truth) / 1000), rel=0.15)
    assert synthetic.evaluator(7)([SPACE.largest(), config])[1].accuracy == seen[7]
    assert all(1000 * value == pytest.approx(round(1000 * value)) for value in seen)


def test_without_noise_evaluations_are_the_truth_rounded_to_items(synthetic):
    quiet = replace(synthetic, noise_share=0.0)
    seen = [metrics.accuracy for metrics in quiet.evaluator(0)(members())]
    np.testing.assert_allclose(seen, quiet.accuracy(members()), atol=0.0005 + 1e-9)


def test_a_synthetic_bench_reads_as_it_was_written(synthetic, tmp_path):
    save_synthetic(synthetic, tmp_path / "x.json")
    read = load_synthetic(tmp_path / "x.json")
    assert read.evaluator(5)(members()) == synthetic.evaluator(5)(members())
    np.testing.assert_array_equal(read.accuracy(members()), synthetic.accuracy(members()))
    np.testing.assert_array_equal(read.best_known, synthetic.best_known)
    assert (read.name, read.space, read.chance, read.recipe) == (
        "synthetic2",
        SPACE,
        0.1,
        {"synthetic": True},
    )
    assert read.latency.note == "made up"
    np.testing.assert_array_equal(read.evaluator(0).importance, synthetic.evaluator(0).importance)


@pytest.mark.parametrize("end", [0, 10, -3])
def test_a_truncated_file_is_damaged(synthetic, tmp_path, end):
    path = tmp_path / "x.json"
    save_synthetic(synthetic, path)
    path.write_text(path.read_text()[:end])
    with pytest.raises(DataError, match=r"x.json is damaged, or no synthetic bench .*; fetch it again"):
        load_synthetic(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"format": "other"},
            "is no synthetic bench: it has format='other' and not 'rlnas-bench synthetic 1'",
        ),
        (
            {"layers": [[[0, 2], [0, 8]]] * 2},
            r"main has shape \(2, 3, 2\), which is not that of the layers",
        ),
        ({"kept": {"base": 0.0}}, "is damaged: it lacks 'parts'"),
        ({"kept": {"base": 0.0, "parts": []}}, r"a sum over \(3, 2, 3, 2\) options has parts of \[\]"),
        ({"surface": {"base": 0.0}}, "lacks 'main'"),
        ({"latency": 3}, "is damaged .*'int' object is not subscriptable"),
    ],
    ids=str,
)
def test_a_file_that_does_not_fit_says_how(synthetic, tmp_path, change, reason):
    path = tmp_path / "x.json"
    save_synthetic(synthetic, path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=f"x.json .*{reason}"):
        load_synthetic(path)


def test_a_list_is_no_bench(tmp_path):
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(DataError, match=r"x.json is no synthetic bench: it has format=None"):
        load_synthetic(tmp_path / "x.json")


def test_files_that_are_not_there_are_named(synthetic, tmp_path):
    with pytest.raises(DataError, match=r"cannot read the bench .*none: No such file"):
        load_synthetic(tmp_path / "none")
    with pytest.raises(RunFolderError, match=r"cannot write the bench .*none/x: No such file"):
        save_synthetic(synthetic, tmp_path / "none" / "x")


def test_coefficients_of_other_shapes_are_refused(synthetic):
    with pytest.raises(ValueError, match=r"pairs must have shape \(2, 2\), but got \(3,\)"):
        replace(synthetic.surface, pairs=np.zeros(3))
