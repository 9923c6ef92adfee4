from __future__ import annotations

import pytest
import torch

from rlnas.deploy.agreement import CHECKED, TRACED, check_agreement, example_request, has_token_types, ready
from rlnas.errors import ExportError


@pytest.fixture(scope="module")
def bert(classifier):
    return ready(classifier("bert"))


def logits_of(module):
    def run(request):
        with torch.inference_mode():
            return module(**request).logits.numpy().copy()

    return run


def test_a_model_agrees_with_itself(bert):
    assert check_agreement(bert, logits_of(bert), "the same") == 0.0


def test_the_largest_difference_is_told(bert):
    assert check_agreement(
        bert, lambda request: logits_of(bert)(request) + 1e-5, "a form"
    ) == pytest.approx(1e-5, rel=0.1)


@pytest.mark.parametrize("wrong", [1e-2, float("nan")])
def test_a_form_that_computes_something_else_is_refused(bert, wrong):
    def run(request):
        logits = logits_of(bert)(request)
        if request["input_ids"].shape == (3, 23):
            logits[2, 1] += wrong
        return logits

    message = r"^the form does not compute .* shape \(3, 23\) a logit differs by (0.01|nan); deploy"
    with pytest.raises(ExportError, match=message):
        check_agreement(bert, run, "the form")


def test_the_checks_look_at_other_shapes_than_the_traced_one():
    assert TRACED not in CHECKED
    assert (1, 1) in CHECKED


@pytest.mark.parametrize(("family", "padding"), [("bert", 0), ("roberta", 1)])
def test_a_request_is_padded_from_its_second_text_on(classifier, family, padding):
    request = example_request(classifier(family), 3, 9)
    ids, mask = request["input_ids"], request["attention_mask"]
    assert mask.tolist() == [[1] * 9, *[[1] * 5 + [0] * 4] * 2]
    assert ((ids == padding) == (mask == 0)).all()


def test_a_request_is_no_longer_than_what_the_model_takes(classifier):
    assert example_request(classifier("bert"), 1, 99)["input_ids"].shape == (1, 40)
    assert example_request(classifier("roberta"), 1, 99)["input_ids"].shape == (1, 38)


@pytest.mark.parametrize(
    ("family", "expected"), [("bert", True), ("electra", True), ("roberta", True), ("distilbert", False)]
)
def test_token_types_are_given_where_there_are_several(classifier, family, expected):
    assert has_token_types(classifier(family)) == expected
    assert ("token_type_ids" in example_request(classifier(family), 2, 4)) == expected


def test_the_model_stays_as_it_was(classifier):
    module = classifier("bert").half().train()
    assert ready(module).dtype == torch.float32
    assert not ready(module).training
    assert module.training
    assert module.dtype == torch.float16
