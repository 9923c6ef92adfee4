from __future__ import annotations

import re
from pathlib import Path

import pytest
from world import LABELS, make_table, write_checkpoint

from rlnas.cli import main
from rlnas.history import History
from rlnas.rewards import LatencyTarget
from rlnas.run.folder import read_json
from rlnas.workload import Workload

CPU = ("--device", "cpu", "--seq-len", "16")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--learnin-rate", "1"], r"unrecognized arguments: --learnin-rate"),
        (["--targ", "1"], r"unrecognized arguments: --targ 1"),
        (["--target-ms", "5", "--target-ratio", "0.5"], r"--target-ratio: not allowed with .* --target-ms"),
        (
            ["--target-ratios", "0.5", "--target-ratio", "0.5"],
            r"--target-ratio: not allowed with .* --target-r",
        ),
        (
            ["--target-ratios", "0.5", "--target-ms", "5"],
            r"--target-ms: not allowed with .* --target-ratios",
        ),
        (["--budget", "many"], r"argument --budget: invalid int value: 'many'"),
        (["--controller", "sac"], r"argument --controller: invalid choice: 'sac'"),
        (["--metric", "bleu"], r"argument --metric: invalid choice: 'bleu'"),
        (["--dtype", "int4"], r"argument --dtype: invalid choice: 'int4'"),
        (["--mode", "tensorrt"], r"argument --mode: invalid choice: 'tensorrt'"),
        (["--statistic", "mean"], r"argument --statistic: invalid choice: 'mean'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_flags_that_cannot_be_are_refused(misused, flags, message):
    misused(["search", *flags], message)


def test_a_run_leaves_model_report_and_summary(finished):
    assert {"best", "report.html", "summary.json"} <= {path.name for path in finished.iterdir()}


def test_a_run_ends_with_its_table(world, run, capsys):
    assert main(world.arguments(run, "--resume")) == 0
    printed = capsys.readouterr().out
    for part in ("full model", "chosen subnet", "Pareto front", f"model: {run / 'best'}"):
        assert part in printed


def test_a_finished_run_is_not_begun_anew(world, run, refused):
    refused(world.arguments(run), r"run' already holds a run; go on with it \(--resume\), delete it")


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--seed", "1", "seed=0, not seed=1"),
        ("--batch-size", "2", "batch_size=1, not batch_size=2"),
        ("--mode", "compiled", "mode=eager, not mode=compiled"),
        ("--statistic", "p99", "statistic=median, not statistic=p99"),
        ("--lengths", "8,16", r"lengths=\(\), not lengths=\(8, 16\)"),
        ("--lengths", "task", "lengths_from_task=False, not lengths_from_task=True"),
        ("--train-batch-size", "4", "train_batch_size=8, not train_batch_size=4"),
        ("--seq-len", "8", "seq_len=16, not seq_len=8"),
        ("--epochs", "3", "epochs=2, not epochs=3"),
        ("--search-items", "16", "search_items=32, not search_items=16"),
        (
            "--controller",
            "random",
            r"controller=EvolutionController\(.*, not controller=RandomController\(",
        ),
        (
            "--target-ratio",
            "0.8",
            r"reward=LatencyTarget\(ratio=0.75,.*, not reward=LatencyTarget\(ratio=0.8",
        ),
        ("--model", "bert-base-uncased", "model=.*tiny-bert, not model=bert-base-uncased"),
        ("--task", "glue/sst2", "source=.*reviews, not source=glue/sst2"),
        ("--racing", None, r"racing=None, not racing=Racing\(confidence=0.95"),
    ],
)
def test_a_run_is_not_resumed_with_other_settings(world, run, refused, flag, value, message):
    flags = [flag] if value is None else [flag, value]
    refused(world.arguments(run, "--resume", *flags), f"was started with {message}.*; resume it with")


def test_a_larger_budget_is_not_another_setting(world, trained, capsys):
    assert main(world.arguments(trained, "--budget", "32")) == 0
    assert main(world.arguments(trained, "--budget", "34", "--resume")) == 0
    with History.read(trained) as history:
        assert len(history.trials) == 34


def test_a_fine_tuned_checkpoint_needs_no_training(world, tmp_path):
    tuned = write_checkpoint(tmp_path / "tuned", LABELS)
    flags = ("--model", str(tuned), "--full-epochs", "0", "--epochs", "0", "--finish-epochs", "0")
    assert main(world.arguments(tmp_path / "run", *flags, "--budget", "16")) == 0
    summary = read_json(tmp_path / "run" / "summary.json")
    assert summary["item_passes"] == 0
    assert summary["best"]["n_items"] == 40


def test_training_of_nothing_is_refused_with_the_reason(world, tmp_path, refused):
    flags = ("--full-epochs", "0", "--epochs", "0")
    message = r"tiny-bert' has no trained classifier for this task.*train it first \(--full-epochs 1\)"
    refused(world.arguments(tmp_path / "run", *flags), message)


def test_a_run_that_failed_by_its_input_does_not_stand_in_the_way(world, tmp_path, refused):
    refused(world.arguments(tmp_path / "run", "--task", str(world.root / "reviewz")), "does not exist")
    # Refused for another reason: it was begun.
    refused(world.arguments(tmp_path / "run", "--model", "no/such-model"), "no checkpoint")


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--batch-size", "0", "batch_size must be at least 1, but got batch_size=0"),
        ("--seq-len", "1", "seq_len must be at least 2, but got seq_len=1"),
        ("--lengths", "8,17", r"lengths must be in \[2, seq_len=16\], but got 17; raise seq_len"),
        ("--lengths", "8;16", "lengths are written as 16,32,128 or with shares .* but got '8;16'"),
        ("--mode", "cuda_graph", "mode='cuda_graph' needs a CUDA device, but got device='cpu'"),
        ("--epochs", "-1", "epochs must be at least 0, but got epochs=-1"),
        ("--full-epochs", "-2", "full_epochs must be at least 0, but got full_epochs=-2"),
        ("--finish-epochs", "-3", "finish_epochs must be at least 0, but got finish_epochs=-3"),
        ("--train-batch-size", "0", "of training must be at least 1, but got batch_size=0"),
        ("--learning-rate", "0", "learning_rate must be a number above 0, but got learning_rate=0.0"),
        ("--budget", "0", "budget must be at least 1 trial, but got budget=0"),
        ("--seed", "-1", "seed must be at least 0, but got seed=-1"),
        ("--seed", "4294967296", "seed must be at most 4294967295, but got seed=4294967296"),
        ("--target-ratio", "50", "--target-ratio=50 is more than the full model takes, 1; give a fraction"),
        ("--target-ratio", "0", "ratio must be a number above 0, but got ratio=0.0"),
        ("--target-ratio", "-0.5", "ratio must be a number above 0, but got ratio=-0.5"),
        ("--target-ratio", "nan", "ratio must be a number above 0, but got ratio=nan"),
        ("--search-items", "0", "search_items must be at least 1, but got search_items=0"),
        ("--max-train-items", "0", "max_train_items must be at least 1, but got max_train_items=0"),
        ("--device", "tpu", "device must be auto, cpu, cuda or cuda:N, but got device='tpu'"),
        ("--reward-weight", "-1", "weight must be a number of at least 0, but got weight=-1.0"),
    ],
)
def test_a_number_that_cannot_be_is_refused_before_any_work(world, tmp_path, refused, flag, value, message):
    refused(world.arguments(tmp_path / "run", flag, value), message)
    left = tmp_path / "run"
    assert not left.exists() or {path.name for path in left.iterdir()} <= {"config.json", "run.lock"}


@pytest.mark.parametrize(
    ("ratios", "message"),
    [
        (
            "0.5,half",
            "--target-ratios=0.5,half must be numbers parted by commas, such as .*, but 'half' is none",
        ),
        ("", "--target-ratios= must be numbers parted by commas, such as 0.25,0.4,0.6, but '' is none"),
        (
            "0.5,0.25,0.5",
            "--target-ratios=0.5,0.25,0.5: every target ratio may stand there once, but 0.5 does",
        ),
        ("0.5,0", "--target-ratios=0.5,0: a target ratio must be above 0 and at most 1, .*, but got 0$"),
        ("-1,0.5", "=-1,0.5: a target ratio must be above 0 and at most 1, .*, but got -1$"),
        ("0.5,1.5", "=0.5,1.5: a target ratio must be above 0 and at most 1, .*, but got 1.5$"),
        ("0.5,nan", "=0.5,nan: a target ratio must be above 0 and at most 1, .*, but got nan$"),
        (
            "0.1,0.75",
            r"0.108 ms \(0.1 of the full model\) cannot be reached: the smallest .* 0.37 of the full",
        ),
    ],
)
def test_target_ratios_that_cannot_be_are_refused(world, tmp_path, refused, targets, ratios, message):
    refused(targets(world.arguments(tmp_path / "run"), ratios), message)
    assert not (tmp_path / "run" / "supernet").exists()


@pytest.mark.parametrize("reward", ["linear-penalty", "my_rewards:good"])
def test_target_ratios_need_a_reward_with_a_target(world, tmp_path, refused, targets, reward):
    message = f"--reward={reward} knows no target, so .* and --target-ratios do not go with it; drop them"
    refused([*targets(world.arguments(tmp_path / "run"), "0.5,0.75"), "--reward", reward], message)


def test_the_reward_aims_at_the_largest_of_several_targets(asked):
    assert main(["search", "--target-ratios", "0.4,0.6,0.25"]) == 0
    job, _, _ = asked[0]
    assert job.target_ratios == (0.25, 0.4, 0.6)
    assert job.reward == LatencyTarget(ratio=0.6)


def test_a_run_for_several_targets_ends_with_a_row_for_each(world, several, targets, capsys):
    assert main([*targets(world.arguments(several), "0.5,0.75"), "--resume"]) == 0
    printed = capsys.readouterr().out
    for ratio in ("0.5", "0.75"):
        assert f"subnet for {ratio}" in printed
        assert re.search(
            rf"^target {ratio}: ratio \d\.\d+, met: \w+, model: .*/models/{ratio}$", printed, re.M
        )
    assert "/best" not in printed


def test_a_run_is_not_resumed_for_other_targets(world, run, several, targets, refused):
    message = r"was started with target_ratios=\(0.5, 0.75\), not target_ratios=\(0.25, 0.75\)"
    refused([*targets(world.arguments(several), "0.25,0.75"), "--resume"], message)


def test_a_target_that_cannot_be_reached(world, tmp_path, refused):
    message = r"cannot be reached: the smallest subnet takes 0.4 ms, 0.37 of the full model's 1.08 ms"
    refused(world.arguments(tmp_path / "run", "--target-ratio", "0.1"), message)


def test_a_loss_that_is_no_number(world, tmp_path, refused):
    message = r"became (nan|inf) at step \d+ .*lower the learning rate \(learning_rate=1e\+30\)"
    refused(world.arguments(tmp_path / "run", "--learning-rate", "1e30"), message)


def test_a_corrupt_history(world, unfinished, refused):
    (unfinished / "history.sqlite").write_bytes(b"no database " * 1000)
    refused(world.arguments(unfinished, "--resume"), r"history.sqlite is not a sound history")


def test_a_corrupt_summary(world, run, refused):
    (run / "summary.json").write_text("{")
    refused(world.arguments(run, "--resume"), r"summary.json' is damaged")


@pytest.mark.parametrize("content", ["{", "[]", '{"schema_version": 1}'])
def test_a_corrupt_table(world, tmp_path, refused, content):
    (tmp_path / "table.json").write_text(content)
    refused(
        world.arguments(tmp_path / "run", "--latency-table", str(tmp_path / "table.json")),
        r"the latency table .*table.json (is no JSON|has schema_version=(None|1)|lacks).*; delete it and",
    )
    assert not (tmp_path / "run").exists()


def test_a_corrupt_table_in_the_run_folder(world, unfinished, refused):
    (unfinished / "latency.json").write_text("{")
    refused(world.arguments(unfinished, "--resume"), r"run/latency.json is no JSON")


def test_a_missing_table(world, tmp_path, refused):
    refused(
        world.arguments(tmp_path / "run", "--latency-table", "absent.json"),
        "cannot read the latency table absent.json: No such file or directory; calibrate to make one",
    )
    # Nothing was begun: the right table is not another setting.
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device_name": "Other CPU"}, r"was made on \[cpu Other CPU, .*\], not on \[cpu "),
        ({"workload": Workload(8, 16)}, r"was made for \[batch 8 x 16 .*\], not for \[batch 1 x 16 "),
    ],
    ids=["device", "workload"],
)
def test_a_table_of_something_else_is_taken_only_if_told(world, trained, refused, changes, message):
    make_table(**changes).save(trained / "latency.json")
    refused(world.arguments(trained), f"{message}.*; calibrate here, or allow the mismatch")
    # Told so when the run goes on, not only when it begins.
    assert main(world.arguments(trained, "--resume", "--allow-foreign-table", "--budget", "16")) == 0
    note = read_json(trained / "summary.json")["latency_model"]["foreign_note"]
    assert re.search(message, note)
    assert note[1:] in (trained / "report.html").read_text()  # there it begins with a capital


def test_a_folder_that_cannot_be_written(world, tmp_path, refused):
    (tmp_path / "file").write_text("")
    message = "cannot make the run folder '.*file/run': Not a directory"
    refused(world.arguments(tmp_path / "file" / "run"), message)


def test_every_flag_of_a_search_has_a_default(asked):
    assert main(["search"]) == 0
    job, path, how = asked[0]
    assert path == Path("runs/search")
    assert how["resume"] is False
    assert (job.model, job.data.source, job.reward) == ("minilm", "pydocs", LatencyTarget(ratio=0.5))
