"""The forms in which a model lies in its folder, and how each was checked."""

from __future__ import annotations

import difflib
import json
import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from rlnas.deploy.files import FILES, FORMS_FILE, MODEL_FILE
from rlnas.deploy.loading import load
from rlnas.deploy.onnx_file import OnnxModel, write_int8, write_onnx
from rlnas.deploy.program import write_program
from rlnas.errors import CheckpointError, first_line
from rlnas.runtime.onnx import PACKAGES, check_packages
from rlnas.scores import score, score_interval
from rlnas.supernet.encoding import encode, sorted_batches

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt
    from transformers import PreTrainedTokenizerBase

    from rlnas.deploy.loading import Loaded
    from rlnas.task import Split

FORMS = ("hf", "onnx", "onnx-int8", "torch")
"""By name: a folder of transformers (always written), ONNX, ONNX in int8, a program of torch.export."""

BATCH_SIZE = 32

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Form:
    """One form of a model.

    Attributes:
        name: One of `FORMS`.
        file: Its file in the folder.
        note: One sentence: what it is, or how it was checked.
    """

    name: str
    file: str
    note: str


def check_forms(names: Sequence[str]) -> tuple[str, ...]:
    """The forms that are asked for, in the order of `FORMS`; ``"hf"`` is always among them.

    Args:
        names: Of `FORMS`, or ``"all"``.

    Raises:
        ValueError: If there is no such form.
        MissingDependencyError: If a package that one needs is not installed.
    """
    for name in names:
        if name not in (*FORMS, "all"):
            close = difflib.get_close_matches(name, (*FORMS, "all"), n=1, cutoff=0.4)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"formats are {', '.join(FORMS)} and all, but got {name!r}{hint}")
    chosen = tuple(form for form in FORMS if form == "hf" or form in names or "all" in names)
    if any(name.startswith("onnx") for name in chosen):
        check_packages(f"the format {next(name for name in chosen if name.startswith('onnx'))}", PACKAGES)
    return chosen


def write_forms(
    folder: Path, names: Sequence[str], search: Split | None = None, metric: str = "accuracy"
) -> list[Form]:
    """Write further forms of the model that lies in a folder, beside it.

    Args:
        folder: As `rlnas.deploy.export` has written it.
        names: See `check_forms`.
        search: Labelled items on which the loss of int8 is measured; None measures none.
        metric: What their labels are scored by, see `rlnas.task.METRICS`.

    Returns:
        All forms in the folder.

    Raises:
        ValueError: If there is no such form.
        MissingDependencyError: If a package that one needs is not installed.
        CheckpointError: If the folder holds no exported model.
        ExportError: If a form cannot be written, or computes something else than the model.
        RunFolderError: If a file cannot be written.
    """
    forms = {form.name: form for form in read_forms(folder)}
    # What lies there was written with the model: in the precision that the search chose.
    wanted = [name for name in check_forms(names) if name not in forms]
    if wanted:
        loaded = load(folder, trust_remote_code=False, is_judged=True)
        paths = {name: folder / FILES[name] for name in FORMS}
        if "onnx" in wanted or "onnx-int8" in wanted:
            _log(paths["onnx"])
            write_onnx(loaded.module, paths["onnx"])
        if "onnx-int8" in wanted:
            _log(paths["onnx-int8"])
            write_int8(paths["onnx"], paths["onnx-int8"])
            note = _int8_note(loaded, paths["onnx"], paths["onnx-int8"], search, metric)
            forms["onnx-int8"] = Form("onnx-int8", FILES["onnx-int8"], note)
        if "torch" in wanted:
            _log(paths["torch"])
            write_program(loaded.module, paths["torch"])
        for name in wanted:
            forms.setdefault(name, Form(name, FILES[name], _CHECKED))
        if "onnx" not in forms:  # only what int8 was made of
            for file in folder.glob(f"{FILES['onnx']}*"):
                file.unlink()
    written = [forms[name] for name in FORMS if name in forms]
    save_forms(folder, written)
    return written


_CHECKED = "computes the same logits to rounding, as checked on requests of three shapes"


def _log(path: Path) -> None:
    logger.info("writing %s", path.name)


def save_forms(folder: Path, forms: Sequence[Form]) -> None:
    """Keep what forms a folder holds."""
    text = json.dumps([asdict(form) for form in forms], indent=1)
    (folder / FORMS_FILE).write_text(text + "\n", encoding="utf-8")


def read_forms(folder: Path) -> list[Form]:
    """What forms a folder holds.

    Of a folder that an earlier version has exported, the one that it holds.

    Raises:
        CheckpointError: If the folder holds no exported model, or the file is damaged.
    """
    path = folder / FORMS_FILE
    if (folder / MODEL_FILE.name).is_file() and not path.exists():
        return [Form("hf", FILES["hf"], f"carries its own model file {MODEL_FILE.name}")]
    try:
        return [Form(**values) for values in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"cannot read {str(path)!r} ({first_line(error)}); export the model again"
        ) from error


def _int8_note(loaded: Loaded, exact: Path, quantized: Path, search: Split | None, metric: str) -> str:
    """What int8 costs on the search items."""
    if search is None:
        return "weights in int8; what that costs was not measured, as there were no items to measure it on"
    first, second = (_logits(loaded, path, search) for path in (exact, quantized))
    if first.shape[1] == 1:
        predictions = [logits[:, 0] for logits in (first, second)]
        gap = np.abs(predictions[0] - predictions[1]).mean()
        told = f"values that differ by {gap:.3g} on average for the {len(search):,}"
    else:
        predictions = [logits.argmax(axis=1) for logits in (first, second)]
        told = f"the same class for {int((predictions[0] == predictions[1]).sum()):,} of {len(search):,}"
    was, now = (_score_text(metric, search, predicted) for predicted in predictions)
    return (
        f"weights in int8; against float32 it gives {told} items of the {search.name} split, "
        f"whose {metric} is {now} instead of {was} (95 % intervals)"
    )


def _score_text(metric: str, split: Split, predictions: npt.NDArray[np.generic]) -> str:
    low, high = score_interval(metric, split.labels, predictions)
    return f"{score(metric, split.labels, predictions):.3f} [{low:.3f}, {high:.3f}]"


def _logits(loaded: Loaded, path: Path, split: Split) -> npt.NDArray[np.float32]:
    """Of all items, in the split's order, shape ``(n, num_labels)``."""
    run = OnnxModel(path)
    tokenizer = cast("PreTrainedTokenizerBase", loaded.tokenizer)  # there, as it was asked for
    parts: dict[int, npt.NDArray[np.float32]] = {}
    for batch in sorted_batches(encode(tokenizer, split, loaded.max_seq_len), BATCH_SIZE):
        ids, mask, types = (
            None if tensor is None else tensor.numpy()
            for tensor in (batch.input_ids, batch.attention_mask, batch.token_type_ids)
        )
        ids = np.asarray(ids)
        logits = run(ids, np.ones_like(ids) if mask is None else mask, types)
        parts |= dict(zip(np.asarray(batch.indices).tolist(), logits, strict=True))
    return np.stack([parts[index] for index in range(len(split))])
