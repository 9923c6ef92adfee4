from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file, save_file
from world import LABELS, write_checkpoint

from rlnas.cli import main
from rlnas.run.folder import read_json

BRIEF = ("--no-onnx", "--no-latency")


@pytest.fixture(scope="session")
def tuned(tmp_path_factory):
    """A checkpoint with a classifier for the world's labels."""
    return str(write_checkpoint(tmp_path_factory.mktemp("tuned") / "model", LABELS))


def alter(folder):
    weights = load_file(folder / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] += 0.5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_run_passes_its_audit(finished, tmp_path, capsys):
    out = tmp_path / "audits" / "audit.json"
    assert main(["audit", str(finished), *BRIEF, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    values = read_json(out)
    assert printed.splitlines()[0] == f"audit of {finished / 'best'}"
    assert printed.splitlines()[-1] == values["verdict"]
    assert values["verdict"].startswith("audit passed: 5 forms agree on ")
    assert values["passed"] is True


def test_an_altered_run_fails_its_audit(run, capsys):
    alter(run / "best")
    assert main(["audit", str(run), *BRIEF]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("audit FAILED: the weights are not those that were certified: ")


def test_the_models_of_a_run_for_several_targets_are_audited_together(several, tmp_path, capsys):
    out = tmp_path / "audit.json"
    assert main(["audit", str(several), *BRIEF, "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "audit passed: 2 models"
    values = read_json(out)
    assert values["passed"] is True
    assert [model["model"] for model in values["models"]] == [
        str(several / "models" / ratio) for ratio in ("0.5", "0.75")
    ]
    assert main(["audit", str(several), *BRIEF, "--target-ratio", "0.5"]) == 0
    assert f"audit of {several / 'models' / '0.5'}" in capsys.readouterr().out


def test_one_failed_model_of_several_is_named_in_the_end(several, tmp_path, capsys, monkeypatch):
    import rlnas.deploy.weights_file

    real = rlnas.deploy.weights_file.weights_digest
    monkeypatch.setattr(
        "rlnas.deploy.claims.weights_digest",
        lambda folder: "0" * 64 if folder.name == "0.5" else real(folder),
    )
    assert main(["audit", str(several), *BRIEF]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("audit FAILED: the weights are not those that were certified: ")
    assert last.endswith(f"({several / 'models' / '0.5'})")


def test_a_folder_beside_its_supernet_and_task(run, world, capsys):
    flags = ("--supernet", str(run / "supernet"), "--task", str(world.data), "--search-items", "32")
    assert main(["audit", str(run / "best"), *flags, *BRIEF, "--items", "5"]) == 0
    printed = capsys.readouterr().out
    assert "compared on 5 items of the search split and " in printed
    assert "masked " in printed
    (run / "best" / "certificate.json").unlink()
    assert main(["audit", str(run / "best"), *flags, *BRIEF]) == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith("say so (--trained-further)")
    assert main(["audit", str(run / "best"), *flags, *BRIEF, "--trained-further"]) == 0


def test_a_pair_of_foreign_models(tuned, capsys):
    assert main(["audit", tuned, *BRIEF]) == 0
    assert main(["audit", tuned, *BRIEF, "--head-mask"]) == 1
    assert "audit FAILED: this model ignores head_mask: " in capsys.readouterr().out
    assert main(["audit", tuned, "--baseline", tuned, *BRIEF]) == 1
    assert "audit FAILED: both models give the same logits on all " in capsys.readouterr().out


def test_heads_that_are_pruned_on_paper_fail(tmp_path, capsys):
    folder = write_checkpoint(tmp_path / "model", LABELS)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pruned_heads": {"0": [1]}}))
    assert main(["audit", str(folder), *BRIEF]) == 1
    assert "audit FAILED: the config claims 1 pruned heads, but " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "no model 'no/such': it is no folder here, "),
        (("--items", "0"), "n_items must be at least 1, but got n_items=0"),
        (("--seed", "-1"), "seed must be at least 0, but got seed=-1"),
        (("--metric", "f1"), "--metric=f1 is for a task, but none is named"),
        (("--target-ratio", "0.5"), "'no/such' is no run, so it has no model for --target-ratio=0.5; drop"),
        (("--supernet", "no/such"), "cannot read the supernet in 'no/such'; "),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) and value else "",
)
def test_audit_refuses_what_cannot_be(refused, flags, message):
    refused(["audit", "no/such", *flags], message)


@pytest.mark.parametrize("name", ["baseline", "supernet", "task"])
def test_a_run_brings_its_own(finished, refused, name):
    message = (
        f"finished' brings its own {name}, but got --{name}=other; drop the flag, or audit the folder "
    )
    refused(["audit", finished, f"--{name}", "other"], message)


def test_audit_does_not_take_an_unfinished_run(unfinished, refused):
    refused(["audit", unfinished], "run' is not finished: ")


def test_audit_does_not_write_over_a_folder(tuned, tmp_path, refused):
    refused(["audit", tuned, "--out", tmp_path], "--out=.* is a folder; name a file, such as .*audit.json")


def test_audit_runs_no_code_unless_told(run, refused):
    with (run / "best" / "modeling_subnet.py").open("a") as file:
        file.write("\n")
    refused(["audit", run, *BRIEF], r"look at it, then pass .*\(--trust-remote-code\) to run it")
    assert main(["audit", str(run), *BRIEF, "--trust-remote-code"]) == 0
