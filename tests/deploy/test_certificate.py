"""A certificate says what was measured, where, and whether it is enough."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rlnas.deploy.certificate import Certificate, Measured, Prediction
from rlnas.latency import DeviceInfo
from rlnas.workload import Workload

WORKLOAD = Workload(batch_size=2, seq_len=8)
DEVICE = DeviceInfo("cpu", "Example CPU", versions={"torch": "2.13.0"})


def made(ratio: float, target: float | None, note: str | None = None) -> Certificate:
    return Certificate(
        baseline=Measured(14.02, (13.9, 14.1), 0.2, 22_713_216, 0.768, (0.743, 0.791)),
        subnet=Measured(6.76, (6.7, 6.8), 0.12, 18_301_440, 0.754, (0.729, 0.777)),
        loss_points=1.4,
        loss_ci=(-0.2, 3.0),
        latency_ratio=ratio,
        latency_ratio_ci=(ratio - 0.01, ratio + 0.01),
        target_ratio=target,
        task_name="films",
        metric="accuracy",
        split="test",
        n_items=1200,
        workload=WORKLOAD,
        device=DeviceInfo("cpu", "Example CPU", versions={"torch": "2.13.0"}),
        note=note,
    )


def latency_alone(certificate: Certificate) -> Certificate:
    """As if there had been no task."""
    sides = [
        replace(one, accuracy=None, accuracy_ci=None) for one in (certificate.baseline, certificate.subnet)
    ]
    judged = dict.fromkeys(("loss_points", "loss_ci", "task_name", "metric", "split", "n_items"))
    return replace(certificate, baseline=sides[0], subnet=sides[1], **judged)


@pytest.mark.parametrize(
    ("ratio", "target", "met"),
    [(0.525, 0.5, True), (0.526, 0.5, False), (0.4, 0.5, True), (9.0, None, None)],
)
def test_the_target_is_met_up_to_five_percent(ratio: float, target: float | None, met: bool | None):
    assert made(ratio, target).target_met is met


def test_the_certificate_prints_as_a_block():
    lines = str(made(0.482, 0.5, "this machine is noisy")).splitlines()
    assert lines == [
        "films, test split, 1,200 items, 95 % intervals",
        "baseline  accuracy 0.768 [0.743, 0.791]   14.02 ms [13.90, 14.10] (spread 0.20)   "
        "22.71 M parameters",
        "subnet    accuracy 0.754 [0.729, 0.777]   6.76 ms [6.70, 6.80] (spread 0.12)   18.30 M parameters",
        "latency   0.482 of the baseline's [0.472, 0.492], target 0.5 met",
        "loss      1.4 points of accuracy [-0.2, 3.0]",
        f"timed     batch 2 x 8 tokens, float32, eager on {DEVICE}",
        "note      this machine is noisy",
    ]
    assert "target" not in str(made(0.482, None))
    assert "target 0.5 missed" in str(made(0.6, 0.5))


def test_a_certificate_of_latency_alone_says_so():
    certificate = replace(latency_alone(made(0.482, 0.5)), workload=replace(WORKLOAD, statistic="p99"))
    assert str(certificate).splitlines() == [
        "latency alone, 95 % intervals",
        "baseline  p99 14.02 ms [13.90, 14.10] (spread 0.20)   22.71 M parameters",
        "subnet    p99 6.76 ms [6.70, 6.80] (spread 0.12)   18.30 M parameters",
        "latency   0.482 of the baseline's [0.472, 0.492], target 0.5 met",
        "accuracy  not judged, as no task was given",
        f"timed     batch 2 x 8 tokens, float32, eager, p99 on {DEVICE}",
    ]
    values = json.loads(json.dumps(certificate.to_dict(), allow_nan=False))
    assert values["full"]["accuracy"] is values["full"]["accuracy_ci"] is values["loss_ci"] is None
    assert values["target_met"] is True


def test_what_was_predicted_for_elsewhere_is_told_from_what_was_measured_here():
    elsewhere = Prediction(0.495, "batch 1 x 16 tokens, float32, eager on cuda Example GPU")
    certificate = replace(made(0.9, 0.5), prediction=elsewhere)
    assert certificate.target_met is None
    text = str(certificate)
    assert "latency   0.900 of the baseline's [0.890, 0.910], measured here\n" in text
    assert (
        "predicted 0.495 of the full model's for batch 1 x 16 tokens, float32, eager on cuda Example GPU; "
        "what was measured is of batch 2 x 8 tokens, float32, eager on cpu Example CPU, "
        "so whether the target 0.5 is met is not known\n"
    ) in text
    assert "0.5 met" not in text
    assert "missed" not in text
    assert "target" not in str(replace(certificate, target_ratio=None))
    values = certificate.to_dict()
    assert values["prediction"] == {"ratio": 0.495, "made_for": elsewhere.made_for}
    assert (values["target_met"], values["latency_ratio"]) == (None, 0.9)


def test_the_dictionary_is_json_under_the_names_of_a_summary():
    values = json.loads(json.dumps(made(0.482, 0.5).to_dict(), allow_nan=False))
    assert values["full"]["accuracy_ci"] == [0.743, 0.791]
    assert values["best"] == {
        "accuracy": 0.754,
        "accuracy_ci": [0.729, 0.777],
        "latency_ms": 6.76,
        "latency_ci": [6.7, 6.8],
        "latency_spread_ms": 0.12,
        "n_params": 18_301_440,
        "n_items": 1200,
        "split": "test",
    }
    assert (values["target_ratio"], values["target_met"], values["loss_points"]) == (0.5, True, 1.4)
    assert values["workload"]["seq_len"] == 8
    assert values["prediction"] is None
    assert values["device"]["name"] == "Example CPU"
