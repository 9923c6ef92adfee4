"""Requests to SageMaker, checked against the service's own description before they are sent.

That description comes with botocore, which uses it to check types and required members, but neither
patterns nor choices nor lengths.
"""

from __future__ import annotations

import difflib
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rlnas.errors import MissingDependencyError, RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from botocore.model import ServiceModel, Shape

_PYTHON_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "structure": dict,
    "map": dict,
    "list": (list, tuple),
    "string": str,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
    "boolean": bool,
}
_PLURALS = {"string": "characters", "list": "entries", "map": "entries"}
_JAVA_CLASSES = {r"\p{L}": r"\w", r"\p{N}": r"\d", r"\p{Z}": r"\s", r"\p{Alnum}": "a-zA-Z0-9"}
_SHOWN = 60


def check_request(operation: str, request: Mapping[str, Any]) -> None:
    """Refuse a request that the service would refuse by its form.

    Args:
        operation: E.g. ``"CreateTrainingJob"``.
        request: Its members.

    Raises:
        RequestError: If a member is unknown, missing, of another type, not among the choices, against its
            pattern, or too short, long, small or large. The message names it and its value.
        MissingDependencyError: If botocore is not installed.
    """
    shape = _service().operation_model(operation).input_shape
    for fault in _faults(shape, request, operation):
        raise RequestError(f"{fault}; nothing was sent")


def instance_types() -> Sequence[str]:
    """The kinds of machines that training jobs may have, as far as the installed botocore knows.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    return tuple(_service().shape_for("TrainingInstanceType").enum)


@lru_cache(maxsize=1)
def _service() -> ServiceModel:
    try:
        import botocore.session
    except ImportError as error:
        raise MissingDependencyError(
            "SageMaker jobs need boto3; install with: pip install 'rlnas[sagemaker]'"
        ) from error
    return botocore.session.get_session().get_service_model("sagemaker")


def _faults(shape: Shape, value: object, path: str) -> Iterator[str]:
    """What is wrong with a value, a sentence each."""
    expected = _PYTHON_TYPES.get(shape.type_name)
    if expected is None:
        return
    is_bool_for_number = isinstance(value, bool) and shape.type_name != "boolean"
    if not isinstance(value, expected) or is_bool_for_number:
        yield f"{path} must be a {shape.type_name}, but is {_short(value)}"
        return
    yield from _size_faults(shape, value, path)
    if shape.type_name == "string":
        yield from _text_faults(shape, str(value), path)
    elif isinstance(value, dict) and shape.type_name == "structure":
        yield from _member_faults(shape, value, path)
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from _faults(shape.key, key, f"a name in {path}")
            yield from _faults(shape.value, entry, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for number, entry in enumerate(value):
            yield from _faults(shape.member, entry, f"{path}[{number}]")


def _member_faults(shape: Shape, value: Mapping[str, object], path: str) -> Iterator[str]:
    for name in shape.required_members:
        if name not in value:
            yield f"{path} lacks {name}"
    for name, entry in value.items():
        if name not in shape.members:
            yield f"{path} has no member {name}, but got {_short(entry)}{_close(name, shape.members)}"
            continue
        yield from _faults(shape.members[name], entry, f"{path}.{name}")


def _size_faults(shape: Shape, value: object, path: str) -> Iterator[str]:
    size: float
    if shape.type_name in _PLURALS and isinstance(value, str | list | tuple | dict):
        unit, size = f" {_PLURALS[shape.type_name]}", len(value)
        verb, found = "have", f"has {size:,}: {_short(value)}"
    elif isinstance(value, int | float) and not isinstance(value, bool):
        unit, size = "", value
        verb, found = "be", f"is {value}"
    else:
        return
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and size < low:
        yield f"{path} must {verb} at least {low:,}{unit}, but {found}"
    if high is not None and size > high:
        yield f"{path} must {verb} at most {high:,}{unit}, but {found}"


def _text_faults(shape: Shape, value: str, path: str) -> Iterator[str]:
    choices = shape.enum
    if choices and value not in choices:
        hint = _close(value, choices) or f"; give one of {', '.join(choices[:8])}" + (
            ", ..." if len(choices) > 8 else ""
        )
        yield f"{path}={value!r} is not among the choices{hint}"
        return
    pattern = shape.metadata.get("pattern")
    if pattern is not None and not _python_pattern(pattern).fullmatch(value):
        yield f"{path}={_short(value)} does not match {pattern}"


@lru_cache(maxsize=256)
def _python_pattern(pattern: str) -> re.Pattern[str]:
    """A pattern of the service, which is written for Java, for Python: Unicode classes have other names."""
    for theirs, ours in _JAVA_CLASSES.items():
        pattern = pattern.replace(theirs, ours)
    return re.compile(pattern)


def _close(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
