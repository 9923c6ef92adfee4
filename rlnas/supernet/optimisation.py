"""The optimiser loop that every kind of training shares: warm-up, clipping, bar, checkpoints."""

from __future__ import annotations

import math
import os
import time
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from rlnas.errors import RunFolderError, TrainingError, first_line
from rlnas.supernet.encoding import collate, shuffled_batches
from rlnas.supernet.gradients import GradientMean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    from rlnas.supernet.encoding import Batch, EncodedSplit
    from rlnas.supernet.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Optimisation:
    """Settings of AdamW and its schedule: linear warm-up, then linear decay to zero.

    Attributes:
        epochs: Passes over the training items, at least 0.
        batch_size: Items per step, on all ranks together.
        micro_batches: Parts in which each rank takes its items of a step, one after the other, at least 1:
            more need less memory. The step is the same, but for rounding and dropout, as long as losses
            are means over items, which `rlnas.supernet.distillation.hidden_loss` is not.
        learning_rate: Peak rate of the encoder.
        head_learning_rate: Peak rate of the classifier, which may start from random weights.
        weight_decay: Of all matrices; biases and LayerNorms have none.
        warmup_share: Part of the steps during which the rate rises, in [0, 1].
        max_grad_norm: Gradients are scaled down to this norm.
        freeze_embeddings: Whether the embeddings stay as they are (cheaper by about a third on
            small models).
        precision: ``"auto"`` takes bfloat16 where the device gains from it; or ``"float32"``,
            ``"bfloat16"``.
        checkpoint_seconds: Time between two checkpoints, where a path for them is given.
        seed: Of the order of items and of dropout.

    Raises:
        ValueError: If a number is out of range.
    """

    epochs: int = 3
    batch_size: int = 32
    micro_batches: int = 1
    learning_rate: float = 1e-4
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_share: float = 0.1
    max_grad_norm: float = 1.0
    freeze_embeddings: bool = False
    precision: str = "auto"
    checkpoint_seconds: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise ValueError(f"epochs must be at least 0, but got epochs={self.epochs}")
        for name in ("batch_size", "micro_batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but got {name}={getattr(self, name)}")
        for name in ("learning_rate", "head_learning_rate", "max_grad_norm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a number of at least 0, but got {name}={value}")
        if not 0 <= self.warmup_share <= 1:
            raise ValueError(f"warmup_share must be in [0, 1], but got warmup_share={self.warmup_share}")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(
                f"precision must be auto, float32 or bfloat16, but got precision={self.precision!r}"
            )

    def rate(self, step: int, n_steps: int) -> float:
        """Share of the peak learning rate at a step, in [0, 1]."""
        warmup = max(1, round(self.warmup_share * n_steps))
        if step < warmup:
            return (step + 1) / warmup
        return max(0.0, (n_steps - step) / max(1, n_steps - warmup))


def gains_from_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is computed faster than float32 by the device's own units.

    On a CPU those are AMX tiles or AVX512-BF16: with the latter alone a training step of MiniLM took
    0.6 times as long by autocast.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def precision_context(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Autocast to bfloat16 where asked for, or where the device gains from it."""
    if precision == "bfloat16" or (precision == "auto" and gains_from_bfloat16(device)):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


class Watch(Protocol):
    """Looks at a model while it is trained; what it has seen belongs to the checkpoint."""

    @property
    def is_over(self) -> bool:
        """Whether the training is to end before its next step."""
        ...

    def after(self, n_done: int, n_batches: int) -> None:
        """Called before the first step, and after each.

        Args:
            n_done: Steps done.
            n_batches: Steps of one pass.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """What it has seen: tensors and plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        ...


def optimise(
    model: nn.Module,
    encoded: EncodedSplit,
    settings: Optimisation,
    backward: Callable[[Batch, int], float],
    *,
    label: str,
    watch: Watch | None = None,
    checkpoint: Path | None = None,
    pause_after: int | None = None,
    progress: bool = True,
    ranks: Ranks | None = None,
) -> list[float]:
    """Train the weights of a model.

    Interrupted and started again with the same `checkpoint`, it ends with the same weights as an
    unbroken training: what is random depends on the seed, the step and the rank alone.

    On several ranks each runs its share of every step's items, and all take the step along the mean over
    all items: what one process would have done, but for rounding and dropout. Equally many ranks end with
    the same bits.

    Args:
        model: Its parameters are changed.
        encoded: Training items.
        settings: Of the optimiser.
        backward: Called with a batch and the step; runs forward and backward passes of losses that are
            means over the batch, and returns the loss to show.
        label: Name on the progress bar.
        watch: Sees the model in evaluation mode between steps, and may end the training early.
        checkpoint: File to save to and go on from, removed at the end; None for none. The first rank
            writes it, all read it.
        pause_after: Passes after which the training pauses: the checkpoint stays, and a call with a later
            pause, or none, goes on from there as if nothing had been. None for no pause.
        progress: Whether to show a bar, which the first rank does.
        ranks: The processes that train the model together, all by this call; None for this one alone.

    Returns:
        The loss of every step that was done here.

    Raises:
        ValueError: If there is a pause and no checkpoint to go on from.
        TrainingError: If the loss or its gradient is not a finite number.
        RunFolderError: If the checkpoint cannot be written or read, or is another one on another rank.
    """
    if pause_after is not None and checkpoint is None:
        raise ValueError(f"pause_after={pause_after} needs a checkpoint to go on from; give one")
    n_batches = math.ceil(len(encoded) / settings.batch_size)
    n_steps = n_batches * settings.epochs
    last_step = n_steps if pause_after is None else min(n_steps, n_batches * pause_after)
    device, last_save = next(model.parameters()).device, time.monotonic()
    losses: list[float] = []
    is_first = ranks is None or ranks.is_first

    def run(step: int, items: npt.NDArray[np.int64]) -> float:
        return backward(collate(encoded, items, device), step)

    with _training(model, freeze_embeddings=settings.freeze_embeddings) as trained, _forked(device):
        optimiser = _adamw(trained, settings)
        start = 0 if checkpoint is None else _restore(checkpoint, model, optimiser, watch)
        if ranks is not None:
            ranks.check_same(start)
            ranks.align(model)
        gradients = None
        if ranks is not None or settings.micro_batches > 1:
            gradients = GradientMean([p for _, p in trained], settings.micro_batches, ranks)
        n_done = start
        if start == 0:
            _look(watch, model, 0, n_batches)
        shown = progress and is_first and n_steps > 0
        with tqdm(total=last_step, initial=start, desc=label, disable=not shown) as bar:
            for step, indices in _steps(encoded, settings, n_batches, start):
                if step >= last_step or (watch is not None and watch.is_over):
                    break
                torch.manual_seed(_seed(settings.seed, step, ranks))
                for group in optimiser.param_groups:
                    group["lr"] = group["peak"] * settings.rate(step, n_steps)
                optimiser.zero_grad(set_to_none=True)
                with precision_context(settings.precision, device):
                    own = partial(run, step)
                    loss = own(indices) if gradients is None else gradients.over(indices, own)
                losses.append(loss)
                norm = nn.utils.clip_grad_norm_([p for _, p in trained], settings.max_grad_norm)
                _check_finite(loss, float(norm), f"step {step} of {label!r}", settings)
                optimiser.step()
                n_done = step + 1
                bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
                bar.update()
                _look(watch, model, n_done, n_batches)
                is_due = time.monotonic() - last_save > settings.checkpoint_seconds
                if checkpoint is not None and is_first and is_due:
                    _save(checkpoint, model, optimiser, watch, n_done)
                    last_save = time.monotonic()
        if checkpoint is not None and is_first and pause_after is not None and n_done > start:
            _save(checkpoint, model, optimiser, watch, n_done)
        if ranks is not None and pause_after is not None:
            ranks.wait()  # for the file, from which all go on
    if checkpoint is not None and is_first and pause_after is None:
        checkpoint.unlink(missing_ok=True)
    return losses


@contextmanager
def _training(model: nn.Module, *, freeze_embeddings: bool) -> Iterator[list[tuple[str, nn.Parameter]]]:
    """Training mode with gradients for the returned parameters only; undone at the end, come what may."""
    frozen = [
        parameter
        for name, parameter in model.named_parameters()
        if freeze_embeddings and name.startswith("embeddings.") and parameter.requires_grad
    ]
    for parameter in frozen:
        parameter.requires_grad_(False)
    model.train()
    try:
        yield [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    finally:
        model.eval()
        for parameter in frozen:
            parameter.requires_grad_(True)
        for parameter in model.parameters():
            parameter.grad = None


def _forked(device: torch.device) -> AbstractContextManager[None]:
    """Put torch's random numbers back at the end; to ask other GPUs for theirs would start these."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def _seed(seed: int, step: int, ranks: Ranks | None) -> int:
    """Of the dropout of a step, which is another one on each rank."""
    return hash((seed, step) if ranks is None or ranks.is_first else (seed, step, ranks.rank))


def _look(watch: Watch | None, model: nn.Module, n_done: int, n_batches: int) -> None:
    """Let a watch see the model as it answers, and go on training."""
    if watch is None:
        return
    model.eval()
    watch.after(n_done, n_batches)
    model.train()


def _check_finite(loss: float, gradient: float, where: str, settings: Optimisation) -> None:
    for name, value in (("loss", loss), ("gradient", gradient)):
        if not math.isfinite(value):
            raise TrainingError(
                f"the {name} became {value} at {where}; lower the learning rate "
                f"(learning_rate={settings.learning_rate}) or check the labels"
            )


def _steps(
    encoded: EncodedSplit, settings: Optimisation, n_batches: int, start: int
) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    for epoch in range(start // n_batches, settings.epochs):
        rng = np.random.default_rng([settings.seed, epoch])
        for index, indices in enumerate(shuffled_batches(encoded, settings.batch_size, rng)):
            step = epoch * n_batches + index
            if step >= start:
                yield step, indices


def _adamw(trained: list[tuple[str, nn.Parameter]], settings: Optimisation) -> torch.optim.AdamW:
    groups = []
    for is_head, peak in ((False, settings.learning_rate), (True, settings.head_learning_rate)):
        for is_matrix, decay in ((True, settings.weight_decay), (False, 0.0)):
            members = [
                parameter
                for name, parameter in trained
                if name.startswith("head.") == is_head and (parameter.ndim > 1) == is_matrix
            ]
            groups.append({"params": members, "weight_decay": decay, "peak": peak, "lr": peak})
    return torch.optim.AdamW(groups, fused=True)


def _save(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, watch: Watch | None, step: int
) -> None:
    state = {"step": step, "model": model.state_dict(), "optimiser": optimiser.state_dict()}
    if watch is not None:
        state["watch"] = watch.state_dict()
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise RunFolderError(f"cannot write the training checkpoint {str(path)!r}: {error}") from error


def _restore(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, watch: Watch | None) -> int:
    """Load a checkpoint; the step to go on with, 0 where there is none."""
    if not path.is_file():
        return 0
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        if watch is not None:
            watch.load_state_dict(state["watch"])
        return int(state["step"])
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        reason = first_line(error)
        raise RunFolderError(
            f"the training checkpoint {str(path)!r} is damaged; delete it to train from the start: {reason}"
        ) from error
