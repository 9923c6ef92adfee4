"""Models and requests that the tests of all modes run."""

from __future__ import annotations

import torch
import transformers
from torch import nn

from rlnas.supernet.modeling_subnet import SubnetModel, SubnetModelConfig

WIDTH, LABELS = 32, 3


class Narrow(nn.Module):
    """Two linear layers with `units` between them."""

    def __init__(self, units: int = 5) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(4, units), nn.Linear(units, 4)

    def forward(self, x: torch.Tensor, shift: torch.Tensor | None = None) -> torch.Tensor:
        out = self.outer(torch.relu(self.inner(x)))
        return out if shift is None else out + shift


class Refused(nn.Module):
    """A module that nothing but plain PyTorch can run: what it does depends on a value."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum().item() > 0 else x - 1


def subnet() -> SubnetModel:
    """Layers with both blocks, with one, and with none."""
    config = SubnetModelConfig(
        vocab_size=100,
        hidden_size=WIDTH,
        head_size=8,
        kept_heads=[2, 1, 0],
        kept_units=[16, 0, 0],
        max_position_embeddings=40,
        num_labels=LABELS,
    )
    return spread(SubnetModel(config))


def stock_bert() -> nn.Module:
    """A BERT of transformers."""
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.BertConfig(
        vocab_size=100, intermediate_size=16, max_position_embeddings=40, num_labels=LABELS, **sizes
    )
    return spread(transformers.BertForSequenceClassification(config))


def stock_distilbert() -> nn.Module:
    """A DistilBERT of transformers."""
    config = transformers.DistilBertConfig(
        vocab_size=100, dim=WIDTH, n_layers=2, n_heads=2, hidden_dim=16, num_labels=LABELS
    )
    return spread(transformers.DistilBertForSequenceClassification(config))


def spread(model: nn.Module) -> nn.Module:
    """Random weights of some width, so that logits differ between texts."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_scale = "norm" in name.lower() and name.endswith("weight")
            parameter.normal_(0.0, 0.2, generator=generator)
            parameter.add_(1.0 if is_scale else 0.0)
    return model.eval()


def texts() -> dict[str, torch.Tensor]:
    """A request of two texts, the second one padded."""
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(5, 100, (2, 9), generator=generator)
    mask = torch.ones_like(input_ids)
    mask[1, 5:] = 0
    return {"input_ids": input_ids, "attention_mask": mask}


def layer_inputs(*, masked: bool = True) -> dict[str, torch.Tensor | None]:
    """What a layer of `subnet` takes."""
    generator = torch.Generator().manual_seed(2)
    mask = SubnetModel.attention_mask(texts()["attention_mask"]) if masked else None
    return {"hidden": torch.randn(2, 9, WIDTH, generator=generator), "mask": mask}


CASES = {
    "subnet": lambda: (subnet(), texts()),
    "layer": lambda: (subnet().layers[0], layer_inputs()),
    "layer without mask": lambda: (subnet().layers[0], layer_inputs(masked=False)),
    "bert": lambda: (stock_bert(), texts()),
    "distilbert": lambda: (stock_distilbert(), texts()),
}
"""By name: a module and the inputs of a request."""
