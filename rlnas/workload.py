"""What the device will be asked to run: without it a latency means nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

DTYPES = ("float32", "bfloat16", "float16")
MODES = ("eager",)


@dataclass(frozen=True, slots=True)
class Workload:
    """One inference request, as it will be served.

    Attributes:
        batch_size: Texts in a request, at least 1.
        seq_len: Tokens of each text, at least 2.
        dtype: Number format of weights and activations: float32, bfloat16 or float16.
        mode: How the model is run; ``eager`` is plain PyTorch.

    Raises:
        ValueError: If a field is outside its range.
    """

    batch_size: int = 1
    seq_len: int = 128
    dtype: str = "float32"
    mode: str = "eager"

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, but got batch_size={self.batch_size}")
        if self.seq_len < 2:
            raise ValueError(f"seq_len must be at least 2, but got seq_len={self.seq_len}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, but got dtype={self.dtype!r}")
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, but got mode={self.mode!r}")

    def __str__(self) -> str:
        return f"batch {self.batch_size} x {self.seq_len} tokens, {self.dtype}, {self.mode}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)
