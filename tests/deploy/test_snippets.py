"""What a card says about loading a form is run here, where `rlnas` cannot be imported."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from rlnas.deploy.export import export
from rlnas.deploy.forms import FORMS
from rlnas.deploy.snippets import snippet
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.task import Split

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

PLAIN = SubnetConfig((LayerConfig(4, 24), *[LayerConfig(0, 0)] * 2))
TEXTS = ("A text.", "A longer text than that.")  # of the snippets

# Runs the snippets of a folder's card, given by the lines that name them; some packages cannot be imported.
STRANGER = textwrap.dedent(
    """
    import contextlib, io, json, os, re, sys

    blocked, forms = json.loads(sys.argv[1])
    for name in blocked:
        sys.modules[name] = None
    try:
        import rlnas
        raise SystemExit("rlnas could be imported")
    except ImportError:
        pass
    card = open("README.md", encoding="utf-8").read()
    answers = {}
    for file in forms:
        code = re.search(f"`{file}`:.*?```python\\n(.*?)```", card, re.DOTALL)[1]
        names, printed = {}, io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        answers[file] = {"printed": printed.getvalue()}
        if "logits" in names:
            answers[file]["logits"] = names["logits"].tolist()
    loaded = {name.partition(".")[0] for name, module in sys.modules.items() if module is not None}
    assert not loaded & set(blocked), loaded & set(blocked)
    print(json.dumps(answers))
    """
)


def ask_stranger(folder, files, blocked, cache):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(cache), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, json.dumps([["rlnas", *blocked], files])],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def exported(supernets, task, tmp_path_factory):
    """A folder with all forms, and the logits of `TEXTS`."""
    supernet = supernets("bert", task)
    folder = export(supernet, PLAIN, tmp_path_factory.mktemp("all") / "model", forms=("all",))
    texts = supernet.encode(Split("texts", TEXTS, None, np.zeros(2, dtype=np.int64)))
    with torch.inference_mode():
        model = supernet.extract(PLAIN)
        logits = [model(torch.from_numpy(ids)[None]).logits[0].numpy() for ids in texts.input_ids]
    return folder, np.stack(logits)


def test_onnx_and_int8_run_with_onnxruntime_and_tokenizers_alone(exported, tmp_path):
    folder, expected = exported
    blocked = ("torch", "transformers", "onnx")
    answer = ask_stranger(folder, ["model.onnx"], blocked, tmp_path)["model.onnx"]
    assert np.abs(np.array(answer["logits"]) - expected).max() <= 1e-4
    (folder / "model.onnx").rename(folder / "kept")
    (folder / "model_int8.onnx").rename(folder / "model.onnx")  # the card says that it runs alike
    answer = ask_stranger(folder, ["model.onnx"], blocked, tmp_path)["model.onnx"]
    (folder / "model.onnx").rename(folder / "model_int8.onnx")
    (folder / "kept").rename(folder / "model.onnx")
    gap = np.abs(np.array(answer["logits"]) - expected).max()
    assert 0 < gap <= 0.1 * np.abs(expected).max()


def test_a_stock_folder_runs_in_a_pipeline_that_trusts_no_code(exported, task, tmp_path):
    folder, expected = exported
    answer = ask_stranger(folder, ["model.safetensors"], (), tmp_path)["model.safetensors"]
    classes = [task.label_names[index] for index in expected.argmax(axis=1)]
    assert re.findall(r"'label': '(.*?)'", answer["printed"]) == classes
    assert "trust_remote_code" not in (folder / "README.md").read_text()
    assert not (folder / "modeling_subnet.py").exists()


def test_a_program_runs_with_torch_and_tokenizers_alone(exported, tmp_path):
    folder, expected = exported
    answer = ask_stranger(folder, ["program.pt2"], ("transformers",), tmp_path)["program.pt2"]
    assert np.abs(np.array(answer["logits"]) - expected).max() <= 1e-4


@pytest.mark.parametrize("takes_types", [True, False])
@pytest.mark.parametrize("is_regression", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_snippets_are_python_that_fits_the_model(form, takes_types, is_regression):
    text = snippet(form, own_code=True, takes_types=takes_types, is_regression=is_regression)
    code = text.removeprefix("```python\n").removesuffix("```")
    compile(code, form, "exec")
    if form != "hf":
        assert ("token_type_ids" in code) == takes_types
        assert ("id2label" in code) != is_regression
        assert "FILE" not in code
        assert "TYPES" not in code
