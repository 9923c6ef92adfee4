"""A certificate holds for the items, the labels and the devices that it names."""

from __future__ import annotations

import importlib
import itertools
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BartConfig,
    BartForSequenceClassification,
    CanineConfig,
    CanineForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
)
from transformers.utils import logging as transformers_logging

from rlnas.deploy.certify import MAX_SECONDS, N_ROUNDS, _in_like_code, certify
from rlnas.deploy.export import export
from rlnas.deploy.loading import load
from rlnas.deploy.plain import plain_model
from rlnas.deploy.serving import predict_as_served
from rlnas.errors import CheckpointError, DeviceError, EvaluationError
from rlnas.latency import Timing
from rlnas.scores import score, score_interval
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.supernet.inference import predict
from rlnas.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rlnas.deploy.certificate import Certificate
    from rlnas.supernet.supernet import Supernet
    from rlnas.task import Task

    Supernets = Callable[[str, Task], Supernet]
    Checkpoints = Callable[[str, Task], Path]

# Where the package has the function of the same name.
certify_module = importlib.import_module("rlnas.deploy.certify")

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
        assert measured.latency_ci[0] <= measured.latency_ms <= measured.latency_ci[1]
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


# Latency alone, in all modes


@pytest.mark.parametrize("mode", ["eager", "onnxruntime", pytest.param("compiled", marks=pytest.mark.slow)])
def test_any_two_models_of_transformers_can_be_certified(checkpoint: Checkpoints, task: Task, mode: str):
    if mode == "onnxruntime":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    workload = Workload(batch_size=2, seq_len=8, mode=mode)
    certificate = certify(
        checkpoint("distilbert", task),
        baseline=checkpoint("bert", task),
        **{**QUICK, "workload": workload},
    )
    assert certificate.subnet.n_params < certificate.baseline.n_params
    assert certificate.latency_ratio_ci[0] <= certificate.latency_ratio <= certificate.latency_ratio_ci[1]
    assert certificate.workload.mode == mode
    judged = ("loss_points", "loss_ci", "task_name", "metric", "split", "n_items")
    assert {getattr(certificate, name) for name in judged} == {None}
    assert certificate.baseline.accuracy is certificate.subnet.accuracy_ci is None


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["eager", "cuda_graph", "compiled"])
def test_models_are_certified_on_a_gpu(checkpoint: Checkpoints, task: Task, mode: str):
    workload = Workload(2, 8, "bfloat16", mode, lengths=(4, 8))
    certificate = certify(
        checkpoint("distilbert", task),
        baseline=checkpoint("bert", task),
        task=task,
        device="cuda",
        **{**QUICK, "workload": workload},
    )
    assert certificate.device.kind == "cuda"
    assert certificate.n_items == 24


def test_a_tail_of_few_samples_is_certified_with_a_note(checkpoint: Checkpoints, task: Task):
    workload = Workload(1, 8, statistic="p99")
    certificate = certify(
        checkpoint("distilbert", task),
        baseline=checkpoint("bert", task),
        **{**QUICK, "workload": workload, "n_rounds": 7, "max_seconds": 60.0},
    )
    assert "a p99 of 7 samples rests on one or two of them" in certificate.note
    low, high = certificate.subnet.latency_ci
    assert low <= certificate.subnet.latency_ms <= high


@pytest.mark.parametrize("statistic", ["median", "p99"])
@pytest.mark.parametrize("given", [{}, {"n_rounds": 6, "max_seconds": 0.5}])
def test_a_tail_is_given_more_rounds_and_time(
    supernets: Supernets,
    task: Task,
    monkeypatch: pytest.MonkeyPatch,
    statistic: str,
    given: dict[str, float],
):
    asked = []

    def measure(calls: object, clock: object, **how: object) -> list[Timing]:
        asked.append(how)
        return [Timing((1.0,) * 6), Timing((2.0,) * 6)]

    monkeypatch.setattr(certify_module, "measure", measure)
    supernet = supernets("bert", task)
    workload = Workload(2, 8, statistic=statistic)
    certificate = certify(supernet, baseline=supernet, workload=workload, **given)
    assert certificate.latency_ratio == 2.0
    expected = given or {"n_rounds": N_ROUNDS[statistic], "max_seconds": MAX_SECONDS[statistic]}
    assert expected.items() <= asked[0].items()
    assert (asked[0]["min_sample_ms"] == 0) is (statistic == "p99")


def test_a_clock_that_moves_is_noted(supernets: Supernets, task: Task, monkeypatch: pytest.MonkeyPatch):
    readings = itertools.cycle([2000.0, None, 1000.0])
    monkeypatch.setattr(certify_module, "frequency_reader", lambda device: lambda: next(readings))
    supernet = supernets("bert", task)
    how = {**QUICK, "n_rounds": 5}
    certificate = certify(supernet, baseline=supernet, target_ratio=1e9, **how)
    assert "the device's clock moved from 2000 to 1000 MHz" in certificate.note
    assert certificate.target_met is True


def test_latency_alone_needs_neither_tokenizer_nor_trained_head(
    checkpoint: Checkpoints, task: Task, tmp_path: Path
):
    folder = checkpoint("bert", task)
    AutoModelForSequenceClassification.from_pretrained(folder).bert.save_pretrained(tmp_path)
    state = torch.random.get_rng_state()
    certificate = certify(tmp_path, baseline=folder, **QUICK)
    assert certificate.n_items is None
    assert torch.equal(torch.random.get_rng_state(), state)  # the head's random weights disturb nobody
    with pytest.raises(CheckpointError, match="lacks 2 weights"):
        certify(tmp_path, baseline=folder, task=task, **QUICK)


def test_a_mode_that_does_not_run_here_is_refused_before_anything_is_read():
    workload = Workload(mode="cuda_graph")
    with pytest.raises(DeviceError, match="mode='cuda_graph' needs a CUDA device, but got device='cpu'"):
        certify("no/such", baseline="no/such", workload=workload)


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


def test_a_stock_model_is_timed_beside_a_baseline_in_a_stock_class_too(supernets: Supernets, task: Task):
    supernet = supernets("bert", task)
    stock = plain_model(supernet.model)
    ours, theirs = (load(one, False, is_judged=True) for one in (supernet, (stock, supernet.tokenizer)))
    first, second = _in_like_code(ours, theirs)
    assert type(first.module) is type(second.module) is type(stock)
    assert second is theirs
    assert _in_like_code(theirs, ours) == (theirs, ours)  # a baseline is what it is given as
    assert _in_like_code(ours, ours) == (ours, ours)
    uneven = replace(ours, module=supernet.extract(SUBNET))
    assert _in_like_code(uneven, theirs) == (uneven, theirs)  # which no stock class holds


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


TINY = {"vocab_size": 40, "num_labels": 3, "pad_token_id": None}


def tiny_bart() -> Any:
    sizes = {"d_model": 16, "max_position_embeddings": 40, "encoder_layers": 1, "decoder_layers": 1}
    more = {name: 2 for name in ("encoder_attention_heads", "decoder_attention_heads")}
    more |= {name: 16 for name in ("encoder_ffn_dim", "decoder_ffn_dim")}
    return BartForSequenceClassification(BartConfig(**{**TINY, "pad_token_id": 0}, **sizes, **more))


def tiny_gpt2() -> Any:
    return GPT2ForSequenceClassification(GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=40, **TINY))


def tiny_canine() -> Any:
    """Reads characters, so its config has no vocab_size."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    more = {"max_position_embeddings": 40, "num_hash_buckets": 8, "num_labels": 3}
    return CanineForSequenceClassification(CanineConfig(**sizes, **more))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (tiny_bart, "<eos> token"),
        (tiny_gpt2, "no padding token is defined"),
        (tiny_canine, "'CanineConfig' object has no attribute 'vocab_size'"),
    ],
)
@pytest.mark.parametrize("is_judged", [False, True])
def test_a_model_that_cannot_run_the_requests_is_named_before_it_is_judged(
    supernets: Supernets,
    task: Task,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[], Any],
    reason: str,
    is_judged: bool,
):
    monkeypatch.setattr(certify_module, "predict_as_served", None)
    monkeypatch.setattr(certify_module, "measure", None)
    supernet, model = supernets("bert", task), make()
    message = f"the model '{type(model).__name__}' cannot run a request of batch 2 x 8 tokens: .*{reason}"
    with pytest.raises(CheckpointError, match=f"{message}.*; certify takes encoders for sequence"):
        certify((model, supernet.tokenizer), baseline=supernet, task=task if is_judged else None, **QUICK)


def test_a_model_that_cannot_run_the_items_of_the_task_is_named(supernets: Supernets, task: Task):
    supernet = supernets("bert", task)
    one = {**QUICK, "workload": Workload(batch_size=1, seq_len=8)}
    message = (
        "the model 'GPT2ForSequenceClassification' cannot run the items of the task 'films': Cannot handle"
    )
    with pytest.raises(CheckpointError, match=message):
        certify((tiny_gpt2(), supernet.tokenizer), baseline=supernet, task=task, **one)


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


# A model in another precision than its baseline


def test_a_model_is_judged_and_timed_in_its_own_precision(supernets: Supernets, task: Task):
    supernet = supernets("bert", task)
    served = WORKLOAD.in_precision("bfloat16")
    certificate = certify(supernet, baseline=supernet, task=task, model_workload=served, **QUICK)
    assert certificate.workload == WORKLOAD
    assert certificate.subnet_workload == served
    assert certificate.to_dict()["subnet_workload"] == served.to_dict()
    assert "served    the subnet in bfloat16, eager; judged and timed so" in str(certificate)
    same = certify(supernet, baseline=supernet, model_workload=WORKLOAD, **QUICK)
    assert same.subnet_workload is None


@pytest.mark.slow
def test_a_model_in_int8_is_judged_by_onnx_runtime(supernets: Supernets, task: Task):
    pytest.importorskip("onnxruntime")
    supernet = supernets("bert", task)
    certificate = certify(
        supernet, baseline=supernet, task=task, model_workload=WORKLOAD.in_precision("int8"), **QUICK
    )
    encoded = supernet.encode(task.final)
    predicted = predict_as_served(supernet.model, encoded, "int8")
    assert certificate.subnet.accuracy == pytest.approx((predicted == task.final.labels).mean())


def test_other_requests_for_the_model_are_refused(supernets: Supernets, task: Task):
    supernet = supernets("bert", task)
    with pytest.raises(
        ValueError, match=r"same requests, but got .*batch 2 x 8 .*model_workload=\[batch 3 x 8"
    ):
        certify(supernet, baseline=supernet, model_workload=replace(WORKLOAD, batch_size=3), **QUICK)
