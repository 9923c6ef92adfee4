"""A supernet as plain arrays, which processes of one machine can read from the same memory."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from rlnas.supernet.modeling_subnet import SubnetModel, SubnetModelConfig
from rlnas.supernet.supernet import Supernet

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

ALIGNMENT = 64
"""Bytes of which addresses of weights are multiples, as PyTorch's own are: elsewhere products in float32
may round otherwise, which 7 of 45 did with weights 8 bytes off."""


@dataclass(frozen=True, slots=True, eq=False)
class SupernetArrays:
    """What judging subnets takes of a supernet; pickles of protocol 5 keep the weights outside.

    Attributes:
        config: Of the full model.
        tokenizer: Its tokenizer.
        max_seq_len: Longer texts are cut to this many tokens.
        dtype: Number format of the weights, a name that PyTorch knows.
        weights: Their bytes by name; the last dimension is longer by the bytes of a number.
    """

    config: SubnetModelConfig
    tokenizer: PreTrainedTokenizerBase
    max_seq_len: int
    dtype: str
    weights: Mapping[str, npt.NDArray[np.uint8]]

    @classmethod
    def of(cls, model: SubnetModel, tokenizer: PreTrainedTokenizerBase, max_seq_len: int) -> SupernetArrays:
        """The arrays of a full model; on a CPU they are its weights themselves."""
        weights = {
            name: weight.detach().cpu().contiguous().view(torch.uint8).numpy()
            for name, weight in model.named_parameters()
        }
        dtype = str(model.dtype).removeprefix("torch.")
        return cls(copy.deepcopy(model.config), tokenizer, max_seq_len, dtype, weights)

    def supernet(self, device: str = "cpu") -> Supernet:
        """A supernet on these weights: on a CPU without a copy, so they are not to be written.

        Args:
            device: Where it is to live.
        """
        # Of the CPU alone: forking every GPU's generator would start every GPU.
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            model = SubnetModel(self.config)
        dtype: torch.dtype = getattr(torch, self.dtype)
        weights = {name: _mapped(array).view(dtype) for name, array in self.weights.items()}
        model.load_state_dict(weights, assign=True)
        model.to(device).eval()  # type: ignore[arg-type]
        return Supernet(model, self.tokenizer, max_seq_len=self.max_seq_len)


def _mapped(array: npt.NDArray[np.uint8]) -> Tensor:
    """A tensor on the memory of an array, unless that lies where products would round otherwise."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        tensor = torch.from_numpy(array)
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()
