"""A cluster of this machine alone needs no network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

PROGRAM = Path(__file__).with_name("alone.py")
IN_NO_NETWORK = ("unshare", "--map-root-user", "--net")


def test_workers_judge_on_a_machine_without_a_network(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'rlnas[ray]'")
    try:
        subprocess.run([*IN_NO_NETWORK, "true"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        pytest.skip(f"a process without a network may not be started here (unshare --net): {reason}")
    command = [*IN_NO_NETWORK, sys.executable, str(PROGRAM), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=450, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1] == "judged 12 subnets alike with the interfaces ['lo']"
