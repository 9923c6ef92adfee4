"""Tiny random checkpoints of all four families, with tokenizers of a few words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DistilBertTokenizer,
    ElectraConfig,
    ElectraForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaTokenizer,
)

from rlnas.supernet.supernet import Supernet
from rlnas.task import Split, Task

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LABELS = ("bad", "good", "<odd|name>")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "the", "a", "film", "was", "is", "very", "not", "good", "bad", "dull", "fun", "plot"]
LETTERS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *map(chr, range(ord("a"), ord("z") + 1))]
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
SPREAD = 0.5  # large random weights, so that different texts get different labels


def tokenizer(family: str) -> Any:
    if family == "roberta":
        return RobertaTokenizer(vocab={letter: i for i, letter in enumerate(LETTERS)}, merges=[])
    kind = DistilBertTokenizer if family == "distilbert" else BertTokenizer
    return kind(vocab={word: i for i, word in enumerate(WORDS)})


def model(family: str, **labels: Any) -> Any:
    if family == "roberta":
        sizes = {**SIZES, "vocab_size": len(LETTERS), "pad_token_id": 1, "initializer_range": SPREAD}
        return RobertaForSequenceClassification(RobertaConfig(**sizes, **labels))
    if family == "distilbert":
        names = ("dim", "n_layers", "n_heads", "hidden_dim", "max_position_embeddings")
        sizes = dict(zip(names, SIZES.values(), strict=True))
        return DistilBertForSequenceClassification(
            DistilBertConfig(vocab_size=len(WORDS), initializer_range=SPREAD, **sizes, **labels)
        )
    if family == "electra":
        sizes = {**SIZES, "vocab_size": len(WORDS), "embedding_size": 16, "initializer_range": SPREAD}
        return ElectraForSequenceClassification(ElectraConfig(**sizes, **labels))
    return BertForSequenceClassification(
        BertConfig(vocab_size=len(WORDS), initializer_range=SPREAD, **SIZES, **labels)
    )


def split(name: str, n_items: int, labels: tuple[str, ...]) -> Split:
    rng = np.random.default_rng(len(name))
    texts = tuple(" ".join(rng.choice(WORDS[5:], size=rng.integers(2, 9))) for _ in range(n_items))
    if not labels:
        return Split(name, texts, None, rng.normal(size=n_items).astype(np.float32))
    return Split(name, texts, None, rng.integers(len(labels), size=n_items))


def make_task(labels: tuple[str, ...] = LABELS) -> Task:
    train, search, final = split("train", 8, labels), split("search", 8, labels), split("test", 24, labels)
    return Task("films", train, search, final, labels, "accuracy" if labels else "spearman")


@pytest.fixture(scope="session")
def task() -> Task:
    return make_task()


@pytest.fixture(scope="session")
def regression() -> Task:
    return make_task(())


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Task], Path]:
    """Writes (once) a random checkpoint of a family for a task."""
    made: dict[tuple[str, str], Path] = {}

    def make(family: str, task: Task) -> Path:
        key = (family, task.metric)
        if key not in made:
            labels: dict[str, Any] = {"num_labels": 1, "problem_type": "regression"}
            if task.label_names:
                labels = {"id2label": dict(enumerate(task.label_names))}
                labels["label2id"] = {name: i for i, name in labels["id2label"].items()}
            torch.manual_seed(0)
            made[key] = tmp_path_factory.mktemp(family)
            model(family, **labels).save_pretrained(made[key])
            tokenizer(family).save_pretrained(made[key])
        return made[key]

    return make


@pytest.fixture(scope="session")
def supernets(checkpoint: Callable[[str, Task], Path]) -> Callable[[str, Task], Supernet]:
    """Loads a family's checkpoint as a supernet."""

    def load(family: str, task: Task) -> Supernet:
        return Supernet.from_pretrained(checkpoint(family, task), task, max_seq_len=20)

    return load


@pytest.fixture(scope="session")
def classifier() -> Callable[[str], Any]:
    """Makes a random stock classifier of `LABELS`, ready to run."""

    def make(family: str) -> Any:
        torch.manual_seed(0)
        return model(family, num_labels=len(LABELS)).eval()

    return make
