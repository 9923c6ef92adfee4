"""Right models pass, and each sabotage fails with the sentence that is meant for it."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from rlnas.deploy.audit import Scope, audit
from rlnas.deploy.export import export
from rlnas.deploy.files import FILES
from rlnas.deploy.onnx_file import write_onnx
from rlnas.deploy.program import write_program
from rlnas.deploy.weights_file import weights_digest
from rlnas.errors import CheckpointError, ExportError, InvalidSubnetError, MissingDependencyError
from rlnas.space import LayerConfig, SubnetConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rlnas.supernet.supernet import Supernet
    from rlnas.task import Task

audit_module = importlib.import_module("rlnas.deploy.audit")

SUBNET = SubnetConfig((LayerConfig(1, 24), LayerConfig(0, 0), LayerConfig(2, 0)))
BRIEF = Scope(onnx=False)


@pytest.fixture(scope="module")
def supernet(supernets: Callable[[str, Task], Supernet], task: Task) -> Supernet:
    return supernets("bert", task)


@pytest.fixture(scope="module")
def exported(supernet: Supernet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(supernet, SUBNET, tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def onnx_file(supernet: Supernet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_onnx(supernet.extract(SUBNET), tmp_path_factory.mktemp("onnx") / FILES["onnx"])


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "model")


@pytest.fixture
def full(checkpoint: Callable[[str, Task], Path], task: Task, tmp_path: Path) -> Path:
    return shutil.copytree(checkpoint("bert", task), tmp_path / "full")


def alter(folder: Path, value: float = 0.5) -> None:
    """Change one weight in the file."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["layers.0.ffn.outer.weight"][3, 2] += value
    save_file(weights, path, metadata={"format": "pt"})


def certify(folder: Path, **more: object) -> None:
    values = {"weights_sha256": weights_digest(folder), **more}
    (folder / "certificate.json").write_text(json.dumps(values))


def claim(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def by_name(found: Any) -> dict[str, Any]:
    return {finding.name: finding for finding in found.findings}


def test_all_forms_of_an_export_agree_with_its_supernet(
    folder: Path, supernet: Supernet, task: Task, onnx_file: Path
):
    shutil.copy(onnx_file, folder / FILES["onnx"])
    found = audit(folder, supernet=supernet, task=task)
    assert found.passed, found
    assert {pair.second for pair in found.comparisons if pair.first == "sliced"} == {
        "masked",
        "extracted",
        "reloaded",
        "onnx",
    }
    assert len(found.comparisons) == 10
    assert all(pair.n_flips == 0 for pair in found.comparisons)
    assert by_name(found)["weights"].sentence == "the file holds the supernet's weights, bit for bit"
    assert found.notes[0].startswith(
        "compared on 8 items of the search split and 14 random requests of 1 to "
    )
    n_items = found.comparisons[0].n_items
    assert found.verdict == f"audit passed: 5 forms agree on {n_items} items, 8 claims hold"


def test_only_search_items_are_looked_at(exported: Path, task: Task, monkeypatch: pytest.MonkeyPatch):
    seen = []
    real = audit_module.encode
    monkeypatch.setattr(
        audit_module, "encode", lambda tokenizer, split, n: seen.append(split) or real(tokenizer, split, n)
    )
    assert audit(exported, task=task, scope=BRIEF).passed
    assert seen == [task.search]


def test_without_a_supernet_the_file_is_audited_alone(exported: Path):
    found = audit(exported, scope=BRIEF)
    assert found.passed
    assert [(pair.first, pair.second) for pair in found.comparisons] == [("loaded", "reloaded")]
    assert "masked, sliced and extracted were not compared, as no supernet was given" in found.notes
    assert "ONNX was not compared, as asked" in found.notes


def test_an_altered_weight_is_found_beside_the_supernet(folder: Path, supernet: Supernet):
    alter(folder)
    found = audit(folder, supernet=supernet, scope=BRIEF)
    assert found.verdict.startswith(
        "audit FAILED: the weights are not the supernet's: 'layers.0.ffn.outer.weight' differs by up to "
        "5.0e-01, in 1 of "
    )
    assert found.verdict.endswith("had it a last training or a repair, say so (--trained-further)")
    assert by_name(found)["forms"].passed is False


def test_an_altered_weight_is_found_by_its_digest(folder: Path):
    certify(folder)
    assert audit(folder, scope=Scope(onnx=False, latency=False)).passed
    alter(folder, 1e-4)
    found = audit(folder, scope=Scope(onnx=False, latency=False))
    assert found.verdict.startswith("audit FAILED: the weights are not those that were certified: ")
    assert by_name(found)["forms"].passed


def test_a_wrong_parameter_claim_is_found(folder: Path, supernet: Supernet):
    n_params = supernet.n_params(SUBNET)
    certify(folder, best={"n_params": n_params + 1})
    found = audit(folder, scope=Scope(onnx=False, latency=False))
    assert found.verdict == (
        f"audit FAILED: certificate.json claims {n_params + 1:,} parameters, "
        f"but the file holds {n_params:,}"
    )


def test_a_model_that_was_trained_further_is_compared_in_two_groups(folder: Path, supernet: Supernet):
    alter(folder)
    told = audit(folder, supernet=supernet, scope=Scope(onnx=False, trained_further=True))
    certify(folder)
    certified = audit(folder, supernet=supernet, scope=Scope(onnx=False, latency=False))
    for found in (told, certified):
        assert found.passed, found
        assert [(pair.first, pair.second) for pair in found.comparisons] == [
            ("sliced", "masked"),
            ("sliced", "extracted"),
            ("masked", "extracted"),
            ("loaded", "reloaded"),
        ]
        assert found.notes[-1].startswith(
            "the model had a last training or a repair, so its weights are not "
        )


def test_a_model_that_should_have_the_shared_weights_and_has_not_fails(folder: Path, supernet: Supernet):
    alter(folder)
    certify(folder)
    scope = Scope(onnx=False, latency=False, trained_further=False)
    found = audit(folder, supernet=supernet, scope=scope)
    assert found.verdict.startswith("audit FAILED: the weights are not the supernet's: ")
    assert "--trained-further" not in found.verdict


def test_weights_that_are_not_finite_fail(folder: Path):
    alter(folder, float("nan"))
    found = audit(folder)
    assert found.verdict == (
        "audit FAILED: 1 weights are not finite numbers, 1 of them in 'layers.0.ffn.outer.weight'"
    )
    assert "ONNX was not compared, as some weights are not finite numbers" in found.notes
    assert (
        by_name(found)["forms"].sentence == "logits of the form loaded or reloaded are not finite numbers"
    )


def test_a_config_that_does_not_fit_the_weights_ends_the_audit(folder: Path, supernet: Supernet):
    claim(folder, kept_units=[23, 0, 0])
    found = audit(folder, scope=BRIEF)
    assert found.verdict.startswith(
        "audit FAILED: subnet.json claims the subnet 1h24 - 2h0, but config.json "
    )
    assert found.comparisons == ()
    assert found.notes == ("no form was compared, as the weights do not fit the config",)


def test_a_model_that_stock_transformers_cannot_load_fails(folder: Path):
    config = json.loads((folder / "config.json").read_text())
    claim(folder, auto_map=config["auto_map"] | {"AutoConfig": "modeling_subnet.NoSuchConfig"})
    found = audit(folder, scope=BRIEF)
    assert found.verdict.startswith("audit FAILED: stock transformers cannot load ")


def test_rounded_weights_agree_within_the_coarser_tolerance(supernet: Supernet, tmp_path: Path):
    folder = export(supernet, SUBNET, tmp_path, weights=supernet.extract(SUBNET).bfloat16())
    found = audit(folder, supernet=supernet, scope=BRIEF)
    assert found.passed, found
    assert by_name(found)["precision"].value == "bfloat16"
    (first,) = (pair for pair in found.comparisons if (pair.first, pair.second) == ("sliced", "reloaded"))
    assert first.largest_difference > 1e-4


def test_an_onnx_file_of_other_weights_fails(folder: Path, onnx_file: Path):
    alter(folder)
    shutil.copy(onnx_file, folder / FILES["onnx"])
    assert re.match("audit FAILED: the forms (loaded|reloaded) and onnx differ by ", audit(folder).verdict)


def test_a_run_without_the_certificate_of_its_model_fails(folder: Path):
    found = audit(folder, summary={"latency_ratio": 0.5}, scope=BRIEF)
    assert found.verdict == (
        "audit FAILED: the run has certified the model, but its certificate.json is missing or empty"
    )


def test_a_tokenizer_that_knows_no_longest_text_is_cut_to_what_the_model_takes(full: Path, task: Task):
    path = full / "tokenizer_config.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({name: stored[name] for name in stored if name != "model_max_length"}))
    found = audit(full, task=task, scope=BRIEF)
    assert found.notes[0].startswith("compared on 8 items of the search split ")
    assert "requests of 1 to 40 tokens" in found.notes[0]


def test_an_onnx_file_that_is_damaged_fails(folder: Path):
    (folder / FILES["onnx"]).write_bytes(b"damaged")
    found = audit(folder)
    assert by_name(found)["onnx"].passed is False
    assert found.verdict.startswith("audit FAILED: cannot read the ONNX file ")


def test_a_model_that_is_served_in_int8_is_compared_in_int8(
    supernet: Supernet, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("onnxruntime")
    folder = export(supernet, replace(SUBNET, precision="int8"), tmp_path / "model")
    served, right = folder / FILES["onnx-int8"], tmp_path / "right"
    shutil.copy(onnx_file, folder / FILES["onnx"])
    found = audit(folder, supernet=supernet)
    assert found.passed, found
    assert ("int8", "int8 anew") in {(pair.first, pair.second) for pair in found.comparisons}
    assert "model_int8.onnx was not compared, as asked" in audit(folder, scope=BRIEF).notes
    # Tracing takes seconds, so what is right is copied from here on.
    served.rename(right)
    monkeypatch.setattr(audit_module, "write_in_precision", lambda _, path, __: shutil.copy(right, path))
    assert audit(folder).verdict == (
        "audit FAILED: subnet.json claims a model to be served in int8, but model_int8.onnx is missing; "
        "export the model again"
    )
    served.write_bytes(b"damaged")
    assert by_name(audit(folder))["int8"].sentence.startswith("cannot read the ONNX file ")
    shutil.copy(onnx_file, served)
    assert audit(folder).verdict.startswith("audit FAILED: the forms int8 and int8 anew differ by ")


def test_int8_is_left_out_where_its_packages_are_not_installed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise MissingDependencyError("onnx is not there")

    monkeypatch.setattr(audit_module, "write_onnx", refuse)
    monkeypatch.setattr(audit_module, "write_in_precision", refuse)
    path = folder / "subnet.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "precision": "int8"}))
    (folder / FILES["onnx-int8"]).write_bytes(b"never read")
    found = audit(folder)
    assert found.passed, found
    assert "model_int8.onnx was not compared: onnx is not there" in found.notes


@pytest.mark.parametrize("error", [MissingDependencyError("onnx is not there"), ExportError("it differs")])
def test_onnx_that_cannot_be_written_fails_and_without_its_packages_it_is_left_out(
    exported: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(audit_module, "write_onnx", refuse)
    found = audit(exported)
    assert found.passed is isinstance(error, MissingDependencyError)
    assert ("ONNX was not compared: onnx is not there" in found.notes) is found.passed


def test_the_certified_latency_is_measured_beside_the_baseline(
    folder: Path, full: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = []

    def fake(*args: object, **how: object) -> Any:
        asked.append((args, how))
        return audit_module.Finding("latency", True, "as certified")

    monkeypatch.setattr(audit_module, "check_latency", fake)
    certify(folder)
    summary = {"latency_ratio": 0.5, "best": {"config": SUBNET.to_dict()}}
    found = audit(folder, baseline=full, summary=summary, scope=BRIEF)
    assert by_name(found)["latency"].sentence == "as certified"
    assert (asked[0][0][1], asked[0][1]["stated_ratio"]) == (full, 0.5)
    assert by_name(found)["outputs"].passed
    assert by_name(found)["size"].passed


@pytest.mark.parametrize(
    ("certified", "latency", "sentence"),
    [
        (False, True, "no latency is claimed, as there is no certificate.json"),
        (True, False, "not measured again, as asked"),
        (True, True, "not measured again, as there is no full model to compare with (--baseline)"),
    ],
)
def test_a_latency_that_is_not_measured_says_why(
    folder: Path, certified: bool, latency: bool, sentence: str
):
    if certified:
        certify(folder)
    finding = by_name(audit(folder, scope=Scope(onnx=False, latency=latency)))["latency"]
    assert (finding.passed, finding.sentence) == (None, sentence)


def test_a_full_classifier_passes_alone_and_its_mask_is_noted(full: Path):
    found = audit(full)
    assert found.passed, found
    assert [(pair.first, pair.second) for pair in found.comparisons] == [("loaded", "onnx")]
    mask = by_name(found)["head_mask"]
    assert mask.passed is None
    assert mask.sentence.startswith("this model ignores head_mask: ")


@pytest.mark.parametrize("kind", ["full", "folder"])
def test_an_ignored_head_mask_fails_where_it_was_scored_with(request: pytest.FixtureRequest, kind: str):
    found = audit(request.getfixturevalue(kind), scope=Scope(onnx=False, head_mask=True))
    assert found.verdict.startswith(
        "audit FAILED: this model ignores head_mask: scores taken with it are those of the full model"
    )


def test_heads_that_are_pruned_on_paper_fail(full: Path):
    claim(full, pruned_heads={"0": [1, 2], "1": [0]})
    assert audit(full, scope=BRIEF).verdict == (
        "audit FAILED: the config claims 3 pruned heads, but the weights have them all and the model "
        "computes them"
    )


def test_a_file_that_transformers_cannot_load_any_more_fails(full: Path):
    claim(full, pruned_heads={"0": [1]})
    path = full / "model.safetensors"
    weights = load_file(path)
    name = "bert.encoder.layer.0.attention.self.query.weight"
    weights[name] = weights[name][8:].clone()
    save_file(weights, path, metadata={"format": "pt"})
    found = audit(full, scope=BRIEF)
    assert found.verdict.startswith(
        "audit FAILED: the config claims 1 pruned heads and the weights lack them"
    )
    assert found.notes == ("no form was compared, as the weights do not fit the config",)


def test_zeroed_heads_fail(full: Path):
    model = AutoModelForSequenceClassification.from_pretrained(full)
    with torch.no_grad():
        model.get_parameter("bert.encoder.layer.0.attention.self.value.weight")[:16] = 0
    model.save_pretrained(full)
    assert audit(full, scope=BRIEF).verdict == (
        "audit FAILED: 2 of 12 heads are zero (2 in layer 0): they cost their full time; "
        "extract the model without them"
    )


def test_a_copy_of_the_full_model_is_not_pruned(full: Path, checkpoint: Any, task: Task):
    found = audit(full, baseline=checkpoint("bert", task), scope=BRIEF)
    assert found.verdict.startswith("audit FAILED: both models give the same logits on all ")
    assert by_name(found)["size"].passed is False


def test_a_supernet_of_other_sizes_or_of_a_foreign_model_is_refused(
    exported: Path, full: Path, supernet: Supernet
):
    with pytest.raises(
        CheckpointError, match="full' is no subnet of rlnas, so it has no forms in a supernet; "
    ):
        audit(full, supernet=supernet)
    small = type(
        "Small", (), {"n_params": lambda _, config: supernet.n_params(SubnetConfig(config.layers[:2]))}
    )
    with pytest.raises(InvalidSubnetError, match="has 3 layers, but the subnet has 2"):
        audit(exported, supernet=small())


def test_at_least_one_item_is_needed():
    with pytest.raises(ValueError, match="n_items must be at least 1, but got n_items=0"):
        Scope(n_items=0)


PLAIN = SubnetConfig((LayerConfig(4, 24), LayerConfig(0, 0), LayerConfig(4, 24)))


@pytest.fixture(scope="module", params=["bert", "roberta", "distilbert", "electra"])
def plain(
    supernets: Callable[[str, Task], Supernet],
    task: Task,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> tuple[Supernet, Path]:
    """A subnet in the stock class of its family, and its supernet."""
    supernet = supernets(request.param, task)
    return supernet, export(supernet, PLAIN, tmp_path_factory.mktemp("plain"))


def test_a_subnet_in_the_stock_class_of_its_family_is_audited_as_a_subnet(plain: tuple[Supernet, Path]):
    supernet, folder = plain
    assert not (folder / "modeling_subnet.py").exists()
    found = audit(folder, supernet=supernet, scope=BRIEF)
    assert found.passed, found
    findings = by_name(found)
    assert findings["config"].sentence.endswith("that subnet.json makes: 4h24 - 4h24")
    assert findings["weights"].passed
    assert findings["operations"].passed
    assert {pair.second for pair in found.comparisons} == {"masked", "extracted", "reloaded"}


def test_an_altered_weight_in_a_stock_class_is_found(plain: tuple[Supernet, Path], tmp_path: Path):
    supernet, original = plain
    folder = shutil.copytree(original, tmp_path / "model")
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = min(name for name in weights if name.endswith(("value.weight", "v_lin.weight")))
    weights[name][0, 0] += 0.5
    save_file(weights, path, metadata={"format": "pt"})
    found = audit(folder, supernet=supernet, scope=BRIEF)
    wanted = (
        f"audit FAILED: the weights are not the supernet's: {name!r} differs by up to 5.0e-01, in 1 of "
    )
    assert found.verdict.startswith(wanted)


def test_a_program_is_compared_where_its_pickle_is_trusted(supernet: Supernet, folder: Path):
    write_program(supernet.extract(SUBNET), folder / FILES["torch"])
    (folder / FILES["onnx-int8"]).touch()
    wary = audit(folder, scope=BRIEF)
    assert wary.passed
    wanted = "program.pt2 was not compared: torch.export loads by pickle, "
    assert any(note.startswith(wanted) for note in wary.notes)
    assert "model_int8.onnx was not compared: int8 changes logits on purpose" in wary.notes
    trusting = audit(folder, scope=Scope(onnx=False, trust_remote_code=True))
    assert trusting.passed, trusting
    assert {pair.second for pair in trusting.comparisons} == {"reloaded", "program"}


def test_a_program_that_cannot_be_loaded_fails(folder: Path):
    (folder / FILES["torch"]).write_bytes(b"nothing")
    found = audit(folder, scope=Scope(onnx=False, trust_remote_code=True))
    assert found.verdict.startswith("audit FAILED: cannot load the program '")
