"""Writing a stand-alone subnet into a folder that stock transformers loads.

Where the subnet is a model of its family, the folder holds that; else it carries its own model file,
so that `rlnas` is never needed where the model is used::

    AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
"""

from __future__ import annotations

import copy
import os
import shutil
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError

from rlnas.deploy.agreement import check_agreement, ready
from rlnas.deploy.card import write_card
from rlnas.deploy.files import CARD_FILE, CONFIG_FILE, FILES, FORMS_FILE, MODEL_FILE
from rlnas.deploy.forms import Form, check_forms, save_forms, write_forms
from rlnas.deploy.onnx_file import write_in_precision
from rlnas.deploy.origin import Origin
from rlnas.deploy.plain import obstacle_to_plain, plain_model
from rlnas.errors import InvalidSubnetError, RunFolderError
from rlnas.precision import INT8_BLOCKS
from rlnas.runtime import check_mode
from rlnas.supernet.checkpoint import quiet_transformers
from rlnas.supernet.modeling_subnet import SubnetModel, SubnetModelConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rlnas.space import SubnetConfig
    from rlnas.supernet.supernet import Supernet
    from rlnas.task import Split

VERSIONED = ("rlnas", "torch", "transformers")


def export(
    supernet: Supernet,
    config: SubnetConfig,
    folder: str | Path,
    *,
    weights: SubnetModel | None = None,
    figures: Mapping[str, object] | None = None,
    forms: Sequence[str] = ("hf",),
    origin: Origin | None = None,
    search: Split | None = None,
    plain: bool = True,
) -> Path:
    """Write a subnet with its tokenizer, label names and a model card, in one form or several.

    Nothing is written outside the folder. Files of the same names are overwritten, those of forms that
    are not asked for now are removed. Nothing is left in the folder of an export that fails.

    Args:
        supernet: The shared weights, the tokenizer and the label names.
        config: The subnet.
        folder: Made if absent.
        weights: The subnet after further training; by default it is extracted from `supernet`.
        figures: What the model card says about the subnet, one line per entry, as plain text.
        forms: See `rlnas.deploy.forms.check_forms`.
        origin: What else the model card says; by default the sizes of the full model and the versions
            of the packages here.
        search: Labelled items on which the loss of int8 is measured; None measures none.
        plain: Whether a subnet that is a model of its family is written as that, see
            `rlnas.deploy.plain`; else it carries the model file as all others do.

    Returns:
        The folder.

    Raises:
        InvalidSubnetError: If the config does not fit the supernet, or `weights` has other sizes.
        RunFolderError: If the folder cannot be written.
        ExportError: If a form cannot be written, or computes something else than the model.
        MissingDependencyError: If a package that a form, or the config's precision, needs is not installed.
        ValueError: If there is no such form.
    """
    chosen = check_forms(forms)
    if config.precision in INT8_BLOCKS:
        check_mode("onnxruntime", "cpu", config.precision)  # before anything is written
    if weights is None:
        weights = supernet.extract(config)
    else:
        supernet.check(config)
        _check_sizes(weights, config)
    known = Origin(versions={name: _version(name) for name in VERSIONED}) if origin is None else origin
    known = replace(known, shape=supernet.shape, figures={**known.figures, **(figures or {})})
    path = Path(folder)
    temporary = path.resolve().with_name(f".{path.resolve().name}.export")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _write_folder(supernet, config, weights, temporary, plain=plain)
        metric = "pearson" if supernet.is_regression else "accuracy"
        if known.data is not None:
            metric = known.data.metric
        write_forms(temporary, chosen, search, metric)
        write_card(temporary, known)
        _move(temporary, path)
    except (OSError, SafetensorError) as error:
        if isinstance(error, RunFolderError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise RunFolderError(
            f"cannot write the model into {path} ({reason}); choose a folder that can be written"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def _write_folder(
    supernet: Supernet, config: SubnetConfig, weights: SubnetModel, path: Path, *, plain: bool
) -> None:
    """The form of transformers: weights, tokenizer and, where it needs one, the model file."""
    obstacle = obstacle_to_plain(weights.config)
    model: PreTrainedModel
    if plain and obstacle is None:
        model = plain_model(weights)
        own, stock = ready(weights), ready(model)
        kind = type(model).__name__
        check_agreement(own, lambda request: stock(**request).logits.detach().numpy(), f"the {kind}")
        note = f"a stock {kind}, which needs no code of its own"
    else:
        model = _portable_model(weights)
        shutil.copyfile(MODEL_FILE, path / MODEL_FILE.name)
        why = "as was asked for" if obstacle is None else f"as {obstacle}"
        note = f"carries its own model file {MODEL_FILE.name}, {why}"
    with quiet_transformers():
        model.save_pretrained(path)
    _portable_tokenizer(supernet).save_pretrained(path)
    (path / CONFIG_FILE).write_text(config.to_json() + "\n", encoding="utf-8")
    forms = [Form("hf", FILES["hf"], note)]
    if config.precision in INT8_BLOCKS:
        write_in_precision(_in_float32(weights), path / FILES["onnx-int8"], config.precision)
        forms.append(Form("onnx-int8", FILES["onnx-int8"], f"in {config.precision}, as the search chose"))
    save_forms(path, forms)


def _move(source: Path, target: Path) -> None:
    """Bring all files to their place, and remove what an earlier export has left there."""
    target.mkdir(parents=True, exist_ok=True)
    files = set(FILES.values())
    ours = {*files, *(f"{file}.data" for file in files), MODEL_FILE.name, CARD_FILE, FORMS_FILE}
    for name in ours - {file.name for file in source.iterdir()}:
        (target / name).unlink(missing_ok=True)
    for file in source.iterdir():
        os.replace(file, target / file.name)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


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
