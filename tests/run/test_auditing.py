from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from rlnas.deploy.audit import Scope
from rlnas.errors import RunFolderError
from rlnas.run import auditing
from rlnas.run.auditing import audit_run, was_trained_further
from rlnas.run.folder import read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from rlnas.deploy.findings import Finding

BRIEF = Scope(onnx=False, latency=False)


def by_name(found: Any) -> dict[str, Finding]:
    return {finding.name: finding for finding in found.findings}


def test_a_run_passes_with_all_that_it_claims(finished: Path):
    (found,) = audit_run(finished, BRIEF)
    assert found.passed, found
    findings = by_name(found)
    assert findings["digest"].passed
    for name in ("the model card", "certificate.json", "summary.json", "the supernet", "subnet.json"):
        assert name in findings["parameters"].sentence
    assert findings["outputs"].passed
    assert {pair.first for pair in found.comparisons} == {"sliced", "masked", "loaded"}  # trained further
    assert found.notes[0].startswith("compared on 32 items of the search split ")


def test_a_summary_that_claims_fewer_parameters_fails(run: Path):
    summary = read_json(run / "summary.json")
    n_params = summary["best"]["n_params"]
    summary["best"]["n_params"] = n_params - 5
    write_json(run / "summary.json", summary)
    (found,) = audit_run(run, BRIEF)
    assert found.verdict == (
        f"audit FAILED: summary.json claims {n_params - 5:,} parameters, but the file holds {n_params:,}"
    )


def test_a_run_without_a_last_training_has_to_deliver_the_shared_weights(run: Path):
    write_json(
        run / "config.json", {**read_json(run / "config.json"), "finish_epochs": "0", "repair_items": "0"}
    )
    (found,) = audit_run(run, BRIEF)
    assert found.verdict.startswith("audit FAILED: the weights are not the supernet's: ")


def test_what_is_said_of_the_training_wins(finished: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(auditing, "audit", lambda *_, **how: asked.append(how))
    audit_run(finished, Scope(trained_further=False))
    audit_run(finished, Scope())
    assert [how["scope"].trained_further for how in asked] == [False, True]
    assert asked[0]["baseline"] == finished / "full"
    assert asked[0]["summary"]["best"] == read_json(finished / "summary.json")["best"]


def test_a_model_that_was_trained_further_is_audited_as_it_was_delivered_and_as_it_is(
    run: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(run / "best", run / "finetuned")
    summary = read_json(run / "summary.json")
    told = {"folder": "finetuned", "latency_ratio": 0.123}
    write_json(run / "summary.json", {**summary, "finetuned": told})
    first, second = audit_run(run, BRIEF)
    assert [first.model, second.model] == [str(run / "best"), str(run / "finetuned")]
    assert first.passed
    assert second.passed
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(auditing, "audit", lambda *_, **how: asked.append(how))
    audit_run(run, Scope(trained_further=False))
    assert [how["summary"]["latency_ratio"] for how in asked] == [summary["latency_ratio"], 0.123]
    assert [how["scope"].trained_further for how in asked] == [False, True]


def test_a_target_that_the_run_did_not_have_is_refused(finished: Path):
    with pytest.raises(RunFolderError, match=r"has one model, for the target ratio 0.75, but got 0.3"):
        audit_run(finished, BRIEF, target_ratio=0.3)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"finish_epochs": "1", "repair_items": "0"}, True),
        ({"finish_epochs": "0", "repair_items": "256"}, True),
        ({"finish_epochs": "0", "repair_items": "0"}, False),
        ({"finish_epochs": "0"}, False),  # of a version that knew no repair
    ],
)
def test_a_last_training_and_a_repair_change_the_weights(settings: dict[str, str], expected: bool):
    assert was_trained_further(settings) is expected


def test_a_run_that_is_not_finished_is_refused(run: Path):
    (run / "summary.json").unlink()
    with pytest.raises(RunFolderError, match=r"holds no summary.json, so there is no finished run in it"):
        audit_run(run, BRIEF)


@pytest.mark.parametrize("part", ["data", "supernet"])
def test_a_run_without_what_the_audit_needs_says_how_to_get_it_back(run: Path, part: str):
    shutil.rmtree(run / part)
    message = rf"run/{part}' is missing; delete '.*summary.json' and repeat the search with --resume"
    with pytest.raises(RunFolderError, match=message):
        audit_run(run, Scope(latency=False, onnx=False))
