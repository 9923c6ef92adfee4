from __future__ import annotations

import pytest

from rlnas.cli import main

COMMANDS = ("demo", "search", "calibrate", "certify", "report", "export")


def test_help_names_no_default_where_there_is_none(capsys):
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([command, "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "(default: None)" not in printed
    assert "(default: False)" not in printed
    assert "subnets that may be evaluated (default: 200)" in printed
    assert "of everything random (default: 0)" in printed


def test_no_command_takes_abbreviated_flags(misused):
    for command in COMMANDS:
        names = ["run"] if command in ("certify", "report", "export") else []
        misused([command, *names, "--ou", "x"], "unrecognized arguments: --ou")
