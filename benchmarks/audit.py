"""Whether `rlnas audit` passes what is right and names what is wrong.

Random checkpoints of the four families; random subnets with blocks and layers dropped, each exported
and audited beside its supernet: masked, sliced, extracted, reloaded by stock transformers, ONNX and the
program of torch.export, on texts and on random tokens of all lengths. Then sabotages of one model of each
family, which have to fail with the sentence that is meant for them. An audit takes seconds, so each is
written down as it ends, and what stands in `--cells` is not audited again.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from benchmarks.equivalence import FAMILIES, make_task, random_configs, write_checkpoint
from benchmarks.record import make_parser, record
from rlnas.deploy import export
from rlnas.deploy.audit import Scope, audit
from rlnas.deploy.files import DIGEST
from rlnas.deploy.weights_file import weights_digest
from rlnas.supernet import Supernet

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from rlnas.deploy.findings import Audit
    from rlnas.space import SubnetConfig

# Loading a program of torch.export may run code: these are our own.
SCOPE = Scope(latency=False, trust_remote_code=True)
BRIEF = Scope(latency=False, onnx=False)
VALUES = ("value.weight", "v_lin.weight")
"""How the names of a layer's values end, in ours and in the families' classes."""

SENTENCES = {
    "ignored head mask": "this model ignores head_mask: scores taken with it are those of the full model",
    "altered weight": "the weights are not the supernet's: ",
    "altered weight, certificate alone": "the weights are not those that were certified: ",
    "wrong parameter claim": "certificate.json claims ",
    "heads pruned on paper": "the config claims 2 pruned heads, but the weights have them all",
    "zeroed head": "1 of 12 heads is zero (1 in layer 0): it costs its full time; ",
    "nothing pruned": "both models give the same logits on all ",
}
"""How the verdict on each sabotage has to begin."""


def main() -> None:
    """Audit subnets and sabotages of every family, and record what passed and what was caught."""
    parser = make_parser(__doc__, "audit.jsonl")
    parser.add_argument("--configs", type=int, default=50, help="random subnets of each family")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--cells", type=Path, help="JSON lines of single audits, to go on with")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, the subnets and the texts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    n_configs = 2 if options.quick else options.configs
    families = options.families[:2] if options.quick else options.families
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        cells = _Cells(place / "cells.jsonl" if options.cells is None else options.cells)
        names = {name: _audit_family(name, n_configs, place / name, cells, options) for name in families}
    passed = {name: [cells.done[cell] for cell in own[0]] for name, own in names.items()}
    caught = {name: [cells.done[cell] for cell in own[1]] for name, own in names.items()}
    figures = {
        "n_configs": n_configs,
        "families": {name: _summary(rows) for name, rows in passed.items()},
        "n_audits": sum(map(len, passed.values())),
        "n_passed": sum(row["passed"] for rows in passed.values() for row in rows),
        "sabotages": _sabotages([row for rows in caught.values() for row in rows]),
    }
    failed = [row["verdict"] for rows in passed.values() for row in rows if not row["passed"]]
    print("\n".join(failed), end="\n" * bool(failed))
    record("audit", options, figures)
    if failed or any(entry["n_caught"] < entry["n"] for entry in figures["sabotages"].values()):
        raise SystemExit(1)


class _Cells:
    """Single audits, by name, in a file that grows line by line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.done: dict[str, dict[str, Any]] = {}
        if path.is_file():
            rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
            self.done = {row["cell"]: row for row in rows}

    def add(self, cell: str, look: Callable[[], Audit], **more: object) -> None:
        """Audit, unless this has been done."""
        if cell in self.done:
            return
        start = time.monotonic()
        found = look().to_dict()
        seconds = round(time.monotonic() - start, 2)
        row = {"cell": cell, **{key: found[key] for key in ("passed", "verdict", "comparisons")}}
        self.done[cell] = {**row, "seconds": seconds, **more}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.done[cell]) + "\n")


def _audit_family(
    family: str, n_configs: int, place: Path, cells: _Cells, options: argparse.Namespace
) -> tuple[list[str], list[str]]:
    """Names of the audits of right models, and of those of sabotaged ones."""
    task = make_task(options.seed)
    checkpoint = write_checkpoint(place / "checkpoint", family, options.seed)
    supernet = Supernet.from_pretrained(checkpoint, task)
    configs = random_configs(supernet, n_configs, options.seed)
    right = []
    for config in tqdm(configs, desc=family):
        right.append(f"{family} {config}")

        def look(config: SubnetConfig = config) -> Audit:
            forms = ("hf", "onnx", "torch") if SCOPE.onnx else ("hf",)
            folder = export(supernet, config, place / "subnet", forms=forms)
            return audit(folder, supernet=supernet, task=task, scope=SCOPE)

        cells.add(right[-1], look)
    wrong = []
    for sabotage in SENTENCES:
        wrong.append(f"{family} {sabotage}")
        sabotaged = shutil.copytree(checkpoint, place / sabotage)
        largest = export(supernet, supernet.shape.full, place / f"{sabotage} subnet")
        cells.add(
            wrong[-1],
            lambda name=sabotage, full=sabotaged, subnet=largest: _sabotage(  # type: ignore[misc]
                name, full, subnet, checkpoint, supernet
            ),
            sabotage=sabotage,
        )
    return right, wrong


def _sabotage(name: str, full: Path, subnet: Path, checkpoint: Path, supernet: Supernet) -> Audit:
    """Spoil a copy of the checkpoint, or of its largest subnet, and audit it."""
    if name == "ignored head mask":
        return audit(full, scope=Scope(latency=False, onnx=False, head_mask=True))
    if name == "nothing pruned":
        return audit(full, baseline=checkpoint, scope=BRIEF)
    if name == "heads pruned on paper":
        _change_json(full / "config.json", pruned_heads={"0": [0, 1]})
        return audit(full, scope=BRIEF)
    if name == "zeroed head":
        _zero_first_head(full, supernet)
        return audit(full, scope=BRIEF)
    certificate = {DIGEST: weights_digest(subnet)}
    if name == "wrong parameter claim":
        certificate["best"] = {"n_params": supernet.n_params(supernet.shape.full) + 1}
        _write_json(subnet / "certificate.json", certificate)
        return audit(subnet, supernet=supernet, scope=BRIEF)
    _alter_one_weight(subnet)
    if name == "altered weight":
        return audit(subnet, supernet=supernet, scope=BRIEF)
    _write_json(subnet / "certificate.json", certificate)
    return audit(subnet, scope=BRIEF)


def _zero_first_head(folder: Path, supernet: Supernet) -> None:
    """What a mask that was multiplied into the weights leaves: the values of one head are zero."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    head_size = supernet.model.config.head_size
    with torch.no_grad():
        name = next(name for name, _ in model.named_parameters() if name.endswith(VALUES))
        value = model.get_parameter(name)
        value[:head_size] = 0
        model.get_parameter(name.replace("weight", "bias"))[:head_size] = 0
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _alter_one_weight(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = min(name for name in weights if name.endswith(VALUES))
    weights[name][0, 0] += 0.5
    save_file(weights, path, metadata={"format": "pt"})


def _change_json(path: Path, **changes: object) -> None:
    _write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **changes})


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of a family: the largest difference of each form to the sliced one, flips, items and seconds."""
    pairs = [pair for row in rows for pair in row["comparisons"]]
    beside = [pair for pair in pairs if pair["first"] == "sliced"]
    return {
        "n_passed": sum(row["passed"] for row in rows),
        "n_pairs": len(pairs),
        "n_items": pairs[0]["n_items"],
        "n_flips": sum(pair["n_flips"] for pair in pairs),
        "largest": {
            form: max(pair["largest_difference"] for pair in beside if pair["second"] == form)
            for form in dict.fromkeys(pair["second"] for pair in beside)
        },
        "smallest_tolerance": min(pair["tolerance"] for pair in pairs),
        "median_seconds": sorted(row["seconds"] for row in rows)[len(rows) // 2],
    }


def _sabotages(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each sabotage: how many models had it, how many audits named it, and what the first one said."""
    figures = {}
    for name, sentence in SENTENCES.items():
        own = [row for row in rows if row["sabotage"] == name]
        caught = [row for row in own if row["verdict"].startswith(f"audit FAILED: {sentence}")]
        figures[name] = {"n": len(own), "n_caught": len(caught), "verdict": own[0]["verdict"]}
    return figures


if __name__ == "__main__":
    main()
