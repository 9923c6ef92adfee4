from __future__ import annotations

import json

import pytest

from rlnas.deploy.findings import Audit, Comparison, Finding

GOOD = Finding("finite", True, "every weight is a finite number", 0)
BAD = Finding("parameters", False, "the card claims 9 parameters, but the file holds 8", 8, 0.0)
OPEN = Finding("latency", None, "no latency is claimed")


def pair(first: str, second: str, difference: float = 1e-7, n_flips: int | None = 0) -> Comparison:
    return Comparison(first, second, difference, n_flips, 20, 1e-5)


def test_an_audit_passes_where_nothing_has_failed():
    audit = Audit("small-bert", (GOOD, OPEN), (pair("sliced", "masked"),))
    assert audit.passed
    assert audit.verdict == "audit passed: 2 forms agree on 20 items, 1 claim holds"
    assert str(audit).splitlines()[-1] == audit.verdict


def test_claims_alone_are_an_audit():
    assert Audit("small-bert", (GOOD, GOOD, OPEN)).verdict == "audit passed: 2 claims hold"


def test_a_failed_audit_ends_with_the_first_sentence_that_failed():
    audit = Audit("small-bert", (GOOD, BAD, Finding("forms", False, "they differ")))
    assert not audit.passed
    assert str(audit).splitlines()[-1] == f"audit FAILED: {BAD.sentence}"


def test_every_form_has_a_row_beside_the_first_of_its_group():
    pairs = (
        pair("sliced", "masked"),
        pair("sliced", "extracted", 1.0, 3),
        pair("masked", "extracted", 1.0),
    )
    text = str(Audit("small-bert", (GOOD,), (*pairs, pair("loaded", "onnx", n_flips=None)), ("a note",)))
    assert text.splitlines()[:8] == [
        "audit of small-bert",
        "form            beside sliced   flips of 20 items",
        "masked                1.0e-07   0",
        "extracted             1.0e+00   3   FAIL, at most 1.0e-05",
        "form            beside loaded   items",
        "onnx                  1.0e-07   20",
        "",
        "finite       pass  every weight is a finite number",
    ]
    assert "note               a note" in text


def test_an_audit_is_plain_json():
    audit = Audit("small-bert", (BAD,), (pair("sliced", "masked", float("inf")),), ("a note",))
    values = json.loads(json.dumps(audit.to_dict(), allow_nan=False))
    assert (values["passed"], values["verdict"]) == (False, audit.verdict)
    assert values["findings"][0] == {
        "name": "parameters",
        "passed": False,
        "sentence": BAD.sentence,
        "value": 8,
        "tolerance": 0.0,
    }
    assert values["comparisons"][0]["largest_difference"] is None
    assert values["comparisons"][0]["passed"] is False


@pytest.mark.parametrize(("difference", "passed"), [(1e-5, True), (1.1e-5, False), (float("inf"), False)])
def test_forms_agree_up_to_the_tolerance(difference: float, passed: bool):
    assert pair("sliced", "masked", difference).passed is passed
