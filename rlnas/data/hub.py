"""Tables from the Hugging Face hub."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rlnas.data.files import SPLIT_NAMES, reason
from rlnas.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

# Collections that everybody knows by a short name, and where they live on the hub now.
COLLECTIONS = {
    "glue": "nyu-mll/glue",
    "super_glue": "aps/super_glue",
    "tweet_eval": "cardiffnlp/tweet_eval",
}
# The metric that GLUE ranks by, where it is neither accuracy nor the default for numbers.
METRICS = {("nyu-mll/glue", "cola"): "matthews"}
GLUE_TASKS = ("cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli")
_PART = r"[A-Za-z0-9][\w.-]*"
_NAME = re.compile(rf"{_PART}(/{_PART}){{0,2}}")


def is_hub_name(source: str) -> bool:
    """Whether `source` could be a hub name: ``[owner/]dataset[/config]``."""
    return _NAME.fullmatch(source) is not None


def hub_address(source: str) -> tuple[str, str | None]:
    """Repository and configuration of a hub name."""
    parts = source.split("/")
    if parts[0] in COLLECTIONS and len(parts) <= 2:
        return COLLECTIONS[parts[0]], parts[1] if len(parts) == 2 else None
    return "/".join(parts[:2]), parts[2] if len(parts) == 3 else None


def read_hub(source: str) -> dict[str, Dataset]:
    """The splits of a data set on the hub by name: train, and validation and test where they are there.

    Downloads stay in the hub's own cache (HF_HOME), so a second call needs no network.

    Raises:
        DataError: If the hub cannot be reached, has no such data set, or it has no training split.
    """
    import datasets

    repository, config = hub_address(source)
    try:
        splits = datasets.load_dataset(repository, config)
    except (datasets.exceptions.DatasetNotFoundError, ValueError) as error:
        raise DataError(
            f"source={source!r} is neither a local path nor a data set that the Hugging Face hub can "
            f"serve: {reason(error)}"
        ) from error
    except Exception as error:  # of datasets, huggingface_hub or the HTTP client below them
        raise DataError(
            f"source={source!r} is no local path, and the Hugging Face hub cannot be reached "
            f"({type(error).__name__}: {reason(error)}); give a local folder with files named train and "
            "validation"
        ) from error
    found: dict[str, Dataset] = {}
    for name in sorted(splits, key=lambda name: (len(name), name)):
        # MNLI has validation_matched and validation_mismatched; the first serves.
        known = SPLIT_NAMES.get(re.split(r"[_.-]", name.lower())[0])
        if known is not None:
            found.setdefault(known, splits[name])
    if "train" not in found:
        raise DataError(f"source={source!r} has no train split, only {', '.join(map(repr, splits))}")
    return found


def hub_metric(source: str) -> str | None:
    """The metric that the task is known for, or None for the default."""
    repository, config = hub_address(source)
    return None if config is None else METRICS.get((repository, config))
