"""A model cut to its first layers: a full model of its own, with a shape of fewer layers."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from rlnas.errors import CheckpointError
from rlnas.supernet.modeling_subnet import SubnetModel
from rlnas.supernet.supernet import Supernet

if TYPE_CHECKING:
    from torch import nn


def first_layers(supernet: Supernet, n_layers: int) -> Supernet:
    """The first layers of a full model, in a copy, with its embeddings and head.

    The head was made for what the last layer computes, so it counts as untrained. What is known of the
    importance of blocks is left behind.

    Args:
        supernet: A full model.
        n_layers: Layers that are kept, from 1 to as many as there are.

    Raises:
        CheckpointError: If the model has fewer layers, or none are to be kept.
    """
    whole = supernet.shape.num_hidden_layers
    if not 1 <= n_layers <= whole:
        raise CheckpointError(f"first={n_layers} must be from 1 to {whole}, the layers of the model")
    config = copy.deepcopy(supernet.model.config)
    config.kept_heads, config.kept_units = config.kept_heads[:n_layers], config.kept_units[:n_layers]
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        model = SubnetModel(config)
    weights: dict[str, nn.Parameter] = dict(supernet.model.named_parameters())
    own = {name: weights[name].detach().clone() for name, _ in model.named_parameters()}
    model.load_state_dict(own, assign=True)
    model.eval()  # type: ignore[no-untyped-call]
    return Supernet(
        model,
        supernet.tokenizer,
        max_seq_len=supernet.max_seq_len,
        fine_tuned=supernet.fine_tuned and n_layers == whole,
    )
