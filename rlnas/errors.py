"""The exceptions of `rlnas`.

Every exception descends from `RLNASError` and from the built-in class that a caller
would expect for the fault, so both ``except RLNASError`` and ``except ValueError`` work.
"""

from __future__ import annotations

import difflib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # pragma: no cover
    from collections.abc import Hashable
    from pathlib import Path


class RLNASError(Exception):
    """Root of all errors that `rlnas` raises on purpose."""


class InvalidSpaceError(RLNASError, ValueError):
    """A search space that no subnet can be drawn from."""


class InvalidSubnetError(RLNASError, ValueError):
    """A subnet that is malformed or outside the space or supernet at hand."""


class CheckpointError(RLNASError, ValueError):
    """A model folder that is missing, damaged or of an unsupported family."""


class DataError(RLNASError, ValueError):
    """A data set that cannot serve as a task."""


class RewardError(RLNASError, ValueError):
    """A reward with impossible settings, or one that returned no finite number."""


class EvaluationError(RLNASError, RuntimeError):
    """A subnet that could not be evaluated; `config` is the subnet, or None for a whole batch."""

    def __init__(self, message: str, config: Hashable | None = None) -> None:
        super().__init__(message)
        self.config = config


class TrainingError(RLNASError, RuntimeError):
    """A training that cannot go on, e.g. because its loss is not a number."""


class ExportError(RLNASError, RuntimeError):
    """A model that cannot be written in a form, or whose written form computes something else."""


class DeviceError(RLNASError, RuntimeError):
    """A device that is not there, or a clock that cannot be trusted."""


class LatencyLookupError(RLNASError, LookupError):
    """A latency that the table does not hold."""


class LatencyTableError(RLNASError, ValueError):
    """A latency table that is damaged, or was made for another device or workload."""


class InfeasibleTargetError(RLNASError, ValueError):
    """A latency target below what the smallest subnet of the space takes."""


class ControllerError(RLNASError, ValueError):
    """A controller that lacks what it has to know of its problem."""


class BudgetError(RLNASError, ValueError):
    """A number of trials that no search can have."""


class HistoryError(RLNASError, ValueError):
    """A history that is damaged, or that belongs to a search with other settings."""


class RunFolderError(RLNASError, OSError):
    """A run folder that cannot be read or written."""


class MissingDependencyError(RLNASError, ImportError):
    """An optional package that is not installed; the message holds the command that installs it."""


class ScaleError(RLNASError, RuntimeError):
    """A cluster that is not there, or whose workers do not start or do not stay."""


class ContainerError(RLNASError, RuntimeError):
    """A training container that is not laid out as it should be, or whose hosts do not find each other."""


class RequestError(RLNASError, ValueError):
    """A request that a cloud service would refuse; it was not sent."""


class CloudError(RLNASError, RuntimeError):
    """A cloud service that refuses what was asked, cannot be reached, or lacks what was named."""


class ConformanceError(RLNASError, AssertionError):
    """A plug that breaks a law of its protocol; raised by `rlnas.testing`."""


ERROR_LINE = "rlnas: error: "
"""What a line begins with that says why a process of ours has ended."""


def first_line(error: BaseException) -> str:
    """What an error of another library says, on one line; its class where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def did_you_mean(path: Path) -> str:
    """A hint at what lies beside a path under a similar name, to end a message with; empty without any.

    Of a path that is there nothing is said either.
    """
    parent = path.parent
    if os.path.exists(path):  # which is no error where a name is too long
        return ""
    names = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {str(parent / close[0])!r}?" if close else ""
