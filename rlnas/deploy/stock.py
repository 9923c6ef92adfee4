"""A folder as its users load it: by stock transformers, which runs the model file inside."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import AutoModelForSequenceClassification

from rlnas.deploy.files import MODEL_FILE
from rlnas.errors import CheckpointError, first_line
from rlnas.supernet.checkpoint import quiet_transformers

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel


def check_code(folder: Path, trust_remote_code: bool) -> None:
    """Refuse a folder whose ``config.json`` names other code than the model file that travels with it.

    Args:
        folder: Of an exported model.
        trust_remote_code: Whether other code may run.

    Raises:
        CheckpointError: If it names other code that may not.
    """
    named = [str(value) for value in (read_config(folder).get("auto_map") or {}).values()]
    foreign = [value for value in named if value.partition(".")[0] != MODEL_FILE.stem]
    if foreign and not trust_remote_code:
        raise CheckpointError(
            f"config.json in {str(folder)!r} names the code {foreign[0]!r}, which is not the model file of "
            "rlnas; look at it, then pass trust_remote_code=True (--trust-remote-code) to run it"
        )


def load_stock(folder: Path, trust_remote_code: bool) -> PreTrainedModel:
    """Load an exported model with ``AutoModelForSequenceClassification``, in float32.

    Args:
        folder: A folder that `check_code` has let through. The model file inside is run if it is ours
            to the byte.
        trust_remote_code: Whether any code inside may run.

    Raises:
        CheckpointError: If transformers cannot load it.
    """
    file = folder / MODEL_FILE.name
    is_ours = file.is_file() and file.read_bytes() == MODEL_FILE.read_bytes()
    try:
        with quiet_transformers():
            module: Any = AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=torch.float32, trust_remote_code=trust_remote_code or is_ours
            )
    except Exception as error:  # the code inside a folder may raise anything
        raise CheckpointError(
            f"stock transformers cannot load {str(folder)!r}: {first_line(error)}; export the model again"
        ) from error
    return cast("PreTrainedModel", module.eval())


def read_config(folder: Path) -> dict[str, Any]:
    """What ``config.json`` says.

    Raises:
        CheckpointError: If it cannot be read, or is no JSON object.
    """
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {str(path)!r}: {error}; save the model again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{str(path)!r} holds no JSON object; save the model again")
    return values
