"""Number formats that a subnet may be served in.

The names that begin with int8 say whose matrix products are computed in 8-bit integers: those of all
blocks, of the attention blocks (queries, keys, values and output) or of the FFN blocks. Embeddings,
head, LayerNorm, softmax and activations stay in float32: the head is a thousandth of the work and
decides the answer, and the embeddings are looked up, not multiplied.
"""

from __future__ import annotations

INT8_BLOCKS = {
    "int8": ("attention", "ffn"),
    "int8_attention": ("attention",),
    "int8_ffn": ("ffn",),
}
"""By precision: the kinds of block whose matrix products are computed in int8."""

PRECISIONS = ("float32", "bfloat16", "float16", *INT8_BLOCKS)
"""Number formats of a subnet, and of a workload."""


def stored_as(precision: str) -> str:
    """The number format of the PyTorch model from which a precision is made.

    Args:
        precision: One of `PRECISIONS`. An int8 model is made from float32 weights.
    """
    return "float32" if precision in INT8_BLOCKS else precision
