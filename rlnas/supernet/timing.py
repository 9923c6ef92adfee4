"""Calls that a stopwatch can time: whole subnets and stacks of blocks, on one workload."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rlnas.errors import CheckpointError, InvalidSubnetError
from rlnas.precision import stored_as
from rlnas.runtime import GraphMemory, check_mode, prepare
from rlnas.space import LayerConfig, SubnetConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rlnas.space import ModelShape
    from rlnas.supernet.modeling_subnet import Embeddings, SubnetModel
    from rlnas.supernet.supernet import Supernet
    from rlnas.workload import Workload

MAX_STACK = 6
"""Blocks of a stack at most: enough to overflow the caches that a whole model overflows."""


def example_inputs(vocab_size: int, workload: Workload, device: str) -> list[dict[str, Tensor]]:
    """The workload's requests, as inputs of a model: random tokens, always the same ones.

    Texts shorter than their request's longest are padded behind, and masked.
    """
    generator = torch.Generator().manual_seed(0)
    inputs = []
    for lengths in workload.requests:
        shape = (len(lengths), max(lengths))
        # Low token numbers are special ones in every family; RoBERTa counts positions by its padding.
        input_ids = torch.randint(min(1000, vocab_size // 2), vocab_size, shape, generator=generator)
        mask = (torch.arange(shape[1]) < torch.tensor(lengths)[:, None]).long()
        inputs.append({"input_ids": input_ids.to(device), "attention_mask": mask.to(device)})
    return inputs


def inference_calls(
    module: nn.Module, workload: Workload, device: str, vocab_size: int
) -> list[Callable[[], object]]:
    """Calls of a whole model, one per request of the workload, run in its mode; they do not wait.

    Args:
        module: In the number format that the workload's is made from, on the device.
        workload: What is asked of it.
        device: Where it runs.
        vocab_size: Tokens that may be asked.
    """
    memory = GraphMemory()
    return [
        prepare(module, inputs, workload.mode, share=memory, precision=workload.dtype)
        for inputs in example_inputs(vocab_size, workload, device)
    ]


class TimedModel:
    """A supernet on a workload, as calibration sees it.

    Every call runs stand-alone, contiguous weights in the workload's number format and mode, as
    the deployed model will.

    Raises:
        CheckpointError: If the workload's texts are longer than the checkpoint's positions.
        DeviceError: If the workload's mode does not run on the device.
        MissingDependencyError: If its packages are not installed.
    """

    def __init__(self, supernet: Supernet, workload: Workload, device: str = "cpu") -> None:
        if workload.seq_len > supernet.max_positions:
            raise CheckpointError(
                f"the checkpoint has positions for {supernet.max_positions} tokens at most, "
                f"but the workload has seq_len={workload.seq_len}; ask for no more than that (--seq-len)"
            )
        check_mode(workload.mode, device, workload.dtype)
        self._supernet = supernet
        self._workload = workload
        self._device = device
        self._dtype: torch.dtype = getattr(torch, stored_as(workload.dtype))
        self._inputs = example_inputs(supernet.model.config.vocab_size, workload, device)
        self._memory = GraphMemory()
        self._embeddings: Embeddings | None = None

    @property
    def shape(self) -> ModelShape:
        """Sizes of the full model."""
        return self._supernet.shape

    @property
    def stack_size(self) -> int:
        """Blocks that a call of `block_calls` runs."""
        return min(self.shape.num_hidden_layers, MAX_STACK)

    def model_calls(self, config: SubnetConfig) -> list[Callable[[], object]]:
        """One forward pass of a subnet, for each request of the workload."""
        model = self._extract(config)
        return [self._prepare(model, inputs) for inputs in self._inputs]

    def block_calls(self, kind: str, size: int) -> list[Callable[[], object]]:
        """`stack_size` blocks of one kind and size, one after another, each with weights of its own.

        A single block, run again and again, would find its weights in the cache; in a model they
        have to be fetched.

        Args:
            kind: ``"attention"`` or ``"ffn"``.
            size: Heads or units kept, at least 1.

        Raises:
            ValueError: If the kind is another.
        """
        if kind not in ("attention", "ffn"):
            raise ValueError(f"kind must be 'attention' or 'ffn', but got kind={kind!r}")
        layer = LayerConfig(size, 0) if kind == "attention" else LayerConfig(0, size)
        rest = (LayerConfig(0, 0),) * (self.shape.num_hidden_layers - self.stack_size)
        model = self._extract(SubnetConfig((layer,) * self.stack_size + rest))
        stack = _Stack(list(model.layers)[: self.stack_size])
        calls = []
        for inputs in self._inputs:
            with torch.inference_mode(False), torch.no_grad():
                hidden = model.embeddings(inputs["input_ids"])
            mask = model.attention_mask(inputs["attention_mask"])
            calls.append(self._prepare(stack, {"hidden": hidden, "mask": mask}))
        return calls

    def _prepare(self, module: nn.Module, inputs: Mapping[str, Tensor | None]) -> Callable[[], object]:
        workload = self._workload
        return prepare(module, inputs, workload.mode, share=self._memory, precision=workload.dtype)

    def _extract(self, config: SubnetConfig) -> SubnetModel:
        """A stand-alone subnet; the embeddings, most of a small one's memory, are shared by all."""
        model = self._supernet.extract(config)
        model.to(device=self._device, dtype=self._dtype)  # type: ignore[call-arg]
        if self._embeddings is None:
            self._embeddings = model.embeddings
        model.embeddings = self._embeddings
        return model


class TimedPrecisions:
    """A supernet whose subnets are run each in its precision, in the form in which that is served.

    Args:
        supernet: As of `TimedModel`.
        workload: What is asked of the full model, and of configs that name no precision.
        precisions: Those that configs may have.
        device: Where they run.

    Raises:
        CheckpointError: As `TimedModel`.
        DeviceError: If a precision does not run on the device or in the workload's mode.
        MissingDependencyError: If its packages are not installed.
    """

    def __init__(
        self, supernet: Supernet, workload: Workload, precisions: Sequence[str], device: str = "cpu"
    ) -> None:
        self._reference = TimedModel(supernet, workload, device)
        self._models = {
            precision: TimedModel(supernet, workload.in_precision(precision), device)
            for precision in precisions
        }

    @property
    def shape(self) -> ModelShape:
        """Sizes of the full model."""
        return self._reference.shape

    @property
    def stack_size(self) -> int:
        """Blocks that a call of `block_calls` runs."""
        return self._reference.stack_size

    def model_calls(self, config: SubnetConfig) -> list[Callable[[], object]]:
        """One forward pass of a subnet in its precision, for each request of the workload.

        Raises:
            InvalidSubnetError: If it has another precision than those given.
        """
        if config.precision is None:
            return self._reference.model_calls(config)
        if config.precision not in self._models:
            raise InvalidSubnetError(
                f"subnets are timed in {', '.join(self._models)} here, "
                f"but got precision={config.precision!r}"
            )
        return self._models[config.precision].model_calls(config)

    def block_calls(self, kind: str, size: int) -> list[Callable[[], object]]:
        """As `TimedModel.block_calls`, in the workload's own precision."""
        return self._reference.block_calls(kind, size)


class _Stack(nn.Module):
    """Layers without embeddings and head."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.eval()

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Hidden states after the last layer."""
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return hidden
