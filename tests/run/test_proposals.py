from __future__ import annotations

import json

import pytest
from world import SHAPE, make_table

import rlnas.controllers.surrogate.policy as policy_module
from rlnas.errors import InfeasibleTargetError, RewardError, RunFolderError
from rlnas.history import History
from rlnas.rewards import LatencyTarget
from rlnas.run.folder import RunFolder, read_json, write_json
from rlnas.run.inputs import prepare_inputs
from rlnas.run.proposals import propose
from rlnas.run.searching import make_evaluator, run_search
from rlnas.space import LayerConfig, LayerwiseSpace, SubnetConfig

FULL_MS = make_table()([SHAPE.full])[0]
UNSEEN = SubnetConfig((LayerConfig(1, 16), LayerConfig(0, 0)))


class FakePolicy:
    """Stands in for a trained one: proposes what it was told to, and remembers what it was asked."""

    configs, asked = (UNSEEN,), []

    @classmethod
    def load(cls, folder, problem):
        cls.asked.append((folder, problem))
        return cls()

    def propose(self, target_ms, n=1):
        self.asked.append((target_ms, n))
        return list(self.configs[:n])


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(policy_module, "TargetPolicy", FakePolicy)
    monkeypatch.setattr(FakePolicy, "asked", [])
    return FakePolicy


@pytest.fixture
def with_policy(run):
    (run / "policy").mkdir()
    return run


def test_the_policy_is_asked_about_the_problem_of_the_run(world, with_policy, fake):
    propose(with_policy, 0.6, 3)
    (folder, problem), asked = fake.asked
    assert folder == with_policy / "policy"
    assert asked == (pytest.approx(0.6 * FULL_MS), 3)
    inputs = prepare_inputs(world.job(), RunFolder(with_policy), progress=False)
    assert problem.space.nvec == inputs.space.nvec
    assert problem.reward == LatencyTarget(target_ms=asked[0])
    assert problem.target_ms is None  # so that a policy which was trained without targets refuses
    assert problem.reference_ms == FULL_MS
    assert problem.importance.tolist() == inputs.supernet.block_importance.reshape(-1).tolist()


def test_latencies_are_predicted_and_accuracies_known_where_the_search_judged(
    with_policy, fake, monkeypatch
):
    with History.read(with_policy) as history:
        trials = {trial.config: trial for trial in history.trials}
        known = history.trials[3]
    space = LayerwiseSpace.for_model(SHAPE)
    unseen = next(c for c in map(space.decode, _all(space)) if c not in trials)
    monkeypatch.setattr(fake, "configs", (known.config, unseen))
    first, second = propose(str(with_policy), 0.9, 2)
    assert (first.config, first.trial) == (known.config, known)
    assert first.latency_ms == known.metrics.latency_ms
    assert first.latency_ratio == pytest.approx(known.metrics.latency_ms / FULL_MS)
    assert (second.config, second.trial) == (unseen, None)


def _all(space):
    return ([a, b, c, d] for a in range(5) for b in range(5) for c in range(5) for d in range(5))


@pytest.mark.parametrize(
    ("setting", "value"), [("keep_last_layer", True), ("sizes_worth_having", True), ("parts", 2)]
)
def test_the_space_is_that_of_the_run(world, with_policy, fake, setting, value):
    config = read_json(with_policy / "config.json")
    write_json(with_policy / "config.json", config | {setting: str(value)})
    propose(with_policy, 0.9)
    inputs = prepare_inputs(world.job(**{setting: value}), RunFolder(with_policy), progress=False)
    assert fake.asked[0][1].space.nvec == inputs.space.nvec
    assert inputs.space.nvec != LayerwiseSpace.for_model(SHAPE).nvec


def test_what_a_search_has_saved_answers_targets_that_it_did_not_serve(world, run):
    from rlnas.controllers.surrogate.controller import SurrogatePPOController

    folder = RunFolder(run)
    folder.history.unlink()
    job = world.job(controller=SurrogatePPOController(save_path=folder.policy), budget=32)
    inputs = prepare_inputs(job, folder, progress=False)
    run_search(job, inputs, make_evaluator(job, inputs), folder, progress=False)
    for ratio in (0.45, 0.6, 0.9):
        proposals = propose(run, ratio, 3)
        assert 1 <= len(proposals) <= 3
        assert len({proposal.config for proposal in proposals}) == len(proposals)
        assert all(proposal.latency_ratio <= ratio for proposal in proposals)
    assert propose(run, 0.6, 3) == propose(run, 0.6, 3)


def test_nothing_is_known_before_a_history_is_there(with_policy, fake):
    (with_policy / "history.sqlite").unlink()
    assert [proposal.trial for proposal in propose(with_policy, 0.9)] == [None]


def test_importance_is_left_out_where_there_is_none(with_policy, fake):
    file = with_policy / "supernet" / "supernet.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"block_importance": None}))
    propose(with_policy, 0.9)
    assert fake.asked[0][1].importance is None


def test_a_run_without_a_policy_says_which_controllers_save_one(run):
    message = (
        r"run' holds no policy that answers any target: the controllers auto and ppo save one in policy/"
    )
    with pytest.raises(RunFolderError, match=message):
        propose(run, 0.5)


@pytest.mark.parametrize("name", ["latency.json", "supernet/supernet.json"])
def test_a_run_that_lacks_something_is_refused(with_policy, name):
    (with_policy / name).unlink()
    with pytest.raises(RunFolderError, match=rf"{name}' is missing; go on with the run \(--resume\)"):
        propose(with_policy, 0.5)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match=r"holds no run: .*config\.json' is missing"):
        propose(tmp_path, 0.5)


def test_a_target_below_the_smallest_subnet_is_refused(with_policy):
    with pytest.raises(
        InfeasibleTargetError, match=r"0\.1 of the full model\) cannot be reached: the smallest"
    ):
        propose(with_policy, 0.1)


@pytest.mark.parametrize("ratio", [0.0, 1.5])
def test_a_target_that_cannot_be_is_refused(with_policy, ratio):
    with pytest.raises(RewardError, match=f"above 0 and at most 1, .*, but got {ratio:g}"):
        propose(with_policy, ratio)


def test_no_proposals_at_all_are_refused(with_policy):
    with pytest.raises(ValueError, match="at least 1 subnet, but got n=0"):
        propose(with_policy, 0.5, 0)
