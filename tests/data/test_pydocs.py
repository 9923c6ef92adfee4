from __future__ import annotations

import numpy as np
import pytest

from rlnas.data import load_task
from rlnas.data.containment import normalise
from rlnas.data.pydocs import AREAS, MAX_CHARS, MIN_CHARS, read_pydocs
from rlnas.errors import DataError


def write_library(folder, *, n_docstrings: int = 1200, **modules: str):
    """A small standard library: one large module, and those given."""
    functions = (
        f'def f{i}():\n    """Function number {i} does its work."""\n' for i in range(n_docstrings)
    )
    (folder / "queue.py").write_text("".join(functions), encoding="utf-8")
    for name, source in modules.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return folder


def found_in(folder) -> dict[str, str]:
    split, areas = read_pydocs(folder)
    return {
        text: areas[label]
        for text, label in zip(split.texts, split.labels.tolist(), strict=True)
        if not text.startswith("Function number")
    }


@pytest.fixture(scope="module")
def task():
    return load_task("pydocs")


def test_no_module_is_in_two_areas():
    modules = " ".join(AREAS.values()).split()
    assert len(modules) == len(set(modules))


def test_docstrings_of_modules_classes_and_functions_are_found(tmp_path):
    source = '''
"""About the module as such."""
class A:
    """About the class as such."""
    def method(self):
        """About the method as such."""
if True:
    try:
        async def f():
            """About an inner function."""
            x = """Not a docstring at all here."""
    except ValueError:
        def g():
            """About a function of last resort."""
'''
    assert set(found_in(write_library(tmp_path, heapq=source))) == {
        "About the module as such.",
        "About the class as such.",
        "About the method as such.",
        "About an inner function.",
        "About a function of last resort.",
    }


def test_the_label_is_the_area_of_the_top_level_module(tmp_path):
    folder = write_library(
        tmp_path,
        heapq='"""A docstring about heaps."""',
        asyncio__deep__events='"""A docstring about events."""',
        unknown_module='"""A docstring of no area at all."""',
    )
    assert found_in(folder) == {
        "A docstring about heaps.": "data structures",
        "A docstring about events.": "concurrency",
    }


def test_tests_and_unreadable_sources_are_passed_over(tmp_path):
    folder = write_library(
        tmp_path,
        heapq='"""A docstring about heaps."""',
        email__test__test_a='"""A docstring about tests."""',
        bisect="def broken(:",
        enum='"""A docstring with a null."""\0',
        typing='r"""An invalid escape is passed over."""\nx = "\\d"',
    )
    (folder / "types.py").mkdir()
    assert set(found_in(folder)) == {"A docstring about heaps.", "An invalid escape is passed over."}


def test_white_space_is_normalised_and_length_is_bounded(tmp_path):
    folder = write_library(
        tmp_path,
        heapq='"""One\n\n    two\tthree   four and more.\n"""',
        bisect='"""Too short."""',
        enum=f'"""{"word " * 200}"""',
    )
    assert sorted(found_in(folder)) == sorted(["One two three four and more.", ("word " * 80).strip()])


def test_equal_texts_are_taken_once_and_ambiguous_ones_not_at_all(tmp_path):
    same, ambiguous = '"""The very same text twice."""', '"""The same text in two areas."""'
    folder = write_library(
        tmp_path,
        heapq=same,
        bisect=same.replace("very same", "VERY, same"),
        enum=ambiguous,
        email__parser=ambiguous,
        email__other=ambiguous,
    )
    assert list(found_in(folder)) == ["The VERY, same text twice."]


def test_the_same_sources_give_the_same_data(tmp_path):
    folder = write_library(tmp_path, heapq='"""A docstring about heaps."""')
    first, second = read_pydocs(folder)[0], read_pydocs(folder)[0]
    assert first.texts == second.texts
    assert (first.labels == second.labels).all()


def test_an_interpreter_without_sources_is_refused(tmp_path):
    folder = write_library(tmp_path, n_docstrings=999)
    with pytest.raises(
        DataError, match=rf"in '{tmp_path}' has 999 docstrings in source form, but pydocs needs 1000"
    ):
        read_pydocs(folder)


def test_this_interpreter_has_thousands_of_snippets_in_every_area(task):
    parts = (task.train, task.search, task.final)
    assert sum(map(len, parts)) > 5000
    assert len(task.final) >= 1000
    assert len(task.label_names) == len(AREAS) == 12
    for part in parts:
        assert np.bincount(part.labels, minlength=12).min() >= 10
        assert all(MIN_CHARS <= len(text) <= MAX_CHARS for text in part.texts)


def test_the_parts_of_pydocs_stand_apart(task):
    assert (task.name, task.metric, task.train.name) == ("pydocs", "accuracy", "train")
    assert (task.search.name, task.final.name) == ("search", "final")
    parts = [[normalise(text) for text in part.texts] for part in (task.train, task.search, task.final)]
    for index, part in enumerate(parts):
        others = "\n".join(text for other in parts[:index] + parts[index + 1 :] for text in other)
        assert not any(text in others for text in part)


def test_the_area_can_be_told_from_the_text(task):
    counts = np.bincount(task.train.labels) / len(task.train)
    words: dict[str, np.ndarray] = {}
    for text, label in zip(task.train.texts, task.train.labels, strict=True):
        for word in set(normalise(text).split()):
            words.setdefault(word, np.full(12, 0.1))[label] += 1
    prior = np.log(counts)
    evidence = {word: np.log(seen / counts) - np.log(seen / counts).mean() for word, seen in words.items()}
    guesses = [
        int(np.argmax(prior + sum(evidence.get(word, 0) for word in set(normalise(text).split()))))
        for text in task.final.texts
    ]
    assert np.mean(np.array(guesses) == task.final.labels) > 0.5 > 2 * counts.max()
