"""A world so small that a whole run takes seconds: a random BERT, a task, a made-up latency table.

Loaded by the tests of the pipeline and of the command line, which lie in different folders.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import transformers

from rlnas.controllers.evolution import EvolutionController
from rlnas.latency import LatencyTable, PrecisionTables, describe_device
from rlnas.rewards import LatencyTarget
from rlnas.run import DataSource, Job, Schedule
from rlnas.space import ModelShape
from rlnas.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LABELS = ("negative", "positive")
WORKLOAD = Workload(batch_size=1, seq_len=16)
NUM_LAYERS, NUM_HEADS, HIDDEN, UNITS, POSITIONS = 2, 4, 32, 64, 64
SHAPE = ModelShape(NUM_LAYERS, NUM_HEADS, UNITS, HIDDEN)
N_TRAIN, N_FINAL, N_SEARCH = 96, 40, 32
BUDGET = 40
RATIOS = {"float32": 1.0, "bfloat16": 0.6, "int8": 0.3}

_TELLING = {
    "negative": ("bad", "dull", "awful", "boring"),
    "positive": ("good", "bright", "great", "funny"),
}
_WORDS = """
this that film book story actor plot scene long short quite very never often is was seems makes tells shows
and but because nothing everything time people world city music voice light dark ending beginning
"""
WORDS = tuple(_WORDS.split())


@dataclass(frozen=True)
class World:
    """Where everything lies.

    Attributes:
        root: Folder of the world.
        model: A BERT without a classifier.
        data: A folder with train.csv and validation.csv of two classes that can be learnt.
        table: A latency table for `model` and `WORKLOAD` on this machine.
    """

    root: Path
    model: Path
    data: Path
    table: Path

    def arguments(self, out: Path, *more: str) -> list[str]:
        """A whole run on the command line, as short as it gets; later flags win."""
        return [
            "search",
            *("--model", str(self.model), "--task", str(self.data), "--out", str(out)),
            *("--device", "cpu", "--seq-len", str(WORKLOAD.seq_len), "--search-items", str(N_SEARCH)),
            *("--latency-table", str(self.table), "--target-ratio", "0.75"),
            *("--controller", "evolution", "--budget", str(BUDGET)),
            *("--full-epochs", "2", "--epochs", "2", "--finish-epochs", "1"),
            *("--train-batch-size", "8", "--learning-rate", "0.003"),
            *more,
        ]

    def job(self, **changes: object) -> Job:
        """The same run for `run_job`, with other values of some fields of `Job`."""
        job = Job(
            model=str(self.model),
            reward=LatencyTarget(ratio=0.75),
            controller=EvolutionController(),
            data=DataSource(str(self.data), search_items=N_SEARCH),
            workload=WORKLOAD,
            schedule=Schedule(full_epochs=2, epochs=2, finish_epochs=1, batch_size=8, learning_rate=0.003),
            budget=BUDGET,
            latency_table=str(self.table),
        )
        return replace(job, **changes)


def make_world(root: Path) -> World:
    """Write a world into a folder."""
    world = World(root, root / "tiny-bert", root / "reviews", root / "latency-of-tiny-bert.json")
    write_checkpoint(world.model)
    write_task(world.data)
    make_table().save(world.table)
    return world


def make_tokenizer() -> transformers.PreTrainedTokenizerBase:
    """WordPiece over the words of the tasks; other words are cut into letters."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    telling = [word for words in _TELLING.values() for word in words]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{a}" for a in letters)]
    pieces += [*WORDS, *telling]
    return transformers.BertTokenizer(vocab={piece: index for index, piece in enumerate(pieces)})


def write_checkpoint(
    folder: Path, label_names: Sequence[str] | None = None, *, num_heads: int = NUM_HEADS
) -> Path:
    """A random BERT; with a classifier, and so taken as fine-tuned, where labels are named."""
    tokenizer = make_tokenizer()
    labels = {}
    if label_names is not None:
        labels["id2label"] = dict(enumerate(label_names))
        labels["label2id"] = {name: index for index, name in enumerate(label_names)}
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=NUM_HEADS,
        intermediate_size=UNITS,
        max_position_embeddings=POSITIONS,
        initializer_range=0.2,  # so that subnets differ from each other
        **labels,
    )
    kind = transformers.BertModel if label_names is None else transformers.BertForSequenceClassification
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(config)
    model.config.num_attention_heads = num_heads
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_rows(n: int, seed: int, labels: Sequence[str] = LABELS) -> list[tuple[str, str]]:
    """Texts of six words, half of which tell the label, and the labels."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(n):
        label = labels[index % len(labels)]
        words = list(rng.choice(WORDS, size=6))
        words[::2] = rng.choice(_TELLING[label], size=3)
        rows.append((" ".join(words), label))
    return rows


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """A table, in a folder made if absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_task(folder: Path, *, final_seed: int = 2, flip_final: bool = False) -> Path:
    """The task of two classes; its validation file, the final split, may be another."""
    final = make_rows(N_FINAL, final_seed)
    if flip_final:
        final = [(text, LABELS[label == LABELS[0]]) for text, label in final]
    write_csv(folder / "train.csv", ("text", "label"), make_rows(N_TRAIN, 1))
    write_csv(folder / "validation.csv", ("text", "label"), final)
    return folder


def make_table(*, workload: Workload = WORKLOAD, device_name: str | None = None) -> LatencyTable:
    """Made-up latencies, about those of a real machine: 0.4 ms for nothing, 1.08 ms for the full model."""
    device = describe_device("cpu")
    return LatencyTable(
        workload=workload,
        device=device if device_name is None else replace(device, name=device_name),
        shape=SHAPE,
        attention_ms={heads: 0.14 + 0.01 * heads for heads in range(1, NUM_HEADS + 1)},
        ffn_ms={units: 0.14 + 0.02 * units / UNITS for units in range(1, UNITS + 1)},
        floor_ms=0.4,
    )


def write_tables(folder: Path, precisions: Sequence[str] = tuple(RATIOS)) -> Path:
    """Made-up tables of several precisions, all of the same times."""
    tables = {}
    for precision in precisions:
        own = WORKLOAD.in_precision(precision)
        device = describe_device("cpu", mode=own.mode)
        tables[precision] = replace(make_table(workload=own), device=device)
    PrecisionTables(tables, {p: RATIOS[p] for p in precisions}, "float32").save(folder)
    return folder
