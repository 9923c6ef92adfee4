"""Calls that a stopwatch can time: whole subnets and single blocks, on one workload."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rlnas.errors import CheckpointError
from rlnas.space import LayerConfig, SubnetConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from rlnas.space import ModelShape
    from rlnas.supernet.modeling_subnet import Embeddings, SubnetModel
    from rlnas.supernet.supernet import Supernet
    from rlnas.workload import Workload


def example_inputs(vocab_size: int, workload: Workload, device: str) -> dict[str, Tensor]:
    """A request of the workload's shape: random tokens (always the same) without padding."""
    generator = torch.Generator().manual_seed(0)
    shape = (workload.batch_size, workload.seq_len)
    # Low token numbers are special ones in every family; RoBERTa counts positions by its padding.
    input_ids = torch.randint(min(1000, vocab_size // 2), vocab_size, shape, generator=generator)
    return {"input_ids": input_ids.to(device), "attention_mask": torch.ones_like(input_ids).to(device)}


def inference_call(module: nn.Module, inputs: Mapping[str, Tensor | None]) -> Callable[[], object]:
    """A call that runs a module on inputs without gradients; it does not synchronise."""

    def call() -> object:
        with torch.inference_mode():
            return module(**inputs)

    return call


class TimedModel:
    """A supernet on a workload, as calibration sees it.

    Every call runs stand-alone, contiguous weights in the workload's number format, as the
    deployed model will.

    Raises:
        CheckpointError: If the workload's texts are longer than the checkpoint's positions.
    """

    def __init__(self, supernet: Supernet, workload: Workload, device: str = "cpu") -> None:
        if workload.seq_len > supernet.max_positions:
            raise CheckpointError(
                f"the checkpoint has positions for {supernet.max_positions} tokens at most, "
                f"but the workload has seq_len={workload.seq_len}; ask for no more than that (--seq-len)"
            )
        self._supernet = supernet
        self._workload = workload
        self._device = device
        self._dtype: torch.dtype = getattr(torch, workload.dtype)
        self._inputs = example_inputs(supernet.model.config.vocab_size, workload, device)
        self._embeddings: Embeddings | None = None

    @property
    def shape(self) -> ModelShape:
        """Sizes of the full model."""
        return self._supernet.shape

    def model_call(self, config: SubnetConfig) -> Callable[[], object]:
        """One forward pass of a subnet."""
        return inference_call(self._extract(config), self._inputs)

    def _extract(self, config: SubnetConfig) -> SubnetModel:
        """A stand-alone subnet; the embeddings, most of a small one's memory, are shared by all."""
        model = self._supernet.extract(config)
        model.to(device=self._device, dtype=self._dtype)  # type: ignore[call-arg]
        if self._embeddings is None:
            self._embeddings = model.embeddings
        model.embeddings = self._embeddings
        return model

    def block_call(self, kind: str, size: int) -> Callable[[], object]:
        """One attention or FFN block of the first layer.

        Args:
            kind: ``"attention"`` or ``"ffn"``.
            size: Heads or units kept, at least 1.

        Raises:
            ValueError: If the kind is another.
        """
        if kind not in ("attention", "ffn"):
            raise ValueError(f"kind must be 'attention' or 'ffn', but got kind={kind!r}")
        first = LayerConfig(size, 0) if kind == "attention" else LayerConfig(0, size)
        rest = (LayerConfig(0, 0),) * (self.shape.num_hidden_layers - 1)
        model = self._extract(SubnetConfig((first, *rest)))
        with torch.inference_mode():
            hidden = model.embeddings(self._inputs["input_ids"])
        mask = model.attention_mask(self._inputs["attention_mask"])
        return inference_call(model.layers[0], {"hidden": hidden, "mask": mask})
