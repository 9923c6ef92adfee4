"""The last measurement: a finished subnet beside its baseline, on items that no search has seen."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rlnas.deploy.export import CONFIG_FILE, MODEL_FILE
from rlnas.errors import CheckpointError, first_line
from rlnas.latency import clock_for, compare, describe_device, noise_note, resolve_device, timing_conditions
from rlnas.scores import difference_interval, score, score_interval
from rlnas.supernet.checkpoint import label_order, quiet_transformers
from rlnas.supernet.encoding import encode
from rlnas.supernet.inference import predict
from rlnas.supernet.modeling_subnet import SubnetModel, SubnetModelConfig
from rlnas.supernet.supernet import Supernet
from rlnas.supernet.timing import example_inputs, inference_call

if TYPE_CHECKING:
    import numpy.typing as npt
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rlnas.latency import Comparison, DeviceInfo, Timing
    from rlnas.task import Task
    from rlnas.workload import Workload

    Certifiable: TypeAlias = str | Path | Supernet | tuple[PreTrainedModel, PreTrainedTokenizerBase]

TARGET_TOLERANCE = 1.05
"""A latency ratio up to this many times its target meets it: timings of one machine differ that much."""


NO_LIMIT = 2**31 - 1
"""Tokens taken by a model whose positions are relative."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One model of a certificate.

    Attributes:
        accuracy: The task's metric on the final split, a fraction.
        accuracy_ci: Its 95 % interval (low, high).
        latency_ms: Median latency of the workload, in milliseconds.
        latency_spread_ms: Interquartile range of the latency, in milliseconds.
        n_params: Number of parameters.
    """

    accuracy: float
    accuracy_ci: tuple[float, float]
    latency_ms: float
    latency_spread_ms: float
    n_params: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """A subnet beside its baseline: both judged on the same items and timed in the same rounds.

    Attributes:
        baseline: What the subnet is compared with, usually the full model.
        subnet: The certified model.
        loss_points: 100 times the baseline's accuracy minus the subnet's.
        loss_ci: Its 95 % interval (low, high), paired over items.
        latency_ratio: Median over rounds of the subnet's latency over the baseline's.
        latency_ratio_ci: Its 95 % interval (low, high).
        target_ratio: What `latency_ratio` was to be at most, or None.
        task_name: The task.
        metric: The task's metric, which `accuracy` stands for.
        split: Name of the split that both were judged on.
        n_items: Its number of items.
        workload: What was timed; both models were also judged in its number format.
        device: What it was timed on.
        note: One sentence if the timings are noisy, else None.
    """

    baseline: Measured
    subnet: Measured
    loss_points: float
    loss_ci: tuple[float, float]
    latency_ratio: float
    latency_ratio_ci: tuple[float, float]
    target_ratio: float | None
    task_name: str
    metric: str
    split: str
    n_items: int
    workload: Workload
    device: DeviceInfo
    note: str | None = None

    @property
    def target_met(self) -> bool | None:
        """Whether the ratio is at most `TARGET_TOLERANCE` times its target; None without a target."""
        if self.target_ratio is None:
            return None
        return self.latency_ratio <= TARGET_TOLERANCE * self.target_ratio

    def __str__(self) -> str:
        rows = [
            f"{name:<9} {self.metric} {one.accuracy:.3f} [{one.accuracy_ci[0]:.3f}, "
            f"{one.accuracy_ci[1]:.3f}]   {one.latency_ms:.2f} ms (spread {one.latency_spread_ms:.2f})   "
            f"{one.n_params / 1e6:.2f} M parameters"
            for name, one in (("baseline", self.baseline), ("subnet", self.subnet))
        ]
        low, high = self.latency_ratio_ci
        ratio = f"latency   {self.latency_ratio:.3f} of the baseline's [{low:.3f}, {high:.3f}]"
        if self.target_ratio is not None:
            ratio += f", target {self.target_ratio:g} {'met' if self.target_met else 'missed'}"
        low, high = self.loss_ci
        return "\n".join(
            [
                f"{self.task_name}, {self.split} split, {self.n_items:,} items, 95 % intervals",
                *rows,
                ratio,
                f"loss      {self.loss_points:.1f} points of {self.metric} [{low:.1f}, {high:.1f}]",
                f"timed     {self.workload} on {self.device}",
                *([f"note      {self.note}"] if self.note else []),
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, under the names that a run's ``summary.json`` uses."""
        judged = {"n_items": self.n_items, "split": self.split}
        return {
            "task_name": self.task_name,
            "metric": self.metric,
            "full": {**_plain(self.baseline), **judged},
            "best": {**_plain(self.subnet), **judged},
            "latency_ratio": self.latency_ratio,
            "latency_ratio_ci": list(self.latency_ratio_ci),
            "target_ratio": self.target_ratio,
            "target_met": self.target_met,
            "loss_points": self.loss_points,
            "loss_ci": list(self.loss_ci),
            "workload": self.workload.to_dict(),
            "device": self.device.to_dict(),
            "note": self.note,
        }


def certify(
    model: Certifiable,
    *,
    baseline: Certifiable,
    task: Task,
    workload: Workload,
    device: str = "cpu",
    target_ratio: float | None = None,
    max_seq_len: int | None = None,
    batch_size: int = 32,
    n_rounds: int = 200,
    max_seconds: float | None = 30.0,
    seed: int = 0,
    trust_remote_code: bool = False,
) -> Certificate:
    """Judge a model and its baseline on the task's final split, and time both interleaved.

    Both run in the workload's number format. Outputs are matched with the task's labels by name
    where the names are the same, but for their case; otherwise by their order.

    Args:
        model: A folder or hub name, a supernet (its full model), or a loaded model with its
            tokenizer. A folder written by `rlnas.deploy.export` is read without running its code.
        baseline: As `model`; what the loss and the ratio refer to.
        task: Its final split is used.
        workload: What is timed.
        device: Where both run, see `rlnas.latency.resolve_device`.
        target_ratio: What the latency ratio is to be at most, or None.
        max_seq_len: Texts are cut to this many tokens; by default each model's own limit.
        batch_size: Items per forward pass where accuracy is measured.
        n_rounds: Rounds of the timing.
        max_seconds: Bound on the timed work, or None.
        seed: Of bootstraps and of the order of timings.
        trust_remote_code: Whether code inside other folders may run.

    Raises:
        CheckpointError: If a model cannot be read, does not suit the task, or takes fewer
            tokens than the workload has.
        EvaluationError: If a prediction is not a finite number.
        ValueError: If `target_ratio` is not above 0.
        DeviceError: If the device is not there.
    """
    if target_ratio is not None and not target_ratio > 0:
        raise ValueError(f"target_ratio must be above 0, but got target_ratio={target_ratio}")
    chosen = resolve_device(device)
    dtype: torch.dtype = getattr(torch, workload.dtype)
    pair = []
    for one in (baseline, model):
        loaded = _load(one, trust_remote_code)
        _check(loaded, task, workload)
        pair.append(replace(loaded, module=_placed(loaded.module, chosen, dtype)))
    first, second = (_predict(loaded, task, max_seq_len, batch_size) for loaded in pair)
    timings = _time(pair[0], pair[1], workload, chosen, n_rounds, max_seconds, seed)
    metric, labels = task.metric, task.final.labels
    loss = score(metric, labels, first) - score(metric, labels, second)
    # The interval is that of its second argument's score minus the first's.
    low, high = difference_interval(metric, labels, second, first, seed=seed)
    return Certificate(
        baseline=_measured(pair[0], task, first, timings.first, seed),
        subnet=_measured(pair[1], task, second, timings.second, seed),
        loss_points=100 * loss,
        loss_ci=(100 * low, 100 * high),
        latency_ratio=timings.ratio,
        latency_ratio_ci=timings.ratio_ci,
        target_ratio=target_ratio,
        task_name=task.name,
        metric=metric,
        split=task.final.name,
        n_items=len(task.final),
        workload=workload,
        device=describe_device(chosen),
        note=noise_note([timings.first, timings.second]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Loaded:
    """A model that can be run; `name` is for messages."""

    name: str
    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_seq_len: int


def _load(model: Certifiable, trust_remote_code: bool) -> _Loaded:
    if isinstance(model, Supernet):
        return _Loaded("the supernet", model.model, model.tokenizer, model.max_seq_len)
    if isinstance(model, tuple):
        module, tokenizer = model
        name = type(module).__name__
    else:
        name = str(model)
        try:
            module, tokenizer = _read(name, trust_remote_code)
        except CheckpointError:
            raise
        except Exception as error:  # transformers, safetensors and json each raise their own
            reason = first_line(error)
            raise CheckpointError(f"cannot read the model {name!r}: {reason}") from error
    return _Loaded(name, module, tokenizer, min(tokenizer.model_max_length, _positions(module)))


def _read(name: str, trust_remote_code: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    folder = Path(name)
    if _is_own_export(folder):
        config = SubnetModelConfig.from_pretrained(folder)
        with quiet_transformers():
            read: Any = SubnetModel.from_pretrained(
                folder, config=config, dtype="auto", output_loading_info=True
            )
        tokenizer = AutoTokenizer.from_pretrained(folder, config=config, trust_remote_code=False)
    elif (folder / CONFIG_FILE).is_file() and not trust_remote_code:
        raise CheckpointError(
            f"the model file {MODEL_FILE.name} in {name!r} is not the one of this version of rlnas; "
            "look at it, then pass trust_remote_code=True to run it"
        )
    else:
        with quiet_transformers():
            read = AutoModelForSequenceClassification.from_pretrained(
                name, dtype="auto", trust_remote_code=trust_remote_code, output_loading_info=True
            )
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    module, info = read
    if info["missing_keys"]:  # transformers fills them with random numbers
        raise CheckpointError(
            f"the model {name!r} lacks {len(info['missing_keys'])} weights, among them "
            f"{min(info['missing_keys'])!r}; give one that was trained for sequence classification"
        )
    return module, tokenizer


def _is_own_export(folder: Path) -> bool:
    """Whether a folder's model file is ours to the byte: then our own class can stand in for it."""
    file = folder / MODEL_FILE.name
    if not (folder / CONFIG_FILE).is_file() or not file.is_file():
        return False
    return file.read_bytes() == MODEL_FILE.read_bytes()


def _positions(module: PreTrainedModel) -> int:
    """How many tokens a model takes."""
    config = module.config
    limit = int(getattr(config, "max_position_embeddings", None) or NO_LIMIT)
    padding = getattr(config, "position_padding", None)
    if config.model_type in ("roberta", "xlm-roberta", "camembert"):
        padding = config.pad_token_id
    # These families count positions from behind the padding index.
    return limit if padding is None else limit - int(padding) - 1


def _check(loaded: _Loaded, task: Task, workload: Workload) -> None:
    config: Any = loaded.module.config
    num_labels = int(config.num_labels)
    if num_labels != task.num_labels:
        raise CheckpointError(
            f"the model {loaded.name!r} has num_labels={num_labels}, but task {task.name!r} needs "
            f"{task.num_labels}; give a model that was trained for this task"
        )
    limit = _positions(loaded.module)
    if workload.seq_len > limit:
        raise CheckpointError(
            f"the model {loaded.name!r} takes at most {limit} tokens, "
            f"but the workload has seq_len={workload.seq_len}"
        )


def _placed(module: PreTrainedModel, device: str, dtype: torch.dtype) -> PreTrainedModel:
    """A copy on the device, in the number format, in evaluation mode; the caller's stays as it is."""
    placed: Any = copy.deepcopy(module)
    placed = placed.to(device=device, dtype=dtype).eval()
    return cast("PreTrainedModel", placed)


def _predict(
    loaded: _Loaded, task: Task, max_seq_len: int | None, batch_size: int
) -> npt.NDArray[np.generic]:
    """Predictions on the final split: the task's class indices, or values."""
    limit = loaded.max_seq_len if max_seq_len is None else min(max_seq_len, loaded.max_seq_len)
    encoded = encode(loaded.tokenizer, task.final, limit)
    predictions = predict(loaded.module, encoded, batch_size, name=repr(loaded.name))
    config: Any = loaded.module.config
    names = [str(config.id2label.get(index)) for index in range(config.num_labels)]
    order = None if task.is_regression else label_order(names, task.label_names)
    return predictions if order is None else np.argsort(order)[predictions.astype(np.int64)]


def _time(
    first: _Loaded,
    second: _Loaded,
    workload: Workload,
    device: str,
    n_rounds: int,
    max_seconds: float | None,
    seed: int,
) -> Comparison:
    calls = [
        inference_call(one.module, example_inputs(one.module.config.vocab_size, workload, device))
        for one in (first, second)
    ]
    with timing_conditions():
        return compare(
            calls[0], calls[1], clock_for(device), n_rounds=n_rounds, max_seconds=max_seconds, seed=seed
        )


def _measured(
    loaded: _Loaded, task: Task, predictions: npt.NDArray[np.generic], timing: Timing, seed: int
) -> Measured:
    labels = task.final.labels
    return Measured(
        accuracy=score(task.metric, labels, predictions),
        accuracy_ci=score_interval(task.metric, labels, predictions, seed=seed),
        latency_ms=timing.median_ms,
        latency_spread_ms=timing.spread_ms,
        n_params=sum(parameter.numel() for parameter in loaded.module.parameters()),
    )


def _plain(measured: Measured) -> dict[str, Any]:
    return {**asdict(measured), "accuracy_ci": list(measured.accuracy_ci)}
