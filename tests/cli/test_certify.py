from __future__ import annotations

import pytest
from world import BUDGET, LABELS, WORKLOAD, write_checkpoint

import rlnas.deploy
from rlnas.cli import main
from rlnas.run.folder import read_json, write_json
from rlnas.workload import Workload

CPU = ("--device", "cpu", "--seq-len", "16")


@pytest.fixture
def brief(monkeypatch):
    """Certificates with few rounds; returns what was asked for."""
    real, asked = rlnas.deploy.certify, []

    def few(*args, **how):
        asked.append((args, how))
        return real(*args, n_rounds=5, **how)

    monkeypatch.setattr(rlnas.deploy, "certify", few)
    return asked


@pytest.fixture(scope="session")
def tuned(tmp_path_factory):
    """A checkpoint with a classifier for the world's labels."""
    return str(write_checkpoint(tmp_path_factory.mktemp("tuned") / "model", LABELS))


@pytest.mark.parametrize(("target", "code"), [(None, 0), ("100", 0), ("0.0001", 1)])
def test_certify_says_by_its_exit_code_whether_the_target_is_met(brief, tuned, capsys, target, code):
    flags = () if target is None else ("--target-ratio", target)
    assert main(["certify", tuned, "--baseline", tuned, *CPU, *flags]) == code
    printed = capsys.readouterr().out
    assert "latency alone" in printed
    assert ("target 100 met" in printed) is (target == "100")
    assert ("target 0.0001 missed" in printed) is (target == "0.0001")


def test_certify_judges_a_task_and_writes_the_certificate(brief, world, tuned, tmp_path, capsys):
    out = tmp_path / "certificates" / "tiny.json"
    flags = ("--task", str(world.data), "--search-items", "32", "--out", str(out))
    assert main(["certify", tuned, "--baseline", tuned, *CPU, *flags]) == 0
    values = read_json(out)
    assert (values["task_name"], values["full"]["n_items"], values["loss_points"]) == ("reviews", 40, 0.0)
    assert values["workload"] == WORKLOAD.to_dict()
    printed = capsys.readouterr().out
    assert "loss      0.0 points of accuracy" in printed
    assert printed.endswith(f"certificate: {out}\n")
    assert brief[0][1]["max_seq_len"] == 16


def test_certify_takes_the_lengths_of_a_task(brief, world, tuned):
    flags = ("--task", str(world.data), "--search-items", "32", "--lengths", "task")
    assert main(["certify", tuned, "--baseline", tuned, *CPU, *flags]) == 0
    workload = brief[0][1]["workload"]
    assert len(workload.lengths) == 64


def test_a_run_stands_for_its_chosen_and_its_full_model(brief, finished, tuned):
    met = ("--target-ratio", "100")
    assert main(["certify", str(finished), *CPU, *met]) == 0
    assert main(["certify", str(finished), "--baseline", tuned, *CPU, *met]) == 0
    assert main(["certify", tuned, "--baseline", str(finished), *CPU]) == 0
    compared = [(args[0], how["baseline"]) for args, how in brief]
    best, full = str(finished / "best"), str(finished / "full")
    assert compared == [(best, full), (best, tuned), (tuned, full)]


def test_a_model_of_a_run_is_certified_in_the_precision_that_was_chosen(brief, run):
    summary = read_json(run / "summary.json")
    summary["best"]["config"]["precision"] = "bfloat16"
    write_json(run / "summary.json", summary)
    assert main(["certify", str(run), *CPU, "--target-ratio", "100"]) == 0
    assert brief[0][1]["workload"] == WORKLOAD
    assert brief[0][1]["model_workload"] == WORKLOAD.in_precision("bfloat16")


def test_an_exported_model_alone_is_certified_in_the_precision_in_which_it_is_served(brief, run):
    config = read_json(run / "best" / "subnet.json")
    write_json(run / "best" / "subnet.json", config | {"precision": "bfloat16"})
    against = ("--baseline", str(run / "full"), "--device", "cpu", "--seq-len", "16")
    main(["certify", str(run / "best"), *against])
    main(["certify", str(run / "best"), *against, "--dtype", "float32"])
    served = WORKLOAD.in_precision("bfloat16")
    assert [how["model_workload"] for _, how in brief] == [served, None]


def test_an_exported_model_with_a_damaged_subnet_is_told(run, refused):
    (run / "best" / "subnet.json").write_text("{")
    refused(
        ["certify", str(run / "best"), "--baseline", str(run / "full"), *CPU],
        r"cannot read '.*subnet.json': .*; export the model again",
    )


MIX = {"batch_size": 2, "seq_len": 24, "dtype": "bfloat16", "lengths": [8, 24]}


@pytest.fixture
def elsewhere(run):
    """A finished run with another workload than the usual one."""

    def change(**changes):
        summary = read_json(run / "summary.json")
        write_json(run / "summary.json", {**summary, "workload": summary["workload"] | MIX, **changes})
        return str(run)

    return change


def test_what_no_flag_says_is_taken_from_the_run(brief, elsewhere, caplog):
    run = elsewhere(target_ratio=100)
    assert main(["certify", run, "--device", "cpu"]) == 0
    mix = Workload(2, 24, "bfloat16", lengths=(8, 24))
    assert brief[-1][1]["workload"] == mix
    assert brief[-1][1]["target_ratio"] == 100
    assert caplog.messages == [f"taken from the run where no flag says otherwise: {mix}, target 100"]
    # What is given wins; a length is given instead of the run's lengths.
    flags = ("--batch-size", "1", "--dtype", "float32", "--target-ratio", "0.0001")
    assert main(["certify", run, "--device", "cpu", *flags]) == 1
    assert brief[-1][1]["workload"] == Workload(1, 24, lengths=(8, 24))
    assert brief[-1][1]["target_ratio"] == 0.0001
    assert main(["certify", run, "--device", "cpu", "--seq-len", "8", "--statistic", "p99"]) == 0
    assert brief[-1][1]["workload"] == Workload(2, 8, "bfloat16", statistic="p99")
    assert main(["certify", run, "--device", "cpu", "--lengths", "8,9"]) == 0
    assert brief[-1][1]["workload"] == Workload(2, 9, "bfloat16", lengths=(8, 9))


def test_a_model_of_a_run_is_timed_in_the_precision_that_the_search_chose_unless_a_flag_says_another(
    brief, run
):
    summary = read_json(run / "summary.json")
    summary["best"]["config"]["precision"] = "bfloat16"
    write_json(run / "summary.json", summary)
    for flags in ((), ("--dtype", "float32"), ("--mode", "eager")):
        main(["certify", str(run), "--device", "cpu", *flags])
    served = WORKLOAD.in_precision("bfloat16")
    assert [how["model_workload"] for _, how in brief] == [served, None, None]
    assert [how["workload"] for _, how in brief] == [WORKLOAD] * 3


def test_a_target_for_another_device_or_workload_is_not_taken_from_the_run(brief, elsewhere, caplog):
    run = elsewhere(target_ratio=0.0001, prediction={"ratio": 0.0001, "made_for": "a phone"})
    assert main(["certify", run, "--device", "cpu"]) == 0
    assert brief[-1][1]["target_ratio"] is None
    assert caplog.messages[0].endswith(", no target")


def test_without_a_run_flags_have_their_usual_values(brief, tuned):
    assert main(["certify", tuned, "--baseline", tuned, "--device", "cpu", "--seq-len", "16"]) == 0
    assert brief[-1][1]["workload"] == WORKLOAD


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "nothing to compare 'no/such' with; name the full model .--baseline.$"),
        (["--baseline", "no/other"], "cannot read the model 'no/other': "),
        (["--baseline", "no/other", "--lengths", "task"], "--lengths=task takes .*; name one .--task.$"),
        (["--baseline", "no/other", "--mode", "cuda_graph"], "mode='cuda_graph' needs a CUDA device"),
        (["--baseline", "no/other", "--target-ratio", "0"], "must be above 0, but got target_ratio=0.0"),
        (["--baseline", "no/other", "--task", "no-such-task"], "no-such-task"),
        (["--baseline", "no/other", "--out", "."], r"--out=. is a folder; name a file"),
        (["--baseline", "/no/other"], "there is no folder '/no/other'; check the path, or give a hub name"),
        (
            ["--baseline", "no/other", "--metric", "f1"],
            "--metric=f1 is for a task, but none is named; name",
        ),
        (["--baseline", "no/other", "--text-column", "a"], "--text-column=a is for a task, but none is"),
        (
            ["--baseline", "no/other", "--search-items", "8"],
            "--search-items=8 is for a task.*, or drop the flag$",
        ),
        (["--baseline", "no/other", "--seed", "-1"], "seed must be at least 0, but got seed=-1"),
    ],
    ids=lambda value: value[-2] if isinstance(value, list) and value else "",
)
def test_certify_refuses_what_cannot_be(refused, flags, message):
    refused(["certify", "no/such", "--device", "cpu", *flags], message)


def test_certify_does_not_take_an_unfinished_run(unfinished, refused):
    message = f"run' is not finished: {BUDGET} subnets are scored"
    refused(["certify", unfinished, *CPU], message)
    refused(["certify", "model", "--baseline", unfinished, *CPU], message)


def test_certify_runs_no_code_unless_told(brief, run, refused):
    with (run / "best" / "modeling_subnet.py").open("a") as file:
        file.write("\n")
    refused(["certify", run, *CPU], r"look at it, then pass .*\(--trust-remote-code\) to run it")
    flags = ("--trust-remote-code", "--target-ratio", "100")
    assert main(["certify", str(run), *CPU, *flags]) == 0


def test_all_models_of_a_run_are_certified(brief, several, tmp_path, capsys, caplog):
    out = tmp_path / "certificates.json"
    code = main(["certify", str(several), "--device", "cpu", "--out", str(out)])
    values = read_json(out)["targets"]
    assert code == (1 if any(entry["target_met"] is False for entry in values) else 0)
    asked = [(args[0], how["baseline"], how["target_ratio"]) for args, how in brief]
    full = str(several / "full")
    assert asked == [(str(several / "models" / str(ratio)), full, ratio) for ratio in (0.5, 0.75)]
    assert [entry["folder"] for entry in values] == ["models/0.5", "models/0.75"]
    printed = capsys.readouterr().out
    assert printed.count("of the baseline's [") == 2
    assert f"{several / 'models' / '0.5'}:\n" in printed
    assert caplog.messages[0].endswith(", targets 0.5, 0.75")


def test_one_model_of_several_is_certified_by_its_target(brief, several, tmp_path):
    out = tmp_path / "certificate.json"
    main(["certify", str(several), "--device", "cpu", "--target-ratio", "0.5", "--out", str(out)])
    assert [(args[0], how["target_ratio"]) for args, how in brief] == [
        (str(several / "models" / "0.5"), 0.5)
    ]
    assert read_json(out)["target_ratio"] == 0.5


def test_a_run_for_several_targets_is_a_baseline(brief, several, tuned):
    assert main(["certify", tuned, "--baseline", str(several), *CPU]) == 0
    assert brief[0][1]["baseline"] == str(several / "full")


def test_a_model_that_a_run_does_not_have_is_not_certified(several, refused):
    message = "has models for the target ratios 0.5, 0.75, but got 0.6; "
    refused(["certify", several, "--device", "cpu", "--target-ratio", "0.6"], message)
