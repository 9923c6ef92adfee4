"""An exported subnet is complete in its folder and computes what the supernet's slices compute."""

from __future__ import annotations

import errno
import importlib
import json
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from rlnas.deploy.export import _version, export
from rlnas.deploy.files import CONFIG_FILE, FILES, MODEL_FILE
from rlnas.deploy.forms import read_forms
from rlnas.deploy.loading import load
from rlnas.deploy.onnx_file import OnnxModel
from rlnas.deploy.origin import DataFacts, Origin
from rlnas.errors import InvalidSubnetError, RunFolderError
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.supernet.encoding import collate
from rlnas.supernet.modeling_subnet import SubnetModel, SubnetModelConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rlnas.supernet.supernet import Supernet
    from rlnas.task import Task

MODULE = importlib.import_module("rlnas.deploy.export")  # the package has a function of its name
FAMILIES = ("bert", "roberta", "distilbert", "electra")
LABELS = ("bad", "good", "<odd|name>")
SUBNET = SubnetConfig((LayerConfig(1, 24), LayerConfig(0, 0), LayerConfig(2, 0)))

# Loads every exported folder as a stranger would, where `import rlnas` fails.
STRANGER = textwrap.dedent(
    """
    import json, sys, warnings

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "rlnas":
                raise ImportError("rlnas is not installed here")

    sys.meta_path.insert(0, Blocker())
    try:
        import rlnas
        raise SystemExit("rlnas could be imported")
    except ImportError:
        pass

    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    torch.set_num_threads(1)
    texts = json.loads(sys.argv[1])
    answers = {}
    for folder in sys.argv[2:]:
        model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
        inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**inputs).logits
        classify = pipeline("text-classification", model=folder, trust_remote_code=True)
        answers[folder] = {
            "logits": logits.tolist(),
            "length": inputs["input_ids"].shape[1],
            "one_text": len(tokenizer(texts[0])["input_ids"]),
            "tokenizer": type(tokenizer).__name__,
            "class": type(model).__name__,
            "pipeline": [classify(text, truncation=True, top_k=None) for text in texts],
        }
    assert not [name for name in sys.modules if name.partition(".")[0] == "rlnas"]
    print(json.dumps(answers))
    """
)
TEXTS = ("good film", "the plot was very very dull not fun", "a very long film " * 40)


def ask_stranger(folders: list[Path], cache: Path) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(cache),
        "HF_MODULES_CACHE": str(cache / "modules"),
    }
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, json.dumps(TEXTS), *map(str, folders)],
        cwd=cache,
        env=environment,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answers


def sliced_logits(supernet: Supernet, task: Task) -> np.ndarray:
    texts = task.final.take([0, 1, 2])
    texts = type(texts)(texts.name, TEXTS, None, texts.labels)
    batch = collate(supernet.encode(texts), [0, 1, 2])
    with torch.inference_mode():
        return supernet.forward(SUBNET, batch).numpy()


@pytest.fixture(scope="module")
def exported(supernets: Callable[[str, Task], Supernet], task: Task, tmp_path_factory: Any) -> Path:
    return export(supernets("bert", task), SUBNET, tmp_path_factory.mktemp("exported") / "deep" / "model")


def test_a_process_without_rlnas_loads_every_family_and_gets_the_sliced_logits(
    supernets: Callable[[str, Task], Supernet], task: Task, regression: Task, tmp_path: Path
):
    cases = {family: (supernets(family, task), task) for family in FAMILIES}
    cases["regression"] = (supernets("bert", regression), regression)
    folders = {name: export(supernet, SUBNET, tmp_path / name) for name, (supernet, _) in cases.items()}
    (tmp_path / "cache").mkdir()
    answers = ask_stranger(list(folders.values()), tmp_path / "cache")
    for name, (supernet, its_task) in cases.items():
        answer = answers[str(folders[name])]
        expected = sliced_logits(supernet, its_task)
        assert np.abs(np.array(answer["logits"]) - expected).max() <= 1e-5, name
        assert answer["class"] == "SubnetModel"
        assert answer["length"] == supernet.max_seq_len
        assert answer["one_text"] < supernet.max_seq_len
        for logits, said in zip(expected, answer["pipeline"], strict=True):
            scores = {entry["label"]: entry["score"] for entry in said}
            if its_task.is_regression:
                assert list(scores.values()) == pytest.approx([logits[0]], abs=1e-5)
            else:
                shares = np.exp(logits) / np.exp(logits).sum()
                assert scores == pytest.approx(dict(zip(LABELS, shares, strict=True)), abs=1e-5)
    assert answers[str(folders["roberta"])]["tokenizer"] == "RobertaTokenizer"


def test_the_config_names_classes_of_the_folder_itself(exported: Path):
    config = json.loads((exported / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "modeling_subnet.SubnetModelConfig",
        "AutoModelForSequenceClassification": "modeling_subnet.SubnetModel",
    }
    assert (exported / "modeling_subnet.py").read_bytes() == MODEL_FILE.read_bytes()


def test_the_folder_holds_the_subnet_as_json_and_safetensors(exported: Path):
    assert SubnetConfig.from_json((exported / CONFIG_FILE).read_text()) == SUBNET
    names = {file.name for file in exported.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= names
    assert {file.name for file in exported.parent.iterdir()} == {"model"}


def test_no_file_names_a_folder_of_this_machine(
    exported: Path, checkpoint: Callable[[str, Task], Path], task: Task
):
    for file in exported.iterdir():
        if file.suffix != ".safetensors":
            assert str(checkpoint("bert", task)) not in file.read_text()


def test_exporting_leaves_no_trace_on_the_classes_or_the_supernet(
    supernets: Callable[[str, Task], Supernet], task: Task, tmp_path: Path
):
    supernet = supernets("bert", task)
    subnet = supernet.extract(SUBNET)
    export(supernet, SUBNET, tmp_path / "model", weights=subnet)
    assert SubnetModel._auto_class is None
    assert SubnetModelConfig._auto_class is None
    assert getattr(subnet.config, "auto_map", None) is None
    supernet.save(tmp_path / "supernet")
    assert not (tmp_path / "supernet" / "modeling_subnet.py").exists()


def test_a_fixed_padding_of_the_tokenizer_is_not_exported(
    supernets: Callable[[str, Task], Supernet], task: Task, tmp_path: Path
):
    supernet = supernets("bert", task)
    supernet.tokenizer.backend_tokenizer.enable_padding(length=128)
    folder = export(supernet, SUBNET, tmp_path)
    stored = json.loads((folder / "tokenizer.json").read_text())
    assert stored["padding"] is None
    assert stored["truncation"]["max_length"] == 20
    tokenizer = AutoTokenizer.from_pretrained(folder, config=SubnetModelConfig.from_pretrained(folder))
    assert len(tokenizer("good film")["input_ids"]) == 4
    assert len(tokenizer("good film " * 50, truncation=True)["input_ids"]) == 20
    assert supernet.tokenizer.backend_tokenizer.padding["length"] == 128


def test_further_trained_weights_are_exported_instead_of_the_shared_ones(
    supernets: Callable[[str, Task], Supernet], task: Task, tmp_path: Path
):
    supernet = supernets("bert", task)
    trained = supernet.extract(SUBNET)
    with torch.no_grad():
        trained.head.out.bias.fill_(3.0)
    folder = export(supernet, SUBNET, tmp_path, weights=trained)
    loaded = SubnetModel.from_pretrained(folder, config=SubnetModelConfig.from_pretrained(folder))
    assert loaded.head.out.bias.tolist() == [3.0] * len(LABELS)


def test_the_export_shows_no_progress_bars_and_leaves_those_of_others_on(
    supernets: Callable[[str, Task], Supernet],
    task: Task,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    supernet = supernets("bert", task)
    monkeypatch.setattr(transformers_logging, "_tqdm_active", True)
    capfd.readouterr()
    export(supernet, SUBNET, tmp_path)
    assert capfd.readouterr() == ("", "")
    assert transformers_logging.is_progress_bar_enabled()


def test_weights_of_another_config_are_refused(
    supernets: Callable[[str, Task], Supernet], task: Task, tmp_path: Path
):
    supernet = supernets("bert", task)
    with pytest.raises(
        InvalidSubnetError, match=r"kept_heads=\[4, 4, 4\], but the config asks for \[1, 0, 2\]"
    ):
        export(supernet, SUBNET, tmp_path / "model", weights=supernet.model)
    assert not (tmp_path / "model").exists()


def test_a_config_beyond_the_supernet_is_refused(
    supernets: Callable[[str, Task], Supernet], task: Task, tmp_path: Path
):
    with pytest.raises(InvalidSubnetError, match="layer 0 may be at most 4"):
        export(supernets("bert", task), SubnetConfig((LayerConfig(5, 24),) * 3), tmp_path)


def test_an_unwritable_folder_is_named(
    supernets: Callable[[str, Task], Supernet], task: Task, tmp_path: Path
):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        RunFolderError, match=r"cannot write the model into .*file/model \(Not a directory\)"
    ):
        export(supernets("bert", task), SUBNET, tmp_path / "file" / "model")


def test_the_model_card_shows_figures_and_labels_as_plain_text(
    supernets: Callable[[str, Task], Supernet], task: Task, tmp_path: Path
):
    figures = {"accuracy": "0.9 | <b>bold</b>\n# heading"}
    card = (export(supernets("bert", task), SUBNET, tmp_path, figures=figures) / "README.md").read_text()
    assert "- accuracy: 0.9 \\| \\<b\\>bold\\</b\\> \\# heading\n" in card
    assert "bad, good, \\<odd\\|name\\>" in card
    assert "| 2 | 0 of 4 | 0 of 48 |" in card
    assert "\n# heading" not in card


def test_the_model_card_of_a_regression_says_so(
    supernets: Callable[[str, Task], Supernet], regression: Task, tmp_path: Path
):
    card = (export(supernets("bert", regression), SUBNET, tmp_path) / "README.md").read_text()
    assert "a regression model (one output)" in card


PLAIN = SubnetConfig((LayerConfig(4, 24), LayerConfig(0, 0), LayerConfig(4, 24)))


def test_a_model_of_its_family_is_written_as_that(
    supernets: Callable[[str, Task], Supernet], task: Task, tmp_path: Path
):
    supernet = supernets("bert", task)
    folder = export(supernet, PLAIN, tmp_path / "plain")
    assert not (folder / MODEL_FILE.name).exists()
    assert json.loads((folder / "config.json").read_text())["architectures"] == [
        "BertForSequenceClassification"
    ]
    (form,) = read_forms(folder)
    assert form.note == "a stock BertForSequenceClassification, which needs no code of its own"
    loaded = load(folder, trust_remote_code=False, is_judged=True)
    batch = collate(supernet.encode(task.final), list(range(24)))
    with torch.inference_mode():
        logits = loaded.module(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits
        torch.testing.assert_close(logits, supernet.forward(PLAIN, batch))


def test_why_a_model_carries_its_file_is_said(
    supernets: Callable[[str, Task], Supernet], task: Task, tmp_path: Path, exported: Path
):
    reason = "carries its own model file modeling_subnet.py, as layer 1 keeps 1 of 4 attention heads"
    assert read_forms(exported)[0].note == reason
    assert "as layer 1 keeps 1 of 4 attention heads." in (exported / "README.md").read_text()
    asked = export(supernets("bert", task), PLAIN, tmp_path / "asked", plain=False)
    assert read_forms(asked)[0].note.endswith("modeling_subnet.py, as was asked for")


def test_an_export_removes_what_an_earlier_one_left(
    supernets: Callable[[str, Task], Supernet], task: Task, tmp_path: Path
):
    folder = export(supernets("bert", task), SUBNET, tmp_path)
    (folder / "program.pt2").write_text("of the earlier model")
    (folder / "mine.txt").write_text("precious")
    export(supernets("bert", task), PLAIN, tmp_path)
    names = {file.name for file in folder.iterdir()}
    assert not names & {MODEL_FILE.name, "program.pt2"}
    assert (folder / "mine.txt").read_text() == "precious"


def test_an_export_that_fails_leaves_what_was_there(
    supernets: Callable[[str, Task], Supernet], task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fill(folder: Path, names: object, *_: object) -> None:
        (folder / "model.onnx").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(MODULE, "write_forms", fill)
    with pytest.raises(RunFolderError, match=r"cannot write the model into .*\(No space left on device\)"):
        export(supernets("bert", task), SUBNET, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "README.md").write_text("older")
    with pytest.raises(RunFolderError, match="No space left"):
        export(supernets("bert", task), SUBNET, tmp_path / "model")
    assert [file.name for file in (tmp_path / "model").iterdir()] == ["README.md"]
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_an_unknown_form_is_refused_before_anything_is_written(
    supernets: Callable[[str, Task], Supernet], task: Task, tmp_path: Path
):
    with pytest.raises(ValueError, match="but got 'onx'; did you mean 'onnx'"):
        export(supernets("bert", task), SUBNET, tmp_path / "model", forms=("onx",))
    assert list(tmp_path.iterdir()) == []


def test_int8_is_scored_by_the_metric_of_the_task(
    supernets: Callable[[str, Task], Supernet],
    task: Task,
    regression: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    asked: list[object] = []
    monkeypatch.setattr(MODULE, "write_forms", lambda *given: asked.append(given[2:]))
    export(supernets("bert", task), SUBNET, tmp_path, search=task.search)
    export(supernets("bert", regression), SUBNET, tmp_path)
    origin = Origin(data=DataFacts.of(regression))
    export(supernets("bert", regression), SUBNET, tmp_path, origin=origin)
    assert asked == [(task.search, "accuracy"), (None, "pearson"), (None, "spearman")]


def test_the_card_of_an_export_names_versions_and_full_sizes(exported: Path):
    card = (exported / "README.md").read_text()
    assert re.search(r"## Made with\n\nrlnas .*, torch .*, transformers 5", card)
    assert "| 1 | 1 of 4 | 24 of 48 |" in card
    assert _version("no-such-package") == "not installed"


def test_the_card_says_in_which_precision_to_serve(
    supernets: Callable[[str, Task], Supernet], task: Task, tmp_path: Path
):
    chosen = replace(SUBNET, precision="bfloat16")
    export(supernets("bert", task), chosen, tmp_path / "model")
    assert (
        "served in bfloat16: load it with `dtype=torch.bfloat16`."
        in (tmp_path / "model" / "README.md").read_text()
    )
    assert SubnetConfig.from_json((tmp_path / "model" / CONFIG_FILE).read_text()) == chosen


@pytest.mark.slow
def test_a_model_in_int8_brings_its_graph(
    supernets: Callable[[str, Task], Supernet], task: Task, tmp_path: Path
):
    pytest.importorskip("onnxruntime")
    export(supernets("bert", task), replace(SUBNET, precision="int8"), tmp_path / "model")
    served = OnnxModel(tmp_path / "model" / FILES["onnx-int8"])
    ids = np.array([[2, 6, 7, 3]])
    assert served(ids, np.ones_like(ids)).shape == (1, 3)
    assert [form.name for form in read_forms(tmp_path / "model")] == ["hf", "onnx-int8"]
    assert "run `model_int8.onnx` in ONNX Runtime" in (tmp_path / "model" / "README.md").read_text()
