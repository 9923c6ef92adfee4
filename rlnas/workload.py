"""What the device will be asked to run: without it a latency means nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rlnas.precision import INT8_BLOCKS, PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

DTYPES = PRECISIONS

MODES = ("eager", "compiled", "cuda_graph", "onnxruntime")
"""How a model is run: plain PyTorch, ``torch.compile``, a replayed CUDA graph, ONNX Runtime."""

STATISTICS = ("median", "p99")
"""What of a latency counts: the usual request, or the one in a hundred that is slower than the others."""

MAX_REQUESTS = 5
"""Requests that stand for a distribution of lengths."""

MAX_TOKENS = 2**22
"""Tokens of a request, padding included."""

MAX_SHARES = 100_000
"""Texts that a list of lengths with shares may come to."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked of the device: one request, or a mix of requests of several lengths.

    Attributes:
        batch_size: Texts in a request, at least 1.
        seq_len: Tokens of the longest text, at least 2; longer texts are cut to it.
        dtype: Number format of weights and activations, one of `rlnas.precision.PRECISIONS`; those that
            begin with int8 are for the mode onnxruntime alone.
        mode: How the model is run, one of `MODES`.
        statistic: What of the latency counts, one of `STATISTICS`. The median of a mix is the
            mean over its requests of each one's median. A p99 is of requests that are all alike:
            that of a mix would mostly say how long its longest texts are.
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
        if self.dtype in INT8_BLOCKS and self.mode != "onnxruntime":
            raise ValueError(
                f"dtype={self.dtype!r} runs in ONNX Runtime, but got mode={self.mode!r}; "
                "use mode='onnxruntime'"
            )
        object.__setattr__(self, "lengths", tuple(sorted(int(length) for length in self.lengths)))
        for length in self.lengths:
            if not 2 <= length <= self.seq_len:
                raise ValueError(
                    f"lengths must be in [2, seq_len={self.seq_len}], but got {length}; "
                    "raise seq_len, or cut the lengths to it"
                )
        if self.lengths and self.statistic != "median":
            raise ValueError(
                f"statistic={self.statistic!r} is for texts of one length, but there are "
                f"{len(self.lengths)} lengths; ask for the length that matters (seq_len), or for the median"
            )
        if self.batch_size * self.seq_len > MAX_TOKENS:
            raise ValueError(
                f"a request may have {MAX_TOKENS:,} tokens, but got batch_size={self.batch_size} times "
                f"seq_len={self.seq_len}"
            )

    @property
    def requests(self) -> tuple[tuple[int, ...], ...]:
        """The requests that stand for the workload: of each, the tokens of its texts, longest first.

        All count alike. A text that is shorter than its request's longest is padded. Without
        `lengths` there is one request; with them there are `MAX_REQUESTS`, the same ones always: of
        texts that are the means of equal parts of the distribution, dealt out at random. So the mean
        length is that of the distribution.
        """
        if not self.lengths:
            return ((self.seq_len,) * self.batch_size,)
        # As many texts as there are lengths stand for them exactly.
        exact = self.batch_size == 1 and len(self.lengths) <= MAX_REQUESTS
        n_requests = len(self.lengths) if exact else MAX_REQUESTS
        texts = thin(self.lengths, n_requests * self.batch_size)
        if self.batch_size > 1:
            texts = tuple(np.random.default_rng(0).permutation(texts).tolist())
        dealt = [texts[start::n_requests] for start in range(n_requests)]
        return tuple(sorted(tuple(sorted(request, reverse=True)) for request in dealt))

    def in_precision(self, precision: str | None) -> Workload:
        """The same requests to a model in another number format, in the form in which that is served.

        Float formats run in this workload's mode, int8 in ONNX Runtime. None is this workload itself.
        """
        if precision is None:
            return self
        mode = "onnxruntime" if precision in INT8_BLOCKS else self.mode
        return replace(self, dtype=precision, mode=mode)

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
    """`n` lengths that stand for a sample: the means of its n equal parts, ascending.

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
    # Each length n times, so that the parts are equal whatever the numbers.
    parts = np.repeat(np.sort(np.asarray(lengths)), n).reshape(n, -1)
    return tuple(round(mean) for mean in parts.mean(axis=1).tolist())


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
            if count > MAX_SHARES:
                raise ValueError
            lengths += [int(length)] * count
        except ValueError:
            raise ValueError(
                f"lengths are written as 16,32,128 or with shares as 16:3,128:1 (shares up to "
                f"{MAX_SHARES:,}), but got {text!r}"
            ) from None
    return tuple(lengths)
