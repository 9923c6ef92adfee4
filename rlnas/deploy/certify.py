"""The last measurement: a model beside its baseline, in the same rounds and on the same unseen items."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from rlnas.deploy.certificate import Certificate, Measured
from rlnas.deploy.loading import check, load
from rlnas.deploy.plain import obstacle_to_plain, plain_model
from rlnas.deploy.serving import predict_as_served
from rlnas.errors import CheckpointError, RLNASError, first_line
from rlnas.latency import (
    clock_for,
    compare_timings,
    describe_device,
    measure,
    noise_note,
    resolve_device,
    sample_ms,
    timing_conditions,
)
from rlnas.latency.frequency import FrequencyWatch, frequency_reader
from rlnas.latency.timing import tail_note
from rlnas.precision import stored_as
from rlnas.runtime import check_mode
from rlnas.runtime.eager import eager_call
from rlnas.scores import difference_interval, score, score_interval
from rlnas.supernet.checkpoint import label_order
from rlnas.supernet.encoding import encode
from rlnas.supernet.modeling_subnet import SubnetModel
from rlnas.supernet.timing import example_inputs, inference_calls

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rlnas.deploy.loading import Certifiable, Loaded
    from rlnas.latency import Comparison, Timing
    from rlnas.task import Task
    from rlnas.workload import Workload

N_ROUNDS = {"median": 200, "p99": 1_000}
"""Rounds of the timing, by statistic: in a tail only one round in a hundred counts."""

MAX_SECONDS = {"median": 30.0, "p99": 60.0}
"""Bound on the timed work, by statistic."""

TAIL_SAMPLES = 200
"""Samples that a certified 99 % quantile needs: here it is the result, not one of sixteen."""


def certify(
    model: Certifiable,
    *,
    baseline: Certifiable,
    task: Task | None = None,
    workload: Workload,
    model_workload: Workload | None = None,
    device: str = "cpu",
    target_ratio: float | None = None,
    max_seq_len: int | None = None,
    batch_size: int = 32,
    n_rounds: int | None = None,
    max_seconds: float | None = None,
    seed: int = 0,
    trust_remote_code: bool = False,
) -> Certificate:
    """Time a model and its baseline interleaved, and judge both on the task's final split.

    Both run in the workload's number format and, while they are timed, in its mode; the model in those of
    `model_workload`, if there is one. In int8 predictions come from ONNX Runtime too. If `model` is of a
    stock class and `baseline` could be, that runs in a stock class too: no model is to look faster because
    of the code around its blocks. Outputs are matched with the task's labels by name where the names are
    the same, but for their case; otherwise by their order.

    Args:
        model: A folder or hub name, a supernet (its full model), or a loaded model with its
            tokenizer. A folder written by `rlnas.deploy.export` is read without running its code.
        baseline: As `model`; what the loss and the ratio refer to.
        task: Its final split is used. None certifies latency alone; then the models need neither
            tokenizers nor trained classifiers.
        workload: What is timed.
        model_workload: The same requests in the number format and mode in which the model is served, where
            these are others; see `rlnas.Workload.in_precision`.
        device: Where both run, see `rlnas.latency.resolve_device`.
        target_ratio: What the latency ratio is to be at most, or None.
        max_seq_len: Texts are cut to this many tokens; by default each model's own limit.
        batch_size: Items per forward pass where accuracy is measured.
        n_rounds: Rounds of the timing; by default what `N_ROUNDS` says.
        max_seconds: Bound on the timed work, may be infinite; by default what `MAX_SECONDS` says.
        seed: Of bootstraps and of the order of timings.
        trust_remote_code: Whether code inside other folders may run.

    Raises:
        CheckpointError: If a model cannot be read, does not suit the task, takes fewer tokens
            than the workload has, or cannot run its requests.
        EvaluationError: If a prediction is not a finite number.
        ValueError: If `target_ratio` is not above 0, or `model_workload` has other requests.
        DeviceError: If the device is not there, or the mode does not run on it.
        MissingDependencyError: If the mode needs a package that is not installed.
    """
    if target_ratio is not None and not target_ratio > 0:
        raise ValueError(f"target_ratio must be above 0, but got target_ratio={target_ratio}")
    chosen = resolve_device(device)
    workloads = (workload, workload if model_workload is None else model_workload)
    _check_same_requests(*workloads)
    for own in workloads:
        check_mode(own.mode, chosen, own.dtype)
    pair = []
    both = [load(one, trust_remote_code, is_judged=task is not None) for one in (baseline, model)]
    for loaded, own in zip(_in_like_code(*both), workloads, strict=True):
        check(loaded, task, own)
        dtype: torch.dtype = getattr(torch, stored_as(own.dtype))
        placed = replace(loaded, module=_placed(loaded.module, chosen, dtype))
        _try(placed, own, chosen)
        pair.append(placed)
    predictions = []
    if task is not None:
        predictions = [
            _predict(one, own.dtype, task, max_seq_len, batch_size)
            for one, own in zip(pair, workloads, strict=True)
        ]
    timed, note = _time(pair, workloads, chosen, n_rounds, max_seconds, seed)
    first, second = (
        _measured(*one, workload.statistic, seed)
        for one in zip(pair, (timed.first, timed.second), strict=True)
    )
    certificate = Certificate(
        baseline=first,
        subnet=second,
        latency_ratio=timed.ratio,
        latency_ratio_ci=timed.ratio_ci,
        target_ratio=target_ratio,
        workload=workload,
        device=describe_device(chosen, mode=workload.mode),
        note=note,
        subnet_workload=None if workloads[1] == workload else workloads[1],
    )
    return certificate if task is None else _judged(certificate, task, predictions[0], predictions[1], seed)


def _in_like_code(baseline: Loaded, model: Loaded) -> tuple[Loaded, Loaded]:
    """Both models, the baseline as a stock class if the other one is of a stock class and it can be."""
    ours = baseline.module
    if isinstance(model.module, SubnetModel) or not isinstance(ours, SubnetModel):
        return baseline, model
    if obstacle_to_plain(ours.config) is not None:
        return baseline, model
    return replace(baseline, module=plain_model(ours)), model


def _check_same_requests(first: Workload, second: Workload) -> None:
    """Refuse workloads that differ in more than number format and mode."""
    if replace(second, dtype=first.dtype, mode=first.mode) != first:
        raise ValueError(
            f"both models must get the same requests, but got workload=[{first}] and "
            f"model_workload=[{second}]"
        )


def _judged(
    certificate: Certificate,
    task: Task,
    first: npt.NDArray[np.generic],
    second: npt.NDArray[np.generic],
    seed: int,
) -> Certificate:
    """The certificate with what both models' predictions are worth."""
    metric, labels = task.metric, task.final.labels
    # The interval is that of its second argument's score minus the first's.
    low, high = difference_interval(metric, labels, second, first, seed=seed)
    return replace(
        certificate,
        baseline=_with_accuracy(certificate.baseline, task, first, seed),
        subnet=_with_accuracy(certificate.subnet, task, second, seed),
        loss_points=100 * (score(metric, labels, first) - score(metric, labels, second)),
        loss_ci=(100 * low, 100 * high),
        task_name=task.name,
        metric=metric,
        split=task.final.name,
        n_items=len(task.final),
    )


def _with_accuracy(
    measured: Measured, task: Task, predictions: npt.NDArray[np.generic], seed: int
) -> Measured:
    labels = task.final.labels
    return replace(
        measured,
        accuracy=score(task.metric, labels, predictions),
        accuracy_ci=score_interval(task.metric, labels, predictions, seed=seed),
    )


def _placed(module: PreTrainedModel, device: str, dtype: torch.dtype) -> PreTrainedModel:
    """A copy on the device, in the number format, in evaluation mode; the caller's stays as it is."""
    placed: Any = copy.deepcopy(module)
    placed = placed.to(device=device, dtype=dtype).eval()
    return cast("PreTrainedModel", placed)


@contextmanager
def _running(name: str, what: str) -> Iterator[None]:
    """Name the model that fails in somebody else's code.

    Raises:
        CheckpointError: If the body raises what is not an error of ours.
    """
    try:
        yield
    except RLNASError:
        raise
    except Exception as error:  # a model may raise anything
        raise CheckpointError(
            f"the model {name!r} cannot run {what}: {first_line(error).rstrip('.')}; "
            "certify takes encoders for sequence classification"
        ) from error


def _try(loaded: Loaded, workload: Workload, device: str) -> None:
    """Run each request once, before minutes are spent on a model that cannot."""
    longest = max(max(lengths) for lengths in workload.requests)
    with _running(loaded.name, f"a request of batch {workload.batch_size} x {longest} tokens"):
        for inputs in example_inputs(loaded.module.config.vocab_size, workload, device):
            eager_call(loaded.module, inputs)()


def _predict(
    loaded: Loaded, precision: str, task: Task, max_seq_len: int | None, batch_size: int
) -> npt.NDArray[np.generic]:
    """Predictions on the final split: the task's class indices, or values."""
    tokenizer = cast("PreTrainedTokenizerBase", loaded.tokenizer)  # there, as there is a task
    limit = loaded.max_seq_len if max_seq_len is None else min(max_seq_len, loaded.max_seq_len)
    with _running(loaded.name, f"the items of the task {task.name!r}"):
        encoded = encode(tokenizer, task.final, limit)
        predictions = predict_as_served(
            loaded.module, encoded, precision, batch_size=batch_size, name=repr(loaded.name)
        )
    config: Any = loaded.module.config
    names = [str(config.id2label.get(index)) for index in range(config.num_labels)]
    order = None if task.is_regression else label_order(names, task.label_names)
    return predictions if order is None else np.argsort(order)[predictions.astype(np.int64)]


def _time(
    pair: list[Loaded],
    workloads: tuple[Workload, Workload],
    device: str,
    n_rounds: int | None,
    max_seconds: float | None,
    seed: int,
) -> tuple[Comparison, str | None]:
    """Both models in the same rounds, and what was wrong with the machine meanwhile."""
    statistic = workloads[0].statistic
    watch = FrequencyWatch(frequency_reader(device))
    # What is compiled is compiled for the number of threads that it is timed with.
    with timing_conditions():
        calls = [
            inference_calls(one.module, own, device, one.module.config.vocab_size)
            for one, own in zip(pair, workloads, strict=True)
        ]
        first, second = measure(
            calls,
            clock_for(device),
            n_rounds=N_ROUNDS[statistic] if n_rounds is None else n_rounds,
            max_seconds=MAX_SECONDS[statistic] if max_seconds is None else max_seconds,
            min_sample_ms=sample_ms(statistic),
            seed=seed,
            progress=lambda *_: watch.look(),
        )
    notes = [noise_note([first, second]), watch.note]
    notes += [tail_note(first.n_samples, TAIL_SAMPLES)] if statistic == "p99" else []
    timed = compare_timings(first, second, statistic=statistic, seed=seed)
    return timed, "; ".join(note for note in notes if note) or None


def _measured(loaded: Loaded, timing: Timing, statistic: str, seed: int) -> Measured:
    return Measured(
        latency_ms=timing.statistic_ms(statistic),
        latency_ci=timing.interval_ms(statistic, seed=seed),
        latency_spread_ms=timing.spread_ms,
        n_params=sum(parameter.numel() for parameter in loaded.module.parameters()),
    )
