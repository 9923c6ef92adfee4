"""Tiny random checkpoints of the four families, as `save_pretrained` leaves them, and tasks for them.

The conftest files of the folders that need them put this folder on the path and import the fixtures.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import transformers
from tokenizers import pre_tokenizers

from rlnas.space import LayerwiseSpace, ModelShape, SubnetConfig
from rlnas.supernet import Supernet
from rlnas.supernet.encoding import Batch, sorted_batches
from rlnas.task import Split, Task

if TYPE_CHECKING:
    from pathlib import Path

transformers.utils.logging.disable_progress_bar()  # hundreds of tiny models are written and read

FAMILIES = ("bert", "roberta", "distilbert", "electra")
POOLINGS = ("cls", "mean")
LABELS = ("red", "green", "blue")
NUM_LAYERS, NUM_HEADS, HIDDEN, UNITS, POSITIONS = 3, 4, 32, 48, 40
SHAPE = ModelShape(NUM_LAYERS, NUM_HEADS, UNITS, HIDDEN)

_WORDS = """
a the this that film book story actor plot scene good bad dull bright long short quite very never often
was is seems makes tells shows and but or if because nothing everything time people world
"""
WORDS = tuple(_WORDS.split())


def texts(n: int, seed: int = 0) -> tuple[str, ...]:
    """Texts of 1 to 14 words."""
    rng = np.random.default_rng(seed)
    return tuple(" ".join(rng.choice(WORDS, size=rng.integers(1, 15))) for _ in range(n))


def make_split(
    n: int, *, num_labels: int = 3, pairs: bool = False, seed: int = 0, name: str = "train"
) -> Split:
    """Random texts with random labels; `num_labels` of 1 means values to predict."""
    rng = np.random.default_rng(seed)
    labels = rng.normal(size=n).astype(np.float32) if num_labels == 1 else rng.integers(num_labels, size=n)
    return Split(name, texts(n, seed), texts(n, seed + 1000) if pairs else None, labels)


def make_task(label_names: tuple[str, ...] = LABELS, *, n: int = 24, pairs: bool = False) -> Task:
    """A task whose parts have n items each; no label names make a regression."""
    parts = [
        make_split(n, num_labels=max(1, len(label_names)), pairs=pairs, seed=seed, name=name)
        for seed, name in enumerate(("train", "search", "test"))
    ]
    return Task("tiny", *parts, label_names, "accuracy" if label_names else "pearson")


def learnable_task(n: int = 64) -> Task:
    """Two classes: whether the text starts with a good or a bad word."""
    rng = np.random.default_rng(5)
    labels = rng.integers(2, size=n)
    first = ("bad dull", "good bright")
    items = tuple(f"{first[label]} {text}" for label, text in zip(labels, texts(n, 7), strict=True))
    split = Split("train", items, None, labels)
    return Task("learnable", split, split, split, ("bad", "good"))


def make_tokenizer(family: str) -> transformers.PreTrainedTokenizerBase:
    """WordPiece, or byte-level BPE for RoBERTa, over `WORDS`; other words are cut into letters."""
    if family == "roberta":
        return _bpe_tokenizer()
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    pieces += [f"##{letter}" for letter in letters] + [word for word in WORDS if len(word) > 1]
    kinds = {
        "bert": transformers.BertTokenizer,
        "distilbert": transformers.DistilBertTokenizer,
        "electra": transformers.ElectraTokenizer,
    }
    return kinds[family](vocab={piece: index for index, piece in enumerate(pieces)})


def _bpe_tokenizer() -> transformers.PreTrainedTokenizerBase:
    # Training would break ties by chance; these merges build every word letter by letter.
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS:
        for text in (word, f"\u0120{word}"):  # a word at the start, and behind a space
            merges |= {(text[:end], text[end]): None for end in range(1, len(text))}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *alphabet, *("".join(pair) for pair in merges)]
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    return transformers.RobertaTokenizer(vocab=vocab, merges=list(merges))


def make_config(family: str, vocab_size: int, **changes: object) -> transformers.PretrainedConfig:
    """The family's config in the tiny sizes, with changes."""
    sizes = {
        "vocab_size": vocab_size,
        "hidden_size": HIDDEN,
        "num_hidden_layers": NUM_LAYERS,
        "num_attention_heads": NUM_HEADS,
        "intermediate_size": UNITS,
        "max_position_embeddings": POSITIONS,
    }
    if family == "distilbert":
        names = {"hidden_size": "dim", "intermediate_size": "hidden_dim"}
        names |= {"num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
        sizes = {names.get(name, name): size for name, size in sizes.items()}
    if family == "roberta":
        # Token types as RoBERTa has them, and positions that start behind the padding index.
        sizes |= {"type_vocab_size": 1, "max_position_embeddings": POSITIONS + 2, "pad_token_id": 1}
        sizes |= {"bos_token_id": 0, "eos_token_id": 2}
    if family == "electra":
        sizes |= {"embedding_size": 24}
    return transformers.AutoConfig.for_model(family, **(sizes | changes))


def make_weights_matter(model: torch.nn.Module, seed: int = 0) -> None:
    """Random weights of some width: narrower, all subnets answer alike; wider, rounding errors grow."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_scale = "norm" in name.lower() and name.endswith("weight")
            parameter.normal_(0.0, 0.2, generator=generator)
            parameter.add_(1.0 if is_scale else 0.0)


def write_checkpoint(
    folder: Path, family: str, label_names: tuple[str, ...] | None = LABELS, **changes: object
) -> Path:
    """A checkpoint with a classifier for `label_names`; without one for None; a regressor for ()."""
    tokenizer = make_tokenizer(family)
    labels: dict[str, object] = {}
    if label_names == ():
        labels = {"num_labels": 1, "problem_type": "regression"}
    elif label_names:
        labels = {"id2label": dict(enumerate(label_names))}
        labels["label2id"] = {name: index for index, name in enumerate(label_names)}
    config = make_config(family, len(tokenizer), **labels, **changes)
    kind = transformers.AutoModel
    if label_names is not None:
        kind = transformers.AutoModelForSequenceClassification
    model = kind.from_config(config)
    make_weights_matter(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def random_configs(supernet: Supernet, n: int, seed: int = 0) -> list[SubnetConfig]:
    """Distinct configs, the smallest and the largest among them; a fifth of all blocks is dropped."""
    space, rng = LayerwiseSpace.for_model(supernet.shape), np.random.default_rng(seed)
    configs = {space.smallest(): None, space.largest(): None}
    while len(configs) < n:
        configs[space.sample(rng)] = None
    return list(configs)


def one_batch(supernet: Supernet, split: Split) -> Batch:
    """All items of a split in one batch."""
    return next(sorted_batches(supernet.encode(split), len(split)))


def padded_batch(supernet: Supernet, split: Split) -> Batch:
    """As `one_batch`, for splits that must bring padding along."""
    batch = one_batch(supernet, split)
    assert batch.attention_mask is not None
    assert batch.attention_mask.sum(dim=1).unique().numel() > 1
    return batch


def hf_inputs(batch: Batch) -> dict[str, torch.Tensor]:
    """A batch as transformers' own models take it."""
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if batch.token_type_ids is not None:
        inputs["token_type_ids"] = batch.token_type_ids
    return inputs


def closest_pair(logits: list[torch.Tensor]) -> float:
    """Smallest of the largest differences between any two subnets' logits on the same items."""
    table = torch.stack(logits).flatten(1)
    return torch.nn.functional.pdist(table, p=float("inf")).min().item()


def largest_gap(first: torch.Tensor, second: torch.Tensor) -> float:
    """Largest absolute difference."""
    assert first.shape == second.shape
    return (first - second).abs().max().item()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Folder of each family's classifier of `LABELS`."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {family: write_checkpoint(root / family, family) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def family(request):
    """Each family in turn."""
    return request.param


@pytest.fixture(scope="session")
def loaded(checkpoints):
    """Supernets of every family and pooling, which tests get copies of."""
    task, pairs = make_task(), [(family, pooling) for family in FAMILIES for pooling in POOLINGS]
    return {(f, p): Supernet.from_pretrained(checkpoints[f], task, pooling=p) for f, p in pairs}


def _copy(supernet: Supernet) -> Supernet:
    model = copy.deepcopy(supernet.model)
    return Supernet(model, supernet.tokenizer, fine_tuned=supernet.fine_tuned)


@pytest.fixture(params=[f"{family}-{pooling}" for family in FAMILIES for pooling in POOLINGS])
def supernet(request, loaded):
    """A supernet of each family and pooling in turn."""
    return _copy(loaded[tuple(request.param.split("-"))])


@pytest.fixture
def bert(loaded):
    """A BERT that counts as fine-tuned on `make_task()`."""
    return _copy(loaded["bert", "cls"])
