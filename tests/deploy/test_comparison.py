from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from rlnas.deploy.comparison import (
    TOLERANCES,
    compare_forms,
    inputs_of,
    item_batches,
    judge_forms,
    module_form,
    random_batches,
    supernet_forms,
)
from rlnas.space import LayerConfig, SubnetConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from rlnas.supernet.encoding import Batch
    from rlnas.supernet.supernet import Supernet
    from rlnas.task import Task

SUBNET = SubnetConfig((LayerConfig(1, 24), LayerConfig(0, 0), LayerConfig(2, 0)))


@pytest.fixture(params=["bert", "roberta"])
def supernet(supernets: Callable[[str, Task], Supernet], task: Task, request) -> Supernet:
    return supernets(request.param, task)


def constant(*logits: float):
    return lambda batch: np.tile(np.float32(logits), (len(batch.input_ids), 1))


@pytest.fixture
def batches(supernet: Supernet) -> list[Batch]:
    return random_batches(supernet.model, 20, 0)


def test_real_items_are_drawn_once_each_and_sorted(supernet: Supernet, task: Task):
    encoded = supernet.encode(task.final)
    batches = item_batches(encoded, 10, 0)
    indices = np.concatenate([batch.indices for batch in batches])
    assert len(set(indices.tolist())) == 10
    assert (np.diff(encoded.lengths[indices]) >= 0).all()
    assert len(np.concatenate([b.indices for b in item_batches(encoded, 1_000, 0)])) == len(encoded)


def test_random_requests_run_from_one_token_to_the_longest_and_one_batch_is_padded(supernet: Supernet):
    batches = random_batches(supernet.model, 20, 0)
    *single, mixed = batches
    assert [tuple(batch.input_ids.shape) for batch in (single[0], single[-1])] == [(1, 1), (1, 20)]
    assert all(batch.attention_mask is None for batch in single)
    assert mixed.attention_mask is not None
    assert mixed.attention_mask.sum(dim=1)[:2].tolist() == [1, 20]
    padding = supernet.model.config.pad_token_id
    assert (mixed.input_ids[mixed.attention_mask == 0] == padding).all()
    assert not (mixed.input_ids[mixed.attention_mask == 1] == padding).any()


def test_random_requests_are_no_longer_than_the_model_takes(supernet: Supernet):
    longest = max(batch.input_ids.shape[1] for batch in random_batches(supernet.model, 10_000, 0))
    assert longest == supernet.max_positions


def test_a_mask_is_given_where_nothing_is_padded(batches: list[Batch]):
    inputs = inputs_of(batches[0])
    assert inputs["attention_mask"].tolist() == [[1]]


def test_all_forms_of_a_subnet_agree(supernet: Supernet, batches: list[Batch]):
    pairs = compare_forms(supernet_forms(supernet, SUBNET), batches)
    assert [(pair.first, pair.second) for pair in pairs] == [
        ("sliced", "masked"),
        ("sliced", "extracted"),
        ("masked", "extracted"),
    ]
    assert all(pair.passed and pair.n_flips == 0 for pair in pairs)
    finding = judge_forms(pairs)
    assert finding.passed
    assert finding.sentence.startswith("sliced, masked, extracted: logits differ by at most ")


def test_another_subnet_does_not_agree(supernet: Supernet, batches: list[Batch]):
    other = SubnetConfig((LayerConfig(1, 24), LayerConfig(0, 0), LayerConfig(3, 0)))
    forms = {"one": module_form(supernet.extract(SUBNET)), "other": module_form(supernet.extract(other))}
    finding = judge_forms(compare_forms(forms, batches))
    assert not finding.passed
    assert finding.sentence.startswith("the forms one and other differ by ")


def test_the_tolerance_follows_the_spread_of_the_logits_and_the_number_format(batches: list[Batch]):
    forms = {"one": constant(-2.0, 3.0), "other": constant(-2.0, 3.0)}
    for dtype, factor in TOLERANCES.items():
        (pair,) = compare_forms(forms, batches, dtype)
        assert pair.tolerance == pytest.approx(5 * factor)
    (far,) = compare_forms({"one": constant(100.0, 101.0), "other": constant(100.0, 101.0)}, batches)
    assert far.tolerance == pytest.approx(101 * TOLERANCES["float32"])


def test_flips_are_counted_for_classes_alone(batches: list[Batch]):
    n_items = sum(len(batch.input_ids) for batch in batches)
    (pair,) = compare_forms({"one": constant(0.0, 1.0), "other": constant(1.0, 0.0)}, batches)
    assert (pair.n_flips, pair.n_items, pair.largest_difference) == (n_items, n_items, 1.0)
    assert f"and the class on {n_items} of {n_items} items" in judge_forms([pair]).sentence
    (pair,) = compare_forms({"one": constant(0.0), "other": constant(0.5)}, batches)
    assert pair.n_flips is None
    assert "class" not in judge_forms([pair]).sentence


def test_a_logit_that_is_not_finite_agrees_with_nothing(batches: list[Batch]):
    forms = {"one": constant(0.0, float("nan")), "other": constant(0.0, float("nan"))}
    pairs = compare_forms(forms, batches)
    finding = judge_forms(pairs)
    assert not finding.passed
    assert finding.sentence == "logits of the form one or other are not finite numbers"


def test_one_form_alone_is_no_comparison(batches: list[Batch]):
    with pytest.raises(ValueError, match="at least two forms, but got 1"):
        compare_forms({"one": constant(0.0)}, batches)


def test_a_training_supernet_is_compared_without_dropout(supernet: Supernet, batches: list[Batch]):
    supernet.model.train()
    forms = supernet_forms(supernet, SUBNET)
    assert not supernet.model.training
    with torch.inference_mode():
        assert np.array_equal(forms["sliced"](batches[0]), forms["sliced"](batches[0]))
