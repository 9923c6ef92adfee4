"""Docstrings of the running interpreter's standard library; the label is the area of the module.

Real English text that every Python installation carries, so a first search needs no download. The
sources are parsed, never imported; the same interpreter gives the same data.
"""

from __future__ import annotations

import ast
import sysconfig
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlnas.data.containment import normalise
from rlnas.errors import DataError
from rlnas.task import Split

if TYPE_CHECKING:
    from collections.abc import Iterator

MIN_CHARS = 20
MAX_CHARS = 400
MIN_SNIPPETS = 1000

# Top-level modules by area; a module that an interpreter lacks is passed over.
AREAS = {
    "concurrency": (
        "_threading_local asyncio asyncore asynchat concurrent contextvars multiprocessing queue sched "
        "selectors signal subprocess threading"
    ),
    "data structures": (
        "_collections_abc _py_abc _weakrefset abc bisect collections contextlib copy copyreg dataclasses "
        "dbm enum functools graphlib heapq operator pickle shelve sqlite3 types typing weakref"
    ),
    "files and archives": (
        "_compression _pyio bz2 compression filecmp fileinput fnmatch genericpath glob gzip io lzma ntpath "
        "os pathlib posixpath shutil stat tarfile tempfile zipapp zipfile"
    ),
    "graphical interfaces": "idlelib tkinter turtle",
    "internet": (
        "_markupbase cgi cgitb ftplib http imaplib ipaddress netrc nntplib nturl2path poplib smtpd smtplib "
        "socket socketserver ssl telnetlib urllib webbrowser wsgiref xmlrpc"
    ),
    "language tools": (
        "ast code codeop compileall dis importlib imp inspect keyword lib2to3 linecache modulefinder "
        "opcode pickletools pkgutil py_compile pyclbr pydoc rlcompleter runpy symtable tabnanny tokenize "
        "zipimport _pyrepl annotationlib"
    ),
    "mail": "base64 email mailbox mailcap mimetypes quopri uu",
    "markup and settings": "configparser csv html json plistlib tomllib xdrlib xml",
    "numbers and dates": (
        "_pydatetime _pydecimal _pylong _strptime calendar colorsys datetime decimal fractions numbers "
        "random secrets statistics uuid zoneinfo"
    ),
    "programs and platforms": (
        "_aix_support _osx_support _sitebuiltins argparse cmd ctypes curses distutils ensurepip getopt "
        "getpass optparse pipes platform pty site sysconfig tty venv"
    ),
    "testing and debugging": (
        "bdb cProfile doctest logging pdb profile pstats timeit trace traceback tracemalloc unittest "
        "warnings"
    ),
    "text": (
        "codecs difflib encodings gettext locale pprint re reprlib shlex string stringprep textwrap "
        "sre_compile sre_parse"
    ),
}
_SKIPPED_FOLDERS = {"test", "tests", "idle_test", "__pycache__"}
_BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def read_pydocs(library: Path | None = None) -> tuple[Split, tuple[str, ...]]:
    """All snippets, and the names of the areas.

    A snippet is a docstring with its white space normalised, cut at a word to at most 400 characters.
    Texts with the same words are taken once, and not at all if their areas differ.

    Args:
        library: Folder of the standard library; the running interpreter's if None.

    Raises:
        DataError: If there are fewer than 1,000 snippets: some interpreters come without sources.
    """
    library = Path(sysconfig.get_paths()["stdlib"]) if library is None else library
    areas = tuple(sorted(AREAS))
    found: dict[str, tuple[str, int]] = {}
    ambiguous: set[str] = set()
    for label, area in enumerate(areas):
        for module in sorted(AREAS[area].split()):
            for text in _snippets(library, module):
                words = normalise(text)
                if found.setdefault(words, (text, label))[1] != label:
                    ambiguous.add(words)
    rows = [row for words, row in found.items() if words not in ambiguous]
    if len(rows) < MIN_SNIPPETS:
        raise DataError(
            f"the standard library in {str(library)!r} has {len(rows)} docstrings in source form, but "
            f"pydocs needs {MIN_SNIPPETS}; use an interpreter that ships its sources, or another task"
        )
    texts, labels = zip(*rows, strict=True)
    return Split("train", texts, None, np.array(labels, dtype=np.int64)), areas


def _snippets(library: Path, module: str) -> Iterator[str]:
    """Snippets of a module or package, in the order of its files and lines."""
    package = library / module
    paths = sorted(package.rglob("*.py")) if package.is_dir() else [library / f"{module}.py"]
    for path in paths:
        if _SKIPPED_FOLDERS.isdisjoint(path.relative_to(library).parts):
            for docstring in _docstrings(path):
                text = _shorten(" ".join(docstring.split()))
                if len(text) >= MIN_CHARS:
                    yield text


def _docstrings(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            # Old modules hold escapes that newer parsers warn of.
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    # Statements alone, in the order of the source: expressions hold no docstrings and are most of a tree.
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, _DOCUMENTED):
            docstring = ast.get_docstring(node, clean=False)
            if docstring:
                yield docstring
        inner = [child for block in _BLOCKS for child in getattr(node, block, ())]
        waiting.extend(reversed(inner))


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS + 1].rsplit(" ", 1)[0]
