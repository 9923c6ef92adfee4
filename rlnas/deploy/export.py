"""Writing a stand-alone subnet into a folder that stock transformers loads.

The folder carries its own model file, so `rlnas` is not needed where the model is used::

    AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
"""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError

from rlnas.deploy.serving import INT8_FILE
from rlnas.errors import InvalidSubnetError, RunFolderError
from rlnas.precision import INT8_BLOCKS
from rlnas.runtime import check_mode
from rlnas.runtime.onnx_model import write_onnx
from rlnas.supernet import modeling_subnet
from rlnas.supernet.checkpoint import quiet_transformers
from rlnas.supernet.modeling_subnet import SubnetModel, SubnetModelConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedTokenizerBase

    from rlnas.space import SubnetConfig
    from rlnas.supernet.supernet import Supernet

CONFIG_FILE = "subnet.json"
"""The `SubnetConfig` of an exported model, in its folder."""

MODEL_FILE = Path(modeling_subnet.__file__)
"""The model file that travels with every exported model."""


def export(
    supernet: Supernet,
    config: SubnetConfig,
    folder: str | Path,
    *,
    weights: SubnetModel | None = None,
    figures: Mapping[str, object] | None = None,
) -> Path:
    """Write a subnet with its model file, tokenizer, label names and a model card.

    Nothing is written outside the folder. Files of the same names are overwritten.

    Args:
        supernet: The shared weights, the tokenizer and the label names.
        config: The subnet.
        folder: Made if absent.
        weights: The subnet after further training; by default it is extracted from `supernet`.
        figures: What the model card says about the subnet, one line per entry, as plain text.

    Returns:
        The folder.

    Raises:
        InvalidSubnetError: If the config does not fit the supernet, or `weights` has other sizes.
        MissingDependencyError: If the config is in int8 and ONNX Runtime is not installed.
        DeviceError: If the config is in int8 and the model cannot be brought to ONNX.
        RunFolderError: If the folder cannot be written.
    """
    int8 = config.precision if config.precision in INT8_BLOCKS else None
    if int8 is not None:
        check_mode("onnxruntime", "cpu", int8)  # before anything is written
    if weights is None:
        weights = supernet.extract(config)
    else:
        supernet.check(config)
        _check_sizes(weights, config)
    model, tokenizer = _portable_model(weights), _portable_tokenizer(supernet)
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with quiet_transformers():
            model.save_pretrained(path)
        tokenizer.save_pretrained(path)
        shutil.copyfile(MODEL_FILE, path / MODEL_FILE.name)
        (path / CONFIG_FILE).write_text(config.to_json() + "\n", encoding="utf-8")
        if int8 is not None:
            write_onnx(_in_float32(weights), path / INT8_FILE, precision=int8)
        card = _model_card(supernet, config, {} if figures is None else figures)
        (path / "README.md").write_text(card, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunFolderError(
            f"cannot write the model into {path} ({reason}); choose a folder that can be written"
        ) from error
    return path


def _check_sizes(weights: SubnetModel, config: SubnetConfig) -> None:
    heads = [layer.num_attention_heads for layer in config.layers]
    units = [layer.intermediate_size for layer in config.layers]
    for name, wanted in (("kept_heads", heads), ("kept_units", units)):
        found = getattr(weights.config, name)
        if found != wanted:
            raise InvalidSubnetError(
                f"the weights have {name}={found}, but the config asks for {wanted}; "
                "pass the model that was extracted for this config"
            )


def _in_float32(weights: SubnetModel) -> SubnetModel:
    """A copy on the CPU."""
    model = copy.deepcopy(weights)
    model.to(device="cpu", dtype=torch.float32)  # type: ignore[call-arg]
    return model


def _portable_model(weights: SubnetModel) -> SubnetModel:
    """The same weights under a config that says where the classes are.

    ``register_for_auto_class`` would do the same, but for the class: every model saved later in
    this process would carry code as well.
    """
    model = copy.copy(weights)
    model.config = copy.deepcopy(weights.config)
    model.config.auto_map = {
        "AutoConfig": f"{MODEL_FILE.stem}.{SubnetModelConfig.__name__}",
        "AutoModelForSequenceClassification": f"{MODEL_FILE.stem}.{SubnetModel.__name__}",
    }
    return model


def _portable_tokenizer(supernet: Supernet) -> PreTrainedTokenizerBase:
    """The tokenizer with the supernet's length limit, and without padding of its own.

    Some tokenizer files pad every text to a fixed length (MiniLM's to 128), which costs the full
    latency for a short text.
    """
    tokenizer = copy.deepcopy(supernet.tokenizer)
    tokenizer.model_max_length = supernet.max_seq_len
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_padding()
        backend.enable_truncation(supernet.max_seq_len)
    return tokenizer


def _model_card(supernet: Supernet, config: SubnetConfig, figures: Mapping[str, object]) -> str:
    shape = supernet.shape
    kind = "a regression model (one output)"
    if supernet.label_names:
        kind = "a classifier for " + ", ".join(_plain(name) for name in supernet.label_names)
    rows = [
        f"| {index} | {layer.num_attention_heads} of {shape.num_attention_heads} "
        f"| {layer.intermediate_size} of {shape.intermediate_size} |"
        for index, layer in enumerate(config.layers, start=1)
    ]
    facts = [f"- {_plain(name)}: {_plain(value)}" for name, value in figures.items()]
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            "pipeline_tag: text-classification",
            "---",
            "",
            "# A subnet of a BERT model",
            "",
            f"This is {kind}, with {supernet.n_params(config):,} parameters. "
            "It was found by `rlnas`, which is not needed to use it.",
            "",
            *([*facts, ""] if facts else []),
            *_served_in(config),
            "## Use",
            "",
            _USAGE,
            f"With `truncation=True`, texts are cut to {supernet.max_seq_len} tokens. "
            f"The model's code is `{MODEL_FILE.name}` in this folder; `trust_remote_code=True` runs it.",
            "",
            "## What each layer kept",
            "",
            "| layer | attention heads | FFN units |",
            "| --- | --- | --- |",
            *rows,
            "",
            f"`{CONFIG_FILE}` holds the same for programs.",
            "",
        ]
    )


def _served_in(config: SubnetConfig) -> list[str]:
    """What the card says of the precision, if one was chosen."""
    if config.precision is None:
        return []
    how = f"load it with `dtype=torch.{config.precision}`"
    if config.precision in INT8_BLOCKS:
        how = (
            f"run `{INT8_FILE}` in ONNX Runtime on a CPU, one text a request, with the tokenizer's "
            "`input_ids`, `attention_mask` and `token_type_ids`"
        )
    elif config.precision == "float32":
        how = "load it as it is"
    return [f"It was chosen to be served in {config.precision}: {how}.", ""]


_USAGE = """\
```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

folder = "."  # this folder
classify = pipeline("text-classification", model=folder, trust_remote_code=True)
print(classify("A text.", truncation=True))

# or
model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
```
"""


def _plain(value: object) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]()<>#|&~$!])", r"\\\1", " ".join(str(value).split()))
