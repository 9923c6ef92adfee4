"""The image as far as a file can tell: there is no Docker here."""

from __future__ import annotations

import configparser
import re
import subprocess
from pathlib import Path

import pytest

from benchmarks.sagemaker_stand_in import train_script

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def instructions():
    """Pairs of a keyword and its text, continued lines joined and comments left out."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def test_every_instruction_is_known_and_the_first_names_the_image(instructions):
    known = {"FROM", "ARG", "ENV", "RUN", "WORKDIR", "COPY", "CMD"}
    assert {keyword for keyword, _ in instructions} <= known
    assert instructions[0] == ("FROM", "python:3.11-slim")


def test_what_is_copied_is_there(instructions):
    for keyword, text in instructions:
        if keyword == "COPY":
            *sources, _ = text.split()
            assert all((ROOT / source).exists() for source in sources), text


def test_what_is_installed_is_declared(instructions):
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    runs = " ".join(text for keyword, text in instructions if keyword == "RUN")
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", runs)
    assert set(extras.split(",")) <= set(config["options.extras_require"])
    assert {"nvml", "optuna", "ray"} < set(extras.split(","))  # what flags of a search ask for
    assert "--constraint constraints.txt" in runs


def test_gpus_and_their_clocks_are_there(instructions):
    environ = " ".join(text for keyword, text in instructions if keyword == "ENV")
    assert {"NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"} < set(
        environ.split()
    )


def test_shell_lines_are_shell(instructions):
    for keyword, text in instructions:
        if keyword == "RUN":
            subprocess.run(["sh", "-n", "-c", text], check=True)


def test_train_is_what_runs_and_takes_signals_itself(instructions, tmp_path):
    assert ("CMD", '["train"]') in instructions
    assert "ENTRYPOINT" not in dict(instructions)  # SageMaker adds `train` to it
    assert train_script() == "#!/bin/sh\nexec rlnas sagemaker train\n"


def test_nothing_of_the_image_tells_a_secret(instructions):
    text = (ROOT / "Dockerfile").read_text()
    assert not re.search(r"AKIA|aws_secret|password|token", text, re.IGNORECASE)
    assert "HF_HUB_DISABLE_TELEMETRY=1" in text
