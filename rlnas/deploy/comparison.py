"""The forms of one subnet on the same items, and how far their logits lie apart."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from rlnas.deploy.findings import Comparison, Finding
from rlnas.deploy.loading import positions
from rlnas.errors import CheckpointError, first_line
from rlnas.supernet.encoding import Batch, collate
from rlnas.supernet.masking import masked_forward

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt
    from transformers import PreTrainedModel

    from rlnas.deploy.onnx_file import OnnxModel
    from rlnas.space import SubnetConfig
    from rlnas.supernet import Supernet
    from rlnas.supernet.encoding import EncodedSplit

    Logits: TypeAlias = npt.NDArray[np.float32]

Form: TypeAlias = Callable[[Batch], "Logits"]
"""Logits of a batch, shape ``(batch, num_labels)``."""

TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 6e-2}
"""By number format of the weights: how far two forms may lie apart, over the spread of all logits.

About a thousand roundings of a float32 number: the forms add up the same products in another order. In the
coarser formats it is some ten roundings, as weights are rounded once and computed with in float32.
"""

MAX_LENGTH = 512
"""Tokens of the longest random request, where a model takes more."""

_N_LENGTHS = 6
_N_PADDED = 8
_BATCH_SIZE = 32


def item_batches(encoded: EncodedSplit, n_items: int, seed: int) -> list[Batch]:
    """Real items in batches of up to 32, sorted by length so that some are padded and others not.

    Args:
        encoded: Tokens of a split.
        n_items: How many of them at most, drawn without replacement.
        seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(encoded))[:n_items]
    chosen = chosen[np.argsort(encoded.lengths[chosen], kind="stable")]
    return [
        collate(encoded, chosen[start : start + _BATCH_SIZE])
        for start in range(0, len(chosen), _BATCH_SIZE)
    ]


def random_batches(module: PreTrainedModel, max_seq_len: int, seed: int) -> list[Batch]:
    """Random tokens: requests of batch 1 from one token to the longest, and a padded batch.

    Args:
        module: Says which tokens there are, and how many of them it takes.
        max_seq_len: Longer requests are not made.
        seed: Of the tokens.
    """
    rng = np.random.default_rng(seed)
    longest = min(positions(module), max_seq_len, MAX_LENGTH)
    lengths = sorted({int(length) for length in np.geomspace(1, longest, _N_LENGTHS).round()})
    batches = [_random_batch(module, [length], rng) for length in lengths]
    mixed = rng.integers(1, longest + 1, size=_N_PADDED)
    mixed[:2] = 1, longest
    return [*batches, _random_batch(module, mixed.tolist(), rng)]


def _random_batch(module: PreTrainedModel, lengths: Sequence[int], rng: np.random.Generator) -> Batch:
    config: Any = module.config
    shape = (len(lengths), max(lengths))
    # Low token numbers are special ones in every family; RoBERTa counts positions by its padding.
    ids = rng.integers(min(1000, config.vocab_size // 2), config.vocab_size, size=shape)
    mask = np.arange(shape[1]) < np.array(lengths)[:, None]
    ids[~mask] = getattr(config, "pad_token_id", None) or 0
    types = None
    if getattr(config, "type_vocab_size", 0) > 1:
        types = torch.from_numpy(np.where(mask, rng.integers(0, 2, size=shape), 0))
    return Batch(
        input_ids=torch.from_numpy(ids),
        attention_mask=None if mask.all() else torch.from_numpy(mask.astype(np.int64)),
        token_type_ids=types,
        labels=torch.zeros(len(lengths), dtype=torch.int64),
        indices=np.arange(len(lengths)),
    )


def supernet_forms(supernet: Supernet, config: SubnetConfig) -> dict[str, Form]:
    """A subnet as views of the shared weights, by masks, and as a stand-alone copy."""
    supernet.model.eval()  # type: ignore[no-untyped-call]
    return {
        "sliced": lambda batch: _floats(supernet.forward(config, batch)),
        "masked": lambda batch: _floats(masked_forward(supernet, config, batch)),
        "extracted": module_form(supernet.extract(config)),
    }


def module_form(module: PreTrainedModel) -> Form:
    """A model of transformers, called as its users call it: with a mask even where nothing is padded."""

    def logits(batch: Batch) -> Logits:
        return _floats(module(**inputs_of(batch)).logits)

    return logits


def onnx_form(runner: OnnxModel) -> Form:
    """An ONNX file in ONNX Runtime."""

    def logits(batch: Batch) -> Logits:
        return runner(**{name: tensor.numpy() for name, tensor in inputs_of(batch).items()})

    return logits


def program_form(path: Path) -> Form:
    """A program of torch.export. Loading it may run code that is pickled inside.

    Raises:
        CheckpointError: If it cannot be loaded.
    """
    try:
        program = torch.export.load(path)
        module, names = program.module(), program.graph_signature.user_inputs
    except Exception as error:  # of zip files, pickle and torch
        raise CheckpointError(
            f"cannot load the program {str(path)!r}: {first_line(error)}; write it again"
        ) from error

    def logits(batch: Batch) -> Logits:
        inputs = inputs_of(batch)
        inputs.setdefault("token_type_ids", torch.zeros_like(batch.input_ids))
        return _floats(module(**{name: inputs[name] for name in names}))

    return logits


def inputs_of(batch: Batch) -> dict[str, torch.Tensor]:
    """What a tokenizer would give: a mask always, and token types where the family has them."""
    mask = batch.attention_mask
    inputs = {
        "input_ids": batch.input_ids,
        "attention_mask": torch.ones_like(batch.input_ids) if mask is None else mask,
    }
    return inputs if batch.token_type_ids is None else {**inputs, "token_type_ids": batch.token_type_ids}


def _floats(logits: torch.Tensor) -> Logits:
    return logits.float().numpy()


def compare_forms(
    forms: Mapping[str, Form], batches: Sequence[Batch], dtype: str = "float32"
) -> tuple[Comparison, ...]:
    """Every pair of forms on the same batches.

    Args:
        forms: At least two, by name; the first one's logits say what a large difference is.
        batches: At least one.
        dtype: The coarsest number format of the weights.

    Raises:
        ValueError: If there are fewer than two forms.
    """
    if len(forms) < 2:
        raise ValueError(f"a comparison needs at least two forms, but got {len(forms)}")
    with torch.inference_mode():
        answers = {name: np.concatenate([form(batch) for batch in batches]) for name, form in forms.items()}
    tolerance = TOLERANCES[dtype] * _spread(next(iter(answers.values())))
    return tuple(
        _compare(first, second, answers[first], answers[second], tolerance)
        for first, second in combinations(answers, 2)
    )


def _spread(logits: Logits) -> float:
    """From the smallest to the largest logit, or the largest in size: rounding follows the larger."""
    finite = logits[np.isfinite(logits)]
    return max(float(np.ptp(finite)), float(np.abs(finite).max())) if len(finite) else 0.0


def _compare(first: str, second: str, one: Logits, other: Logits, tolerance: float) -> Comparison:
    is_finite = bool(np.isfinite(one).all() and np.isfinite(other).all())
    n_flips = int((one.argmax(axis=1) != other.argmax(axis=1)).sum())
    return Comparison(
        first=first,
        second=second,
        largest_difference=float(np.abs(one - other).max()) if is_finite else float("inf"),
        n_flips=None if one.shape[1] == 1 else n_flips,
        n_items=len(one),
        tolerance=tolerance,
    )


def judge_forms(comparisons: Sequence[Comparison]) -> Finding:
    """One finding for all pairs: the one that is furthest apart, or that they agree."""
    worst = max(comparisons, key=lambda pair: pair.largest_difference / max(pair.tolerance, 1e-300))
    names = list(dict.fromkeys(name for pair in comparisons for name in (pair.first, pair.second)))
    flips = "" if worst.n_flips is None else f" and the class on {worst.n_flips} of {worst.n_items:,} items"
    if worst.passed:
        sentence = (
            f"{', '.join(names)}: logits differ by at most {worst.largest_difference:.1e}{flips}, "
            f"where rounding explains {worst.tolerance:.1e}"
        )
    elif not np.isfinite(worst.largest_difference):
        sentence = f"logits of the form {worst.first} or {worst.second} are not finite numbers"
    else:
        sentence = (
            f"the forms {worst.first} and {worst.second} differ by {worst.largest_difference:.1e} in a "
            f"logit{flips}, where rounding explains {worst.tolerance:.1e}"
        )
    return Finding("forms", worst.passed, sentence, worst.largest_difference, worst.tolerance)
