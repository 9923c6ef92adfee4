"""What each command is: a parser of its own that explains it, and the function that runs it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults where there is one: "None", "False" and "[]" tell a reader nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == []:
            return action.help
        return super()._get_help_string(action)


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    summary: str,
    details: str,
) -> argparse.ArgumentParser:
    """The parser of a new command.

    Args:
        commands: Where it is added.
        name: What users type.
        run: What it does with its flags; the exit code, or None for 0.
        summary: Its line in the list of commands.
        details: What else its own help says first.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. {details}",
        formatter_class=Help,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser
