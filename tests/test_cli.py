from __future__ import annotations

import argparse
import functools
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent / "run"))  # for `import world`: folders of tests are no packages

from world import (
    BUDGET,
    HIDDEN,
    LABELS,
    WORKLOAD,
    make_rows,
    make_table,
    make_world,
    write_checkpoint,
    write_csv,
)

import rlnas.alignment
import rlnas.deploy
import rlnas.run
import rlnas.run.calibration
import rlnas.run.choice
import rlnas.run.export
from rlnas import cli
from rlnas.calibration import Effort
from rlnas.cli import main, make_controller, make_racing, make_reward, minilm_path
from rlnas.controllers.evolution import EvolutionController
from rlnas.controllers.ppo import PPOController
from rlnas.controllers.random import RandomController
from rlnas.errors import CheckpointError, RewardError
from rlnas.evaluation import Racing
from rlnas.history import History
from rlnas.latency import HeldOutError, LatencyTable, PredictionError
from rlnas.latency.regime import find_regime
from rlnas.rewards import HardBudget, LatencyTarget, LinearPenalty, MnasNetReward
from rlnas.run.folder import read_json, write_json
from rlnas.workload import Workload

ROOT = Path(__file__).parents[1]
COMMANDS = ("demo", "search", "calibrate", "certify", "report", "export")


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def finished(world, tmp_path_factory):
    """Folder of a run that the command line has finished; not to be changed."""
    path = tmp_path_factory.mktemp("runs") / "finished"
    assert main(world.arguments(path)) == 0
    return path


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def unfinished(run):
    """A run that was killed after its search."""
    (run / "summary.json").unlink()
    return run


@pytest.fixture
def trained(finished, tmp_path):
    """A folder for a run whose data, weights and table are there, and nothing else."""
    path = tmp_path / "run"
    for name in ("data", "supernet", "full"):
        shutil.copytree(finished / name, path / name)
    shutil.copy(finished / "latency.json", path)
    return path


@pytest.fixture
def refused(capsys):
    """Checks that a command ends with exit code 2 and one line that says why; returns that line."""

    def check(arguments, message):
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        # Bars of the training may stand before it.
        errors = [line for line in re.split(r"[\r\n]+", printed.err) if "rlnas: error: " in line]
        assert len(errors) == 1, printed.err
        assert printed.err.endswith(f"{errors[0]}\n")
        assert re.search(message, errors[0]), errors[0]
        return errors[0]

    return check


@pytest.fixture
def misused(capsys):
    """Checks that a command is refused by its flags alone."""

    def check(arguments, message):
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        assert end.value.code == 2
        assert re.search(message, capsys.readouterr().err.splitlines()[-1])

    return check


# Help


def test_help_answers_without_loading_anything_heavy():
    program = (
        "import sys\n"
        "from rlnas.cli import main\n"
        "def ask(*arguments):\n"
        "    try:\n"
        "        main([*arguments, '--help'])\n"
        "    except SystemExit as end:\n"
        "        assert end.code == 0\n"
        "    heavy = ('torch', 'transformers', 'stable_baselines3', 'datasets', 'sklearn', 'scipy')\n"
        "    assert not [name for name in heavy if name in sys.modules]\n"
        f"for command in {COMMANDS}:\n"
        "    ask(command)\n"
        "ask()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert f"usage: rlnas {command}" in done.stdout


def test_help_names_no_default_where_there_is_none(capsys):
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([command, "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "(default: None)" not in printed
    assert "(default: False)" not in printed
    assert "subnets that may be evaluated (default: 200)" in printed
    assert "of everything random (default: 0)" in printed


@pytest.mark.parametrize("installed", [True, False])
def test_the_version_is_told(capsys, monkeypatch, installed):
    def version(name):
        if not installed:
            raise PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr(cli, "version", version)
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"rlnas {'1.2.3' if installed else '(not installed)'}\n"


def test_the_package_is_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "rlnas", "--help"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Shrink a BERT to a latency that is measured on your device." in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_explained_and_has_a_default(command):
    commands = cli._parser()._subparsers._group_actions[0].choices
    for action in commands[command]._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        assert not action.required or not action.option_strings
        assert action.help or action.choices, action


def test_a_command_is_needed(misused):
    misused([], "the following arguments are required: COMMAND")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--learnin-rate", "1"], r"unrecognized arguments: --learnin-rate"),
        (["--targ", "1"], r"unrecognized arguments: --targ 1"),
        (["--target-ms", "5", "--target-ratio", "0.5"], r"--target-ratio: not allowed with .* --target-ms"),
        (["--budget", "many"], r"argument --budget: invalid int value: 'many'"),
        (["--controller", "sac"], r"argument --controller: invalid choice: 'sac'"),
        (["--metric", "bleu"], r"argument --metric: invalid choice: 'bleu'"),
        (["--dtype", "int8"], r"argument --dtype: invalid choice: 'int8'"),
        (["--mode", "tensorrt"], r"argument --mode: invalid choice: 'tensorrt'"),
        (["--statistic", "mean"], r"argument --statistic: invalid choice: 'mean'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_flags_that_cannot_be_are_refused(misused, flags, message):
    misused(["search", *flags], message)


def test_no_command_takes_abbreviated_flags(misused):
    for command in COMMANDS:
        names = ["run"] if command in ("certify", "report", "export") else []
        misused([command, *names, "--ou", "x"], "unrecognized arguments: --ou")


# A whole run


def test_a_run_leaves_model_report_and_summary(finished):
    assert {"best", "report.html", "summary.json"} <= {path.name for path in finished.iterdir()}


def test_the_command_line_asks_for_the_same_as_python(world, finished):
    assert read_json(finished / "config.json") == world.job().settings()


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


# Bad input, each with its line


def test_a_missing_checkpoint(world, tmp_path, refused):
    refused(
        world.arguments(tmp_path / "run", "--model", "no/such-model"),
        "no checkpoint 'no/such-model': it is not a folder here, and the hub has no such model",
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"model_type": "gpt2"},
            "'gpt2' checkpoint, which is not a supported family; supported are bert, ",
        ),
        (
            {"model_type": "bert", "hidden_size": HIDDEN, "num_attention_heads": 5},
            f"hidden_size={HIDDEN}, which does not divide into num_attention_heads=5 equal heads",
        ),
    ],
    ids=["an unsupported family", "heads that do not divide"],
)
def test_a_checkpoint_that_does_not_suit(world, tmp_path, refused, config, message):
    write_json(tmp_path / "config.json", config)
    refused(world.arguments(tmp_path / "run", "--model", str(tmp_path)), message)


def test_a_checkpoint_without_weights(world, tmp_path, refused):
    shutil.copytree(world.model, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    message = "cannot read the weights of the checkpoint '.*model'"
    refused(world.arguments(tmp_path / "run", "--model", str(tmp_path / "model")), message)


def test_no_checkpoint_where_minilm_is_not_installed(world, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None)
    arguments = world.arguments(tmp_path / "run")
    del arguments[1:3]  # --model
    refused(arguments, r"MiniLM, the default, is not installed; .* pip install 'rlnas\[demo\]'")


def test_training_of_nothing_is_refused_with_the_reason(world, tmp_path, refused):
    flags = ("--full-epochs", "0", "--epochs", "0")
    message = r"tiny-bert' has no trained classifier for this task.*train it first \(--full-epochs 1\)"
    refused(world.arguments(tmp_path / "run", *flags), message)


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (("text", "note"), [("good", "a"), ("bad", "b")], "no label column found among .*--label-column"),
        (("text", "label"), [("good", "a"), ("bad", "a")], "all 2 train items have the label 'a'"),
        (("text", "label"), [], r"train.csv is empty; it needs at least one row"),
        (
            ("text", "label"),
            [(1.5, "a"), (2.5, "b")],
            "the text column 'text' .* not text; .*--text-column",
        ),
    ],
    ids=["no label column", "one class only", "an empty split", "a text column of numbers"],
)
def test_data_that_does_not_suit(world, tmp_path, refused, header, rows, message):
    write_csv(tmp_path / "data" / "train.csv", header, rows)
    refused(world.arguments(tmp_path / "run", "--task", str(tmp_path / "data")), message)


def test_an_empty_validation_file(world, tmp_path, refused):
    write_csv(tmp_path / "data" / "train.csv", ("text", "label"), make_rows(96, 1))
    write_csv(tmp_path / "data" / "validation.csv", ("text", "label"), [])
    refused(world.arguments(tmp_path / "run", "--task", str(tmp_path / "data")), r"validation.csv is empty")


def test_a_missing_task(world, tmp_path, refused):
    message = r"reviewz' does not exist; did you mean '.*reviews'\?"
    refused(world.arguments(tmp_path / "run", "--task", str(world.root / "reviewz")), message)


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


def test_texts_longer_than_the_checkpoint_takes(world, tmp_path, refused):
    flags = ("--seq-len", "512", "--allow-foreign-table")
    refused(world.arguments(tmp_path / "run", *flags), "positions for 64 tokens .* seq_len=512")


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


def test_a_corrupt_table_in_the_run_folder(world, unfinished, refused):
    (unfinished / "latency.json").write_text("{")
    refused(world.arguments(unfinished, "--resume"), r"run/latency.json is no JSON")


def test_a_missing_table(world, tmp_path, refused):
    refused(
        world.arguments(tmp_path / "run", "--latency-table", "absent.json"),
        "cannot read the latency table absent.json: No such file or directory; calibrate to make one",
    )


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


# Rewards


@pytest.fixture
def own_rewards(tmp_path, monkeypatch):
    """A module beside the data, in the current folder."""
    (tmp_path / "rewards_of_mine.py").write_text(
        "def small(metrics):\n"
        "    return metrics.accuracy - 2 * metrics.n_params / 1e6\n"
        "def broken(metrics):\n"
        "    return float('nan')\n"
        "number = 3\n"
        "class Reward:\n"
        "    pass\n"
    )
    (tmp_path / "dividing_rewards.py").write_text("1 / 0\n")
    (tmp_path / "leaving_rewards.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "unfinished_rewards.py").write_text("def small(metrics:\n")
    (tmp_path / "needy_rewards.py").write_text("import no_such_package\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "path", [entry for entry in sys.path if entry]
    )  # as the installed command has it
    yield
    for name in ("rewards_of_mine", "unfinished_rewards", "needy_rewards"):
        sys.modules.pop(name, None)


def untargeted(arguments):
    at = arguments.index("--target-ratio")
    return arguments[:at] + arguments[at + 2 :]


@pytest.mark.usefixtures("own_rewards")
def test_a_reward_of_ones_own_is_named_by_module_and_function(world, trained):
    flags = ("--reward", "rewards_of_mine:small", "--budget", "16")
    assert main(untargeted(world.arguments(trained, *flags))) == 0
    with History.read(trained) as history:
        for trial in history.trials:
            metrics = trial.metrics
            assert trial.reward == metrics.accuracy - 2 * metrics.n_params / 1e6
    summary = read_json(trained / "summary.json")
    assert summary["reward"] == "rewards_of_mine:small"
    assert summary["target_ratio"] is None


@pytest.mark.usefixtures("own_rewards")
def test_a_reward_that_is_no_number(world, trained, refused):
    arguments = untargeted(world.arguments(trained, "--reward", "rewards_of_mine:broken"))
    refused(arguments, r"a reward must be a finite number, but broken gave nan for Metrics")


@pytest.mark.usefixtures("own_rewards")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("accuracy", "is unknown; give one of latency-target, .*, or package.module:function$"),
        ("latency_target", r"is unknown; did you mean latency-target\?$"),
        (":small", "is unknown; give one of"),
        ("rewards_of_mine:", "is unknown; give one of"),
        ("..rewards:small", "is unknown; give one of"),
        (
            "no_such_module:small",
            "cannot import the module 'no_such_module': ModuleNotFoundError: No module named",
        ),
        (
            "needy_rewards:small",
            "cannot import the module 'needy_rewards': ModuleNotFoundError: .* 'no_such_package'",
        ),
        (
            "unfinished_rewards:small",
            r"cannot import the module 'unfinished_rewards': SyntaxError: '\(' was never closed",
        ),
        ("dividing_rewards:small", "cannot import the module .*: ZeroDivisionError: division by zero$"),
        ("leaving_rewards:small", "cannot import the module 'leaving_rewards': SystemExit: 3$"),
        ("rewards_of_mine:large", "the module 'rewards_of_mine' has no 'large'$"),
        ("rewards_of_mine:number", "'number' is 3, not a function of Metrics$"),
        ("rewards_of_mine:Reward", "'Reward' is <class .*>, not a function of Metrics$"),
    ],
)
def test_a_reward_that_is_not_there(name, message):
    with pytest.raises(RewardError, match=f"--reward={re.escape(name)}:? {message}"):
        make_reward(name, None, None, None)


def test_an_unknown_reward_is_one_line(world, tmp_path, refused):
    arguments = untargeted(world.arguments(tmp_path / "run", "--reward", "mnas-net"))
    refused(arguments, r"--reward=mnas-net is unknown; did you mean mnasnet\?")


@pytest.mark.parametrize(
    ("name", "reward"),
    [
        ("latency-target", LatencyTarget(ratio=0.5)),
        ("latency-target-absolute", LatencyTarget(ratio=0.5, absolute=True)),
        ("mnasnet", MnasNetReward(ratio=0.5)),
        ("hard-budget", HardBudget(ratio=0.5)),
        ("linear-penalty", LinearPenalty()),
    ],
)
def test_rewards_by_name_aim_at_one_half(name, reward):
    assert make_reward(name, None, None, None) == reward


def test_every_reward_in_the_help_can_be_had():
    for name in cli.REWARDS:
        assert callable(make_reward(name, None, None, None))


def test_a_reward_takes_target_and_weight():
    assert make_reward("latency-target", 7.0, None, 2.0) == LatencyTarget(target_ms=7.0, weight=2.0)
    assert make_reward("hard-budget", None, 0.3, None) == HardBudget(ratio=0.3)
    assert make_reward("linear-penalty", None, None, 0.2) == LinearPenalty(weight=0.2)


def test_a_function_of_a_package_is_a_reward():
    reward = make_reward("math:isfinite", None, None, None)
    assert reward(1.0)


@pytest.mark.parametrize("name", ["mnasnet", "hard-budget", "package.module:function"])
def test_a_weight_goes_with_few_rewards(name):
    with pytest.raises(RewardError, match=f"--reward-weight=0.5 does not go with --reward={name}"):
        make_reward(name, None, None, 0.5)


@pytest.mark.parametrize("name", ["linear-penalty", "package.module:function"])
@pytest.mark.parametrize(("target_ms", "ratio"), [(5.0, None), (None, 0.5)])
def test_a_target_does_not_go_with_every_reward(name, target_ms, ratio):
    with pytest.raises(RewardError, match=f"--reward={name} knows no target, so --target-ms and"):
        make_reward(name, target_ms, ratio, None)


# Racing


def test_searches_do_not_race_unless_told(asked):
    assert main(["search"]) == 0
    assert main(["search", "--racing"]) == 0
    assert main(["search", "--racing", "--indifference", "1.5", "--seed", "3"]) == 0
    racings = [job.racing for job, _, _ in asked]
    assert racings == [None, Racing(), Racing(indifference=0.015, seed=3)]


@pytest.mark.parametrize(
    ("enabled", "points", "message"),
    [
        (False, 1.0, "--indifference=1 is for races only; add --racing, or drop it"),
        (False, 0.0, "--indifference=0 is for races only"),
        (True, -0.5, "--indifference=-0.5 must be at least 0 and less than 100 points of accuracy"),
        (True, 100.0, "--indifference=100 must be at least 0 and less than 100 points"),
        (True, float("nan"), "--indifference=nan must be at least 0"),
    ],
)
def test_an_indifference_that_cannot_be_is_refused(enabled, points, message):
    with pytest.raises(ValueError, match=message):
        make_racing(enabled, points, 0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--indifference", "1"], "--indifference=1 is for races only; add --racing, or drop it$"),
        (
            ["--racing", "--indifference", "-1"],
            "--indifference=-1 must be at least 0 and less than 100 points",
        ),
        (
            ["--racing", "--reward", "latency-target-absolute"],
            "absolute=True.* also prices being faster than the target; run without --racing",
        ),
        (["--racing", "--metric", "f1"], "needs metric=accuracy, but the task 'reviews' has metric=f1"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_race_that_cannot_be_is_refused_before_any_work(world, tmp_path, refused, flags, message):
    refused(world.arguments(tmp_path / "run", *flags), message)
    left = tmp_path / "run"
    assert not left.exists() or {path.name for path in left.iterdir()} <= {"config.json", "run.lock"}


def test_a_raced_run_ends_with_its_table(world, trained, capsys):
    assert main(world.arguments(trained, "--racing", "--indifference", "1", "--budget", "16")) == 0
    assert "The search judged 16 subnets on" in " ".join(capsys.readouterr().out.split())
    racing = read_json(trained / "summary.json")["evaluation"]["racing"]
    assert racing == {"confidence": 0.95, "indifference": 0.01}


# Other parts of a job


def test_controllers_by_name(tmp_path):
    assert make_controller("evolution", tmp_path) == EvolutionController()
    assert make_controller("random", tmp_path) == RandomController()
    ppo = make_controller("ppo", tmp_path)
    assert isinstance(ppo, PPOController)
    assert ppo.save_path == tmp_path / "controller.zip"
    assert ppo.log_dir == tmp_path / "ppo"


def test_the_default_checkpoint_lies_in_its_package(monkeypatch):
    spec = ModuleSpec("minilm", None, origin="/packages/minilm/__init__.py")
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: spec)
    assert minilm_path() == "/packages/minilm/model"


@pytest.mark.parametrize("spec", [None, ModuleSpec("a_namespace", None)])
def test_the_default_checkpoint_may_be_missing(monkeypatch, spec):
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(CheckpointError, match="no --model was given"):
        minilm_path()


@pytest.fixture
def asked(monkeypatch):
    """What would have been run."""
    asked = []
    monkeypatch.setattr(cli, "minilm_path", lambda: "minilm")
    monkeypatch.setattr(cli, "_show", lambda *_: None)
    monkeypatch.setattr(rlnas.run, "run_job", lambda job, path, **how: asked.append((job, path, how)))
    return asked


def test_the_demo_goes_on_where_it_was(asked, tmp_path):
    assert main(["demo", "--out", str(tmp_path)]) == 0
    job, path, how = asked[0]
    assert how["resume"] is True
    assert path == tmp_path
    assert job.model == "minilm"
    assert job.data.source == "pydocs"
    assert job.reward == LatencyTarget(ratio=0.5)
    assert job.device == "cpu"
    assert isinstance(job.controller, PPOController)


def test_every_flag_of_a_search_has_a_default(asked):
    assert main(["search"]) == 0
    job, path, how = asked[0]
    assert path == Path("runs/search")
    assert how["resume"] is False
    assert (job.model, job.data.source, job.reward) == ("minilm", "pydocs", LatencyTarget(ratio=0.5))


@pytest.mark.parametrize(("device", "dtype"), [("cpu", "float32"), ("cuda:0", "bfloat16")])
def test_the_number_format_is_that_of_the_device(asked, monkeypatch, device, dtype):
    monkeypatch.setattr("rlnas.latency.resolve_device", lambda name: device)
    assert main(["search"]) == 0
    assert main(["search", "--dtype", "float16"]) == 0
    assert [job.workload.dtype for job, _, _ in asked] == [dtype, "float16"]
    assert asked[0][0].device == device


def test_the_workload_is_what_the_flags_say(asked):
    assert main(["search", "--device", "cpu"]) == 0
    assert main(["search", "--device", "cpu", "--mode", "compiled", "--statistic", "p99"]) == 0
    assert main(["search", "--device", "cpu", "--lengths", "16:2,300", "--batch-size", "4"]) == 0
    assert main(["search", "--device", "cpu", "--lengths", "16,32", "--seq-len", "64"]) == 0
    assert main(["search", "--device", "cpu", "--lengths", "task"]) == 0
    jobs = [job for job, _, _ in asked]
    assert [job.workload for job in jobs] == [
        Workload(),
        Workload(mode="compiled", statistic="p99"),
        Workload(4, 300, lengths=(16, 16, 300)),
        Workload(1, 64, lengths=(16, 32)),
        Workload(),
    ]
    assert [job.lengths_from_task for job in jobs] == [False, False, False, False, True]


def test_onnx_runtime_on_a_gpu_takes_a_format_that_it_knows(asked, monkeypatch):
    monkeypatch.setattr("rlnas.latency.resolve_device", lambda name: "cuda:0")
    monkeypatch.setattr("rlnas.runtime.check_mode", lambda *_: None)
    assert main(["search", "--mode", "onnxruntime"]) == 0
    assert asked[0][0].workload.dtype == "float16"


def test_a_run_with_the_lengths_of_its_task_is_resumed_as_one(world, trained, monkeypatch):
    for bounds in (rlnas.run.choice.MAX_SECONDS, sys.modules["rlnas.deploy.certify"].MAX_SECONDS):
        monkeypatch.setitem(bounds, "median", 0.1)  # eight requests take their time
    arguments = world.arguments(trained, "--lengths", "task", "--allow-foreign-table", "--budget", "16")
    assert main(arguments) == 0
    lengths = read_json(trained / "summary.json")["workload"]["lengths"]
    assert len(lengths) == 64
    (trained / "summary.json").unlink()
    assert main([*arguments, "--resume"]) == 0
    assert read_json(trained / "summary.json")["workload"]["lengths"] == lengths


# How a command ends


def test_an_interrupt_says_how_to_go_on(world, tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(rlnas.run, "run_job", interrupt)
    assert main(world.arguments(tmp_path)) == 130
    assert "interrupted; nothing scored is lost: go on with --resume" in capsys.readouterr().err


def test_what_cannot_be_resumed_does_not_say_so(tmp_path, capsys, monkeypatch):
    def interrupt(folder, out):
        raise KeyboardInterrupt

    monkeypatch.setattr(rlnas.run.export, "export_chosen", interrupt)
    assert main(["export", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_reader_that_has_gone_is_no_error(run, monkeypatch):
    class Closed(io.StringIO):
        """Standard output that is found closed when its buffer is written."""

        def flush(self):
            raise BrokenPipeError

        def fileno(self):
            return 1

    replaced = []
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Closed())
        patch.setattr(os, "dup2", lambda *numbers: replaced.append(numbers))
        assert main(["report", str(run)]) == 0
    (null, stdout), *more = replaced
    os.close(null)
    assert (stdout, more) == (1, [])


def test_a_value_error_shows_its_trace_if_asked_for(world, tmp_path, monkeypatch):
    monkeypatch.setenv("RLNAS_TRACEBACK", "1")
    with pytest.raises(ValueError, match="batch_size=0"):
        main(world.arguments(tmp_path, "--batch-size", "0"))


def test_an_error_of_the_program_itself_is_not_hidden(world, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyError("a bug")

    monkeypatch.setattr(rlnas.run, "run_job", fail)
    with pytest.raises(KeyError, match="a bug"):
        main(world.arguments(tmp_path))


# calibrate


@pytest.fixture
def quick(monkeypatch):
    """Calibration with few rounds; returns the efforts that were asked for."""
    real, efforts = rlnas.run.calibration.calibrate, []

    def few(*args, effort, **how):
        efforts.append(effort)
        n_held_out = effort.n_held_out
        return real(*args, effort=Effort(4, n_held_out, n_rounds=5, max_seconds=0.5), **how)

    monkeypatch.setattr(rlnas.run.calibration, "calibrate", few)
    return efforts


def test_calibrate_writes_a_table_that_a_search_takes(world, tmp_path, capsys, quick):
    out = tmp_path / "tables" / "tiny.json"
    flags = ("--model", str(world.model), "--device", "cpu", "--seq-len", str(WORKLOAD.seq_len))
    assert main(["calibrate", *flags, "--out", str(out)]) == 0
    table = LatencyTable.load(out)
    assert table.workload == WORKLOAD
    assert set(table.attention_ms) == {1, 2, 3, 4}
    assert quick == [Effort()]
    printed = capsys.readouterr()
    first, regime, title, *rows = printed.out.splitlines()
    assert first.startswith("latency of batch 1 x 16 tokens")
    assert regime == str(find_regime(table))
    assert title.startswith("error on 4 held-out subnets (each predicted from the others)")
    assert rows[0].startswith("  this table")
    assert re.fullmatch(r"building took [\d.]+ s, measuring [\d.]+ s", rows[-2])
    assert rows[-1] == f"table: {out}"
    assert "FFN width" not in printed.out
    assert "calibrate: 100%" in printed.err


def test_calibrate_judges_its_table_on_further_subnets_if_asked(world, tmp_path, capsys, quick):
    out = tmp_path / "tiny.json"
    flags = ("--model", str(world.model), "--device", "cpu", "--seq-len", "16", "--held-out", "6")
    assert main(["calibrate", *flags, "--out", str(out)]) == 0
    assert quick == [Effort(n_held_out=6)]
    assert len(LatencyTable.load(out).held_out_timings) == 6
    printed = capsys.readouterr().out
    assert "error on 6 held-out subnets (measured for this alone)" in printed
    assert "counting blocks" in printed
    assert "counting FLOPs" in printed


def test_calibrate_warns_of_a_table_that_is_worse_than_counting(
    world, tmp_path, capsys, monkeypatch, caplog
):
    error = HeldOutError(
        16, PredictionError(0.1, 0.2, 0.3), {"flops": PredictionError(0.01, 0.02, 0.03)}, worse_than="flops"
    )
    table = replace(make_table(), error=error, notes=("the clock moved",))
    monkeypatch.setattr(rlnas.run.calibration, "calibrate", lambda *_, **__: table)
    assert main(["calibrate", "--model", str(world.model), "--out", str(tmp_path / "t.json")]) == 0
    assert "latency: counting flops predicts latency better here" in caplog.text
    assert "latency: the clock moved" in caplog.text


def test_calibrate_takes_the_lengths_of_a_task(world, tmp_path, quick):
    out = tmp_path / "tiny.json"
    flags = ("--model", str(world.model), "--device", "cpu", "--seq-len", "16", "--lengths", "task")
    assert main(["calibrate", *flags, "--task", str(world.data), "--out", str(out)]) == 0
    workload = LatencyTable.load(out).workload
    assert len(workload.lengths) == 64
    assert workload.seq_len == 16


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lengths", "task"], r"--lengths=task takes the lengths of a task's texts; name one \(--task\)"),
        (["--task", "pydocs"], "--task=pydocs is read for the lengths .*; add --lengths=task, or drop it"),
        (["--held-out", "-1"], "n_held_out must be at least 0, but got n_held_out=-1"),
        (["--mode", "cuda_graph"], "mode='cuda_graph' needs a CUDA device"),
        (
            ["--mode", "onnxruntime", "--dtype", "bfloat16"],
            "runs float32 and float16, but got dtype='bfloat",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_calibrate_refuses_what_cannot_be_before_it_measures(
    world, tmp_path, refused, monkeypatch, flags, message
):
    monkeypatch.setattr(rlnas.run.calibration, "calibrate", None)
    flags = ["--device", "cpu", *flags]
    refused(["calibrate", "--model", world.model, *flags, "--out", tmp_path / "t.json"], message)


@pytest.mark.usefixtures("quick")
def test_calibrate_says_which_widths_the_device_likes_if_asked(world, tmp_path, capsys, monkeypatch):
    few = functools.partial(rlnas.alignment.probe_alignment, n_rounds=5)
    monkeypatch.setattr(rlnas.alignment, "probe_alignment", few)
    flags = ("--model", str(world.model), "--device", "cpu", "--seq-len", str(WORKLOAD.seq_len))
    assert main(["calibrate", *flags, "--alignment", "--out", str(tmp_path / "tiny.json")]) == 0
    *_, finding, _, last = capsys.readouterr().out.splitlines()
    assert re.search(r"FFN width.* per unit.*; odd widths cost \d+\.\d% (more|less) \(", finding)
    assert last.startswith("table: ")


def test_calibrate_does_not_measure_what_it_cannot_write(world, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(rlnas.run.calibration, "calibrate", None)
    (tmp_path / "file").write_text("")
    arguments = ["calibrate", "--model", world.model, "--out", tmp_path / "file" / "table.json"]
    refused(arguments, r"cannot make the folder of '.*file/table.json'.*: (Not a directory|File exists)")


def test_calibrate_refuses_a_folder_and_a_seed_before_it_measures(world, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(rlnas.run.calibration, "calibrate", None)
    arguments = ["calibrate", "--model", world.model, "--out"]
    refused([*arguments, tmp_path], r"is a folder; name a file, such as .*latency\.json$")
    refused([*arguments, tmp_path / "t.json", "--seed", "-3"], "seed must be at least 0, but got seed=-3")


def test_calibrate_names_a_missing_checkpoint(tmp_path, refused):
    refused(["calibrate", "--model", "no/such", "--out", tmp_path / "t.json"], "no checkpoint 'no/such'")


# certify


@pytest.fixture
def brief(monkeypatch):
    """Certificates with few rounds; returns what was asked for."""
    real, asked = rlnas.deploy.certify, []

    def few(*args, **how):
        asked.append((args, how))
        return real(*args, n_rounds=5, **how)

    monkeypatch.setattr(rlnas.deploy, "certify", few)
    return asked


CPU = ("--device", "cpu", "--seq-len", "16")


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
    flags = ("--task", str(world.data), "--search-items", "32", "--lengths", "task", "--statistic", "p99")
    assert main(["certify", tuned, "--baseline", tuned, *CPU, *flags]) == 0
    workload = brief[0][1]["workload"]
    assert len(workload.lengths) == 64
    assert workload.statistic == "p99"


def test_a_run_stands_for_its_chosen_and_its_full_model(brief, finished, tuned):
    assert main(["certify", str(finished), *CPU]) == 0
    assert main(["certify", str(finished), "--baseline", tuned, *CPU]) == 0
    assert main(["certify", tuned, "--baseline", str(finished), *CPU]) == 0
    compared = [(args[0], how["baseline"]) for args, how in brief]
    best, full = str(finished / "best"), str(finished / "full")
    assert compared == [(best, full), (best, tuned), (tuned, full)]


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
    assert main(["certify", str(run), *CPU, "--trust-remote-code"]) == 0


# report


def test_a_report_is_printed_and_written_anew(run, capsys):
    before = (run / "report.html").read_text()
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert "chosen subnet" in capsys.readouterr().out
    assert (run / "report.html").read_text() == before


def test_a_report_of_an_unfinished_run_says_how_far_it_is(unfinished, refused):
    line = refused(["report", unfinished], f"run' is not finished: {BUDGET} subnets are scored, finished")
    assert "finished phases: data, calibrate, finetune, importance, share, search" in line
    assert line.endswith("go on with --resume")


def test_a_report_of_a_run_that_has_just_begun(tmp_path, refused):
    write_json(tmp_path / "config.json", {})
    refused(["report", tmp_path], "is not finished: 0 subnets are scored, finished phases: none; go on")


def test_a_report_of_what_is_no_run(tmp_path, refused):
    message = r"holds no run: '.*config.json' is missing; give the folder of a run \(its --out\)"
    refused(["report", tmp_path], message)
    (tmp_path / "file").write_text("")
    refused(["report", tmp_path / "file"], "file' is a file; give the folder of a run")


def test_a_report_of_a_missing_run_guesses(run, refused):
    message = r"/rum/config.json' is missing; did you mean '.*/run'\?"
    refused(["report", run.parent / "rum"], message)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("summary.json", "{", "summary.json is damaged: it is no JSON"),
        ("summary.json", "{}", "summary.json is damaged: model is missing"),
        ("history.sqlite", "no database " * 1000, "history.sqlite is not a sound history"),
        ("config.json", "{", "config.json' is damaged"),
    ],
)
def test_a_report_of_a_damaged_run(run, refused, file, content, message):
    (run / file).write_text(content)
    refused(["report", run], message)


def test_a_report_of_a_damaged_unfinished_run(unfinished, refused):
    (unfinished / "phases.json").write_text("{")
    refused(["report", unfinished], r"phases.json' is damaged")


# export


def test_the_chosen_subnet_is_exported(finished, tmp_path, capsys):
    assert main(["export", str(finished), "--out", str(tmp_path / "small")]) == 0
    assert (tmp_path / "small" / "modeling_subnet.py").is_file()
    assert f"model: {tmp_path / 'small'}" in capsys.readouterr().out


def test_a_trial_is_exported(finished, tmp_path, capsys):
    assert main(["export", str(finished), "--trial", "5", "--out", str(tmp_path / "fifth")]) == 0
    with History.read(finished) as history:
        expected = history.trials[5].config.to_dict()
    assert json.loads(capsys.readouterr().out.splitlines()[0]) == expected
    assert read_json(tmp_path / "fifth" / "subnet.json") == expected


@pytest.mark.parametrize("number", ["40", "-1"])
def test_a_trial_out_of_range(finished, tmp_path, refused, number):
    arguments = ["export", finished, "--trial", number, "--out", tmp_path / "none"]
    refused(arguments, f"has trials 0 to 39, but got trial {number}")


def test_an_export_overwrites_nothing(finished, tmp_path, refused):
    (tmp_path / "mine").write_text("precious")
    refused(["export", finished, "--out", tmp_path], "is there already; delete it or give another folder")


def test_an_export_of_a_missing_run(tmp_path, refused):
    refused(["export", tmp_path / "absent", "--out", tmp_path / "x"], "absent/config.json' is missing")
