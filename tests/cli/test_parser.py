from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import rlnas.cli.parser
from rlnas.cli import main
from rlnas.cli.parser import make_parser

ROOT = Path(__file__).parents[2]
COMMANDS = ("demo", "search", "auto", "calibrate", "certify", "report", "export")


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


@pytest.mark.parametrize("installed", [True, False])
def test_the_version_is_told(capsys, monkeypatch, installed):
    def version(name):
        if not installed:
            raise PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr(rlnas.cli.parser, "version", version)
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"rlnas {'1.2.3' if installed else '(not installed)'}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_explained_and_has_a_default(command):
    commands = make_parser()._subparsers._group_actions[0].choices
    for action in commands[command]._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        assert not action.required or not action.option_strings
        assert action.help or action.choices, action


def test_a_command_is_needed(misused):
    misused([], "the following arguments are required: COMMAND")
