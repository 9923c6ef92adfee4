"""Whether all forms of one subnet agree, and what is claimed of a file is true of the file."""

from __future__ import annotations

import logging
import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rlnas.deploy.agreement import ready
from rlnas.deploy.claims import (
    check_config,
    check_digest,
    check_finite,
    check_latency,
    check_operations,
    check_parameters,
    check_precision,
    differing_weights,
    fits,
    read_claims,
)
from rlnas.deploy.comparison import (
    compare_forms,
    item_batches,
    judge_forms,
    module_form,
    onnx_form,
    program_form,
    random_batches,
    supernet_forms,
)
from rlnas.deploy.files import CERTIFICATE_FILE, CONFIG_FILE, FILES
from rlnas.deploy.findings import Audit, Finding
from rlnas.deploy.foreign import (
    check_difference,
    check_loadable,
    check_mask,
    check_pair,
    check_pruned_heads,
    check_size,
    check_zeros,
    folder_of,
    modern_names,
    read_pruned_heads,
)
from rlnas.deploy.layout import claimed_shapes, is_known
from rlnas.deploy.loading import load, positions, read_tokenizer
from rlnas.deploy.onnx_file import OnnxModel, write_in_precision, write_onnx
from rlnas.deploy.stock import check_code, load_stock
from rlnas.deploy.weights_file import describe_weights
from rlnas.errors import CheckpointError, ExportError, MissingDependencyError
from rlnas.precision import INT8_BLOCKS
from rlnas.supernet.encoding import encode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedModel

    from rlnas.deploy.claims import Claims
    from rlnas.deploy.comparison import Form
    from rlnas.deploy.findings import Comparison
    from rlnas.deploy.weights_file import WeightsFile
    from rlnas.supernet import Supernet
    from rlnas.supernet.encoding import Batch
    from rlnas.task import Task

logger = logging.getLogger(__name__)

_TRAINED = (
    "the model had a last training or a repair, so its weights are not the supernet's: sliced, masked and "
    "extracted are forms of the shared weights, loaded, reloaded and onnx those of the file"
)


@dataclass(frozen=True, slots=True)
class Scope:
    """How far an audit goes.

    Attributes:
        n_items: Real items at most, where there is a task.
        latency: Whether a certified latency ratio is measured again.
        onnx: Whether the ONNX form is audited: the file in the folder, or one that is written for it.
        head_mask: Whether the model is claimed to heed ``head_mask``; else it is only noted.
        trained_further: Whether the model's weights had a last training or a repair after they left
            the supernet; None tells by whether they are as they were certified.
        seed: Of the items, of random tokens and of the order of timings.
        trust_remote_code: Whether code inside folders may run that is not the model file of rlnas.

    Raises:
        ValueError: If `n_items` is less than 1.
    """

    n_items: int = 200
    latency: bool = True
    onnx: bool = True
    head_mask: bool = False
    trained_further: bool | None = None
    seed: int = 0
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if self.n_items < 1:
            raise ValueError(f"n_items must be at least 1, but got n_items={self.n_items}")


def audit(
    model: str | Path,
    *,
    supernet: Supernet | None = None,
    baseline: str | Path | None = None,
    task: Task | None = None,
    summary: Mapping[str, Any] | None = None,
    scope: Scope | None = None,
) -> Audit:
    """Compare the forms of a model, and check what is claimed of it.

    Forms run on the CPU in float32, on items of the task's search split (never its final one) and on
    random tokens: requests of batch 1 from one token to the longest, and padded ones.

    Args:
        model: A folder that `rlnas.deploy.export` wrote, or the folder or hub name of any sequence
            classifier of transformers.
        supernet: What an exported model was extracted from; then its masked, sliced and extracted forms
            are compared too.
        baseline: The full model, a folder or a hub name: whether the model differs from it at all, and
            what a certified latency is measured against.
        task: Its search split is used; None takes random tokens alone.
        summary: What a run's summary says of the model; these claims are checked too.
        scope: How far to go; None for all of it.

    Raises:
        CheckpointError: If a folder cannot be read at all, or would have to run foreign code.
        InvalidSubnetError: If the supernet is not that of the model.
        DataError: If the task's items cannot be encoded.
    """
    scope = Scope() if scope is None else scope
    name = str(model)
    folder = folder_of(name)
    weights = describe_weights(folder)
    auditor = _Auditor(name, folder, weights, task, scope)
    if (folder / CONFIG_FILE).is_file() and is_known(folder):
        return auditor.exported(supernet, baseline, summary)
    if supernet is not None:
        raise CheckpointError(
            f"the model {name!r} is no subnet of rlnas, so it has no forms in a supernet; "
            "audit it alone, or beside its full model (--baseline)"
        )
    return auditor.foreign(baseline)


class _Auditor:
    """Collects findings on one model, so that each check can be short."""

    def __init__(
        self, name: str, folder: Path, weights: WeightsFile, task: Task | None, scope: Scope
    ) -> None:
        self._name = name
        self._folder = folder
        self._weights = weights
        self._task = task
        self._scope = scope
        self._findings: list[Finding] = []
        self._comparisons: list[Comparison] = []
        self._notes: list[str] = []

    def exported(
        self, supernet: Supernet | None, baseline: str | Path | None, summary: Mapping[str, Any] | None
    ) -> Audit:
        """A folder that `export` wrote."""
        claims = read_claims(self._folder, summary)
        n_params = dict(claims.n_params)
        if supernet is not None:
            n_params["the supernet"] = supernet.n_params(claims.config)  # refuses another supernet
        n_params[CONFIG_FILE] = sum(map(math.prod, claims.layout.shapes.values()))
        digest = check_digest(self._folder, claims.certificate)
        self._findings += [
            check_finite(self._weights),
            digest,
            check_config(claims, self._weights),
            check_parameters(n_params, self._weights),
            check_precision(claims, self._weights),
        ]
        if summary is not None and not claims.certificate:
            sentence = f"the run has certified the model, but its {CERTIFICATE_FILE} is missing or empty"
            self._findings.append(Finding("certificate", False, sentence))
        if not fits(claims, self._weights):
            self._notes.append("no form was compared, as the weights do not fit the config")
            return self._result()
        module = self._load()
        self._findings += [check_operations(claims, module), *check_zeros(module)]
        batches = self._batches(module)
        own = {"loaded": module_form(module), **self._file_forms(module)}
        if supernet is None:
            self._notes.append("masked, sliced and extracted were not compared, as no supernet was given")
            self._compare(own, batches)
        else:
            self._compare_with(supernet, claims, own, batches, is_certified=digest.passed is True)
        self._look_at_int8(claims.config.precision, module, batches)
        if self._scope.head_mask:
            self._findings.append(check_mask(module))
        if baseline is not None:
            self._beside(baseline, module, batches)
        self._look_at_latency(claims, baseline, summary)
        return self._result()

    def foreign(self, baseline: str | Path | None) -> Audit:
        """A sequence classifier of transformers."""
        expected = claimed_shapes(self._name, trust_remote_code=self._scope.trust_remote_code)
        weights = replace(self._weights, shapes=modern_names(self._weights.shapes, expected))
        self._findings += [
            check_finite(weights),
            check_pruned_heads(read_pruned_heads(self._folder), expected, weights),
            check_loadable(expected, weights),
            check_parameters({"config.json": sum(map(math.prod, expected.values()))}, weights),
        ]
        if any(finding.name == "tensors" and finding.passed is False for finding in self._findings):
            self._notes.append("no form was compared, as the weights do not fit the config")
            return self._result()
        module = self._load()
        batches = self._batches(module)
        self._findings += check_zeros(module)
        self._compare({"loaded": module_form(module), **self._onnx_form(module)}, batches)
        mask = check_mask(module)
        self._findings.append(mask if self._scope.head_mask else replace(mask, passed=None))
        if baseline is not None:
            self._beside(baseline, module, batches)
        return self._result()

    def _load(self) -> PreTrainedModel:
        return ready(load(self._name, self._scope.trust_remote_code, is_judged=False).module)

    def _batches(self, module: PreTrainedModel) -> list[Batch]:
        scope, limit = self._scope, positions(module)
        items: list[Batch] = []
        if self._task is not None:
            trust = scope.trust_remote_code
            tokenizer = read_tokenizer(self._name, trust_remote_code=trust)
            limit = min(limit, tokenizer.model_max_length)  # many tokenizers know none
            items = item_batches(encode(tokenizer, self._task.search, limit), scope.n_items, scope.seed)
        made = random_batches(module, limit, scope.seed)
        n_real, n_made = (sum(len(batch.input_ids) for batch in part) for part in (items, made))
        longest = max(batch.input_ids.shape[1] for batch in made)
        real = f"{n_real:,} items of the search split and " if self._task is not None else ""
        self._notes.append(
            f"compared on {real}{n_made} random requests of 1 to {longest} tokens; accuracy is not judged, "
            "and no item of a final split was looked at"
        )
        return [*items, *made]

    def _file_forms(self, module: PreTrainedModel) -> dict[str, Form]:
        """What others would run: the folder by stock transformers, and ONNX."""
        trust = self._scope.trust_remote_code
        check_code(self._folder, trust)
        logger.info("audit: reading the folder as stock transformers does")
        forms: dict[str, Form] = {}
        try:
            forms["reloaded"] = module_form(load_stock(self._folder, trust))
        except CheckpointError as error:
            self._findings.append(Finding("reloaded", False, str(error)))
        return {**forms, **self._onnx_form(module), **self._program_form()}

    def _program_form(self) -> dict[str, Form]:
        """A program of torch.export, where the folder holds one."""
        path = self._folder / FILES["torch"]
        if not path.is_file():
            return {}
        if not self._scope.trust_remote_code:
            self._notes.append(
                f"{path.name} was not compared: torch.export loads by pickle, which may run code "
                "(--trust-remote-code)"
            )
            return {}
        try:
            return {"program": program_form(path)}
        except CheckpointError as error:
            self._findings.append(Finding("program", False, str(error)))
            return {}

    def _onnx_form(self, module: PreTrainedModel) -> dict[str, Form]:
        if not self._scope.onnx or self._weights.not_finite:
            reason = "some weights are not finite numbers" if self._weights.not_finite else "asked"
            self._notes.append(f"ONNX was not compared, as {reason}")
            return {}
        try:
            stored = self._folder / FILES["onnx"]
            if stored.is_file():
                return {"onnx": onnx_form(OnnxModel(stored))}
            logger.info("audit: writing ONNX")
            with tempfile.TemporaryDirectory(prefix="rlnas-audit-", ignore_cleanup_errors=True) as place:
                runner = OnnxModel(write_onnx(module, Path(place) / FILES["onnx"]))
        except MissingDependencyError as error:
            self._notes.append(f"ONNX was not compared: {error}")
            return {}
        except (CheckpointError, ExportError) as error:
            self._findings.append(Finding("onnx", False, str(error)))
            return {}
        self._notes.append("onnx is a file that was written for this audit")
        return {"onnx": onnx_form(runner)}

    def _look_at_int8(
        self, precision: str | None, module: PreTrainedModel, batches: Sequence[Batch]
    ) -> None:
        """The file that serves a model in int8 beside one that is made of its weights now."""
        stored = self._folder / FILES["onnx-int8"]
        if precision not in INT8_BLOCKS:
            if stored.is_file():
                self._notes.append(f"{stored.name} was not compared: int8 changes logits on purpose")
            return
        if not stored.is_file():
            sentence = (
                f"{CONFIG_FILE} claims a model to be served in {precision}, but {stored.name} is missing; "
                "export the model again"
            )
            self._findings.append(Finding("int8", False, sentence))
            return
        if not self._scope.onnx:
            self._notes.append(f"{stored.name} was not compared, as asked")
            return
        try:
            with tempfile.TemporaryDirectory(prefix="rlnas-audit-", ignore_cleanup_errors=True) as place:
                anew = OnnxModel(write_in_precision(module, Path(place) / stored.name, precision))
            forms = {"int8": onnx_form(OnnxModel(stored)), "int8 anew": onnx_form(anew)}
        except MissingDependencyError as error:
            self._notes.append(f"{stored.name} was not compared: {error}")
        except (CheckpointError, ExportError) as error:
            self._findings.append(Finding("int8", False, str(error)))
        else:
            self._compare(forms, batches)

    def _compare_with(
        self,
        supernet: Supernet,
        claims: Claims,
        own: Mapping[str, Form],
        batches: Sequence[Batch],
        *,
        is_certified: bool,
    ) -> None:
        """All forms together where the file holds the supernet's weights, else in two groups."""
        shared = supernet_forms(supernet, claims.config)
        differing = differing_weights(supernet, claims, self._folder)
        trained = self._scope.trained_further
        if differing is None:
            sentence = "the file holds the supernet's weights, bit for bit"
            self._findings.append(Finding("weights", True, sentence))
        elif trained or (trained is None and is_certified):
            self._notes.append(_TRAINED)
            self._compare(shared, batches, dtype="float32")
            self._compare(own, batches)
            return
        else:
            hint = (
                ""
                if trained is False
                else "; had it a last training or a repair, say so (--trained-further)"
            )
            sentence = f"the weights are not the supernet's: {differing}{hint}"
            self._findings.append(Finding("weights", False, sentence))
        self._compare({**shared, **{name: form for name, form in own.items() if name != "loaded"}}, batches)

    def _compare(
        self, forms: Mapping[str, Form], batches: Sequence[Batch], dtype: str | None = None
    ) -> None:
        if len(forms) < 2:
            return
        logger.info("audit: comparing the forms %s", ", ".join(forms))
        coarsest = _coarsest(self._weights.dtypes) if dtype is None else dtype
        pairs = compare_forms(forms, batches, coarsest)
        self._comparisons += pairs
        self._findings.append(judge_forms(pairs))

    def _beside(self, baseline: str | Path, module: PreTrainedModel, batches: Sequence[Batch]) -> None:
        full = ready(load(baseline, self._scope.trust_remote_code, is_judged=False).module)
        check_pair(self._name, str(baseline), module, full)
        one, other = module_form(module), module_form(full)
        with torch.inference_mode():
            gaps = [np.abs(one(batch) - other(batch)).max(axis=1) for batch in batches]
        differences = np.concatenate(gaps).tolist()
        self._findings.append(check_difference(differences, len(differences)))
        self._findings.append(check_size(module, full))

    def _look_at_latency(
        self, claims: Claims, baseline: str | Path | None, summary: Mapping[str, Any] | None
    ) -> None:
        reason = None
        if not claims.certificate:
            reason = f"no latency is claimed, as there is no {CERTIFICATE_FILE}"
        elif not self._scope.latency:
            reason = "not measured again, as asked"
        elif baseline is None:
            reason = "not measured again, as there is no full model to compare with (--baseline)"
        if reason is not None or baseline is None:
            self._findings.append(Finding("latency", None, str(reason)))
            return
        logger.info("audit: timing the model beside its baseline")
        ratio = None if summary is None else summary.get("latency_ratio")
        finding = check_latency(
            self._folder, baseline, claims.certificate, stated_ratio=ratio, seed=self._scope.seed
        )
        self._findings.append(finding)

    def _result(self) -> Audit:
        return Audit(self._name, tuple(self._findings), tuple(self._comparisons), tuple(self._notes))


def _coarsest(dtypes: Sequence[str]) -> str:
    return next((dtype for dtype in ("bfloat16", "float16") if dtype in dtypes), "float32")
