"""Write a checkpoint of BERT's shape with random weights: for latency and memory, never for accuracy.

The tokenizer is MiniLM's, which is that of bert-base-uncased.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from rlnas.cli import minilm_path

SHAPES = {
    "bert-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "small": {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4},
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
}


def main() -> None:
    """Write the checkpoint and print its size."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--shape", choices=tuple(SHAPES), default="bert-base")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    options = parser.parse_args()
    n_params = write_checkpoint(options.shape, options.out, options.seed)
    print(json.dumps({"shape": options.shape, "n_params": n_params}))


def write_checkpoint(shape: str, folder: Path, seed: int = 0) -> int:
    """Write a checkpoint of one of `SHAPES`; returns its number of parameters."""
    sizes = SHAPES[shape]
    torch.manual_seed(seed)
    model = BertForSequenceClassification(BertConfig(**sizes, intermediate_size=4 * sizes["hidden_size"]))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(minilm_path()).save_pretrained(folder)
    return model.num_parameters()


if __name__ == "__main__":
    main()
