"""The documentation says what the code does: snippets run, links lead somewhere, the reference is whole."""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import io
import re
import shlex
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from rlnas.cli.parser import make_parser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
REFERENCE = sorted((DOCS / "reference").glob("*.md"))
GUIDES = ("custom_reward", "custom_space", "custom_controller", "custom_latency", "any_target")
GUIDES += ("small_data",)

_FENCE = re.compile(r"^```(\w*)(?: file=([\w.]+))?\s*$")
_NOT_RUN = re.compile(r"^<!-- not run: (\S.*) -->$")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_ENTRY = re.compile(r"^- `(\w+)`: \S")
_MODULE = re.compile(r"^## `(rlnas[\w.]*)`$")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    `line` is the number of its first line of text, from 1; `file` the name of the file that it is, if any.
    """

    language: str
    text: str
    line: int
    file: str | None
    not_run: str | None


def blocks_of(text: str) -> list[Block]:
    blocks: list[Block] = []
    opened: tuple[str, int, str | None, str | None] | None = None
    lines: list[str] = []
    last = ""
    for number, line in enumerate(text.splitlines(), start=1):
        fence = _FENCE.match(line)
        if opened is not None:
            if line == "```":
                blocks.append(Block(opened[0], "\n".join(lines) + "\n", *opened[1:]))
                opened, last = None, ""
            else:
                lines.append(line)
        elif fence is not None:
            marker = _NOT_RUN.match(last)
            opened = (fence[1], number + 1, fence[2], None if marker is None else marker[1])
            lines = []
        elif line.strip():
            last = line.strip()
    assert opened is None, f"the block in line {opened} is never closed"
    return blocks


def prose_of(text: str) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def pages_with(language: str) -> list[Path]:
    return [
        page for page in PAGES if any(block.language == language for block in blocks_of(page.read_text()))
    ]


@pytest.fixture
def namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the snippets of one page share, as in a module, in an empty folder that can be imported from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)
    page = sys.modules["docs_page"] = ModuleType("docs_page")  # dataclasses look their module up
    yield page.__dict__
    for name in set(sys.modules) - known:
        file = getattr(sys.modules[name], "__file__", None)
        if name == "docs_page" or str(file).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", pages_with("python"), ids=name_of)
def test_the_snippets_of_a_page_run_in_order_and_print_what_it_says(
    page: Path, namespace: dict[str, Any]
) -> None:
    printed: str | None = None
    for block in blocks_of(page.read_text(encoding="utf-8")):
        if block.language == "python":
            printed = run(block, page, namespace)
        elif block.language == "text":
            assert printed is not None, f"the output in line {block.line} follows no snippet that is run"
            assert printed == block.text, f"line {block.line} of {name_of(page)}"


def run(block: Block, page: Path, namespace: dict[str, Any]) -> str | None:
    """What a snippet prints, or None where it is a file or is only checked."""
    code = compiled(block, page)
    if block.not_run is not None:
        check_names(block.text)
        return None
    if block.file is not None:
        Path(block.file).write_text(block.text, encoding="utf-8")
        return None
    with redirect_stdout(io.StringIO()) as output:
        exec(code, namespace)
    return output.getvalue()


def compiled(block: Block, page: Path) -> Any:
    # Blank lines in front, so that a traceback names the line of the page.
    return compile("\n" * (block.line - 1) + block.text, str(page), "exec", dont_inherit=True)


def check_names(source: str) -> None:
    """Of a snippet that is not run: imports resolve, and calls of what it imports fit their signatures."""
    tree = ast.parse(source)
    imported: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module is not None
            module = importlib.import_module(node.module)
            imported |= {alias.asname or alias.name: getattr(module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                module = importlib.import_module(alias.name)
                imported[alias.asname or alias.name.split(".")[0]] = (
                    module if alias.asname else sys.modules[alias.name.split(".")[0]]
                )
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = resolved(node.func, imported)
            if called is not None and not any(keyword.arg is None for keyword in node.keywords):
                arguments = {keyword.arg: None for keyword in node.keywords if keyword.arg is not None}
                inspect.signature(called).bind(*node.args, **arguments)


def resolved(node: ast.expr, imported: dict[str, Any]) -> Callable[..., object] | None:
    """What a call such as `search(...)` or `Supernet.load(...)` refers to, where it can be told."""
    if isinstance(node, ast.Name):
        found = imported.get(node.id)
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in imported:
        found = getattr(imported[node.value.id], node.attr)
    else:
        return None
    is_ours = (getattr(found, "__module__", None) or "").partition(".")[0] == "rlnas"
    return found if callable(found) and is_ours else None


def test_most_snippets_run_and_every_guide_runs_whole() -> None:
    for guide in GUIDES:
        blocks = blocks_of((DOCS / "guides" / f"{guide}.md").read_text())
        assert sum(block.language == "python" for block in blocks) >= 2
        assert all(block.not_run is None for block in blocks)


def commands_of(page: Path) -> Iterator[tuple[int, list[str]]]:
    """The commands of a page's shell blocks, each with its line."""
    for block in blocks_of(page.read_text(encoding="utf-8")):
        if block.language in ("console", "bash", "sh"):
            joined = block.text.replace("\\\n", " " * 2)
            for offset, line in enumerate(joined.splitlines()):
                words = shlex.split(line.removeprefix("$ "), comments=True)
                if words:
                    yield block.line + offset, words


@pytest.mark.parametrize("page", pages_with("console") + pages_with("bash"), ids=name_of)
def test_the_commands_of_a_page_are_understood(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line, words in commands_of(page):
        while "=" in words[0]:  # a variable set for this command
            words.pop(0)
        if words[:3] == ["python", "-m", "rlnas"]:
            words = words[2:]
        if words[0] == "rlnas":
            assert not complaint(words[1:]), f"line {line}: {shlex.join(words)}"
        elif words[0] == "make":
            assert set(words[1:]) <= targets, f"line {line}: {shlex.join(words)}"


def complaint(arguments: list[str]) -> str:
    """What the command line says against arguments; empty if it takes them."""
    errors = io.StringIO()
    with redirect_stderr(errors), redirect_stdout(io.StringIO()), suppress(SystemExit):
        make_parser().parse_args(arguments)
    return errors.getvalue()


def flags_of(parser: argparse.ArgumentParser) -> set[str]:
    flags = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                flags |= flags_of(command)
    return flags


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_flag_that_a_page_names_exists(page: Path) -> None:
    named = {
        flag
        for code in re.findall(r"`([^`\n]+)`", prose_of(page.read_text()))
        for flag in re.findall(r"(?<!\S)--[a-z][a-z-]*", code)
    }
    assert named <= flags_of(make_parser()) | {"--constraint"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in _LINK.findall(prose_of(page.read_text())):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = page if not path else (page.parent / path)
        assert linked.is_file(), f"{name_of(page)} links to {target}"
        if anchor:
            assert anchor in anchors_of(linked), f"{name_of(page)} links to {target}"


def anchors_of(page: Path) -> set[str]:
    """Anchors as GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_reached_from_the_index() -> None:
    reached: set[Path] = set()
    waiting = [DOCS / "index.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page in reached:
            continue
        reached.add(page)
        links = [target.partition("#")[0] for target in _LINK.findall(prose_of(page.read_text()))]
        waiting += [page.parent / link for link in links if link.endswith(".md") and "://" not in link]
    assert {page.resolve() for page in DOCS.rglob("*.md")} <= reached


def public_names() -> dict[str, set[str]]:
    """By module: its public classes and functions."""
    names: dict[str, set[str]] = {}
    for path in sorted((ROOT / "rlnas").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if any(part.startswith("_") for part in parts):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        found = {node.name for node in tree.body if isinstance(node, kinds)}
        names[".".join(parts)] = {name for name in found if not name.startswith("_")}
    return {module: found for module, found in names.items() if found}


def documented_names() -> dict[str, list[str]]:
    """By module: the names that the reference lists under its heading."""
    names: dict[str, list[str]] = {}
    for page in REFERENCE:
        module = None
        for line in page.read_text(encoding="utf-8").splitlines():
            heading, entry = _MODULE.match(line), _ENTRY.match(line)
            if heading is not None:
                module = heading[1]
                names.setdefault(module, [])
            elif entry is not None:
                assert module is not None, f"{name_of(page)}: {line} stands under no module"
                names[module].append(entry[1])
    return names


def test_the_reference_lists_every_public_name_under_its_module() -> None:
    documented = documented_names()
    missing = {
        module: absent
        for module, names in public_names().items()
        if (absent := sorted(names - set(documented.get(module, ()))))
    }
    assert not missing, "add a line `- `name`: ...` to docs/reference for these"


def test_the_reference_lists_nothing_that_is_not_there() -> None:
    public = public_names()
    stale = {
        module: surplus
        for module, names in documented_names().items()
        if (surplus := sorted(set(names) - public.get(module, set())))
    }
    assert not stale, "remove these from docs/reference"


def test_the_reference_lists_no_name_twice() -> None:
    for module, names in documented_names().items():
        assert len(names) == len(set(names)), module


def class_members(module: str, name: str) -> set[str]:
    """What a class defines itself: methods, fields, and attributes that its methods set."""
    path = ROOT / f"{module.replace('.', '/')}.py"
    body = ast.parse(path.read_text(encoding="utf-8")).body
    (found,) = (node for node in body if isinstance(node, ast.ClassDef) and node.name == name)
    members = {node.name for node in ast.walk(found) if isinstance(node, ast.FunctionDef)}
    members |= {node.id for node in ast.walk(found) if isinstance(node, ast.Name)}
    return members | {node.attr for node in ast.walk(found) if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize("page", REFERENCE, ids=lambda page: page.stem)
def test_the_members_that_the_reference_names_are_there(page: Path) -> None:
    module = ""
    for line in page.read_text(encoding="utf-8").splitlines():
        heading = _MODULE.match(line)
        module = heading[1] if heading is not None else module
        entry, _, members = line.partition(" Has ")
        if members:
            named = set(re.findall(r"`([a-z_]+)`", members)) - {"in"}
            assert named
            assert named <= class_members(module, entry.split("`")[1]), line


@pytest.mark.parametrize("page", REFERENCE, ids=lambda page: page.stem)
def test_the_packages_export_what_the_reference_says(page: Path) -> None:
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("From `"):
            package, *names = re.findall(r"`([\w.]+)`", line)
            tree = ast.parse((ROOT / package.replace(".", "/") / "__init__.py").read_text(encoding="utf-8"))
            (exported,) = (node.value for node in tree.body if isinstance(node, ast.Assign))
            assert sorted(names) == sorted(ast.literal_eval(exported))


def dict_keys(path: Path) -> set[str]:
    """The constant keys of all dictionaries that a module writes down."""
    displays = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Dict)]
    keys = {key.value for node in displays for key in node.keys if isinstance(key, ast.Constant)}
    return {key for key in keys if isinstance(key, str)}


def class_fields(path: Path) -> set[str]:
    """The annotated fields of all public classes of a module."""
    classes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
    annotated = [
        field
        for node in classes
        if not node.name.startswith("_")
        for field in node.body
        if isinstance(field, ast.AnnAssign)
    ]
    return {field.target.id for field in annotated if isinstance(field.target, ast.Name)}


NUMBERS: dict[str, Callable[[], set[str]]] = {
    "summary": lambda: dict_keys(ROOT / "rlnas/run/summary.py"),
    "targets": lambda: dict_keys(ROOT / "rlnas/run/delivery.py") - {"n_trials", "model"},  # while it runs
    "added": lambda: dict_keys(ROOT / "rlnas/run/added.py"),
    "honest": lambda: dict_keys(ROOT / "rlnas/run/honest.py") | {"from_run"},
    "auto": lambda: dict_keys(ROOT / "rlnas/auto/summary.py"),
    "auto-trial": lambda: class_fields(ROOT / "rlnas/auto/candidates.py"),
    "evaluation": lambda: class_fields(ROOT / "rlnas/evaluation/cost.py"),
    "certificate": lambda: dict_keys(ROOT / "rlnas/deploy/certificate.py"),
    "metrics": lambda: class_fields(ROOT / "rlnas/metrics.py"),
    "trial": lambda: class_fields(ROOT / "rlnas/trial.py"),
    "result": lambda: class_fields(ROOT / "rlnas/history.py") - {"trials"},
    "correction": lambda: class_fields(ROOT / "rlnas/latency/correction.py"),
    "latency-table": lambda: dict_keys(ROOT / "rlnas/latency/table.py") - {"layers"},  # inside a config
    "timing": lambda: dict_keys(ROOT / "rlnas/latency/timing.py"),
    "held-out-error": lambda: class_fields(ROOT / "rlnas/latency/validation.py"),
    "regime": lambda: class_fields(ROOT / "rlnas/latency/regime.py"),
    "workload": lambda: class_fields(ROOT / "rlnas/workload.py"),
    "device": lambda: class_fields(ROOT / "rlnas/latency/device.py"),
}


@pytest.mark.parametrize("source", NUMBERS)
def test_every_number_that_is_stored_or_reported_is_defined(source: str) -> None:
    defined = set(re.findall(r"`([\w/]+)(?:\(\w+\))?`", prose_of((DOCS / "metrics.md").read_text())))
    names = NUMBERS[source]()
    assert names
    assert not sorted(names - defined), "define these in docs/metrics.md"


def test_every_column_of_the_history_is_defined() -> None:
    defined = set(re.findall(r"`(\w+)`", (DOCS / "metrics.md").read_text()))
    tables = re.findall(r"CREATE TABLE IF NOT EXISTS \w+ \((.*?)\)\"", history_source(), re.DOTALL)
    columns = {column.split()[0] for table in tables for column in table.replace('"', "").split(",")}
    assert {"number", "config", "reward", "key"} <= columns <= defined


def history_source() -> str:
    """The statements, with strings that stand side by side joined."""
    return re.sub(r'"\s+"', "", (ROOT / "rlnas/history.py").read_text())


# The tools above are checked too: a test that reads nothing would pass.


def test_a_snippet_that_fails_fails_the_page(tmp_path: Path) -> None:
    block = blocks_of("text\n\n```python\n1 / 0\n```\n")[0]
    assert (block.language, block.line, block.not_run) == ("python", 4, None)
    with pytest.raises(ZeroDivisionError):
        exec(compiled(block, tmp_path / "page.md"), {})


def test_a_marker_needs_a_reason_and_stands_right_before_its_block() -> None:
    marked = blocks_of("<!-- not run: needs a GPU -->\n```python\nx\n```\n\n```python\ny\n```\n")
    assert [block.not_run for block in marked] == ["needs a GPU", None]
    assert blocks_of("<!-- not run: -->\n```python\nx\n```\n")[0].not_run is None


def test_a_flag_that_does_not_exist_is_a_complaint() -> None:
    assert complaint(["search", "--budget", "3"]) == ""
    assert complaint(["search", "--help"]) == ""
    assert "--bugdet" in complaint(["search", "--bugdet", "3"])


def test_a_snippet_that_is_not_run_must_still_fit_the_signatures() -> None:
    check_names("from rlnas.workload import Workload\nWorkload(batch_size=2)\n")
    with pytest.raises(TypeError, match="batchsize"):
        check_names("from rlnas.workload import Workload\nWorkload(batchsize=2)\n")
    with pytest.raises(AttributeError, match="Workloads"):
        check_names("from rlnas.workload import Workloads\n")
