"""Further training of a model that a finished run has delivered, and a certificate of what came out.

It starts from the delivered weights and learns from the run's training items and from its full model. The
search split, on which the subnet was chosen, says when to stop and which weights to keep; in folds, where
these items were trained on, nothing does. The final split is touched by the certificate alone.
"""

from __future__ import annotations

import functools
import logging
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from rlnas.data import read_task
from rlnas.deploy import certify, export
from rlnas.deploy.card import write_card
from rlnas.deploy.files import CERTIFICATE_FILE, DIGEST
from rlnas.deploy.loading import load
from rlnas.deploy.plain import fill_from_plain
from rlnas.deploy.serving import predict_as_served
from rlnas.deploy.weights_file import weights_digest
from rlnas.errors import EvaluationError, RunFolderError, TrainingError
from rlnas.latency import resolve_device
from rlnas.precision import stored_as
from rlnas.report import read_summary, write_report
from rlnas.run.export import check_free
from rlnas.run.folder import RunFolder, read_json, write_folder, write_json
from rlnas.run.job import check_seed, ratio_name
from rlnas.run.models import model_path, single_model
from rlnas.run.origin import FINETUNING_FILE, origin_of
from rlnas.run.training import usual_learning_rate
from rlnas.runtime import check_mode
from rlnas.scores import difference_interval, score
from rlnas.space import SubnetConfig
from rlnas.supernet import SubnetFinisher, Supernet
from rlnas.supernet.encoding import encode
from rlnas.supernet.modeling_subnet import SubnetModel
from rlnas.supernet.optimisation import Optimisation
from rlnas.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from rlnas.deploy import Certificate
    from rlnas.task import Task

logger = logging.getLogger(__name__)

SETTINGS_FILE = "settings.json"

RATE_SHARE = 0.25
"""Learning rate over that of a first training: a higher one undoes what the weights have learnt."""


@dataclass(frozen=True, slots=True)
class Finetuning:
    """How a delivered model is trained further.

    Attributes:
        epochs: Passes over the training items at most, at least 1.
        patience: Passes without gain on the search split after which it ends; None for no early end, and
            then the last weights count.
        learning_rate: Peak rate of the encoder; None takes `RATE_SHARE` of what
            `rlnas.run.training.usual_learning_rate` says.
        precision: ``"auto"``, ``"float32"`` or ``"bfloat16"``, see `Optimisation`.
        teacher_weight: As in `SubnetFinisher`.
        hidden_weight: As in `SubnetFinisher`.
        batch_size: Items per step.
        checkpoint_seconds: Time between two checkpoints.
        seed: Of the order of items and of dropout.

    Raises:
        ValueError: If a number is out of range.
    """

    epochs: int = 5
    patience: int | None = 2
    learning_rate: float | None = None
    precision: str = "auto"
    teacher_weight: float = 0.5
    hidden_weight: float = 1.0
    batch_size: int = 32
    checkpoint_seconds: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, but got epochs={self.epochs}")
        check_seed(self.seed)
        self.finisher(hidden_size=384)  # which refuses what else is out of range

    def finisher(self, hidden_size: int) -> SubnetFinisher:
        """What trains a model of that width."""
        rate = self.learning_rate
        return SubnetFinisher(
            Optimisation(
                epochs=self.epochs,
                batch_size=self.batch_size,
                learning_rate=RATE_SHARE * usual_learning_rate(hidden_size) if rate is None else rate,
                precision=self.precision,
                checkpoint_seconds=self.checkpoint_seconds,
                seed=self.seed,
            ),
            teacher_weight=self.teacher_weight,
            hidden_weight=self.hidden_weight,
            patience=self.patience,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Finetuned:
    """What came out.

    Attributes:
        folder: Where the model lies, with its certificate.
        record: What ``finetuning.json`` there holds.
        model: What the run's summary says of the model, with ``finetuned`` for what it is now.
        certificate: Beside the full model; None where an earlier call has made it.
    """

    folder: Path
    record: dict[str, Any]
    model: dict[str, Any]
    certificate: Certificate | None


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Where things lie.

    Attributes:
        folder: The run.
        model: What its summary says of the delivered model.
        out: Where the fine-tuned model goes.
        work: What only a killed training needs.
        is_of_run: Whether `out` belongs to the run, so that the run's summary tells of it.
    """

    folder: RunFolder
    model: Mapping[str, Any]
    out: Path
    work: Path
    is_of_run: bool

    @classmethod
    def of(cls, folder: RunFolder, target_ratio: float | None, out: Path | None) -> _Place:
        """For the one model of a run, or the one for a target."""
        model = single_model(folder, target_ratio)
        name, usual = "best", folder.finetuned_models
        if "folder" in model:
            name = ratio_name(model["target_ratio"])
            usual = usual / name
        return cls(folder, model, out or usual, folder.finetuning / name, out is None)

    @property
    def subnet(self) -> SubnetConfig:
        """The architecture, which stays as it is."""
        return SubnetConfig.from_dict(self.model["best"]["config"])

    @property
    def workload(self) -> Workload:
        """What the run has timed."""
        return Workload(**self.model["workload"])

    @property
    def trained(self) -> Path:
        """The trained model, until it has its certificate."""
        return self.work / "model"

    def clear(self) -> None:
        """Remove what only a killed training needs."""
        shutil.rmtree(self.work, ignore_errors=True)
        with suppress(OSError):  # others may be at work there
            self.folder.finetuning.rmdir()


def finetune(
    run: str | Path,
    settings: Finetuning | None = None,
    *,
    target_ratio: float | None = None,
    device: str = "cpu",
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Finetuned:
    """Train the delivered model of a finished run further, and certify it beside the full model.

    Killed at any moment and called again with `resume`, it ends with the same weights as an unbroken one.

    Args:
        run: The run folder.
        settings: Of the training; None for the defaults.
        target_ratio: Which model, of a run for several targets.
        device: Where it is trained and certified, see `rlnas.latency.resolve_device`.
        out: The folder to write; by default ``finetuned/`` in the run, or ``finetuned/RATIO`` of a run
            for several targets. The run's summary and report tell of these alone.
        resume: Whether to go on with a training that was begun.
        progress: Whether to show a bar.

    Raises:
        RunFolderError: If this is no finished run, something that it needs is missing or damaged, several
            models are there and none is named, a training was begun or is done already, or a folder
            cannot be written.
        DeviceError: If the device is not there, or cannot serve the subnet in its precision.
        MissingDependencyError: If what serves it is not installed.
        TrainingError: If the loss is not a finite number.
        HistoryError: If another process works on the run.
    """
    settings = settings or Finetuning()
    folder = RunFolder(Path(run))
    folder.check()
    place = _Place.of(folder, target_ratio, None if out is None else Path(out))
    wanted = {"subnet": str(place.subnet), **asdict(settings)}
    with folder.held():
        if _is_done(place, wanted, resume=resume):
            logger.info("the model in %s is finished; delete the folder to train it anew", place.out)
            result = _result(place, None)
            if place.is_of_run and "finetuned" not in place.model:  # the search has gone on since
                _tell(place, result)
            return result
        served = place.workload.in_precision(place.subnet.precision)
        check_mode(served.mode, resolve_device(device), served.dtype)  # not after the training
        task = _task_of(folder)
        if not place.trained.is_dir():
            _train(place, settings, wanted, task, device, progress=progress)
        certificate = None
        if not (place.trained / CERTIFICATE_FILE).is_file():
            certificate = _judge(place, task, device)
        write_card(place.trained, origin_of(read_summary(folder.path), place.trained))
        write_folder(place.out, lambda path: shutil.copytree(place.trained, path, dirs_exist_ok=True))
        result = _result(place, certificate)
        if place.is_of_run:
            _tell(place, result)
        place.clear()
    return result


def _is_done(place: _Place, wanted: Mapping[str, Any], *, resume: bool) -> bool:
    """Whether nothing is left to do; refuses what would be overwritten or cannot be gone on with."""
    if place.work.is_dir():
        if not resume:
            raise RunFolderError(
                f"a training in {str(place.work)!r} was begun and not ended; go on with it (--resume), "
                "or delete that folder"
            )
        _check_settings(read_json(place.work / SETTINGS_FILE), wanted, place.work)
        return False
    if (place.out / FINETUNING_FILE).is_file() and resume:
        _check_settings(read_json(place.out / FINETUNING_FILE).get("settings", {}), wanted, place.out)
        return True
    check_free(place.out)
    return False


def _check_settings(stored: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    for key, value in wanted.items():
        if key != "checkpoint_seconds" and stored.get(key) != value:
            raise RunFolderError(
                f"the training in {str(path)!r} was begun with {key}={stored.get(key)}, not {key}={value}; "
                "resume it with the same settings, or delete that folder to begin anew"
            )


def _task_of(folder: RunFolder) -> Task:
    with folder.needed(folder.data):
        return read_task(folder.data)


def _full(folder: RunFolder, device: str) -> Supernet:
    """The full model, fine-tuned alone, as a supernet of its own."""
    with folder.needed(folder.full):
        loaded = load(folder.full, trust_remote_code=False, is_judged=True)
    module: Any = loaded.module
    model = cast("SubnetModel", module.float().to(device).eval())
    tokenizer = cast("Any", loaded.tokenizer)  # there, as it is to be judged
    return Supernet(model, tokenizer, max_seq_len=loaded.max_seq_len, fine_tuned=True)


def _subnet(delivered: Path, full: Supernet, config: SubnetConfig) -> SubnetModel:
    """The delivered model in float32, beside the full one; it may be in the stock class of its family."""
    module: Any = load(delivered, trust_remote_code=False, is_judged=True).module
    subnet = full.extract(config)
    if isinstance(module, SubnetModel):
        subnet.load_state_dict(module.state_dict())
    else:
        fill_from_plain(subnet, module)
    return subnet


def _train(
    place: _Place,
    settings: Finetuning,
    wanted: Mapping[str, Any],
    task: Task,
    device: str,
    *,
    progress: bool,
) -> None:
    """Train a copy of the delivered model, and write it with the record of its training."""
    start = time.monotonic()
    full = _full(place.folder, device)
    delivered = model_path(place.folder, place.model)
    with place.folder.needed(delivered):
        subnet = _subnet(delivered, full, place.subnet)
    if not place.work.is_dir():
        write_folder(place.work, lambda path: write_json(path / SETTINGS_FILE, wanted))
    finisher = settings.finisher(full.shape.hidden_size)
    looked_at = task.search if task.folds is None else None
    if looked_at is None:
        logger.info(
            "in folds all items were trained on: there is nothing to look at, the last weights count"
        )
        finisher = replace(finisher, patience=None)
    try:
        finished = finisher.finish(
            subnet,
            full,
            task.train,
            validation=looked_at,
            metric=functools.partial(score, task.metric),
            checkpoint=place.work / "training.pt",
            progress=progress,
        )
    except (TrainingError, EvaluationError):
        place.clear()  # it would end like this again
        raise
    record = {
        "settings": dict(wanted),
        "trial": place.model["best"].get("trial"),
        "teacher": "the run's full model, fine-tuned alone",
        "n_train": len(task.train),
        "metric": task.metric,
        "looks": {"split": None if looked_at is None else looked_at.name, **asdict(finished)},
        "seconds": {"train": round(time.monotonic() - start, 3)},
    }

    def write(path: Path) -> None:
        export(full, place.subnet, path, weights=subnet)
        write_json(path / FINETUNING_FILE, record)

    write_folder(place.trained, write)


def _judge(place: _Place, task: Task, device: str) -> Certificate:
    """Certify the trained model, and say what it gained over the delivered one on the same items."""
    start = time.monotonic()
    model, folder = place.model, place.folder
    workload, served = place.workload, place.subnet.precision
    certificate = certify(
        place.trained,
        baseline=folder.full,
        task=task,
        workload=workload,
        model_workload=None if served is None else workload.in_precision(served),
        device=device,
        # One with a prediction is for another device or workload.
        target_ratio=None if model.get("prediction") else model.get("target_ratio"),
    )
    paths, precision = (model_path(folder, model), place.trained), served or workload.dtype
    before, after = (_answers(path, task, precision, device) for path in paths)
    labels = task.final.labels
    scores = [score(task.metric, labels, answers) for answers in (before, after)]
    low, high = difference_interval(task.metric, labels, before, after)
    record = read_json(place.trained / FINETUNING_FILE)
    record["gain"] = {
        "split": task.final.name,
        "n_items": len(task.final),
        "delivered_accuracy": scores[0],
        "accuracy": scores[1],
        "gain_points": 100 * (scores[1] - scores[0]),
        "gain_ci": [100 * low, 100 * high],
    }
    record["seconds"]["certify"] = round(time.monotonic() - start, 3)
    write_json(place.trained / FINETUNING_FILE, record)
    digest = weights_digest(place.trained)
    write_json(place.trained / CERTIFICATE_FILE, {**certificate.to_dict(), DIGEST: digest})
    return certificate


def _answers(path: Path, task: Task, precision: str, device: str) -> npt.NDArray[Any]:
    """Predictions for the final split in a precision, as `certify` makes them."""
    loaded = load(path, trust_remote_code=False, is_judged=True)
    module, tokenizer = cast("tuple[Any, Any]", (loaded.module, loaded.tokenizer))
    module = module.to(device=device, dtype=getattr(torch, stored_as(precision))).eval()
    encoded = encode(tokenizer, task.final, loaded.max_seq_len)
    return predict_as_served(module, encoded, precision, name=repr(str(path)))


def _result(place: _Place, certificate: Certificate | None) -> Finetuned:
    """What came out, as it lies in its folder."""
    record, certified = (read_json(place.out / name) for name in (FINETUNING_FILE, CERTIFICATE_FILE))
    folder = place.out.relative_to(place.folder.path) if place.is_of_run else place.out
    finetuned = {
        "folder": str(folder),
        **{name: certified["best"][name] for name in ("accuracy", "accuracy_ci", "n_items", "split")},
        **{name: certified[name] for name in ("latency_ratio", "loss_points", "loss_ci")},
        **{name: record["gain"][name] for name in ("gain_points", "gain_ci")},
    }
    return Finetuned(place.out, record, {**place.model, "finetuned": finetuned}, certificate)


def _tell(place: _Place, result: Finetuned) -> None:
    """Put it into the run's summary and report."""
    summary = read_json(place.folder.summary)
    entry = summary
    if "folder" in place.model:
        entry = next(one for one in summary["targets"] if one["folder"] == place.model["folder"])
    entry["finetuned"] = result.model["finetuned"]
    write_json(place.folder.summary, summary)
    write_report(place.folder.path)
