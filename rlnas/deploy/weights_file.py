"""The weights of a model's folder as they lie in its safetensors files, whatever its config says."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from rlnas.errors import CheckpointError, first_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

PATTERN = "model*.safetensors"
"""The files that transformers writes, in one part or several."""

_CHUNK = 2**20


def weights_files(folder: Path) -> list[Path]:
    """The safetensors files of a model.

    Raises:
        CheckpointError: If there is none.
    """
    files = sorted(folder.glob(PATTERN))
    if not files:
        raise CheckpointError(
            f"the folder {str(folder)!r} holds no model.safetensors; save the model with save_pretrained"
        )
    return files


def weights_digest(folder: Path) -> str:
    """SHA-256 of a model's safetensors files, one after the other; of one file what ``sha256sum`` says.

    Raises:
        CheckpointError: If there is none.
    """
    digest = hashlib.sha256()
    for path in weights_files(folder):
        with path.open("rb") as file:
            while part := file.read(_CHUNK):
                digest.update(part)
    return digest.hexdigest()


def read_weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors, one after the other, so that memory holds one of them.

    Raises:
        CheckpointError: If there is no file, or one is damaged.
    """
    for path in weights_files(folder):
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 - a file, not a mapping
                    yield name, file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"cannot read the weights in {str(path)!r}: {first_line(error)}; write them again"
            ) from error


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """What lies in the files, without the numbers themselves.

    Attributes:
        shapes: By name of a tensor of floating-point numbers.
        dtypes: Number formats that occur, such as ``"float32"``, in alphabetical order.
        not_finite: By name, how many of its numbers are not finite; only names that have some.
    """

    shapes: dict[str, tuple[int, ...]]
    dtypes: tuple[str, ...]
    not_finite: dict[str, int]

    @property
    def n_params(self) -> int:
        """Floating-point numbers in the files."""
        return sum(math.prod(shape) for shape in self.shapes.values())


def describe_weights(folder: Path) -> WeightsFile:
    """Look at every tensor of a model's files once; those of integers are no weights.

    Raises:
        CheckpointError: If there is no file, or one is damaged.
    """
    shapes, dtypes, not_finite = {}, set(), {}
    for name, tensor in read_weights(folder):
        if not tensor.is_floating_point():
            continue
        shapes[name] = tuple(tensor.shape)
        dtypes.add(str(tensor.dtype).removeprefix("torch."))
        if n_bad := int((~tensor.isfinite()).sum()):
            not_finite[name] = n_bad
    return WeightsFile(shapes, tuple(sorted(dtypes)), not_finite)
