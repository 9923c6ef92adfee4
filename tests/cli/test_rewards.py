from __future__ import annotations

import re
import sys

import pytest

from rlnas.cli import main
from rlnas.cli.rewards import REWARDS, make_reward
from rlnas.errors import RewardError
from rlnas.history import History
from rlnas.rewards import HardBudget, LatencyTarget, LinearPenalty, MnasNetReward
from rlnas.run.folder import read_json


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
    for name in REWARDS:
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
    with pytest.raises(RewardError, match=f"--reward={name} knows no target, so --target-ms, --target"):
        make_reward(name, target_ms, ratio, None)
