"""The tiny world with a deeper model, fine-tuned: a search lasts seconds and trains nothing."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import torch
import transformers
from world import LABELS, WORKLOAD, World, make_tokenizer, make_world

from rlnas.latency import LatencyTable, describe_device
from rlnas.space import ModelShape

if TYPE_CHECKING:
    from pathlib import Path

LAYERS, HEADS, HIDDEN, UNITS = 4, 4, 32, 64
BUDGET = 300
BUCKET = "searches"


def make_deep_world(root: Path) -> World:
    """Write it into a folder."""
    world = make_world(root)
    shutil.rmtree(world.model)
    _write_checkpoint(world.model)
    _table().save(world.table)
    return world


def arguments_of(world: World) -> list[str]:
    """A search on the command line; random, so that every trial is new."""
    return [
        *("--model", str(world.model), "--task", str(world.data), "--latency-table", str(world.table)),
        *("--device", "cpu", "--seq-len", str(WORKLOAD.seq_len), "--search-items", "32"),
        *("--full-epochs", "0", "--epochs", "0", "--finish-epochs", "0", "--repair-items", "0"),
        *("--controller", "random", "--budget", str(BUDGET), "--target-ratio", "0.75"),
    ]


def _write_checkpoint(folder: Path) -> None:
    tokenizer = make_tokenizer()
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=UNITS,
        max_position_embeddings=64,
        initializer_range=0.2,  # so that subnets differ from each other
        id2label=dict(enumerate(LABELS)),
        label2id={name: index for index, name in enumerate(LABELS)},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _table() -> LatencyTable:
    """Made-up latencies."""
    return LatencyTable(
        workload=WORKLOAD,
        device=describe_device("cpu"),
        shape=ModelShape(LAYERS, HEADS, UNITS, HIDDEN),
        attention_ms={heads: 0.14 + 0.01 * heads for heads in range(1, HEADS + 1)},
        ffn_ms={units: 0.14 + 0.02 * units / UNITS for units in range(1, UNITS + 1)},
        floor_ms=0.4,
    )
