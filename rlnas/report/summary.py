"""Reading the summary of a run, and making sure that what a report needs is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rlnas.errors import InvalidSubnetError, RunFolderError
from rlnas.space import SubnetConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SUMMARY_FILE = "summary.json"

_NUMBER = (int, float, type(None))  # None stands for what is not known
_INTERVAL = "interval"
_CONFIG = "config"

_MODEL: dict[str, object] = {
    "accuracy": _NUMBER,
    "accuracy_ci": _INTERVAL,
    "n_items": _NUMBER,
    "split": (str,),
    "latency_ms": _NUMBER,
    "latency_spread_ms": _NUMBER,
    "n_params": _NUMBER,
}
_SUBNET: dict[str, object] = {**_MODEL, "config": _CONFIG}

# What the reports cannot do without; everything else is shown where it is there.
_DELIVERED: dict[str, object] = {
    "full": _MODEL,
    "best": _SUBNET,
    "latency_ratio": _NUMBER,
    "latency_ratio_ci": _INTERVAL,
    "loss_points": _NUMBER,
    "loss_ci": _INTERVAL,
}
_FOR_TARGET: dict[str, object] = {**_DELIVERED, "target_ratio": (int, float), "folder": (str,)}
_RUN: dict[str, object] = {
    "model": (str,),
    "task": {"name": (str,), "metric": (str,)},
    "device": {"name": (str,)},
    "workload": {"batch_size": (int,), "seq_len": (int,), "dtype": (str,)},
    "n_trials": (int,),
    "pareto": [_SUBNET],
    "seconds": {},
}


def read_summary(run_folder: str | Path) -> dict[str, Any]:
    """The summary of a finished run.

    Args:
        run_folder: Where the search wrote ``summary.json``.

    Raises:
        RunFolderError: If the run is not finished, or the file cannot be read or is damaged.
    """
    path = Path(run_folder) / SUMMARY_FILE
    if not path.is_file():
        raise RunFolderError(
            f"{str(run_folder)!r} holds no {SUMMARY_FILE}, so there is no finished run in it; "
            "end the search with the command that began it and --resume"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunFolderError(f"cannot read {path} ({error.strerror})") from error
    except ValueError as error:
        raise _damaged(path, f"it is no JSON, {error}") from error
    several = isinstance(values, dict) and "targets" in values
    for problem in _problems(
        values, {**_RUN, **({"targets": [_FOR_TARGET]} if several else _DELIVERED)}, ""
    ):
        raise _damaged(path, problem)
    if several and not values["targets"]:
        raise _damaged(path, "targets is empty")
    return cast("dict[str, Any]", values)


def models_of(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The summary as it would be for each of its models alone, by ascending target.

    Args:
        summary: As in ``summary.json``; of a run for several targets or for one.
    """
    return [{**summary, **entry} for entry in summary["targets"]] if "targets" in summary else [summary]


def _damaged(path: Path, problem: str) -> RunFolderError:
    return RunFolderError(
        f"{path} is damaged: {problem}; delete it and write it anew by resuming the search (--resume)"
    )


def _problems(value: object, wanted: object, name: str) -> Iterator[str]:
    """Sentences on what is not as wanted, the first one first."""
    if isinstance(wanted, dict):
        yield from _field_problems(value, wanted, name)
    elif isinstance(wanted, list):
        if not isinstance(value, list):
            yield f"{name} is no list but {_short(value)}"
            return
        for index, entry in enumerate(value):
            yield from _problems(entry, wanted[0], f"{name}[{index}]")
    elif wanted == _INTERVAL:
        is_pair = isinstance(value, list) and len(value) == 2
        if not (is_pair and all(_is_a(entry, _NUMBER) for entry in cast("list[object]", value))):
            yield f"{name} is no pair of numbers but {_short(value)}"
    elif wanted == _CONFIG:
        try:
            SubnetConfig.from_dict(value)
        except InvalidSubnetError as error:
            yield f"{name} is no subnet ({error})"
    elif not _is_a(value, cast("tuple[type, ...]", wanted)):
        yield f"{name} has the wrong type, {_short(value)}"


def _field_problems(value: object, wanted: Mapping[str, object], name: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{name or 'it'} is no object but {_short(value)}"
        return
    for key, kind in wanted.items():
        full_name = f"{name}.{key}" if name else key
        if key in value:
            yield from _problems(value[key], kind, full_name)
        else:
            yield f"{full_name} is missing"


def _is_a(value: object, types: tuple[type, ...]) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)


def _short(value: object) -> str:
    return repr(value)[:60]
