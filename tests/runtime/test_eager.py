from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from models import CASES, Narrow, subnet, texts

from rlnas.runtime.eager import eager_call, first_tensor


@pytest.mark.parametrize("case", CASES)
def test_a_call_gives_what_the_module_gives(case):
    module, inputs = CASES[case]()
    with torch.no_grad():
        expected = first_tensor(module(**inputs))
    assert torch.equal(eager_call(module, inputs)(), expected)


def test_no_gradients_are_computed():
    assert not eager_call(Narrow(), {"x": torch.ones(2, 4)})().requires_grad


def test_values_that_are_written_into_the_inputs_count():
    module, x = Narrow(), torch.ones(2, 4)
    call = eager_call(module, {"x": x})
    first = call()
    x.add_(1.0)
    assert not torch.equal(call(), first)


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: (t, None), lambda t: SimpleNamespace(logits=t)])
def test_the_first_tensor_is_found_in_every_kind_of_output(wrap):
    tensor = torch.ones(2)
    assert first_tensor(wrap(tensor)) is tensor


def test_the_logits_are_taken_even_where_a_loss_stands_before_them():
    output = subnet()(**texts(), labels=torch.tensor([0, 1]))
    assert first_tensor(output) is output.logits
