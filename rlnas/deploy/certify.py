"""The last measurement: a model beside its baseline, in the same rounds and on the same unseen items."""

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
from rlnas.latency.frequency import frequency_note, frequency_reader
from rlnas.runtime import check_mode
from rlnas.scores import difference_interval, score, score_interval
from rlnas.supernet.checkpoint import check_vocabulary, label_order, quiet_transformers
from rlnas.supernet.encoding import encode
from rlnas.supernet.inference import predict
from rlnas.supernet.modeling_subnet import SubnetModel, SubnetModelConfig
from rlnas.supernet.supernet import Supernet
from rlnas.supernet.timing import inference_calls

if TYPE_CHECKING:
    import numpy.typing as npt
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rlnas.latency import Comparison, DeviceInfo, Timing
    from rlnas.task import Task
    from rlnas.workload import Workload

    Certifiable: TypeAlias = str | Path | Supernet | tuple[PreTrainedModel, PreTrainedTokenizerBase]

TARGET_TOLERANCE = 1.05
"""A latency ratio up to this many times its target meets it: timings of one machine differ that much."""

N_ROUNDS = {"median": 200, "p99": 1_000}
"""Rounds of the timing, by statistic: in a tail only one round in a hundred counts."""

MAX_SECONDS = {"median": 30.0, "p99": 60.0}
"""Bound on the timed work, by statistic."""

TAIL_SAMPLES = 200
"""Samples below which a 99 % quantile rests on one or two of them."""

NO_LIMIT = 2**31 - 1
"""Tokens taken by a model whose positions are relative."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One model of a certificate.

    Attributes:
        latency_ms: Latency in milliseconds: the workload's statistic, its median or its p99.
        latency_ci: Its 95 % interval (low, high), from a bootstrap over rounds.
        latency_spread_ms: Interquartile range of the latency over rounds, in milliseconds.
        n_params: Number of parameters.
        accuracy: The task's metric on the final split, a fraction; None without a task.
        accuracy_ci: Its 95 % interval (low, high); None without a task.
    """

    latency_ms: float
    latency_ci: tuple[float, float]
    latency_spread_ms: float
    n_params: int
    accuracy: float | None = None
    accuracy_ci: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a latency table says of a device or a workload that was not at hand.

    Attributes:
        ratio: Predicted latency of the certified model over the full model's.
        made_for: Workload and device of the table.
    """

    ratio: float
    made_for: str


@dataclass(frozen=True, slots=True)
class Certificate:
    """A model beside its baseline: both timed in the same rounds, and judged on the same items.

    Attributes:
        baseline: What the model is compared with, usually the full model.
        subnet: The certified model.
        latency_ratio: The model's latency over the baseline's: the median over rounds, or for p99
            the ratio of both p99.
        latency_ratio_ci: Its 95 % interval (low, high), from a bootstrap over rounds.
        target_ratio: What the ratio was to be at most, or None.
        workload: What was timed; both models were also judged in its number format.
        device: What it was timed on.
        loss_points: 100 times the baseline's accuracy minus the model's; None without a task.
        loss_ci: Its 95 % interval (low, high), paired over items; None without a task.
        task_name: The task, or None if only latency is certified.
        metric: The task's metric, which `accuracy` stands for, or None.
        split: Name of the split that both were judged on, or None.
        n_items: Its number of items, or None.
        note: One sentence if the timings are noisy, else None.
        prediction: Set where the target is that of another device or workload: what is predicted
            there. What was measured is then of here.
    """

    baseline: Measured
    subnet: Measured
    latency_ratio: float
    latency_ratio_ci: tuple[float, float]
    target_ratio: float | None
    workload: Workload
    device: DeviceInfo
    loss_points: float | None = None
    loss_ci: tuple[float, float] | None = None
    task_name: str | None = None
    metric: str | None = None
    split: str | None = None
    n_items: int | None = None
    note: str | None = None
    prediction: Prediction | None = None

    @property
    def target_met(self) -> bool | None:
        """Whether the ratio is at most `TARGET_TOLERANCE` times its target.

        None without a target, and where the target is that of another device or workload.
        """
        if self.target_ratio is None or self.prediction is not None:
            return None
        return self.latency_ratio <= TARGET_TOLERANCE * self.target_ratio

    def __str__(self) -> str:
        lines = ["latency alone, 95 % intervals"]
        if self.n_items is not None:
            lines = [f"{self.task_name}, {self.split} split, {self.n_items:,} items, 95 % intervals"]
        lines += [
            self._row("baseline", self.baseline),
            self._row("subnet", self.subnet),
            self._ratio_line(),
        ]
        if self.prediction is not None:
            lines.append(self._prediction_line(self.prediction))
        if self.loss_points is None or self.loss_ci is None:
            lines.append("accuracy  not judged, as no task was given")
        else:
            low, high = self.loss_ci
            lines.append(
                f"loss      {self.loss_points:.1f} points of {self.metric} [{low:.1f}, {high:.1f}]"
            )
        lines.append(f"timed     {self.workload} on {self.device}")
        return "\n".join([*lines, *([f"note      {self.note}"] if self.note else [])])

    def _row(self, name: str, one: Measured) -> str:
        parts = []
        if one.accuracy is not None and one.accuracy_ci is not None:
            low, high = one.accuracy_ci
            parts.append(f"{self.metric} {one.accuracy:.3f} [{low:.3f}, {high:.3f}]")
        low, high = one.latency_ci
        tail = "" if self.workload.statistic == "median" else f"{self.workload.statistic} "
        spread = f"spread {one.latency_spread_ms:.2f}"
        parts.append(f"{tail}{one.latency_ms:.2f} ms [{low:.2f}, {high:.2f}] ({spread})")
        parts.append(f"{one.n_params / 1e6:.2f} M parameters")
        return f"{name:<9} " + "   ".join(parts)

    def _ratio_line(self) -> str:
        low, high = self.latency_ratio_ci
        text = f"latency   {self.latency_ratio:.3f} of the baseline's [{low:.3f}, {high:.3f}]"
        if self.prediction is not None:
            return f"{text}, measured here"
        if self.target_ratio is not None:
            text += f", target {self.target_ratio:g} {'met' if self.target_met else 'missed'}"
        return text

    def _prediction_line(self, prediction: Prediction) -> str:
        text = (
            f"predicted {prediction.ratio:.3f} of the full model's for {prediction.made_for}, "
            "which was not at hand to measure"
        )
        if self.target_ratio is not None:
            text += f"; so whether the target {self.target_ratio:g} is met there is not known"
        return text

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
            "loss_ci": None if self.loss_ci is None else list(self.loss_ci),
            "workload": self.workload.to_dict(),
            "device": self.device.to_dict(),
            "note": self.note,
            "prediction": None if self.prediction is None else asdict(self.prediction),
        }


def certify(
    model: Certifiable,
    *,
    baseline: Certifiable,
    task: Task | None = None,
    workload: Workload,
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

    Both run in the workload's number format and, while they are timed, in its mode. Outputs are
    matched with the task's labels by name where the names are the same, but for their case;
    otherwise by their order.

    Args:
        model: A folder or hub name, a supernet (its full model), or a loaded model with its
            tokenizer. A folder written by `rlnas.deploy.export` is read without running its code.
        baseline: As `model`; what the loss and the ratio refer to.
        task: Its final split is used. None certifies latency alone; then the models need neither
            tokenizers nor trained classifiers.
        workload: What is timed.
        device: Where both run, see `rlnas.latency.resolve_device`.
        target_ratio: What the latency ratio is to be at most, or None.
        max_seq_len: Texts are cut to this many tokens; by default each model's own limit.
        batch_size: Items per forward pass where accuracy is measured.
        n_rounds: Rounds of the timing; by default what `N_ROUNDS` says.
        max_seconds: Bound on the timed work, may be infinite; by default what `MAX_SECONDS` says.
        seed: Of bootstraps and of the order of timings.
        trust_remote_code: Whether code inside other folders may run.

    Raises:
        CheckpointError: If a model cannot be read, does not suit the task, or takes fewer
            tokens than the workload has.
        EvaluationError: If a prediction is not a finite number.
        ValueError: If `target_ratio` is not above 0.
        DeviceError: If the device is not there, or the mode does not run on it.
        MissingDependencyError: If the mode needs a package that is not installed.
    """
    if target_ratio is not None and not target_ratio > 0:
        raise ValueError(f"target_ratio must be above 0, but got target_ratio={target_ratio}")
    chosen = resolve_device(device)
    check_mode(workload.mode, chosen, workload.dtype)
    dtype: torch.dtype = getattr(torch, workload.dtype)
    pair = []
    for one in (baseline, model):
        loaded = _load(one, trust_remote_code, is_judged=task is not None)
        _check(loaded, task, workload)
        pair.append(replace(loaded, module=_placed(loaded.module, chosen, dtype)))
    predictions = [] if task is None else [_predict(one, task, max_seq_len, batch_size) for one in pair]
    timed, note = _time(pair, workload, chosen, n_rounds, max_seconds, seed)
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
    )
    return certificate if task is None else _judged(certificate, task, predictions[0], predictions[1], seed)


def read_tokenizer(name: str | Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a model that `certify` takes.

    Args:
        name: A folder or a hub name.
        trust_remote_code: Whether code inside other folders may run.

    Raises:
        CheckpointError: If it cannot be read, or knows no words.
    """
    try:
        with quiet_transformers():
            tokenizer = _read_tokenizer(str(name), trust_remote_code)
    except Exception as error:  # transformers and its parts each raise their own
        reason = first_line(error)
        raise CheckpointError(f"cannot read the tokenizer of {str(name)!r}: {reason}") from error
    check_vocabulary(tokenizer, str(name))
    return tokenizer


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


@dataclass(frozen=True, slots=True, eq=False)
class _Loaded:
    """A model that can be run; `name` is for messages. Without a task it has no tokenizer."""

    name: str
    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    max_seq_len: int


def _load(model: Certifiable, trust_remote_code: bool, *, is_judged: bool) -> _Loaded:
    if isinstance(model, Supernet):
        return _Loaded("the supernet", model.model, model.tokenizer, model.max_seq_len)
    tokenizer: PreTrainedTokenizerBase | None
    if isinstance(model, tuple):
        module, tokenizer = model
        name = type(module).__name__
    else:
        name = str(model)
        try:
            module = _read(name, trust_remote_code, is_judged=is_judged)
        except CheckpointError:
            raise
        except Exception as error:  # transformers, safetensors and json each raise their own
            reason = first_line(error)
            raise CheckpointError(f"cannot read the model {name!r}: {reason}") from error
        tokenizer = read_tokenizer(name, trust_remote_code=trust_remote_code) if is_judged else None
    limit = NO_LIMIT if tokenizer is None else tokenizer.model_max_length
    return _Loaded(name, module, tokenizer, min(limit, _positions(module)))


def _read(name: str, trust_remote_code: bool, *, is_judged: bool) -> PreTrainedModel:
    folder = Path(name)
    if _is_own_export(folder):
        config = SubnetModelConfig.from_pretrained(folder)
        with quiet_transformers():
            read: Any = SubnetModel.from_pretrained(
                folder, config=config, dtype="auto", output_loading_info=True
            )
    elif (folder / CONFIG_FILE).is_file() and not trust_remote_code:
        raise CheckpointError(
            f"the model file {MODEL_FILE.name} in {name!r} is not the one of this version of rlnas; "
            "look at it, then pass trust_remote_code=True (--trust-remote-code) to run it"
        )
    else:
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            read = AutoModelForSequenceClassification.from_pretrained(
                name, dtype="auto", trust_remote_code=trust_remote_code, output_loading_info=True
            )
    module, info = read
    if info["missing_keys"] and is_judged:  # transformers fills them with random numbers
        raise CheckpointError(
            f"the model {name!r} lacks {len(info['missing_keys'])} weights, among them "
            f"{min(info['missing_keys'])!r}; give one that was trained for sequence classification"
        )
    return cast("PreTrainedModel", module)


def _read_tokenizer(name: str, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    if _is_own_export(Path(name)):
        config = SubnetModelConfig.from_pretrained(name)
        return AutoTokenizer.from_pretrained(name, config=config, trust_remote_code=False)
    return AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)


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


def _check(loaded: _Loaded, task: Task | None, workload: Workload) -> None:
    config: Any = loaded.module.config
    num_labels = int(config.num_labels)
    if task is not None and num_labels != task.num_labels:
        raise CheckpointError(
            f"the model {loaded.name!r} has num_labels={num_labels}, but task {task.name!r} needs "
            f"{task.num_labels}; give a model that was trained for this task"
        )
    limit = _positions(loaded.module)
    if workload.seq_len > limit:
        raise CheckpointError(
            f"the model {loaded.name!r} takes at most {limit} tokens, "
            f"but the workload has seq_len={workload.seq_len}; ask for no more than that (--seq-len)"
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
    tokenizer = cast("PreTrainedTokenizerBase", loaded.tokenizer)  # there, as there is a task
    limit = loaded.max_seq_len if max_seq_len is None else min(max_seq_len, loaded.max_seq_len)
    encoded = encode(tokenizer, task.final, limit)
    predictions = predict(loaded.module, encoded, batch_size, name=repr(loaded.name))
    config: Any = loaded.module.config
    names = [str(config.id2label.get(index)) for index in range(config.num_labels)]
    order = None if task.is_regression else label_order(names, task.label_names)
    return predictions if order is None else np.argsort(order)[predictions.astype(np.int64)]


def _time(
    pair: list[_Loaded],
    workload: Workload,
    device: str,
    n_rounds: int | None,
    max_seconds: float | None,
    seed: int,
) -> tuple[Comparison, str | None]:
    """Both models in the same rounds, and what was wrong with the machine meanwhile."""
    statistic = workload.statistic
    frequency = frequency_reader(device)
    readings_mhz: list[float] = []

    def after_round(*_: int) -> None:
        reading = None if frequency is None else frequency()
        readings_mhz.extend([] if reading is None else [reading])

    # What is compiled is compiled for the number of threads that it is timed with.
    with timing_conditions():
        calls = [
            inference_calls(one.module, workload, device, one.module.config.vocab_size) for one in pair
        ]
        first, second = measure(
            calls,
            clock_for(device),
            n_rounds=N_ROUNDS[statistic] if n_rounds is None else n_rounds,
            max_seconds=MAX_SECONDS[statistic] if max_seconds is None else max_seconds,
            min_sample_ms=sample_ms(statistic),
            seed=seed,
            progress=after_round,
        )
    notes = [noise_note([first, second]), frequency_note(readings_mhz), _tail_note(first, statistic)]
    timed = compare_timings(first, second, statistic=statistic, seed=seed)
    return timed, "; ".join(note for note in notes if note) or None


def _tail_note(timing: Timing, statistic: str) -> str | None:
    if statistic != "p99" or timing.n_samples >= TAIL_SAMPLES:
        return None
    return f"a p99 of {timing.n_samples} samples rests on one or two of them; give it more time"


def _measured(loaded: _Loaded, timing: Timing, statistic: str, seed: int) -> Measured:
    return Measured(
        latency_ms=timing.statistic_ms(statistic),
        latency_ci=timing.interval_ms(statistic, seed=seed),
        latency_spread_ms=timing.spread_ms,
        n_params=sum(parameter.numel() for parameter in loaded.module.parameters()),
    )


def _plain(measured: Measured) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in asdict(measured).items()
    }
