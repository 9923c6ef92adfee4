from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlnas.supernet.gradients import GradientMean
from rlnas.supernet.ranks import Ranks


class Relayed:
    """Ranks of one process, one after the other: each adds what those before it have sent."""

    def __init__(self, rank, size, sent):
        self._ranks, self._sent = Ranks(rank, size, "cpu"), sent

    def share_of(self, items):
        return self._ranks.share_of(items)

    def add_up(self, values):
        self._sent.append(values.clone())
        values.copy_(torch.stack(self._sent).sum(dim=0))


def make_model():
    torch.manual_seed(0)
    return torch.nn.ModuleDict({name: torch.nn.Linear(3, 1) for name in ("first", "odd", "unused")})


def backward_of(model, inputs):
    """Mean over items; the layer "odd" sees those of odd numbers alone, and "unused" none."""

    def backward(items):
        outputs = model["first"](inputs[items])
        odd = items % 2 == 1
        if odd.any():
            outputs[odd] = outputs[odd] * model["odd"](inputs[items[odd]])
        loss = outputs.square().mean()
        loss.backward()
        return loss.item()

    return backward


@given(n=st.integers(1, 12), n_parts=st.integers(1, 5), size=st.integers(1, 4), seed=st.integers(0, 99))
def test_the_mean_over_parts_and_ranks_is_that_over_all_items(n, n_parts, size, seed):
    inputs = torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32))
    items, model = np.arange(n), make_model()
    loss = backward_of(model, inputs)(items)
    wanted = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    sent = []
    for rank in range(size):  # the last one has heard from all
        model.zero_grad()
        mean = GradientMean([*model.parameters()], n_parts, Relayed(rank, size, sent))
        found = mean.over(items, backward_of(model, inputs))
    assert found == pytest.approx(loss, rel=1e-5)
    for name, parameter in model.named_parameters():
        if wanted[name] is None:
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-4, atol=1e-6)


def test_a_step_forgets_the_one_before():
    inputs, model = torch.ones(4, 3), make_model()
    mean = GradientMean([*model.parameters()], 2, None)
    backward = backward_of(model, inputs)
    mean.over(np.arange(4), backward)
    model.zero_grad()
    mean.over(np.array([0, 2]), backward)
    assert model["odd"].weight.grad is None
    again = GradientMean([*model.parameters()], 1, None)
    gradient = model["first"].weight.grad.clone()
    model.zero_grad()
    again.over(np.array([0, 2]), backward)
    torch.testing.assert_close(model["first"].weight.grad, gradient)
