from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from torch.nn import functional as F

from rlnas.errors import CheckpointError
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.supernet import Supernet
from rlnas.supernet.importance import Importance, estimate_importance, order_by_importance, task_loss


def gradient_of_gate(supernet, batch, linear, columns, step=1e-4):
    """Central difference of one item's loss as the inputs of a matrix are scaled around 1."""
    kept, losses = linear.weight[:, columns].clone(), []
    for scale in (1 + step, 1 - step):
        linear.weight[:, columns] = kept * scale
        logits = supernet.forward(supernet.shape.full, batch)
        losses.append(
            float(
                F.mse_loss(logits[:, 0], batch.labels.double())
                if supernet.is_regression
                else F.cross_entropy(logits, batch.labels)
            )
        )
    linear.weight[:, columns] = kept
    return (losses[0] - losses[1]) / (2 * step)


@pytest.mark.parametrize("names", [tiny.LABELS, ()], ids=["classes", "values"])
def test_importance_is_the_mean_squared_gradient_of_single_items(supernet, names, checkpoints):
    """By brute force: item by item, gate by gate, from finite differences in double precision."""
    split = tiny.make_split(3, num_labels=max(1, len(names)), pairs=True)
    if not names:
        config = supernet.model.config
        supernet = Supernet.from_pretrained(checkpoints["bert"], tiny.make_task(()), pooling=config.pooling)
    supernet.fine_tuned = True
    supernet.model.double()
    found = estimate_importance(supernet, split)
    head_size, units = tiny.HIDDEN // tiny.NUM_HEADS, (0, 17, tiny.UNITS - 1)
    heads_expected = np.zeros((tiny.NUM_LAYERS, tiny.NUM_HEADS))
    units_expected = np.zeros((tiny.NUM_LAYERS, len(units)))
    with torch.no_grad():
        for item in range(len(split)):
            batch = tiny.one_batch(supernet, split.take([item]))
            for index, (attention, ffn) in enumerate(supernet.blocks):
                for head in range(tiny.NUM_HEADS):
                    columns = slice(head * head_size, (head + 1) * head_size)
                    heads_expected[index, head] += (
                        gradient_of_gate(supernet, batch, attention.output, columns) ** 2
                    )
                for column, unit in enumerate(units):
                    units_expected[index, column] += (
                        gradient_of_gate(supernet, batch, ffn.outer, [unit]) ** 2
                    )
    assert heads_expected.min() > 1e-9
    np.testing.assert_allclose(found.heads, heads_expected / len(split), rtol=1e-3)
    np.testing.assert_allclose(found.units[:, units], units_expected / len(split), rtol=1e-3, atol=1e-9)


def test_importance_does_not_depend_on_the_batch_size(supernet):
    supernet.fine_tuned = True
    split = tiny.make_split(10)
    first, *others = (estimate_importance(supernet, split, batch_size) for batch_size in (1, 4, 10))
    for other in others:
        np.testing.assert_allclose(other.heads, first.heads, rtol=1e-3, atol=1e-9)
        np.testing.assert_allclose(other.units, first.units, rtol=1e-3, atol=1e-9)


def test_importance_is_estimated_without_dropout_and_leaves_no_gradients(bert):
    bert.model.train()
    first, second = (estimate_importance(bert, tiny.make_split(6)) for _ in range(2))
    assert np.array_equal(first.heads, second.heads)
    assert np.array_equal(first.units, second.units)
    assert all(parameter.grad is None for parameter in bert.model.parameters())


def test_the_importance_of_a_block_is_the_sum_over_its_parts():
    importance = Importance(
        np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.5, 0.25, 0.0], [1.0, 1.0, 1.0]])
    )
    assert importance.blocks.tolist() == [[3.0, 0.75], [7.0, 3.0]]


def test_ordering_leaves_the_full_model_as_it_is(supernet):
    supernet.fine_tuned = True
    batch = tiny.padded_batch(supernet, tiny.make_split(6))
    narrow = SubnetConfig((LayerConfig(1, 12),) * tiny.NUM_LAYERS)
    importance = estimate_importance(supernet, tiny.make_split(16))
    with torch.inference_mode():
        full, subnet = supernet.forward(supernet.shape.full, batch), supernet.forward(narrow, batch)
        order_by_importance(supernet, importance)
        assert tiny.largest_gap(full, supernet.forward(supernet.shape.full, batch)) <= 1e-5
        assert tiny.largest_gap(subnet, supernet.forward(narrow, batch)) > 1e-2
    assert np.array_equal(supernet.block_importance, importance.blocks)


def test_what_is_kept_is_the_best_of_each_block():
    importance = Importance(
        np.array([[1.0, 4.0], [2.0, 3.0]]), np.array([[0.5, 0.0, 7.0], [1.0, 1.0, 1.0]])
    )
    ordered = importance.in_order
    assert ordered.heads.tolist() == [[4.0, 1.0], [3.0, 2.0]]
    configs = [
        SubnetConfig((LayerConfig(0, 0), LayerConfig(0, 0))),
        SubnetConfig((LayerConfig(1, 0), LayerConfig(0, 2))),
        SubnetConfig((LayerConfig(2, 3), LayerConfig(2, 3))),
    ]
    assert ordered.kept(configs) == [0.0, 4.0 + 2.0, importance.blocks.sum()]


def test_after_ordering_importance_descends(supernet):
    supernet.fine_tuned = True
    split = tiny.make_split(16)
    order_by_importance(supernet, estimate_importance(supernet, split))
    again = estimate_importance(supernet, split)
    for values in (again.heads, again.units):
        assert np.all(np.diff(values, axis=1) <= 1e-4 * values[:, :1])
        assert np.all(values[:, 0] > values[:, -1])


def test_planted_useless_heads_and_units_come_last(supernet):
    supernet.fine_tuned = True
    useless_heads, useless_units = [0, 2], [3, 4, 40]
    head_size = tiny.HIDDEN // tiny.NUM_HEADS
    with torch.no_grad():
        for attention, ffn in supernet.blocks:
            for head in useless_heads:
                attention.output.weight[:, head * head_size : (head + 1) * head_size] = 0
            ffn.outer.weight[:, useless_units] = 0
    split = tiny.make_split(16)
    importance = estimate_importance(supernet, split)
    assert np.all(importance.heads[:, useless_heads] == 0)
    assert np.all(importance.units[:, useless_units] == 0)
    order_by_importance(supernet, importance)
    kept = LayerConfig(tiny.NUM_HEADS - 2, tiny.UNITS - 3)
    batch = tiny.padded_batch(supernet, split)
    with torch.inference_mode():
        full = supernet.forward(supernet.shape.full, batch)
        without = supernet.forward(SubnetConfig((kept,) * tiny.NUM_LAYERS), batch)
        fewer = supernet.forward(
            SubnetConfig((LayerConfig(1, kept.intermediate_size),) * tiny.NUM_LAYERS), batch
        )
    assert tiny.largest_gap(full, without) <= 1e-5
    assert tiny.largest_gap(full, fewer) > 1e-2


def test_an_untrained_classifier_is_refused_with_the_reason(tmp_path):
    folder = tiny.write_checkpoint(tmp_path, "bert", label_names=None)
    supernet = Supernet.from_pretrained(folder, tiny.make_task())
    with pytest.raises(
        CheckpointError, match=r"no trained classifier for this task, so importance would be noise"
    ):
        estimate_importance(supernet, tiny.make_split(4))
    assert supernet.block_importance is None


def test_the_loss_of_classes_is_cross_entropy_and_that_of_values_the_squared_error():
    logits, classes = torch.tensor([[1.0, 2.0], [0.0, 5.0]]), torch.tensor([0, 1])
    assert torch.equal(task_loss(logits, classes), F.cross_entropy(logits, classes))
    values = torch.tensor([[1.0], [4.0]])
    assert task_loss(values, torch.tensor([0.0, 1.0])).item() == 5.0
    assert task_loss(values, torch.tensor([0.0, 1.0]), reduction="sum").item() == 10.0
    assert task_loss(values.bfloat16(), torch.tensor([0.0, 1.0])).dtype == torch.float32
