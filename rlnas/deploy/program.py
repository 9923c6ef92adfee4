"""A program of ``torch.export``: the model as a graph that torch alone loads."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from rlnas.deploy.agreement import TRACED, check_agreement, example_request, ready
from rlnas.errors import ExportError, RunFolderError, first_line
from rlnas.runtime.onnx import quiet_exporter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch.export import ExportedProgram
    from transformers import PreTrainedModel


class LogitsOnly(nn.Module):
    """A classifier that returns a tensor, so that its program knows no class of transformers."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Logits of shape ``(batch, num_labels)``; see `rlnas.supernet.modeling_subnet.SubnetModel`."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask, **types).logits
        return logits


def write_program(model: PreTrainedModel, path: Path) -> Path:
    """Write a sequence classifier with ``torch.export.save``, in float32, and check what loads again.

    ``torch.export.load(path).module()`` takes ``input_ids``, ``attention_mask`` and, where the model
    tells token types apart, ``token_type_ids`` by name, each of shape ``(batch, length)``, both free;
    it gives logits of shape ``(batch, num_labels)``. Nothing is left of a file that fails.

    Args:
        model: Ours, or any sequence classifier of transformers.
        path: The file, ending in ``.pt2``.

    Returns:
        `path`.

    Raises:
        ExportError: If the model cannot be traced, or the program computes other logits than the model.
        RunFolderError: If the file cannot be written.
    """
    model = ready(model)
    try:
        _write(model, path)
        loaded = torch.export.load(path).module()
        check_agreement(model, lambda request: _run(loaded, request).numpy(), f"the program {path.name!r}")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _write(model: PreTrainedModel, path: Path) -> None:
    program, buffer = _traced(model), io.BytesIO()
    with quiet_exporter():
        torch.export.save(program, buffer)  # not into the file: on a full disk torch ends the process
    try:
        path.write_bytes(buffer.getbuffer())
    except OSError as error:
        raise RunFolderError(
            f"cannot write {str(path)!r} ({error.strerror or error}); choose a folder that can be written"
        ) from error


def _traced(model: PreTrainedModel) -> ExportedProgram:
    request = example_request(model, *TRACED)
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    try:
        with quiet_exporter(), torch.inference_mode(False), torch.no_grad():
            program = torch.export.export(
                LogitsOnly(model), (), request, dynamic_shapes={name: free for name in request}
            )
    except Exception as error:  # the exporter's classes share no parent of their own
        raise ExportError(
            f"a {type(model).__name__} could not be brought to torch.export ({first_line(error)}); "
            "deploy it in another form"
        ) from error
    for node in program.graph.nodes:  # whose lines of code name folders of this machine
        node.meta.pop("stack_trace", None)
    return program


def _run(program: nn.Module, request: Mapping[str, Tensor]) -> Tensor:
    with torch.inference_mode():
        return cast("Tensor", program(**request))
