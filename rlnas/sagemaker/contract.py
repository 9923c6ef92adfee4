"""What SageMaker tells a training container, and where it looks for results: the folder ``/opt/ml``.

The files are read first. The variables of the public training toolkit move folders (``SM_INPUT_DIR``,
``SM_MODEL_DIR``, ``SM_OUTPUT_DATA_DIR``, ``SM_CHANNEL_*``) and stand in for files that are absent:
``SM_HPS``; ``SM_INPUT_DATA_CONFIG`` or ``SM_CHANNELS``; ``SM_RESOURCE_CONFIG``, or ``SM_HOSTS`` with
``SM_CURRENT_HOST`` and ``SM_NETWORK_INTERFACE_NAME``. ``SM_TRAINING_ENV`` holds them all, and stands in
for those that are absent. The others, such as ``SM_NUM_GPUS``, are not needed.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlnas.errors import ContainerError
from rlnas.sagemaker.hosts import Hosts

if TYPE_CHECKING:
    from collections.abc import Mapping

BASE_VARIABLE = "SAGEMAKER_BASE_DIR"
"""Moves the base folder, as it does for the public toolkit."""

MAX_FAILURE = 1024
"""Characters of the reason of a failure that SageMaker shows."""

_FOREIGN = ("_", "sagemaker_", "default_user_module_name")
_TUNED = "_tuning_objective_metric"
_IN_TRAINING_ENV = {
    "hyperparameters": "SM_HPS",
    "resource_config": "SM_RESOURCE_CONFIG",
    "model_dir": "SM_MODEL_DIR",
    "output_data_dir": "SM_OUTPUT_DATA_DIR",
    "job_name": "TRAINING_JOB_NAME",
}


@dataclass(frozen=True, slots=True)
class Container:
    """One training container.

    Attributes:
        base: The folder that is ``/opt/ml`` in a real container.
        hyperparameters: Of the job, without those that SageMaker and its toolkits add for themselves.
        channels: Folder of each input channel, by name.
        hosts: All containers of the job.
        model: Folder whose files become the model artefact.
        output_data: Folder whose files become the other output artefact.
        checkpoints: Folder that is kept in step with S3.
    """

    base: Path
    hyperparameters: Mapping[str, str]
    channels: Mapping[str, Path]
    hosts: Hosts
    model: Path
    output_data: Path
    checkpoints: Path

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Container:
        """The container that this process runs in.

        Args:
            environ: The variables of the process.

        Raises:
            ContainerError: If a file or a variable holds something else than it should, or a job of a
                tuning job does not know its name.
        """
        base, environ = base_of(environ), _spread(environ)
        config = base / "input" / "config"
        raw = _object(config / "hyperparameters.json", environ, "SM_HPS") or {}
        own = {name: value for name, value in raw.items() if not name.startswith(_FOREIGN)}
        return cls(
            base=base,
            hyperparameters={name: _as_text(value) for name, value in own.items()},
            channels=_channels(base, config, environ),
            hosts=_hosts(config, environ, json.dumps(own, sort_keys=True)),
            model=Path(environ.get("SM_MODEL_DIR", base / "model")),
            output_data=Path(environ.get("SM_OUTPUT_DATA_DIR", base / "output" / "data")),
            checkpoints=_checkpoints(base, environ, is_tuned=_TUNED in raw),
        )

    @property
    def run(self) -> Path:
        """Folder of the search: not one that SageMaker copies, as its files change at any moment."""
        return self.base / "run"


def base_of(environ: Mapping[str, str]) -> Path:
    """The base folder that a process is told of, or the one around the input folder."""
    told = environ.get(BASE_VARIABLE)
    return Path(told) if told else Path(environ.get("SM_INPUT_DIR") or "/opt/ml/input").parent


def write_failure(base: Path, reason: str) -> None:
    """Leave the reason of a failure where SageMaker shows it from: one line of at most 1,024 characters.

    Raises:
        ContainerError: If it cannot be written.
    """
    line = " ".join(reason.encode(errors="replace").decode().split())
    text = line if len(line) <= MAX_FAILURE else line[: MAX_FAILURE - 3] + "..."
    path = base / "output" / "failure"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ContainerError(f"cannot write the reason of a failure to {path}: {error.strerror}") from error


def _spread(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The variables, and what ``SM_TRAINING_ENV`` says in place of those that are absent."""
    text = environ.get("SM_TRAINING_ENV", "{}")
    told = _as_object(text, "SM_TRAINING_ENV")
    found = {variable: _as_text(told[key]) for key, variable in _IN_TRAINING_ENV.items() if told.get(key)}
    if channels := told.get("channel_input_dirs"):
        found["SM_CHANNELS"] = json.dumps(list(channels))
        found |= {f"SM_CHANNEL_{name.upper()}": str(path) for name, path in channels.items()}
    return {**found, **environ}


def _object(path: Path, environ: Mapping[str, str], variable: str) -> dict[str, Any] | None:
    """The JSON object in a file, or in the variable where the file is absent, or None without either."""
    text, where = _text(path), str(path)
    if text is None:
        text, where = environ.get(variable), variable
    if text is None:
        return None
    return _as_object(text, where)


def _as_object(text: str, where: str) -> dict[str, Any]:
    values = _parsed(text, where)
    if not isinstance(values, dict):
        raise ContainerError(f"{where} must hold a JSON object, but holds {text[:40]!r}")
    return values


def _names(environ: Mapping[str, str], variable: str) -> list[str]:
    """The JSON list of names in a variable; empty without it."""
    text = environ.get(variable, "[]")
    values = _parsed(text, variable)
    if not (isinstance(values, list) and all(isinstance(value, str) for value in values)):
        raise ContainerError(f"{variable} must hold a JSON list of names, but holds {text[:40]!r}")
    return values


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ContainerError(f"cannot read {path}: {error.strerror}") from error


def _parsed(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ContainerError(f"{where} is no JSON ({error}); it begins with {text[:40]!r}") from error


def _as_text(value: object) -> str:
    """A hyper-parameter: text, or a JSON value in the toolkit's variable, or text in the quotes of SDKs."""
    if not isinstance(value, str):
        return json.dumps(value)
    if len(value) < 2 or value[0] + value[-1] != '""':
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value


def _channels(base: Path, config: Path, environ: Mapping[str, str]) -> dict[str, Path]:
    places = base / "input" / "data"
    told = _object(config / "inputdataconfig.json", environ, "SM_INPUT_DATA_CONFIG")
    names = _names(environ, "SM_CHANNELS") if told is None else told
    return {name: Path(environ.get(f"SM_CHANNEL_{name.upper()}", places / name)) for name in names}


def _hosts(config: Path, environ: Mapping[str, str], secret: str) -> Hosts:
    told = _object(config / "resourceconfig.json", environ, "SM_RESOURCE_CONFIG")
    if told is None:
        names = _names(environ, "SM_HOSTS") or ["algo-1"]
        interface = environ.get("SM_NETWORK_INTERFACE_NAME")
        return Hosts(tuple(names), environ.get("SM_CURRENT_HOST", names[0]), interface, secret)
    try:
        interface = told.get("network_interface_name")
        hosts, current = tuple(map(str, told["hosts"])), str(told["current_host"])
        return Hosts(hosts, current, None if interface is None else str(interface), secret)
    except (KeyError, TypeError) as error:
        raise ContainerError(
            "resourceconfig.json (or SM_RESOURCE_CONFIG) must name the hosts and the current_host, but "
            f"holds {json.dumps(told)[:80]}"
        ) from error


def _checkpoints(base: Path, environ: Mapping[str, str], *, is_tuned: bool) -> Path:
    """Of its own for each job of a tuning job: these share one place in S3."""
    folder = base / "checkpoints"
    if not is_tuned:
        return folder
    job = os.path.basename(environ.get("TRAINING_JOB_NAME", ""))
    if not job:
        raise ContainerError(
            "a job of a tuning job needs TRAINING_JOB_NAME, which is not set: it would take the "
            "checkpoints of the others for its own"
        )
    return folder / job
