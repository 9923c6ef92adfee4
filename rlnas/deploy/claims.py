"""Whether what is claimed of an exported model is true of its files."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rlnas.deploy.certify import certify
from rlnas.deploy.files import CERTIFICATE_FILE, CONFIG_FILE, DIGEST
from rlnas.deploy.findings import Finding
from rlnas.deploy.layout import read_layout
from rlnas.deploy.plain import plain_model
from rlnas.deploy.weights_file import read_weights, weights_digest
from rlnas.errors import CheckpointError, DeviceError, InvalidSubnetError, MissingDependencyError
from rlnas.latency import describe_device
from rlnas.latency.correction import count_flops
from rlnas.precision import stored_as
from rlnas.space import ModelShape, SubnetConfig
from rlnas.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from transformers import PreTrainedModel

    from rlnas.deploy.layout import Layout
    from rlnas.deploy.loading import Certifiable
    from rlnas.deploy.weights_file import WeightsFile
    from rlnas.supernet import Supernet

LATENCY_TOLERANCE = 0.1
"""How far a latency ratio may be off that of its certificate, where the two intervals do not overlap."""

_CARD_PARAMETERS = re.compile(r"with ([\d,]+) parameters")
_FLOPS_TOKENS = 16
_ROUNDS = 100
_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Claims:
    """What is said of a model that was exported.

    Attributes:
        config: The subnet, from ``subnet.json``.
        layout: What ``config.json`` makes of it.
        certificate: From ``certificate.json``; empty if there is none.
        n_params: Numbers of parameters that are claimed, by the file that claims them.
        configs: Subnets that are claimed elsewhere, likewise.
    """

    config: SubnetConfig
    layout: Layout
    certificate: Mapping[str, Any]
    n_params: Mapping[str, int]
    configs: Mapping[str, SubnetConfig]


def read_claims(folder: Path, summary: Mapping[str, Any] | None = None) -> Claims:
    """What the files of a folder say of its model, and the summary of its run.

    Args:
        folder: Written by `rlnas.deploy.export`.
        summary: What a run's summary says of the model, or None.

    Raises:
        CheckpointError: If a file is missing or damaged.
    """
    config = _subnet(_read_json(folder / CONFIG_FILE), CONFIG_FILE)
    path = folder / CERTIFICATE_FILE
    certificate = _read_json(path) if path.is_file() else {}
    n_params: dict[str, int] = {}
    card = folder / "README.md"
    if card.is_file() and (found := _CARD_PARAMETERS.search(card.read_text("utf-8", "replace"))):
        n_params["the model card"] = int(found[1].replace(",", ""))
    configs = {}
    for name, values in ((CERTIFICATE_FILE, certificate), ("summary.json", summary or {})):
        best = values.get("best") or {}
        if "n_params" in best:
            n_params[name] = int(best["n_params"])
        if "config" in best:
            configs[name] = _subnet(best["config"], name)
    return Claims(config, read_layout(folder), certificate, n_params, configs)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {str(path)!r}: {error}; export the model again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{str(path)!r} holds no JSON object; export the model again")
    return values


def _subnet(values: object, name: str) -> SubnetConfig:
    try:
        return SubnetConfig.from_dict(values)
    except InvalidSubnetError as error:
        raise CheckpointError(
            f"the subnet in {name} is damaged: {error}; export the model again"
        ) from error


def check_finite(weights: WeightsFile) -> Finding:
    """Whether every weight is a number."""
    if not weights.not_finite:
        return Finding("finite", True, "every weight is a finite number", 0)
    name, n_bad = next(iter(weights.not_finite.items()))
    total = sum(weights.not_finite.values())
    sentence = f"{total:,} weights are not finite numbers, {n_bad:,} of them in {name!r}"
    return Finding("finite", False, sentence, total)


def check_digest(folder: Path, certificate: Mapping[str, Any]) -> Finding:
    """Whether the weights are, bit for bit, those that were certified."""
    if DIGEST not in certificate:
        sentence = "no digest was written down when the model was delivered, so nothing is known of changes"
        return Finding("digest", None, sentence)
    digest, claimed = weights_digest(folder), str(certificate[DIGEST])
    if digest == claimed:
        sentence = f"the weights are those that were certified (sha256 {digest[:12]}...)"
        return Finding("digest", True, sentence, digest)
    sentence = (
        f"the weights are not those that were certified: their sha256 is {digest[:12]}..., "
        f"{CERTIFICATE_FILE} has {claimed[:12]}...; export the model again"
    )
    return Finding("digest", False, sentence, digest)


def check_config(claims: Claims, weights: WeightsFile) -> Finding:
    """Whether the tensors have the shapes that the subnet's config makes, and the other files agree."""
    own = str(claims.config)
    for name, other in claims.configs.items():
        if other != claims.config:
            sentence = f"{name} claims the subnet {other}, but {CONFIG_FILE} has {own}"
            return Finding("config", False, sentence, own)
    if _kept(claims) != claims.layout.kept:
        found = " ".join(f"{heads}h{units}" for heads, units in claims.layout.kept)
        sentence = f"{CONFIG_FILE} claims the subnet {own}, but config.json has {found}"
        return Finding("config", False, sentence, own)
    problem = differing_shape(claims.layout.shapes, weights)
    if problem is not None:
        return Finding("config", False, f"{problem}; {CONFIG_FILE} claims {own}", own)
    sentence = f"{len(claims.layout.shapes)} tensors have the shapes that {CONFIG_FILE} makes: {own}"
    return Finding("config", True, sentence, own)


def fits(claims: Claims, weights: WeightsFile) -> bool:
    """Whether the weights can be loaded as the subnet that ``subnet.json`` claims."""
    return _kept(claims) == claims.layout.kept and differing_shape(claims.layout.shapes, weights) is None


def _kept(claims: Claims) -> tuple[tuple[int, int], ...]:
    """Heads and units of each layer, as ``config.json`` should have them."""
    kept = [(layer.num_attention_heads, layer.intermediate_size) for layer in claims.config.layers]
    return tuple(pair for pair in kept if pair != (0, 0) or not claims.layout.is_plain)


def differing_shape(expected: Mapping[str, tuple[int, ...]], weights: WeightsFile) -> str | None:
    """The first tensor that is not as its config makes it, in words; None if all are."""
    for name, shape in expected.items():
        if name not in weights.shapes:
            return f"the file lacks the weight {name!r}, which the config makes"
        if weights.shapes[name] != shape:
            return f"the weight {name!r} has shape {weights.shapes[name]}, but the config makes it {shape}"
    for name in weights.shapes:
        if name not in expected:
            return f"the file holds the weight {name!r}, which the config does not make"
    return None


def check_parameters(claimed: Mapping[str, int], weights: WeightsFile) -> Finding:
    """Whether the file holds as many parameters as is claimed.

    Args:
        claimed: By who claims it.
        weights: The file.
    """
    found = weights.n_params
    for name, value in claimed.items():
        if value != found:
            sentence = f"{name} claims {value:,} parameters, but the file holds {found:,}"
            return Finding("parameters", False, sentence, found, 0.0)
    sentence = f"the file holds {found:,} parameters, as claimed by {', '.join(claimed)}"
    return Finding("parameters", True, sentence, found, 0.0)


def check_precision(claims: Claims, weights: WeightsFile) -> Finding:
    """Whether the weights have the claimed number format, and one that the model can be served from."""
    found, dtype = ", ".join(weights.dtypes), claims.layout.dtype
    if dtype is not None and weights.dtypes != (dtype,):
        sentence = f"config.json claims weights in {dtype}, but the file holds {found}"
        return Finding("precision", False, sentence, found)
    served = claims.config.precision
    # Float32 weights make all formats; coarser ones nothing but themselves.
    if served is not None and weights.dtypes not in (("float32",), (stored_as(served),)):
        sentence = f"{CONFIG_FILE} claims a model to be served in {served}, but the file holds {found}"
        return Finding("precision", False, sentence, found)
    to_serve = "" if served is None else f", to be served in {served}"
    return Finding("precision", True, f"the weights are in {found}, as claimed{to_serve}", found)


def check_operations(claims: Claims, module: PreTrainedModel) -> Finding:
    """Whether the model computes as many operations as its subnet has, counted while it runs.

    Operations are those within matrix products, two for each multiplication, of one text of 16 tokens.
    """
    sizes = claims.layout
    tokens = min(_FLOPS_TOKENS, sizes.max_position_embeddings // 2)
    # Only the size of a head counts here, not how many units the full model has.
    shape = ModelShape(len(sizes.kept), sizes.hidden_size // sizes.head_size, 1, sizes.hidden_size)
    blocks = int(count_flops(claims.config, shape, Workload(1, tokens)))
    head = 2 * sizes.hidden_size * (sizes.num_labels + sizes.hidden_size * sizes.has_dense)
    project = sizes.embedding_size if sizes.embedding_size != sizes.hidden_size else 0
    expected = blocks + head + 2 * tokens * project * sizes.hidden_size
    found = count_operations(module, tokens)
    if found == expected:
        sentence = f"a text of {tokens} tokens takes {found:,} operations, as {CONFIG_FILE} makes it"
    else:
        sentence = (
            f"a text of {tokens} tokens takes {found:,} operations, but {CONFIG_FILE} makes it {expected:,}"
        )
    return Finding("operations", found == expected, sentence, found, 0.0)


def count_operations(module: PreTrainedModel, tokens: int) -> int:
    """Operations within matrix products of one text, two for each multiplication, counted by torch."""
    config: Any = module.config
    ids = torch.full((1, tokens), config.vocab_size - 1, device=module.device)
    counter = FlopCounterMode(display=False)
    # torch does not count within the fused attention of a CPU.
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        module(input_ids=ids, attention_mask=torch.ones_like(ids))
    return int(counter.get_total_flops())


def check_latency(
    model: Path,
    baseline: Certifiable,
    certificate: Mapping[str, Any],
    *,
    stated_ratio: float | None = None,
    seed: int = 0,
) -> Finding:
    """Whether the certified latency ratio is found again on this device.

    Args:
        model: Folder of the model.
        baseline: What the certificate compared it with.
        certificate: The claim, with its workload and device.
        stated_ratio: The ratio that the run's summary states, or None.
        seed: Of the order of timings.

    Raises:
        CheckpointError: If the certificate lacks something, or a model cannot be timed.
    """
    try:
        claimed, workload = float(certificate["latency_ratio"]), Workload(**certificate["workload"])
        served = certificate.get("subnet_workload")
        model_workload = None if served is None else Workload(**served)
        low, high = (float(bound) for bound in certificate["latency_ratio_ci"])
        kind, name = certificate["device"]["kind"], certificate["device"]["name"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{CERTIFICATE_FILE} in {str(model)!r} is damaged ({type(error).__name__}: {error}); "
            "certify the model again, or leave its latency out (--no-latency)"
        ) from error
    if stated_ratio is not None and stated_ratio != claimed:
        sentence = (
            f"summary.json claims {stated_ratio:.3f} of the baseline's latency, but {CERTIFICATE_FILE} "
            f"{claimed:.3f}"
        )
        return Finding("latency", False, sentence, claimed)
    try:
        here = describe_device(kind, mode=workload.mode)
    except DeviceError:
        here = describe_device("cpu", mode=workload.mode)
    if (here.kind, here.name) != (kind, name):
        sentence = f"not comparable: certified on {kind} {name}, and this is {here.kind} {here.name}"
        return Finding("latency", None, sentence)
    try:
        again = certify(
            model,
            baseline=baseline,
            workload=workload,
            model_workload=model_workload,
            device=kind,
            n_rounds=_ROUNDS,
            max_seconds=_SECONDS,
            seed=seed,
        )
    except MissingDependencyError as error:
        return Finding("latency", None, f"not measured again: {error}")
    found, bounds = again.latency_ratio, again.latency_ratio_ci
    overlap = low <= bounds[1] and bounds[0] <= high
    close = abs(found - claimed) <= LATENCY_TOLERANCE * claimed
    measured = f"measured again {found:.3f} [{bounds[0]:.3f}, {bounds[1]:.3f}]"
    sentence = f"{claimed:.3f} of the baseline's [{low:.3f}, {high:.3f}] was certified, {measured}"
    passed: bool | None = overlap or close
    if not passed:
        sentence += f", which is more than {LATENCY_TOLERANCE:.0%} off; certify the model again"
        if again.note:
            passed, sentence = None, f"{sentence}. Not judged, as {again.note}"
    return Finding("latency", passed, sentence, found, LATENCY_TOLERANCE * claimed)


def differing_weights(supernet: Supernet, claims: Claims, folder: Path) -> str | None:
    """The first tensor of a file that is not the supernet's, in words; None if all are, but rounded.

    Args:
        supernet: What the model is said to be a part of.
        claims: Which part; the file fits it, see `fits`.
        folder: The model's.
    """
    extracted = supernet.extract(claims.config)
    subnet: PreTrainedModel = plain_model(extracted) if claims.layout.is_plain else extracted
    own = {name: weight.detach().cpu() for name, weight in subnet.named_parameters()}
    n_differing, first = 0, None
    for name, tensor in read_weights(folder):
        if not tensor.is_floating_point():
            continue
        difference = (own[name].to(tensor.dtype).float() - tensor.float()).abs().max().item()
        if difference != 0:
            n_differing += 1
            first = first or f"{name!r} differs by up to {difference:.1e}"
    return None if first is None else f"{first}, in {n_differing} of {len(own)} tensors"
