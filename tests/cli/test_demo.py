from __future__ import annotations

from rlnas.cli import main
from rlnas.controllers.surrogate import AutoController
from rlnas.rewards import LatencyTarget


def test_the_demo_goes_on_where_it_was(asked, tmp_path):
    assert main(["demo", "--out", str(tmp_path)]) == 0
    job, path, how = asked[0]
    assert how["resume"] is True
    assert path == tmp_path
    assert job.model == "minilm"
    assert job.data.source == "pydocs"
    assert job.reward == LatencyTarget(ratio=0.5)
    assert job.device == "cpu"
    assert isinstance(job.controller, AutoController)
