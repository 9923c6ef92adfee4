from __future__ import annotations

import inspect

import pytest

from rlnas import errors
from rlnas.errors import EvaluationError, RLNASError, first_line

CLASSES = [
    member
    for _, member in inspect.getmembers(errors, inspect.isclass)
    if issubclass(member, Exception) and member is not RLNASError
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_is_caught_as_ours_and_as_a_builtin(kind):
    builtin = next(parent for parent in kind.__mro__ if parent.__module__ == "builtins")
    assert builtin is not Exception
    for caught in (RLNASError, builtin):
        with pytest.raises(caught, match="seq_len=0"):
            raise kind("seq_len must be at least 2, but got seq_len=0")


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_says_its_message_and_nothing_else(kind):
    assert str(kind("a sentence")) == "a sentence"


def test_an_evaluation_error_carries_the_subnet():
    assert EvaluationError("broken", ("a", "subnet")).config == ("a", "subnet")
    assert EvaluationError("broken").config is None


@pytest.mark.parametrize(
    ("error", "line"),
    [(ValueError("one\ntwo"), "one"), (ValueError("\n one \n"), "one"), (KeyError(), "KeyError")],
)
def test_what_another_library_says_is_cut_to_one_line(error, line):
    assert first_line(error) == line
