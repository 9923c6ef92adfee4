from __future__ import annotations

import importlib
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from rlnas.deploy.claims import (
    check_config,
    check_digest,
    check_finite,
    check_latency,
    check_operations,
    check_parameters,
    check_precision,
    count_operations,
    differing_shape,
    differing_weights,
    fits,
    read_claims,
)
from rlnas.deploy.export import export
from rlnas.deploy.files import CONFIG_FILE
from rlnas.deploy.weights_file import WeightsFile, describe_weights, weights_digest
from rlnas.errors import CheckpointError
from rlnas.latency import describe_device
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rlnas.supernet.supernet import Supernet
    from rlnas.task import Task

claims_module = importlib.import_module("rlnas.deploy.claims")

SUBNET = SubnetConfig((LayerConfig(1, 24), LayerConfig(0, 0), LayerConfig(2, 0)))
OTHER = SubnetConfig((LayerConfig(1, 24), LayerConfig(0, 0), LayerConfig(3, 0)))
FAMILIES = ("bert", "roberta", "distilbert", "electra")


@pytest.fixture
def supernet(supernets: Callable[[str, Task], Supernet], task: Task) -> Supernet:
    return supernets("bert", task)


@pytest.fixture(scope="module")
def exported(supernets: Callable[[str, Task], Supernet], task: Task, tmp_path_factory) -> Path:
    return export(supernets("bert", task), SUBNET, tmp_path_factory.mktemp("exported"))


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "model")


def write(path: Path, values: object) -> None:
    path.write_text(json.dumps(values))


def test_claims_come_from_the_files_and_the_summary(folder: Path, supernet: Supernet):
    write(folder / "certificate.json", {"best": {"n_params": 7}})
    claims = read_claims(folder, {"best": {"n_params": 8, "config": OTHER.to_dict()}})
    n_params = supernet.n_params(SUBNET)
    assert claims.config == SUBNET
    assert claims.n_params == {"the model card": n_params, "certificate.json": 7, "summary.json": 8}
    assert claims.configs == {"summary.json": OTHER}


def test_without_certificate_and_card_little_is_claimed(folder: Path):
    (folder / "README.md").unlink()
    claims = read_claims(folder)
    assert (claims.certificate, claims.n_params, claims.configs) == ({}, {}, {})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("subnet.json", "{", "cannot read '.*subnet.json': "),
        ("subnet.json", "[]", "subnet.json' holds no JSON object; export"),
        ("subnet.json", '{"layers": 3}', "the subnet in subnet.json is damaged: "),
        ("certificate.json", "[1]", "certificate.json' holds no JSON object; export"),
        ("config.json", "{", "cannot read '.*config.json': "),
    ],
)
def test_damaged_claims_are_refused(folder: Path, name: str, text: str, message: str):
    (folder / name).write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_claims(folder)


def test_weights_that_are_not_finite_are_found():
    assert check_finite(WeightsFile({"a": (2,)}, ("float32",), {})).passed
    finding = check_finite(WeightsFile({"a": (2,)}, ("float32",), {"a": 1, "b": 2}))
    assert (finding.passed, finding.value) == (False, 3)
    assert finding.sentence == "3 weights are not finite numbers, 1 of them in 'a'"


def test_an_altered_file_has_another_digest(folder: Path):
    digest = weights_digest(folder)
    assert check_digest(folder, {"weights_sha256": digest}).passed
    assert check_digest(folder, {}).passed is None
    finding = check_digest(folder, {"weights_sha256": "f" * 64})
    assert not finding.passed
    assert finding.sentence == (
        f"the weights are not those that were certified: their sha256 is {digest[:12]}..., "
        "certificate.json has ffffffffffff...; export the model again"
    )


def test_a_right_config_is_that_of_the_tensors(folder: Path):
    claims, weights = read_claims(folder), describe_weights(folder)
    assert fits(claims, weights)
    finding = check_config(claims, weights)
    assert finding.passed
    assert finding.sentence.endswith("tensors have the shapes that subnet.json makes: 1h24 - 2h0")


def test_a_subnet_that_the_weights_are_not_is_found(folder: Path):
    (folder / CONFIG_FILE).write_text(OTHER.to_json())
    claims, weights = read_claims(folder), describe_weights(folder)
    assert not fits(claims, weights)
    finding = check_config(claims, weights)
    assert not finding.passed
    assert finding.sentence == (
        "subnet.json claims the subnet 1h24 - 3h0, but config.json has 1h24 0h0 2h0"
    )


def test_configs_that_agree_on_what_the_file_is_not_are_found(folder: Path):
    config = json.loads((folder / "config.json").read_text())
    write(folder / "config.json", config | {"kept_heads": [1, 0, 3]})
    (folder / CONFIG_FILE).write_text(OTHER.to_json())
    claims, weights = read_claims(folder), describe_weights(folder)
    assert not fits(claims, weights)
    finding = check_config(claims, weights)
    assert finding.sentence == (
        "the weight 'layers.2.attention.query.weight' has shape (16, 32), but the config makes "
        "it (24, 32); subnet.json claims 1h24 - 3h0"
    )


def test_a_summary_that_names_another_subnet_is_found(folder: Path):
    claims, weights = read_claims(folder, {"best": {"config": OTHER.to_dict()}}), describe_weights(folder)
    assert fits(claims, weights)
    finding = check_config(claims, weights)
    assert not finding.passed
    assert finding.sentence == "summary.json claims the subnet 1h24 - 3h0, but subnet.json has 1h24 - 2h0"


def test_tensors_that_are_lacking_or_too_many_are_named():
    def problem(**found: tuple[int, ...]) -> str | None:
        return differing_shape({"a": (1,)}, WeightsFile(found, ("float32",), {}))

    assert problem(a=(1,)) is None
    assert problem() == "the file lacks the weight 'a', which the config makes"
    assert problem(a=(1,), b=(1,)) == "the file holds the weight 'b', which the config does not make"


def test_a_wrong_number_of_parameters_names_who_claims_it(folder: Path):
    weights = describe_weights(folder)
    assert check_parameters(read_claims(folder).n_params, weights).passed
    finding = check_parameters({"certificate.json": 9_999}, weights)
    assert not finding.passed
    n_params = f"{weights.n_params:,}"
    assert finding.sentence == f"certificate.json claims 9,999 parameters, but the file holds {n_params}"


def test_the_number_format_is_that_of_the_file(folder: Path):
    claims, weights = read_claims(folder), describe_weights(folder)
    assert check_precision(claims, weights).passed
    served = replace(claims, config=replace(SUBNET, precision="int8"))
    assert check_precision(served, weights).passed  # which says what to serve in
    coarse = replace(weights, dtypes=("bfloat16", "float32"))
    assert check_precision(claims, coarse).sentence == (
        "config.json claims weights in float32, but the file holds bfloat16, float32"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_operations_are_counted_as_the_subnet_makes_them(
    supernets: Callable[[str, Task], Supernet], task: Task, tmp_path: Path, family: str
):
    supernet = supernets(family, task)
    claims = read_claims(export(supernet, SUBNET, tmp_path))
    assert check_operations(claims, supernet.extract(SUBNET)).passed
    finding = check_operations(claims, supernet.extract(OTHER))
    assert not finding.passed
    assert "operations, but subnet.json makes it " in finding.sentence


def test_attention_is_counted_as_often_as_there_are_pairs_of_tokens(supernet: Supernet):
    counts = [count_operations(supernet.extract(SUBNET), tokens) for tokens in (4, 8)]
    head_size, n_heads = supernet.model.config.head_size, 3
    attention = 2 * 2 * head_size * n_heads
    head = 2 * 32 * (32 + 3)
    linear = [count - head - attention * tokens**2 for count, tokens in zip(counts, (4, 8), strict=True)]
    assert linear[1] == 2 * linear[0]


def test_expected_shapes_are_those_of_the_extracted_subnet(folder: Path, supernet: Supernet):
    own = {name: tuple(weight.shape) for name, weight in supernet.extract(SUBNET).named_parameters()}
    assert read_claims(folder).layout.shapes == own


def test_weights_that_are_not_the_supernets_are_named(folder: Path, supernet: Supernet):
    claims = read_claims(folder)
    assert differing_weights(supernet, claims, folder) is None
    model = supernet.extract(SUBNET)
    with torch.no_grad():
        model.head.out.bias[0] += 0.25
    changed = export(supernet, SUBNET, folder, weights=model)
    n_tensors = len(claims.layout.shapes)
    assert differing_weights(supernet, claims, changed) == (
        f"'head.out.bias' differs by up to 2.5e-01, in 1 of {n_tensors} tensors"
    )


def test_weights_that_were_rounded_are_the_supernets(folder: Path, supernet: Supernet):
    rounded = export(supernet, SUBNET, folder, weights=supernet.extract(SUBNET).bfloat16())
    assert differing_weights(supernet, read_claims(rounded), rounded) is None


CERTIFICATE: dict[str, Any] = {
    "latency_ratio": 0.5,
    "latency_ratio_ci": [0.48, 0.52],
    "workload": Workload(seq_len=8).to_dict(),
}


@pytest.fixture
def certificate() -> dict[str, Any]:
    return {**CERTIFICATE, "device": describe_device("cpu").to_dict()}


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch):
    """Lets a new measurement give these figures; returns what was asked for."""
    asked: list[dict[str, Any]] = []

    def give(ratio: float, low: float, high: float):
        def fake(model: Path, **how: Any) -> SimpleNamespace:
            asked.append(how)
            return SimpleNamespace(latency_ratio=ratio, latency_ratio_ci=(low, high))

        monkeypatch.setattr(claims_module, "certify", fake)
        return asked

    return give


@pytest.mark.parametrize(
    ("again", "passed"),
    [
        ((0.54, 0.51, 0.57), True),  # the intervals overlap
        ((0.545, 0.54, 0.55), True),  # within a tenth
        ((0.56, 0.55, 0.57), False),
        ((0.9, 0.5, 1.3), True),
    ],
)
def test_a_latency_holds_if_intervals_overlap_or_it_is_within_a_tenth(
    folder: Path, certificate: dict[str, Any], timed: Any, again: tuple[float, ...], passed: bool
):
    asked = timed(*again)
    finding = check_latency(folder, "full", certificate, stated_ratio=0.5)
    assert finding.passed is passed
    assert finding.value == again[0]
    assert finding.sentence.startswith(
        "0.500 of the baseline's [0.480, 0.520] was certified, measured again "
    )
    assert finding.sentence.endswith("which is more than 10% off; certify the model again") is not passed
    assert (asked[0]["baseline"], asked[0]["workload"]) == ("full", Workload(seq_len=8))
    assert asked[0]["model_workload"] is None


def test_a_latency_is_measured_again_in_the_precision_that_was_certified(
    folder: Path, certificate: dict[str, Any], timed: Any
):
    asked, served = timed(0.5, 0.49, 0.51), Workload(seq_len=8).in_precision("int8")
    certificate["subnet_workload"] = served.to_dict()
    assert check_latency(folder, "full", certificate, stated_ratio=0.5).passed
    assert asked[0]["model_workload"] == served


@pytest.mark.parametrize(("kind", "name"), [("cuda", "NVIDIA H100"), ("cpu", "an abacus")])
def test_a_latency_of_another_device_is_not_comparable(
    folder: Path, certificate: dict[str, Any], kind: str, name: str
):
    certificate["device"] |= {"kind": kind, "name": name}
    finding = check_latency(folder, "full", certificate)
    assert finding.passed is None
    assert finding.sentence.startswith(f"not comparable: certified on {kind} {name}, and this is cpu ")


def test_a_summary_that_states_another_latency_is_found(folder: Path, certificate: dict[str, Any]):
    finding = check_latency(folder, "full", certificate, stated_ratio=0.4)
    assert not finding.passed
    assert finding.sentence == (
        "summary.json claims 0.400 of the baseline's latency, but certificate.json 0.500"
    )


@pytest.mark.parametrize("changes", [{"latency_ratio": None}, {"workload": {}}, {"device": {}}])
def test_a_damaged_certificate_is_refused(
    folder: Path, certificate: dict[str, Any], changes: dict[str, Any]
):
    broken = certificate | changes
    if changes == {"workload": {}}:
        broken["workload"] = {"no_such": 1}
    with pytest.raises(
        CheckpointError, match=r"certificate.json in '.*model' is damaged .*\(--no-latency\)"
    ):
        check_latency(folder, "full", broken)
