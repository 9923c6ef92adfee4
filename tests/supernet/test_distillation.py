from __future__ import annotations

import pytest
import tiny
import torch
from torch.nn import functional as F

from rlnas.space import LayerConfig, SubnetConfig
from rlnas.supernet import Supernet
from rlnas.supernet.distillation import distillation_loss, hidden_loss, hidden_states, kept_layers


def test_the_divergence_of_classes_is_zero_for_equal_answers_and_else_positive():
    teacher = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]])
    assert distillation_loss(teacher + 5.0, teacher).item() == pytest.approx(0.0, abs=1e-6)
    student = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    p, q = F.softmax(teacher, dim=1), F.softmax(student, dim=1)
    expected = (p * (p.log() - q.log())).sum(dim=1).mean()
    torch.testing.assert_close(distillation_loss(student, teacher), expected)


def test_no_gradient_flows_into_the_teacher():
    teacher = torch.zeros(2, 3, requires_grad=True)
    student = torch.ones(2, 3, requires_grad=True)
    (distillation_loss(student, teacher) + student.sum()).backward()
    assert teacher.grad is None


def test_a_regressions_student_learns_from_squared_error_where_a_divergence_would_teach_nothing():
    teacher = torch.tensor([[1.0], [-2.0]])
    student = torch.tensor([[0.5], [0.0]], requires_grad=True)
    divergence = F.kl_div(
        F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1), reduction="batchmean", log_target=True
    )
    (gradient,) = torch.autograd.grad(divergence, student)
    assert divergence.item() == 0
    assert gradient.tolist() == [[0.0], [0.0]]
    loss = distillation_loss(student, teacher)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.item() == pytest.approx((0.25 + 4.0) / 2)
    assert gradient.tolist() == [[-0.5], [2.0]]


def test_a_narrow_subnet_of_a_regression_gets_gradients_from_its_teacher(checkpoints):
    supernet = Supernet.from_pretrained(checkpoints["bert"], tiny.make_task(()))
    batch = tiny.padded_batch(supernet, tiny.make_split(6, num_labels=1))
    with torch.no_grad():
        teacher = supernet.forward(supernet.shape.full, batch)
    narrow = SubnetConfig((LayerConfig(1, 12),) * tiny.NUM_LAYERS)
    distillation_loss(supernet.forward(narrow, batch), teacher).backward()
    assert supernet.model.layers[0].ffn.inner.weight.grad[:12].abs().sum() > 0


# Hidden states


def test_the_hidden_loss_is_zero_for_the_teacher_and_one_for_zeros():
    teacher = [torch.randn(2, 5, 3), 7 * torch.randn(2, 5, 3)]
    assert hidden_loss(teacher, teacher, None).item() == 0
    assert hidden_loss([torch.zeros(2, 5, 3)] * 2, teacher, None).item() == pytest.approx(1)


def test_padding_does_not_count():
    teacher, student = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    before = hidden_loss([student], [teacher], mask)
    student[1, 2:], teacher[1, 2:] = 100.0, -100.0
    assert hidden_loss([student], [teacher], mask).item() == before.item()
    assert hidden_loss([student], [teacher], None).item() != pytest.approx(before.item())


def test_every_layer_counts_alike_whatever_its_scale():
    teacher = torch.randn(1, 4, 3)
    student = teacher + 0.5
    alone = hidden_loss([student], [teacher], None)
    torch.testing.assert_close(hidden_loss([student, 10 * student], [teacher, 10 * teacher], None), alone)


def test_the_hidden_loss_teaches_the_student_alone():
    teacher, student = (torch.randn(1, 4, 3, requires_grad=True) for _ in range(2))
    hidden_loss([student], [teacher], None).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_the_last_hidden_states_are_those_that_the_answers_are_made_of(bert):
    batch = tiny.padded_batch(bert, tiny.make_split(6))
    bert.model.eval()
    states, logits = hidden_states(bert.model, batch)
    assert len(states) == tiny.NUM_LAYERS
    assert torch.equal(bert.model.head(states[-1], batch.attention_mask), logits)
    expected = bert.model(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits
    assert torch.equal(logits, expected)


def test_a_dropped_layer_is_the_identity_and_is_not_among_those_kept(bert):
    subnet = bert.extract(SubnetConfig((LayerConfig(1, 0), LayerConfig(0, 0), LayerConfig(0, 12))))
    states, _ = hidden_states(subnet, tiny.one_batch(bert, tiny.make_split(4)))
    assert torch.equal(states[0], states[1])
    assert kept_layers(subnet) == [0, 2]
