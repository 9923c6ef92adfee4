"""Calls that travel to another process of a run, and what comes back: pickles, but for what stays there."""

from __future__ import annotations

import pickle
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from rlnas.errors import RLNASError

if TYPE_CHECKING:
    from collections.abc import Callable

TIMED = "timed"
"""Stands in a message for what the process has to be timed."""

Answer: TypeAlias = tuple[bool, Any]
"""Whether a call has returned, and what; or what it has raised."""


class MessagePickler(pickle.Pickler):
    """Writes names in place of some objects.

    Args:
        file: Where to.
        name_of: From an object to its name, or None for what is pickled itself.
    """

    def __init__(self, file: IO[bytes], name_of: Callable[[object], str | None]) -> None:
        super().__init__(file)
        self._name_of = name_of

    def persistent_id(self, obj: object) -> str | None:
        """The name of an object."""
        return self._name_of(obj)


class MessageUnpickler(pickle.Unpickler):
    """Reads what `MessagePickler` wrote.

    Args:
        file: Where from.
        known: From a name to the object.
    """

    def __init__(self, file: IO[bytes], known: Callable[[str], object]) -> None:
        super().__init__(file)
        self._known = known

    def persistent_load(self, pid: object) -> object:
        """The object of a name."""
        return self._known(str(pid))


def tried(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Answer:  # noqa: ANN401
    """Call a function; an error of ours is an answer."""
    try:
        return True, function(*args, **kwargs)
    except RLNASError as error:
        return False, error


def value_of(answer: Answer) -> Any:  # noqa: ANN401
    """What a call has returned; what it has raised is raised here."""
    has_returned, value = answer
    if not has_returned:
        raise value
    return value
