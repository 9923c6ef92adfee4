"""A `TabularBench` in one small file, which loads without running anything that it holds.

The file is an ``.xz`` stream, so ``xz -dc`` shows what is in it: a line that names the format, a line
of JSON, and the answers. A subnet is stored as what differs from its nearest relative: of those that
come before it and differ in one layer, the one with the most answers in common. That makes a table
four times smaller than packing alone.
"""

from __future__ import annotations

import json
import lzma
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlnas.additive import AdditiveModel
from rlnas.errors import DataError, RLNASError, RunFolderError
from rlnas.space import ChoiceSpace, LayerConfig, ModelShape
from rlnas.tabular.bench import BenchLatency, TabularBench

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    IntArray = npt.NDArray[np.int64]
    Bits = npt.NDArray[np.uint8]

MAGIC = b"rlnas-bench 1\n"
NO_RELATIVE = 255
"""Stands for the relative of the first subnet, which has none."""


def save_bench(bench: TabularBench, path: Path | str) -> None:
    """Write a bench; the file is whole or not there, never half written.

    Raises:
        RunFolderError: If the file cannot be written.
    """
    target = Path(path)
    relatives = _nearest_relatives(bench.right, bench.space.nvec)
    differences = bench.right.copy()
    differences[1:] ^= bench.right[_rows_of(relatives, bench.space.nvec)[1:]]
    bits = np.unpackbits(differences, axis=1, count=bench.n_items)
    # Item by item, as an item's answers change at the same subnets over and over.
    content = [MAGIC, json.dumps(_header(bench), allow_nan=False).encode(), b"\n", relatives.tobytes()]
    content.append(np.packbits(bits.T, axis=1).tobytes())
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_bytes(lzma.compress(b"".join(content), preset=9 | lzma.PRESET_EXTREME))
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunFolderError(f"cannot write the bench {target}: {error.strerror}") from error


def load_bench(path: Path | str) -> TabularBench:
    """Read what `save_bench` wrote.

    Raises:
        DataError: If the file is missing, damaged, or no bench.
    """
    source = Path(path)
    try:
        content = lzma.decompress(source.read_bytes(), format=lzma.FORMAT_XZ)
    except OSError as error:
        raise DataError(
            f"cannot read the bench {source}: {error.strerror}; give a .rlnasbench file"
        ) from error
    except (lzma.LZMAError, EOFError) as error:
        raise DataError(f"{source} is damaged, or no rlnas-bench ({error}); fetch it again") from error
    if not content.startswith(MAGIC):
        raise DataError(
            f"{source} is no rlnas-bench of version 1: it begins with {content[: len(MAGIC)]!r}; "
            "give a .rlnasbench file of this version"
        )
    header, _, payload = content[len(MAGIC) :].partition(b"\n")
    try:
        return _parse(json.loads(header), payload)
    except KeyError as error:
        raise DataError(f"{source} is damaged: it lacks {error}; fetch it again") from error
    except (TypeError, ValueError, AttributeError, IndexError, RLNASError) as error:
        raise DataError(f"{source} is damaged ({error}); fetch it again") from error


def _header(bench: TabularBench) -> dict[str, Any]:
    shape = bench.shape
    return {
        "name": bench.name,
        "shape": [
            shape.num_hidden_layers,
            shape.num_attention_heads,
            shape.intermediate_size,
            shape.hidden_size,
        ],
        "num_layers": bench.space.num_layers,
        "options": [[o.num_attention_heads, o.intermediate_size] for o in bench.space.options],
        "n_items": bench.n_items,
        "chance": bench.chance,
        "kept": model_to_dict(bench.kept),
        "n_params": model_to_dict(bench.n_params),
        "latencies": {
            name: {"model": model_to_dict(latency.model), "spread": latency.spread, "note": latency.note}
            for name, latency in bench.latencies.items()
        },
        "recipe": dict(bench.recipe),
    }


def model_to_dict(model: AdditiveModel) -> dict[str, Any]:
    """Plain values for JSON."""
    return {"base": model.base, "parts": [part.tolist() for part in model.parts]}


def model_from_dict(values: Mapping[str, Any], nvec: tuple[int, ...]) -> AdditiveModel:
    """Inverse of `model_to_dict`.

    Raises:
        ValueError: If the parts are not those of a space with this `nvec`.
    """
    parts = tuple(np.array(part, dtype=np.float64) for part in values["parts"])
    if [part.shape for part in parts] != [(n_options,) for n_options in nvec]:
        raise ValueError(f"a sum over {nvec} options has parts of {[part.shape for part in parts]}")
    return AdditiveModel(float(values["base"]), parts)


def _parse(header: Mapping[str, Any], payload: bytes) -> TabularBench:
    options = tuple(LayerConfig(heads, units) for heads, units in header["options"])
    space = ChoiceSpace(int(header["num_layers"]), options)
    nvec, n_items = space.nvec, int(header["n_items"])
    latencies = {
        str(name): BenchLatency(
            space, model_from_dict(stored["model"], nvec), float(stored["spread"]), str(stored["note"])
        )
        for name, stored in header["latencies"].items()
    }
    return TabularBench(
        name=str(header["name"]),
        space=space,
        shape=ModelShape(*header["shape"]),
        n_items=n_items,
        chance=float(header["chance"]),
        right=_answers(payload, nvec, n_items),
        kept=model_from_dict(header["kept"], nvec),
        n_params=model_from_dict(header["n_params"], nvec),
        latencies=latencies,
        recipe=header["recipe"],
    )


def _answers(payload: bytes, nvec: tuple[int, ...], n_items: int) -> Bits:
    n_subnets = math.prod(nvec)
    n_bytes = n_subnets + n_items * -(-n_subnets // 8)
    if n_items < 1 or len(payload) != n_bytes:
        raise ValueError(
            f"{n_items} items of {n_subnets} subnets take {n_bytes} bytes, but there are {len(payload)}"
        )
    values = np.frombuffer(payload, dtype=np.uint8)
    relatives, differences = values[:n_subnets], values[n_subnets:].reshape(n_items, -1)
    answers = np.packbits(np.unpackbits(differences, axis=1, count=n_subnets).T, axis=1)
    rows = _rows_of(relatives, nvec)
    for row in range(1, n_subnets):
        answers[row] ^= answers[rows[row]]
    return answers


def _relative_codes(nvec: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Of each code: the stride of a position, its number of options, and the steps back in it."""
    strides = [math.prod(nvec[position + 1 :]) for position in range(len(nvec))]
    return [
        (stride, n_options, back)
        for stride, n_options in zip(strides, nvec, strict=True)
        for back in range(1, n_options)
    ]


def _nearest_relatives(right: Bits, nvec: tuple[int, ...]) -> Bits:
    """Code of the relative with the most answers in common, shape ``(n,)``."""
    rows = np.arange(len(right))
    relatives = np.full(len(right), NO_RELATIVE, dtype=np.uint8)
    fewest = np.full(len(right), np.iinfo(np.int64).max)
    for code, (stride, n_options, back) in enumerate(_relative_codes(nvec)):
        having = rows[rows // stride % n_options >= back]
        differing = np.bitwise_count(right[having] ^ right[having - back * stride]).sum(
            axis=1, dtype=np.int64
        )
        nearer = differing < fewest[having]
        fewest[having[nearer]] = differing[nearer]
        relatives[having[nearer]] = code
    return relatives


def _rows_of(relatives: Bits, nvec: tuple[int, ...]) -> IntArray:
    """Row of each row's relative; the first row has itself.

    Raises:
        ValueError: If a code is of no relative that comes before its row.
    """
    steps = np.array([stride * back for stride, _, back in _relative_codes(nvec)], dtype=np.int64)
    if len(relatives) and (relatives[0] != NO_RELATIVE or (relatives[1:] >= len(steps)).any()):
        raise ValueError("a subnet refers to a relative that does not exist")
    rows = np.arange(len(relatives))
    rows[1:] -= steps[relatives[1:]]
    if (rows < 0).any():
        raise ValueError("a subnet refers to a relative that does not come before it")
    return rows
