"""The layering of the package, which nothing but a test keeps: see `docs/design.md`."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from rlnas import errors

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rlnas"

# A module imports only from lower layers or from its own folder.
LAYERS = (
    {"errors", "precision"},
    {"metrics", "space", "pareto", "workload", "task"},
    {"trial", "additive", "precision_space"},
    {"protocols", "history", "runtime"},
    {"rewards", "tabular", "loop", "scores", "selection", "data", "env", "latency", "supernet"},
    {"evaluation", "calibration", "alignment", "controllers", "deploy"},
    {"report", "scale", "testing"},
    {"run"},
    {"auto", "sagemaker"},
    {"cli"},
    {"__init__", "__main__"},  # of the package itself: nothing may import them
)
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}

# Who may import what, by the beginnings of module names. numpy is for all.
OWNERS = {
    "torch": (
        *("runtime.", "latency.", "supernet.", "evaluation.", "calibration", "deploy.", "run.", "auto."),
        "scale.worker",
        *("controllers.ppo", "controllers.randomness", "controllers.surrogate.policy"),
    ),
    "transformers": ("supernet.", "deploy."),
    "safetensors": ("supernet.", "deploy.", "controllers.surrogate.policy"),
    "stable_baselines3": ("controllers.",),
    "optuna": ("controllers.optuna", "auto.candidates"),
    "gymnasium": ("env", "controllers."),
    "datasets": ("data.",),
    "sklearn": ("scores", "controllers.surrogate.ensemble"),
    "scipy": ("scores", "controllers.surrogate.ensemble"),
    "tqdm": ("supernet.", "run."),
    "onnxruntime": ("runtime.onnx",),
    "onnx": ("runtime.onnx",),
    "onnxscript": ("runtime.onnx",),
    "pynvml": ("latency.frequency",),
    "ray": ("scale.pool",),
    "boto3": ("sagemaker.",),
    "botocore": ("sagemaker.",),
    "numpy": ("",),
}

# What `import rlnas`, and the modules that only need numpy, must not load.
HEAVY = ("torch", "transformers", "stable_baselines3", "datasets", "optuna", "sklearn", "scipy")
LIGHT_MODULES = (
    "rlnas",
    *(f"rlnas.{name}" for names in LAYERS[:4] for name in sorted(names - {"runtime"})),
    "rlnas.rewards",
    "rlnas.tabular",
    "rlnas.loop",
    "rlnas.testing",
)


@dataclass(frozen=True)
class Import:
    line: int
    target: str  # dotted, absolute


def module_name(path: Path) -> str:
    """Name inside the package: "supernet.timing", "loop"; a folder's `__init__` is "folder.__init__"."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
every_module = pytest.mark.parametrize("module", MODULES)


def imports_of(module: str, source: str) -> list[Import]:
    """Every import, inside functions and under TYPE_CHECKING too, and `import_module("...")`."""
    found = []
    package = ["rlnas", *module.split(".")[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [Import(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*parents, *([node.module] if node.module else [])])
            found.append(Import(node.lineno, origin))
            if (PACKAGE.parent / origin.replace(".", "/")).is_dir():  # the names may be modules
                found += [Import(node.lineno, f"{origin}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func).split(".")[-1]
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                found.append(Import(node.lineno, node.args[0].value))
    return found


def faults_of(module: str, source: str) -> list[str]:
    """What is wrong with the imports of a module, one sentence each."""
    faults = []
    own = module.split(".")[0]
    for found in imports_of(module, source):
        head, _, rest = found.target.partition(".")
        if head != "rlnas":
            if head not in sys.stdlib_module_names and not module.startswith(OWNERS.get(head, ())):
                faults.append(f"line {found.line}: {head} is not for rlnas.{module}")
            continue
        part = rest.split(".")[0]
        if not part:
            faults.append(f"line {found.line}: rlnas.{module} imports the package root")
        elif part != own and LAYER_OF.get(part, len(LAYERS)) >= LAYER_OF[own]:
            faults.append(f"line {found.line}: rlnas.{module} may not import {found.target}")
    return faults


@every_module
def test_a_module_has_its_layer(module):
    assert module.split(".")[0] in LAYER_OF


@every_module
def test_a_module_imports_only_what_it_may(module):
    assert faults_of(module, MODULES[module].read_text()) == []


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("space", "from rlnas.loop import search", "line 1: rlnas.space may not import rlnas.loop"),
        ("rewards", "import rlnas.tabular", "line 1: rlnas.rewards may not import rlnas.tabular"),
        ("space", "def f():\n    import torch", "line 2: torch is not for rlnas.space"),
        ("space", "if TYPE_CHECKING:\n    import torch", "line 2: torch is not for rlnas.space"),
        ("controllers.random", "import torch.nn", "line 1: torch is not for rlnas.controllers.random"),
        ("loop", "import pandas", "line 1: pandas is not for rlnas.loop"),
        ("cli.parser", "from rlnas import errors", "line 1: rlnas.cli.parser imports the package root"),
        ("cli.parser", "import rlnas", "line 1: rlnas.cli.parser imports the package root"),
        ("cli.parser", "from .. import errors", "line 1: rlnas.cli.parser imports the package root"),
        (
            "supernet.timing",
            "from ..run import job",
            "line 1: rlnas.supernet.timing may not import rlnas.run",
        ),
        ("loop", 'importlib.import_module("rlnas.cli")', "line 1: rlnas.loop may not import rlnas.cli"),
        ("loop", "import rlnas.unheard_of", "line 1: rlnas.loop may not import rlnas.unheard_of"),
        ("run.job", "import rlnas.__main__", "line 1: rlnas.run.job may not import rlnas.__main__"),
    ],
)
def test_a_wrong_import_is_found(module, source, fault):
    assert faults_of(module, source)[0] == fault


def test_right_imports_are_let_through():
    assert faults_of("controllers.ppo", "import torch\nfrom rlnas.controllers.random import x") == []
    assert faults_of("supernet.timing", "from .encoding import encode\nfrom rlnas.errors import x") == []
    assert faults_of("loop", "import json, numpy.typing\nfrom rlnas.history import History") == []


def test_the_file_that_travels_with_a_model_needs_torch_and_transformers_only():
    source = MODULES["supernet.modeling_subnet"].read_text()
    heads = {found.target.split(".")[0] for found in imports_of("supernet.modeling_subnet", source)}
    assert heads - sys.stdlib_module_names <= {"torch", "transformers"}


@every_module
def test_a_module_is_named_after_what_it_holds(module):
    assert not {"utils", "util", "common", "helpers", "helper", "base", "misc"} & set(module.split("."))


@pytest.mark.parametrize(
    "module", [name for name in MODULES if name.split(".")[-1] not in ("__init__", "__main__")]
)
def test_a_module_has_its_test_file(module):
    *folders, name = module.split(".")
    assert ROOT.joinpath("tests", *folders, f"test_{name}.py").is_file()


def test_every_error_descends_from_the_root_and_a_builtin():
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if kind is not errors.RLNASError:
            assert issubclass(kind, errors.RLNASError), name
            builtins = {parent for parent in kind.__mro__ if parent.__module__ == "builtins"}
            assert builtins - {Exception, BaseException, object}, f"{name} is no builtin error"


@every_module
def test_a_module_raises_no_bare_exception(module):
    tree = ast.parse(MODULES[module].read_text())
    raised = {
        node.exc.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
    }
    assert not raised & {"Exception", "BaseException", "AssertionError"}


@every_module
def test_a_module_asserts_nothing(module):
    tree = ast.parse(MODULES[module].read_text())
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)] == []


def test_light_modules_load_nothing_heavy():
    program = (
        "import importlib, sys\n"
        f"for name in {LIGHT_MODULES!r}:\n"
        "    importlib.import_module(name)\n"
        f"    loaded = [heavy for heavy in {HEAVY!r} if heavy in sys.modules]\n"
        "    assert not loaded, f'{name} loads {loaded}'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
