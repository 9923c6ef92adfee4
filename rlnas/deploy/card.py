"""The model card: what a model is, what it was measured to be, and how to load each of its forms."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from rlnas.deploy.files import CARD_FILE, CONFIG_FILE, FILES, MODEL_FILE
from rlnas.deploy.forms import read_forms
from rlnas.deploy.snippets import snippet
from rlnas.errors import CheckpointError, RunFolderError, first_line
from rlnas.latency import DeviceInfo
from rlnas.precision import INT8_BLOCKS
from rlnas.space import SubnetConfig
from rlnas.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rlnas.deploy.forms import Form
    from rlnas.deploy.origin import BaseModel, DataFacts, Origin
    from rlnas.space import ModelShape

HUB_METRICS = {"matthews": "matthews_correlation", "spearman": "spearmanr", "pearson": "pearsonr"}
"""Names of metrics on the hub, where they are others than ours."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What the folder of an exported model says of it.

    Attributes:
        config: What each layer kept.
        label_names: Class names in the order of the outputs; empty for regression.
        n_params: Number of parameters.
        max_seq_len: Tokens that longer texts are cut to.
        takes_types: Whether it tells token types apart.
        own_code: Whether it carries its own model file.
        forms: Its forms.
    """

    config: SubnetConfig
    label_names: tuple[str, ...]
    n_params: int
    max_seq_len: int
    takes_types: bool
    own_code: bool
    forms: tuple[Form, ...]

    @classmethod
    def read(cls, folder: Path) -> Exported:
        """Look into a folder.

        Raises:
            CheckpointError: If it holds no exported model, or a file is damaged.
        """
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
            kept = SubnetConfig.from_json((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            with safe_open(folder / FILES["hf"], framework="numpy") as weights:
                shapes = [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118
            names = {int(index): str(name) for index, name in (config.get("id2label") or {}).items()}
            is_regression = config.get("problem_type") == "regression"
            return cls(
                config=kept,
                label_names=() if is_regression else tuple(names[index] for index in sorted(names)),
                n_params=sum(map(math.prod, shapes)),
                max_seq_len=int(tokenizer["model_max_length"]),
                takes_types=int(config.get("type_vocab_size") or 0) > 1,
                own_code=(folder / MODEL_FILE.name).is_file(),
                forms=tuple(read_forms(folder)),
            )
        except CheckpointError:
            raise
        except Exception as error:  # json, safetensors and SubnetConfig each raise their own
            raise CheckpointError(
                f"{str(folder)!r} is no model that rlnas exported ({first_line(error)}); export it again"
            ) from error


def write_card(folder: Path, origin: Origin) -> Path:
    """Write the model card of the model in a folder.

    Args:
        folder: As `rlnas.deploy.export` has written it.
        origin: What else is known of the model.

    Returns:
        The card.

    Raises:
        CheckpointError: If the folder holds no exported model.
        RunFolderError: If the card cannot be written.
    """
    text, path = card_text(Exported.read(folder), origin), folder / CARD_FILE
    temporary = path.with_name(f".{CARD_FILE}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunFolderError(
            f"cannot write {str(path)!r} ({error.strerror or error}); choose a folder that can be written"
        ) from error
    return path


def card_text(model: Exported, origin: Origin) -> str:
    """The model card, in Markdown with a head that the Hugging Face hub reads."""
    parts = [
        "\n".join(_head(origin)),
        "\n".join(_opening(model, origin)),
        *_section("Measured", _measured(origin)),
        *_section("Data", _data(origin.data)),
        *_section("Training", _training(origin)),
        *_section("Use", _use(model)),
        *_section("What each layer kept", _kept(model.config, origin.shape)),
        *_section("Limits", _limits(model, origin)),
        *_section("Made with", _versions(origin)),
    ]
    return "\n\n".join(parts) + "\n"


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"## {title}", "\n".join(lines)] if lines else []


def _head(origin: Origin) -> list[str]:
    """YAML; a JSON string is one of YAML too."""
    lines = ["library_name: transformers", "pipeline_tag: text-classification", 'tags: ["rlnas"]']
    if origin.base is not None and origin.base.on_hub:
        lines.append(f"base_model: {json.dumps(origin.base.name)}")
    if origin.data is not None:
        if origin.data.hub_name is not None:
            lines.append(f"datasets: [{json.dumps(origin.data.hub_name)}]")
        lines.append(f"metrics: [{json.dumps(HUB_METRICS.get(origin.data.metric, origin.data.metric))}]")
    return ["---", *lines, "---"]


def _opening(model: Exported, origin: Origin) -> list[str]:
    kind = "a regression model (one output)"
    if model.label_names:
        kind = "a classifier for " + ", ".join(plain(name) for name in model.label_names)
    made_of = "" if origin.base is None else f", made of {_base_text(origin.base)}"
    lines = [
        "# A subnet of a BERT model",
        "",
        f"This is {kind}, with {model.n_params:,} parameters{made_of}. "
        "It was found by `rlnas`, which is not needed to use it.",
    ]
    facts = [f"- {plain(name)}: {plain(value)}" for name, value in origin.figures.items()]
    return [*lines, *(["", *facts] if facts else [])]


def _base_text(base: BaseModel) -> str:
    return plain(base.name) if base.on_hub else f"the checkpoint in the Python package {plain(base.name)}"


def _measured(origin: Origin) -> list[str]:
    """The certificate, in a table and sentences."""
    found = origin.certificate
    if found is None:
        return []
    judged = found["full"]["accuracy"] is not None
    accuracy = f" {found['metric']} | " if judged else ""
    lines = [f"| |{accuracy} latency, ms | parameters |", f"|---|{'---|' if judged else ''}---|---|"]
    for name, row in (("full model", found["full"]), ("this model", found["best"])):
        cells = [_with_interval(row["accuracy"], row["accuracy_ci"], 3)] if judged else []
        cells += [_with_interval(row["latency_ms"], row["latency_ci"], 2), f"{row['n_params']:,}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "Intervals are of 95 %."]
    if judged:
        lines[-1] += (
            f" Both models were judged on the same {found['full']['n_items']:,} items of the "
            f"{plain(found['full']['split'])} split of {plain(found['task_name'])}: this model loses "
            f"{_with_interval(found['loss_points'], found['loss_ci'], 1)} points of {found['metric']}."
        )
    return [*lines, "", _latency_text(found)]


def _latency_text(found: Mapping[str, Any]) -> str:
    """Ratio, target, workload, device, and what was wrong with the timings."""
    ratio = _with_interval(found["latency_ratio"], found["latency_ratio_ci"], 3)
    text = f"Its latency is {ratio} of the full model's"
    if found["target_met"] is not None:
        text += f"; the target {found['target_ratio']:g} is {'met' if found['target_met'] else 'missed'}"
    text += f". Both were timed in the same rounds: {Workload(**found['workload'])}, "
    if served := found.get("subnet_workload"):  # not in certificates of earlier versions
        text += f"the subnet in {served['dtype']}, {served['mode']}, "
    text += f"on {plain(DeviceInfo(**found['device']))}."
    prediction = found["prediction"]
    if prediction is not None:
        text += (
            f" For {plain(prediction['made_for'])}, which is not what was measured, a latency of "
            f"{prediction['ratio']:.3f} of the full model's is predicted."
        )
    return f"{text} Note: {plain(found['note'])}." if found["note"] else text


def _with_interval(value: float, bounds: list[float], digits: int) -> str:
    low, high = bounds
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _data(data: DataFacts | None) -> list[str]:
    if data is None:
        return []
    roles = ("its weights", "the choice among subnets", "the figures above, and for nothing else")
    lines = [f"The task is {plain(data.task)}, scored by {data.metric}.", ""]
    for n_items, name, role in zip(data.splits, data.names, roles, strict=True):
        lines.append(f"- {n_items:,} items of the {plain(name)} split for {role}")
    return [*lines, *(f"- {plain(note)}" for note in data.notes)]


def _training(origin: Origin) -> list[str]:
    return [f"- {plain(sentence)}" for sentence in origin.training]


def _served_in(precision: str | None) -> list[str]:
    """What the search chose the model to be served in, if it chose that."""
    if precision is None:
        return []
    how = f"load it with `dtype=torch.{precision}`"
    if precision in INT8_BLOCKS:
        how = f"run `{FILES['onnx-int8']}` in ONNX Runtime on a CPU, one text a request"
    elif precision == "float32":
        how = "load it as it is"
    return [f"It was chosen to be served in {precision}: {how}.", ""]


def _use(model: Exported) -> list[str]:
    lines = _served_in(model.config.precision)
    for form in model.forms:
        code = snippet(
            form.name,
            own_code=model.own_code,
            takes_types=model.takes_types,
            is_regression=not model.label_names,
        )
        if form.name == "onnx-int8" and "onnx" in {other.name for other in model.forms}:
            code = f"It runs as `{FILES['onnx']}` does."
        lines += [f"`{form.file}`: {plain(form.note)}.", "", code, ""]
    return [*lines, f"Texts are cut to {model.max_seq_len} tokens."]


def _kept(config: SubnetConfig, shape: ModelShape | None) -> list[str]:
    of_heads = "" if shape is None else f" of {shape.num_attention_heads}"
    of_units = "" if shape is None else f" of {shape.intermediate_size}"
    rows = [
        f"| {index} | {layer.num_attention_heads}{of_heads} | {layer.intermediate_size}{of_units} |"
        for index, layer in enumerate(config.layers, start=1)
    ]
    header = ["| layer | attention heads | FFN units |", "| --- | --- | --- |"]
    return [
        *header,
        *rows,
        "",
        f"A block of 0 is not there at all. `{CONFIG_FILE}` holds the same for programs.",
    ]


def _limits(model: Exported, origin: Origin) -> list[str]:
    lines = [
        "- On texts of another kind or language than those it was trained on, it may be wrong more often.",
        "- What it learnt of its base model, biases included, is still there.",
    ]
    if origin.certificate is None:
        lines.insert(0, "- Neither its accuracy nor its latency was certified.")
    else:
        lines.insert(
            0, "- Milliseconds are of that device and workload; ratios travel better than milliseconds."
        )
        if len(model.forms) > 1:
            lines.insert(
                1, f"- The figures are of `{FILES['hf']}`; other forms have latencies of their own."
            )
    return lines


def _versions(origin: Origin) -> list[str]:
    told = [f"{plain(name)} {plain(number)}" for name, number in origin.versions.items()]
    return [", ".join(told)] if told else []


def plain(value: object) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]()<>#|&~$!])", r"\\\1", " ".join(str(value).split()))
