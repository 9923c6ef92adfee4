"""Every export runs a sentence in a process without rlnas: MiniLM, and a tiny model of each family.

Of each checkpoint a subnet that carries its model file and, where the head is that of its family, one
that is a stock model are written in all forms. A process that cannot import `rlnas` (and for ONNX neither
torch nor transformers) then reads texts with what lies in the folder; its logits are compared with the
slices of the supernet.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.utils import logging

from benchmarks.equivalence import FAMILIES, LABELS, write_checkpoint
from benchmarks.record import make_parser, record
from rlnas.cli import minilm_path
from rlnas.deploy import export
from rlnas.errors import CheckpointError
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.supernet import Supernet
from rlnas.task import Split, Task

if TYPE_CHECKING:
    import numpy.typing as npt

TEXTS = ("the film", "its plot made no sense but the film was never dull", "never")
TOLERANCE = 1e-4
FORMS = {
    "hf": "model.safetensors",
    "onnx": "model.onnx",
    "onnx-int8": "model_int8.onnx",
    "torch": "program.pt2",
}

# Reads the texts with one form of a folder; of the packages only those that the form needs can be imported.
STRANGER = textwrap.dedent(
    """
    import json, sys

    form, file, texts, blocked = json.loads(sys.argv[1])
    for name in ("rlnas", *blocked):
        sys.modules[name] = None
    if form == "hf":
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
        from pathlib import Path
        trust = Path("modeling_subnet.py").exists()
        model = AutoModelForSequenceClassification.from_pretrained(".", trust_remote_code=trust).eval()
        tokenizer = AutoTokenizer.from_pretrained(".", trust_remote_code=trust)
        logits = model(**tokenizer(list(texts), padding=True, return_tensors="pt")).logits.tolist()
    else:
        from tokenizers import Tokenizer
        config = json.load(open("config.json"))
        tokenizer = Tokenizer.from_file("tokenizer.json")
        tokenizer.enable_padding(pad_id=config["pad_token_id"])
        encoded = tokenizer.encode_batch(texts)
        inputs = {
            "input_ids": [one.ids for one in encoded],
            "attention_mask": [one.attention_mask for one in encoded],
        }
        if (config.get("type_vocab_size") or 0) > 1:
            inputs["token_type_ids"] = [one.type_ids for one in encoded]
        if form == "torch":
            import torch
            program = torch.export.load(file).module()
            logits = program(**{name: torch.tensor(value) for name, value in inputs.items()}).tolist()
        else:
            import numpy as np
            import onnxruntime
            session = onnxruntime.InferenceSession(file)
            logits = session.run(["logits"], {n: np.array(v) for n, v in inputs.items()})[0].tolist()
    assert sys.modules["rlnas"] is None
    print(json.dumps(logits))
    """
)
BLOCKED = {"hf": (), "torch": ("transformers",), "onnx": ("torch", "transformers")}


def main() -> None:
    """Write all forms of all models, run each where `rlnas` is not, and record the differences."""
    parser = make_parser(__doc__, "exports.jsonl")
    parser.add_argument("--seed", type=int, default=0, help="of the tiny models' weights")
    parser.add_argument("--families", default=",".join(FAMILIES), help="tiny models to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    families = options.families.split(",")
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for family in families[:1] if options.quick else families:
            checkpoint = write_checkpoint(root / family, family, options.seed)
            supernet = Supernet.from_pretrained(checkpoint, _task())
            for kind, config in (("own", _uneven(supernet)), ("stock", _even(supernet))):
                rows[f"{family}-{kind}"] = _run_all(supernet, config, root / f"{family}-{kind}")
        if not options.quick:
            rows |= _minilm(root)
    for name, forms in rows.items():
        told = (f"{form} {row['gap']:.1e} ({row['megabytes']:.1f} MB)" for form, row in forms.items())
        print(f"{name:<17} " + ", ".join(told))
    exact = [row["gap"] for forms in rows.values() for form, row in forms.items() if form != "onnx-int8"]
    figures = {"n_ran": sum(map(len, rows.values())), "largest": max(exact), "tolerance": TOLERANCE}
    record("exports", options, figures | {"texts": len(TEXTS), "models": rows})
    if max(exact) > TOLERANCE:
        raise SystemExit(1)


def _minilm(root: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """MiniLM with mean pooling, its own, and with the head of a BERT, whose subnets can be stock models."""
    try:
        checkpoint = minilm_path()
    except CheckpointError as error:
        print(f"without MiniLM: {error}")
        return {}
    mean = Supernet.from_pretrained(checkpoint, _task())
    first = Supernet.from_pretrained(checkpoint, _task(), pooling="cls")
    return {
        "minilm-mean-own": _run_all(mean, _uneven(mean), root / "minilm-own"),
        "minilm-cls-stock": _run_all(first, _even(first), root / "minilm-stock"),
    }


def _run_all(supernet: Supernet, config: SubnetConfig, folder: Path) -> dict[str, dict[str, Any]]:
    """Of each form: the largest difference of a logit to the supernet's slices, and the file's size."""
    export(supernet, config, folder, forms=("all",))
    expected = _sliced(supernet, config)
    rows = {}
    for form, file in FORMS.items():
        gap = float(np.abs(_ask(form, file, folder) - expected).max())
        size = (folder / file).stat().st_size / 1e6
        rows[form] = {"gap": gap, "megabytes": round(size, 3)}
    scale = float(np.abs(expected).max())
    return {form: row | {"largest_logit": round(scale, 3)} for form, row in rows.items()}


def _ask(form: str, file: str, folder: Path) -> npt.NDArray[np.float64]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(folder.parent / "modules")}
    asked = json.dumps([form, file, TEXTS, BLOCKED[form.split("-")[0]]])
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, asked],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{folder.name} as {form} did not run: {done.stderr.strip().splitlines()[-1]}")
    return np.array(json.loads(done.stdout.splitlines()[-1]))


def _sliced(supernet: Supernet, config: SubnetConfig) -> npt.NDArray[np.float32]:
    """Logits of each text alone, without padding."""
    model = supernet.extract(config)
    encoded = supernet.encode(_task().search)
    with torch.inference_mode():
        rows = [model(torch.from_numpy(ids)[None]).logits[0].numpy() for ids in encoded.input_ids]
    return np.stack(rows)


def _uneven(supernet: Supernet) -> SubnetConfig:
    """Fewer heads, a lost FFN block, and a lost layer."""
    shape = supernet.shape
    heads, units, rest = shape.num_attention_heads, shape.intermediate_size, shape.num_hidden_layers - 3
    layers = (LayerConfig(heads // 2, units // 2), LayerConfig(0, 0), LayerConfig(heads, 0))
    return SubnetConfig((*layers, *[LayerConfig(heads, units)] * rest))


def _even(supernet: Supernet) -> SubnetConfig:
    """All heads, half of the FFN units, and a lost layer: a stock model."""
    shape = supernet.shape
    kept = LayerConfig(shape.num_attention_heads, shape.intermediate_size // 2)
    return SubnetConfig((kept, LayerConfig(0, 0), *[kept] * (shape.num_hidden_layers - 2)))


def _task() -> Task:
    split = Split("texts", TEXTS, None, np.array([0, 1, 2]))
    return Task("exports", split, split, split, LABELS)


if __name__ == "__main__":
    main()
