"""A certificate holds for the items, the labels and the devices that it names."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from rlnas.deploy.certify import Certificate, Measured, certify
from rlnas.deploy.export import export
from rlnas.errors import CheckpointError, DeviceError, EvaluationError
from rlnas.latency import DeviceInfo
from rlnas.scores import score, score_interval
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.supernet.inference import predict
from rlnas.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rlnas.supernet.supernet import Supernet
    from rlnas.task import Task

    Supernets = Callable[[str, Task], Supernet]
    Checkpoints = Callable[[str, Task], Path]

SUBNET = SubnetConfig((LayerConfig(1, 24), LayerConfig(0, 0), LayerConfig(2, 0)))
WORKLOAD = Workload(batch_size=2, seq_len=8)
QUICK = {"workload": WORKLOAD, "n_rounds": 2, "max_seconds": 0.01}


@pytest.fixture(scope="module")
def certificate(supernets: Supernets, task: Task, tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    supernet = supernets("bert", task)
    folder = export(supernet, SUBNET, tmp_path_factory.mktemp("exported"))
    return certify(folder, baseline=supernet, task=task, target_ratio=1e9, **QUICK)


def test_accuracies_are_those_of_the_final_split(
    certificate: Certificate, supernets: Supernets, task: Task
):
    supernet = supernets("bert", task)
    encoded = supernet.encode(task.final)
    for measured, config in ((certificate.subnet, SUBNET), (certificate.baseline, supernet.shape.full)):
        predictions = predict(supernet.extract(config), encoded)
        assert measured.accuracy == score("accuracy", task.final.labels, predictions)
        assert measured.accuracy_ci == score_interval("accuracy", task.final.labels, predictions)
        assert measured.n_params == supernet.n_params(config)
        assert measured.latency_ms > 0
    assert (certificate.split, certificate.n_items) == ("test", 24)


def test_the_loss_is_the_difference_in_points_within_its_interval(certificate: Certificate):
    loss = 100 * (certificate.baseline.accuracy - certificate.subnet.accuracy)
    assert certificate.loss_points == pytest.approx(loss)
    assert loss != 0
    low, high = certificate.loss_ci
    assert low < certificate.loss_points < high


def test_a_model_beside_itself_loses_nothing_with_certainty(supernets: Supernets, task: Task):
    supernet = supernets("electra", task)
    same = certify((supernet.model, supernet.tokenizer), baseline=supernet, task=task, **QUICK)
    assert (same.loss_points, same.loss_ci, same.target_met) == (0.0, (0.0, 0.0), None)
    assert same.baseline.accuracy_ci == same.subnet.accuracy_ci


def test_certifying_leaves_the_models_as_they_were(supernets: Supernets, task: Task):
    supernet = supernets("bert", task)
    supernet.model.train()
    half = Workload(batch_size=1, seq_len=8, dtype="bfloat16")
    certify(supernet, baseline=supernet, task=task, **{**QUICK, "workload": half})
    assert supernet.model.training
    assert supernet.model.dtype == torch.float32


def test_outputs_are_matched_with_the_labels_by_name(supernets: Supernets, task: Task):
    supernet = supernets("bert", task)
    turned = supernet.extract(supernet.shape.full)
    with torch.no_grad():
        turned.head.out.weight.copy_(supernet.model.head.out.weight.flip(0))
        turned.head.out.bias.copy_(supernet.model.head.out.bias.flip(0))
    turned.config.id2label = dict(enumerate(reversed(task.label_names)))
    same = certify((turned, supernet.tokenizer), baseline=supernet, task=task, **QUICK)
    assert same.loss_ci == (0.0, 0.0)


def test_outputs_are_matched_by_name_whatever_their_case(supernets: Supernets, task: Task):
    supernet = supernets("bert", task)
    order = [1, 2, 0]
    turned = supernet.extract(supernet.shape.full)
    with torch.no_grad():
        turned.head.out.weight.copy_(supernet.model.head.out.weight[order])
        turned.head.out.bias.copy_(supernet.model.head.out.bias[order])
    turned.config.id2label = {i: task.label_names[j].upper() for i, j in enumerate(order)}
    same = certify((turned, supernet.tokenizer), baseline=supernet, task=task, **QUICK)
    assert same.loss_ci == (0.0, 0.0)


def test_outputs_without_the_tasks_names_are_taken_in_their_order(supernets: Supernets, task: Task):
    supernet = supernets("bert", task)
    unnamed = supernet.extract(supernet.shape.full)
    unnamed.config.id2label = {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    same = certify((unnamed, supernet.tokenizer), baseline=supernet, task=task, **QUICK)
    assert same.loss_ci == (0.0, 0.0)


def test_a_stock_checkpoint_of_transformers_can_be_certified(
    supernets: Supernets, checkpoint: Checkpoints, task: Task
):
    folder = checkpoint("roberta", task)
    same = certify(folder, baseline=supernets("roberta", task), task=task, max_seq_len=20, **QUICK)
    assert same.loss_ci == (0.0, 0.0)
    assert same.subnet.n_params == sum(
        p.numel() for p in AutoModelForSequenceClassification.from_pretrained(folder).parameters()
    )


def test_regression_is_certified_in_points_of_its_metric(supernets: Supernets, regression: Task):
    supernet = supernets("distilbert", regression)
    result = certify(
        (supernet.extract(SUBNET), supernet.tokenizer), baseline=supernet, task=regression, **QUICK
    )
    assert result.metric == "spearman"
    assert result.loss_points == pytest.approx(100 * (result.baseline.accuracy - result.subnet.accuracy))
    assert "points of spearman" in str(result)


def test_an_export_is_read_without_running_its_code(
    supernets: Supernets, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    supernet = supernets("bert", task)
    folder = export(supernet, SUBNET, tmp_path / "model")

    def run(*_: object, **__: object) -> None:
        raise AssertionError("remote code was run")

    monkeypatch.setattr("transformers.dynamic_module_utils.get_class_from_dynamic_module", run)
    monkeypatch.setattr("transformers.models.auto.auto_factory.get_class_from_dynamic_module", run)
    monkeypatch.setattr("transformers.models.auto.configuration_auto.get_class_from_dynamic_module", run)
    certificate = certify(folder, baseline=folder, task=task, trust_remote_code=True, **QUICK)
    assert certificate.loss_points == 0.0


def test_a_changed_model_file_is_run_only_where_code_is_trusted(
    supernets: Supernets, task: Task, tmp_path: Path
):
    supernet = supernets("bert", task)
    folder = export(supernet, SUBNET, tmp_path / "model")
    with (folder / "modeling_subnet.py").open("a") as file:
        file.write("\n")
    with pytest.raises(CheckpointError, match=r"modeling_subnet\.py in '.*model' is not the one of this"):
        certify(folder, baseline=supernet, task=task, **QUICK)
    certificate = certify(folder, baseline=folder, task=task, trust_remote_code=True, **QUICK)
    assert certificate.subnet.n_params == supernet.n_params(SUBNET)


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan")])
def test_a_target_that_is_not_above_zero_is_refused(supernets: Supernets, task: Task, ratio: float):
    supernet = supernets("bert", task)
    with pytest.raises(ValueError, match=f"target_ratio={ratio}"):
        certify(supernet, baseline=supernet, task=task, target_ratio=ratio, **QUICK)


def test_a_missing_device_is_refused(supernets: Supernets, task: Task):
    supernet = supernets("bert", task)
    with pytest.raises(DeviceError, match="device='tpu'"):
        certify(supernet, baseline=supernet, task=task, device="tpu", **QUICK)


def test_a_missing_model_is_refused(supernets: Supernets, task: Task, tmp_path: Path):
    with pytest.raises(CheckpointError, match=re.escape(f"cannot read the model '{tmp_path}'")):
        certify(tmp_path, baseline=supernets("bert", task), task=task, **QUICK)


def test_a_checkpoint_without_a_trained_head_is_refused(
    checkpoint: Checkpoints, task: Task, tmp_path: Path, supernets: Supernets
):
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint("bert", task))
    model.bert.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(checkpoint("bert", task)).save_pretrained(tmp_path)
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with pytest.raises(CheckpointError, match=r"lacks 2 weights, among them 'classifier.bias'"):
            certify(tmp_path, baseline=supernets("bert", task), task=task, **QUICK)
    finally:
        transformers_logging.set_verbosity(verbosity)


def test_a_model_with_other_labels_is_refused(supernets: Supernets, task: Task, regression: Task):
    with pytest.raises(CheckpointError, match=r"'the supernet' has num_labels=3, but task 'films' needs 1"):
        certify(supernets("bert", task), baseline=supernets("bert", task), task=regression, **QUICK)


@pytest.mark.parametrize(("family", "limit"), [("bert", 40), ("roberta", 38)])
def test_a_workload_longer_than_the_model_is_refused(
    supernets: Supernets, checkpoint: Checkpoints, task: Task, family: str, limit: int
):
    long = {**QUICK, "workload": Workload(batch_size=1, seq_len=41)}
    for model in (supernets(family, task), checkpoint(family, task)):
        with pytest.raises(CheckpointError, match=f"takes at most {limit} tokens, .* seq_len=41"):
            certify(model, baseline=model, task=task, **long)


def test_predictions_that_are_no_numbers_are_refused(supernets: Supernets, regression: Task):
    supernet = supernets("bert", regression)
    broken = supernet.extract(SUBNET)
    with torch.no_grad():
        broken.head.out.bias.fill_(np.nan)
    with pytest.raises(EvaluationError, match="24 of 24 predictions of 'SubnetModel' are not finite"):
        certify((broken, supernet.tokenizer), baseline=supernet, task=regression, **QUICK)


def test_the_largest_of_classes_hides_no_nan(supernets: Supernets, task: Task):
    supernet = supernets("bert", task)
    broken = supernet.extract(SUBNET)
    with torch.no_grad():
        broken.head.out.bias[1] = np.nan
    with pytest.raises(EvaluationError, match="24 of 24 predictions of 'SubnetModel' are not finite"):
        certify((broken, supernet.tokenizer), baseline=supernet, task=task, **QUICK)


DEVICE = DeviceInfo("cpu", "Example CPU", versions={"torch": "2.13.0"})


def made(ratio: float, target: float | None, note: str | None = None) -> Certificate:
    return Certificate(
        baseline=Measured(0.768, (0.743, 0.791), 14.02, 0.2, 22_713_216),
        subnet=Measured(0.754, (0.729, 0.777), 6.76, 0.12, 18_301_440),
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
        "baseline  accuracy 0.768 [0.743, 0.791]   14.02 ms (spread 0.20)   22.71 M parameters",
        "subnet    accuracy 0.754 [0.729, 0.777]   6.76 ms (spread 0.12)   18.30 M parameters",
        "latency   0.482 of the baseline's [0.472, 0.492], target 0.5 met",
        "loss      1.4 points of accuracy [-0.2, 3.0]",
        f"timed     batch 2 x 8 tokens, float32, eager on {DEVICE}",
        "note      this machine is noisy",
    ]
    assert "target" not in str(made(0.482, None))
    assert "target 0.5 missed" in str(made(0.6, 0.5))


def test_the_dictionary_is_json_under_the_names_of_a_summary():
    values = json.loads(json.dumps(made(0.482, 0.5).to_dict(), allow_nan=False))
    assert values["full"]["accuracy_ci"] == [0.743, 0.791]
    assert values["best"] == {
        "accuracy": 0.754,
        "accuracy_ci": [0.729, 0.777],
        "latency_ms": 6.76,
        "latency_spread_ms": 0.12,
        "n_params": 18_301_440,
        "n_items": 1200,
        "split": "test",
    }
    assert (values["target_ratio"], values["target_met"], values["loss_points"]) == (0.5, True, 1.4)
    assert values["workload"]["seq_len"] == 8
    assert values["device"]["name"] == "Example CPU"
