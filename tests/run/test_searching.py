from __future__ import annotations

import pytest
from world import BUDGET

from rlnas.controllers.evolution import EvolutionController
from rlnas.controllers.random import RandomController
from rlnas.evaluation import Racing
from rlnas.history import History
from rlnas.run import Control
from rlnas.run.folder import RunFolder
from rlnas.run.inputs import prepare_inputs
from rlnas.run.searching import make_evaluator, run_controls, run_search


@pytest.fixture
def ready(world, run):
    """Job, inputs and folder of a run whose search has not begun."""

    def make(**changes):
        (run / "history.sqlite").unlink(missing_ok=True)
        job, folder = world.job(**changes), RunFolder(run)
        return job, prepare_inputs(job, folder, progress=False), folder

    return make


def test_the_first_batch_is_counted_also_where_it_is_replayed(ready):
    job, inputs, folder = ready(controller=EvolutionController(population_size=10))
    for _ in range(2):  # the second time from the history
        searched = run_search(job, inputs, make_evaluator(job, inputs), folder, progress=False)
        assert searched.n_first == 10
        assert len(searched.result.trials) == BUDGET


def test_a_search_serves_the_targets_of_its_job(ready):
    job, inputs, folder = ready(target_ratios=(0.5, 0.75))
    run_search(job, inputs, make_evaluator(job, inputs), folder, progress=False)
    with History.read(folder.path) as history:
        assert len(history.settings["targets_ms"].split()) == 2


def test_every_control_has_a_history_and_no_cost_of_the_search(ready):
    controls = (
        Control("chance", RandomController()),
        Control("small", EvolutionController(population_size=8)),
    )
    job, inputs, folder = ready(controls=controls, budget=20, seed=3)
    spent = folder.evaluation.read_bytes()
    results = run_controls(job, inputs, folder, progress=False)
    assert list(results) == ["chance", "small"]
    for name, result in results.items():
        with History.read(folder.controls / name) as history:
            assert history.trials == result.trials
        assert len(result.trials) == 20
    assert folder.evaluation.read_bytes() == spent
    assert run_controls(job, inputs, folder, progress=False)["small"].trials == results["small"].trials


def test_the_judge_races_as_the_job_says(ready):
    job, inputs, _ = ready(racing=Racing(confidence=0.9))
    assert make_evaluator(job, inputs).racing == job.racing
