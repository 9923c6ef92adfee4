"""What the device will be asked to run: without it a latency means nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

DTYPES = ("float32", "bfloat16", "float16")

MODES = ("eager", "compiled", "cuda_graph", "onnxruntime")
"""How a model is run: plain PyTorch, ``torch.compile``, a replayed CUDA graph, ONNX Runtime."""

STATISTICS = ("median", "p99")
"""What of a latency counts: the usual request, or the one in a hundred that is slower than the others."""

MAX_REQUESTS = 5
"""Requests that stand for a distribution of lengths."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked of the device: one request, or a mix of requests of several lengths.

    Attributes:
        batch_size: Texts in a request, at least 1.
        seq_len: Tokens of the longest text, at least 2; longer texts are cut to it.
        dtype: Number format of weights and activations: float32, bfloat16 or float16.
        mode: How the model is run, one of `MODES`.
        statistic: What of the latency counts, one of `STATISTICS`. The median of a mix is the
            mean over its requests of each one's median; its p99 is that of all requests together.
        lengths: Tokens of the texts, as a sample of what will come, each in [2, `seq_len`];
            empty where all texts have `seq_len` tokens. Kept ascending.

    Raises:
        ValueError: If a field is outside its range.
    """

    batch_size: int = 1
    seq_len: int = 128
    dtype: str = "float32"
    mode: str = "eager"
    statistic: str = "median"
    lengths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, but got batch_size={self.batch_size}")
        if self.seq_len < 2:
            raise ValueError(f"seq_len must be at least 2, but got seq_len={self.seq_len}")
        for name, allowed in (("dtype", DTYPES), ("mode", MODES), ("statistic", STATISTICS)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(allowed)}, but got {name}={getattr(self, name)!r}"
                )
        object.__setattr__(self, "lengths", tuple(sorted(int(length) for length in self.lengths)))
        for length in self.lengths:
            if not 2 <= length <= self.seq_len:
                raise ValueError(
                    f"lengths must be in [2, seq_len={self.seq_len}], but got {length}; "
                    "raise seq_len, or cut the lengths to it"
                )

    @property
    def requests(self) -> tuple[tuple[int, ...], ...]:
        """The requests that stand for the workload: of each, the tokens of its texts, longest first.

        All count alike. A text that is shorter than its request's longest is padded. Without
        `lengths` there is one request; with them there are at most `MAX_REQUESTS`, the same ones
        always: the texts are spread evenly over the distribution and dealt out at random.
        """
        if not self.lengths:
            return ((self.seq_len,) * self.batch_size,)
        # A single text a request needs no more requests than there are lengths.
        n_requests = min(MAX_REQUESTS, len(self.lengths)) if self.batch_size == 1 else MAX_REQUESTS
        texts = thin(self.lengths, n_requests * self.batch_size)
        if self.batch_size > 1:
            texts = tuple(np.random.default_rng(0).permutation(texts).tolist())
        dealt = [texts[start::n_requests] for start in range(n_requests)]
        return tuple(sorted(tuple(sorted(request, reverse=True)) for request in dealt))

    def __str__(self) -> str:
        tokens = f"{self.seq_len}"
        if self.lengths:
            low, median, high = self.lengths[0], self.lengths[len(self.lengths) // 2], self.lengths[-1]
            tokens = f"{low} to {high} (median {median})"
        what = "" if self.statistic == "median" else f", {self.statistic}"
        return f"batch {self.batch_size} x {tokens} tokens, {self.dtype}, {self.mode}{what}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "lengths": list(self.lengths)}


def thin(lengths: Sequence[int], n: int) -> tuple[int, ...]:
    """`n` lengths that stand for a sample: those in the middle of its n equal parts, ascending.

    Args:
        lengths: At least one.
        n: At least 1.

    Raises:
        ValueError: If either is too small.
    """
    if not lengths or n < 1:
        raise ValueError(
            f"thin needs lengths and n of at least 1, but got {len(lengths)} lengths and n={n}"
        )
    ordered = sorted(lengths)
    return tuple(int(ordered[int((i + 0.5) / n * len(ordered))]) for i in range(n))


def parse_lengths(text: str) -> tuple[int, ...]:
    """Lengths as people write them: ``"16,32,128"``, or with shares ``"16:3,32:2,128:1"``.

    Args:
        text: Lengths in tokens; a share is a whole number of at least 1, by default 1.

    Raises:
        ValueError: If the text is no such list.
    """
    lengths: list[int] = []
    for part in text.split(","):
        length, _, share = part.partition(":")
        try:
            count = int(share) if share else 1
            if count < 1 or (":" in part and not share):
                raise ValueError
            lengths += [int(length)] * count
        except ValueError:
            raise ValueError(
                f"lengths are written as 16,32,128 or with shares as 16:3,128:1, but got {text!r}"
            ) from None
    return tuple(lengths)
