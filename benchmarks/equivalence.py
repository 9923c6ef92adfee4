"""Whether a subnet answers alike in every form: masked, sliced, extracted, and saved and reloaded.

Random checkpoints of the four families with both poolings, and the real MiniLM; random subnets with
blocks and layers dropped; batches with padding, in float32. The figures are the largest differences
of logits to the sliced form and, as a control, the smallest between any two subnets. For the largest
subnet, also the differences to the last hidden state of the encoder of transformers and to the logits
of its classifier.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tokenizers import pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    BertTokenizer,
    DistilBertTokenizer,
    ElectraTokenizer,
    RobertaTokenizer,
)
from transformers.utils import logging

from benchmarks.record import make_parser, record
from rlnas.cli import minilm_path
from rlnas.errors import CheckpointError
from rlnas.space import LayerwiseSpace, SubnetConfig
from rlnas.supernet import Supernet
from rlnas.supernet.encoding import Batch, sorted_batches
from rlnas.supernet.masking import masked_forward
from rlnas.supernet.modeling_subnet import SubnetModel
from rlnas.task import Split, Task

if TYPE_CHECKING:
    import argparse

    from transformers import PreTrainedTokenizerBase

TOLERANCE = 1e-5
LABELS = ("one", "two", "three")
WORDS = ("the", "film", "was", "never", "dull", "but", "its", "plot", "made", "no", "sense")
SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
DISTILBERT_SIZES = dict(zip(("dim", "n_layers", "n_heads", "hidden_dim"), SIZES.values(), strict=True))
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": SIZES,
    "roberta": SIZES | {"type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    "distilbert": DISTILBERT_SIZES,
    "electra": SIZES | {"embedding_size": 24},  # not the hidden size, so that it is projected
}
WORD_PIECE = {"bert": BertTokenizer, "distilbert": DistilBertTokenizer, "electra": ElectraTokenizer}


def main() -> None:
    """Compare the forms of every family and of MiniLM, and record the largest differences."""
    parser = make_parser(__doc__, "equivalence.jsonl")
    parser.add_argument("--configs", type=int, default=200, help="random subnets of each checkpoint")
    parser.add_argument("--device", default="cpu", help="where the models run, e.g. cuda")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, the subnets and the texts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    n_configs = 10 if options.quick else options.configs
    gaps: dict[str, dict[str, float]] = {}
    closest: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for family in FAMILIES:
            folder = write_checkpoint(Path(temporary) / family, family, options.seed)
            for pooling in ("cls", "mean"):
                name = f"{family}-{pooling}"
                gaps[name], closest[name] = _compare(folder, pooling, n_configs, options)
        try:
            name, folder = "minilm-mean", Path(minilm_path())
            gaps[name], closest[name] = _compare(folder, "mean", n_configs, options)
        except CheckpointError as error:
            print(f"without MiniLM: {error}")
    for name, row in gaps.items():
        print(f"{name:<16} " + ", ".join(f"{form} {gap:.1e}" for form, gap in row.items()))
    largest = max(gap for row in gaps.values() for gap in row.values())
    figures = {"n_configs": n_configs, "largest": largest, "tolerance": TOLERANCE, "gaps": gaps}
    record("equivalence", options, figures | {"closest_subnets": closest}, options.device)
    # Alike in every form says little where all subnets are alike.
    if largest > TOLERANCE or min(closest.values()) <= TOLERANCE:
        raise SystemExit(1)


def _compare(
    checkpoint: Path, pooling: str, n_configs: int, options: argparse.Namespace
) -> tuple[dict[str, float], float]:
    """Largest difference of each form, and the smallest between the logits of two subnets."""
    task, device = make_task(options.seed), options.device
    supernet = Supernet.from_pretrained(checkpoint, task, pooling=pooling, device=device)
    batch = next(sorted_batches(supernet.encode(task.search), len(task.search), device))
    gaps = _gaps_of_the_largest(supernet, checkpoint, batch)
    answers = []
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        for config in random_configs(supernet, n_configs, options.seed):
            sliced = supernet.forward(config, batch)
            extracted = supernet.extract(config)
            extracted.save_pretrained(folder)
            forms = {
                "masked": masked_forward(supernet, config, batch),
                "extracted": extracted(**_inputs(batch)).logits,
                "reloaded": SubnetModel.from_pretrained(folder).to(device)(**_inputs(batch)).logits,
            }
            for form, logits in forms.items():
                gaps[form] = max(gaps.get(form, 0.0), _gap(sliced, logits))
            answers.append(sliced.flatten())
    return gaps, torch.nn.functional.pdist(torch.stack(answers), p=float("inf")).min().item()


def _gaps_of_the_largest(supernet: Supernet, checkpoint: Path, batch: Batch) -> dict[str, float]:
    """Differences to transformers' own encoder, and to its classifier where it pools alike."""
    model, gaps = supernet.model, {}
    with torch.inference_mode():
        hidden = model.embeddings(batch.input_ids, batch.token_type_ids)
        for layer in model.layers:
            hidden = layer(hidden, model.attention_mask(batch.attention_mask))
        encoder = AutoModel.from_pretrained(checkpoint).to(hidden.device).eval()
        theirs = encoder(**_inputs(batch)).last_hidden_state
        is_token = (
            torch.ones_like(batch.input_ids) if batch.attention_mask is None else batch.attention_mask
        )
        gaps["encoder"] = _gap(hidden[is_token.bool()], theirs[is_token.bool()])
        if supernet.fine_tuned:
            classifier = AutoModelForSequenceClassification.from_pretrained(checkpoint)
            classifier.to(hidden.device).eval()
            logits = supernet.forward(supernet.shape.full, batch)
            gaps["classifier"] = _gap(logits, classifier(**_inputs(batch)).logits)
    return gaps


def _gap(first: torch.Tensor, second: torch.Tensor) -> float:
    return (first - second).abs().max().item()


def _inputs(batch: Batch) -> dict[str, torch.Tensor]:
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    inputs["token_type_ids"] = batch.token_type_ids
    return {name: tensor for name, tensor in inputs.items() if tensor is not None}


def random_configs(supernet: Supernet, n: int, seed: int) -> list[SubnetConfig]:
    """Distinct members, the smallest and the largest among them."""
    space, rng = LayerwiseSpace.for_model(supernet.shape), np.random.default_rng(seed)
    configs = {space.smallest(): None, space.largest(): None}
    while len(configs) < n:
        configs[space.sample(rng)] = None
    return list(configs)


def make_task(seed: int) -> Task:
    """Pairs of texts of unlike lengths: a batch of them has padding and both token types."""
    rng = np.random.default_rng(seed)
    firsts, seconds = ([" ".join(rng.choice(WORDS, size=n)) for n in (1, 4, 7, 11)] for _ in range(2))
    split = Split("texts", tuple(firsts), tuple(seconds), np.array([0, 1, 2, 0]))
    return Task("equivalence", split, split, split, LABELS)


def write_checkpoint(folder: Path, family: str, seed: int) -> Path:
    """A classifier with random weights of some width: with the usual 0.02 all subnets answer alike."""
    tokenizer = _tokenizer(family)
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **FAMILIES[family], **labels)
    model = AutoModelForSequenceClassification.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_scale = "norm" in name.lower() and name.endswith("weight")
            parameter.normal_(1.0 if is_scale else 0.0, 0.2, generator=generator)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(family: str) -> PreTrainedTokenizerBase:
    if family == "roberta":
        pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
        return RobertaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[])
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    return WORD_PIECE[family](vocab={piece: i for i, piece in enumerate(pieces)})


if __name__ == "__main__":
    main()
