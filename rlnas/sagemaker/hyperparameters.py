"""Flags of ``rlnas search`` as hyper-parameters, which are all text, and back.

``--budget 300`` is the hyper-parameter ``budget`` with the value ``300``; a switch has the value ``true``.
``channel:NAME`` and ``channel:NAME/FILE`` stand for the folder of an input channel and a file in it.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlnas.errors import ContainerError, RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

CODE_DIGEST = "code-sha256"
"""Our own hyper-parameter: what the packed code has to be."""

HOSTS_KEY = "hosts-key"
"""Our own hyper-parameter: random text, by which the hosts of a job know each other."""

CHANNEL = "channel:"
MAX_COUNT, MAX_NAME, MAX_VALUE = 100, 256, 2500

_SECRETS = (
    ("an AWS access key", re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b")),
    ("a token of the Hugging Face hub", re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")),
    ("a token of GitHub", re.compile(r"\b(?:gh[a-z]_[A-Za-z0-9]{36,}|github_pat_\w{50,})\b")),
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")),
)
_SECRET_NAME = re.compile(r"secret|password|passwd|token$|credential|access[-_]?key", re.IGNORECASE)
_SECRET_KEY = re.compile(r"(?<![A-Za-z0-9/+])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])")


@dataclass(frozen=True, slots=True)
class Flags:
    """The flags that a search has, without their dashes.

    Attributes:
        valued: Those with a value.
        switches: Those without.
        whole: Those whose value is a whole number.
        reserved: Those that only the container sets.
    """

    valued: frozenset[str]
    switches: frozenset[str]
    whole: frozenset[str] = frozenset()
    reserved: frozenset[str] = frozenset({"out", "resume"})


def to_hyperparameters(arguments: Sequence[str], flags: Flags) -> dict[str, str]:
    """What to give a job so that its search gets these arguments; the last of equal flags wins.

    Args:
        arguments: As on the command line, e.g. ``["--budget", "300", "--racing"]``.
        flags: Those of a search.

    Raises:
        RequestError: If one is no flag, lacks its value or is set by the container.
    """
    found: dict[str, str] = {}
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        name, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or name not in flags.valued | flags.switches:
            known = sorted("--" + each for each in flags.valued | flags.switches)
            close = difflib.get_close_matches(argument, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "see rlnas search --help"
            raise RequestError(f"{argument!r} is no flag of rlnas search; {hint}")
        if name in flags.reserved:
            raise RequestError(f"--{name} is set in the container; leave it out")
        if name in flags.switches:
            if equals:
                raise RequestError(f"--{name} takes no value, but got {value!r}")
            found[name] = "true"
            continue
        if not equals:
            if not waiting:
                raise RequestError(f"--{name} needs a value")
            value = waiting.pop(0)
        found[name] = value
    return found


def to_arguments(
    hyperparameters: Mapping[str, str], flags: Flags, channels: Mapping[str, Path]
) -> list[str]:
    """What to give ``rlnas search`` in a container.

    Args:
        hyperparameters: Of the job.
        flags: Those of a search.
        channels: Folder of each input channel.

    Raises:
        ContainerError: If a hyper-parameter is no flag, is set by the container, or names a channel or a
            file in one that is not there.
    """
    arguments = []
    for name, value in hyperparameters.items():
        if name in (CODE_DIGEST, HOSTS_KEY):
            continue
        if name in flags.reserved or name not in flags.valued | flags.switches:
            known = sorted((flags.valued | flags.switches) - flags.reserved)
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ", which names its flags"
            raise ContainerError(f"the hyper-parameter {name}={value} is none of rlnas search{hint}")
        if name in flags.valued:
            arguments.append(f"--{name}={_resolved(name, value, channels)}")
        elif value.lower() == "true":
            arguments.append(f"--{name}")
        elif value.lower() != "false":
            raise ContainerError(f"the hyper-parameter {name} must be true or false, but is {value!r}")
    return arguments


def check_hyperparameters(values: Mapping[str, str]) -> None:
    """Refuse hyper-parameters that SageMaker would refuse, or that anyone who may look should not see.

    Raises:
        RequestError: If there are too many, one is too long or not of one line, or looks like a secret.
    """
    if len(values) > MAX_COUNT:
        raise RequestError(f"a job takes {MAX_COUNT} hyper-parameters at most, but got {len(values)}")
    for name, value in values.items():
        if not 0 < len(name) <= MAX_NAME:
            raise RequestError(
                f"the name of a hyper-parameter has 1 to {MAX_NAME} characters, but {name[:40]!r} has "
                f"{len(name)}"
            )
        if len(value) > MAX_VALUE:
            raise RequestError(
                f"a hyper-parameter has {MAX_VALUE} characters at most, but {name}={value[:40]!r}... has "
                f"{len(value)}"
            )
        if "\n" in value or "\r" in value:
            raise RequestError(f"a hyper-parameter is one line, but {name}={value!r} has several")
        check_no_secret(name, value, name)


def check_no_secret(what: str, value: str, name: str = "") -> None:
    """Refuse what looks like a credential: requests are logged and shown to whoever may describe a job.

    The message does not repeat the value.

    Args:
        what: That has the value, for the message.
        value: Text.
        name: Of a hyper-parameter or tag, which may tell as well.

    Raises:
        RequestError: If it does.
    """
    kind = next((kind for kind, pattern in _SECRETS if pattern.search(value)), None)
    if kind is None and any(map(_is_mixed, _SECRET_KEY.findall(value))):
        kind = "an AWS secret key"
    if kind is None and _SECRET_NAME.search(name):
        kind = "a secret, by its name"
    if kind is not None:
        raise RequestError(
            f"{what} looks like {kind}, and everyone who may describe the job would see it; let the job's "
            "role give access (--role)"
        )


def _is_mixed(text: str) -> bool:
    """Whether 40 characters are likely random: digests have no capitals, and words no digits."""
    kinds = (str.isupper, str.islower, str.isdigit)
    return all(any(map(kind, text)) for kind in kinds) and text.count("/") < 3


def _resolved(name: str, value: str, channels: Mapping[str, Path]) -> str:
    if not value.startswith(CHANNEL):
        return value
    channel, _, rest = value.removeprefix(CHANNEL).partition("/")
    if channel not in channels:
        there = ", ".join(sorted(channels)) or "none"
        raise ContainerError(f"{name}={value} names a channel that is not there; the job has {there}")
    path = channels[channel] / rest if rest else channels[channel]
    if not path.exists():
        raise ContainerError(f"{name}={value} names a file that the channel does not hold: {path}")
    return str(path)
