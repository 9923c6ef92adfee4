from __future__ import annotations

import json
import threading

import pytest

from rlnas.errors import ContainerError, MissingDependencyError, ScaleError
from rlnas.sagemaker import leading as module
from rlnas.sagemaker.contract import Container
from rlnas.sagemaker.hosts import Hosts
from rlnas.sagemaker.leading import Lead
from rlnas.sagemaker.meeting import Meeting
from rlnas.sagemaker.sharing import Machine, Sharing

HOSTS = Hosts(("127.0.0.1", "127.0.0.2", "127.0.0.3"), "127.0.0.1", "lo", "of the job")


class Told(Meeting):
    """A meeting that opens no port; hosts are lost as a test says."""

    def __init__(self):
        super().__init__(Hosts(("alone",), "alone"))
        self.lost = ()

    @property
    def facts(self):
        return self._facts

    def silent(self, seconds=0.0):
        return self.lost

    def missing(self, seconds):
        return self.lost


@pytest.fixture
def meeting():
    return Told()


@pytest.fixture
def lead(tmp_path, meeting):
    def make(hosts=HOSTS, **hyperparameters):
        base = tmp_path / "ml"
        (base / "run").mkdir(parents=True, exist_ok=True)
        places = {name: base / name for name in ("model", "output_data", "checkpoints")}
        container = Container(base, hyperparameters, {}, hosts, **places)
        return Lead(container, meeting, 29475, Machine(4))

    return make


@pytest.fixture
def training(tmp_path):
    """Files by which a search says that its training has begun."""
    path = tmp_path / "ml" / "run" / "training.json"

    def begin():
        path.write_text(json.dumps({"job": {"device": "cpu"}}))
        return path

    return begin


def never():
    return False


def test_one_host_opens_nothing_and_adds_nothing(lead, node, meeting):
    alone = lead(Hosts(("algo-1",), "algo-1", "eth0"))
    assert alone.sharing == Sharing()
    with alone.cluster(never) as variables:
        assert variables == {}
    assert (node, meeting.facts) == ([], {})


def test_the_cluster_is_opened_and_told_of_by_no_secret(lead, node, meeting):
    first = lead()
    assert "--ray=127.0.0.1:29477" in first.sharing.flags
    assert "--rdzv-endpoint=127.0.0.1:29476" in first.sharing.flags
    with first.cluster(never) as variables:
        ((head, host, n_cpus, n_gpus),) = node
        assert (head.address, host, n_cpus, n_gpus) == ("127.0.0.1:29477", "127.0.0.1", 2, 0)
        assert meeting.facts["ray"] == {"n_cpus": 4}
        assert variables["RAY_AUTH_TOKEN"] == head.token == HOSTS.sign(b"ray")
        assert variables["GLOO_SOCKET_IFNAME"] == "lo"
    assert node[-1] == "closed"


def test_another_cluster_is_not_opened_here(lead, node, meeting):
    with lead(ray="10.1.1.1:6379").cluster(never) as variables:
        assert "RAY_AUTH_TOKEN" not in variables
    assert (node, meeting.facts) == ([], {})


def test_an_image_without_ray_is_told_in_one_sentence(lead, monkeypatch):
    def absent(*_):
        raise MissingDependencyError("Ray is not installed")

    monkeypatch.setattr(module, "Node", absent)
    with (
        pytest.raises(
            ContainerError, match=r"share a search by Ray, and the image has none; build it from"
        ),
        lead().cluster(never),
    ):
        pass


def test_ray_that_does_not_start_is_given_up_and_ended(lead, node, monkeypatch):
    monkeypatch.setattr(module.Node, "is_ready", lambda *_: False)
    monkeypatch.setattr(module, "START_SECONDS", 0)
    with (
        pytest.raises(ContainerError, match=r"^Ray has not started on the first host in 0 s$"),
        lead().cluster(never),
    ):
        pass
    assert node[-1] == "closed"

    def fail(*_):
        raise ScaleError("Ray does not start here")

    monkeypatch.setattr(module.Node, "is_ready", fail)
    with pytest.raises(ScaleError, match="Ray does not start here"), lead().cluster(never):
        pass
    assert node[-1] == "closed"


def test_a_stop_does_not_wait_for_ray(lead, node, monkeypatch):
    monkeypatch.setattr(module.Node, "is_ready", lambda *_: False)
    with lead().cluster(lambda: True):
        pass
    assert node[-1] == "closed"


def test_others_are_called_once_the_training_has_begun(lead, meeting, training, capfd):
    first = lead()
    assert first.look() is None
    assert meeting.facts == {}
    begun = training()
    assert first.look() is None
    assert meeting.facts["training"] == {"nproc": 1, "device": "cpu"}
    assert first.is_training
    first.look()
    assert capfd.readouterr().out == "the other hosts have been called to the training\n"
    begun.unlink()
    assert first.is_training  # which has failed
    (begun.parent / "supernet").mkdir()
    assert not first.is_training


@pytest.mark.parametrize("text", ["", "{}"[:1]])
def test_a_description_that_is_not_whole_is_looked_at_again(lead, meeting, training, text):
    first = lead()
    training().write_text(text)
    assert first.look() is None
    assert not first.is_training
    training()
    first.look()
    assert first.is_training


def test_nobody_is_called_where_the_first_host_trains_alone(lead, meeting, training):
    first = lead(nnodes="1")
    training()
    first.look()
    assert "training" not in meeting.facts


def test_a_training_of_an_earlier_job_calls_nobody(lead, meeting, training):
    lead()
    left = training()
    lead().look()
    assert not left.exists()
    assert meeting.facts == {}


@pytest.mark.parametrize(("settings", "alone"), [("{}", True), ('{"torchrun": "x"}', False), ("{", False)])
def test_a_run_that_was_begun_alone_goes_on_so(lead, tmp_path, settings, alone):
    lead()
    (tmp_path / "ml" / "run" / "config.json").write_text(settings)
    assert (lead().sharing.nproc is None) is alone


def test_a_host_that_is_lost_while_subnets_are_judged_is_told_and_no_more(lead, meeting, capfd):
    first = lead()
    meeting.lost = ("127.0.0.2",)
    assert first.look() is first.look() is None
    assert capfd.readouterr().out == "the host 127.0.0.2 is not heard of any more\n"
    assert first.explained("no task") == "no task"


SENTENCE = (
    "the training on 3 hosts has failed: {}; launch the job again with --resume, which goes on from the "
    "last checkpoint"
)


def test_a_host_that_is_lost_in_the_training_is_its_end(lead, meeting, training):
    first = lead()
    training()
    assert first.look() is None
    meeting.lost = ("127.0.0.2",)
    assert first.look() == SENTENCE.format("the host 127.0.0.2 was lost")
    meeting.faults["127.0.0.2"] = "no memory"
    meeting.lost = ("127.0.0.2", "127.0.0.3")
    assert first.look() == SENTENCE.format(
        "the host 127.0.0.2 says: no memory; the host 127.0.0.3 was lost"
    )


def test_a_search_says_itself_why_its_training_failed_before_others_are_asked(
    lead, meeting, training, monkeypatch
):
    """A process that fails on one host breaks off the connections of all: each of them has failed."""
    first = lead()
    begun = training()
    first.look()
    meeting.faults["127.0.0.2"] = "a connection is broken"
    assert first.look() is first.look() is None
    begun.unlink()
    assert first.explained("no space left") == SENTENCE.format(
        "the first host says: no space left; the host 127.0.0.2 says: a connection is broken"
    )
    monkeypatch.setattr(module, "ROLL_CALL_SECONDS", 0.0)  # it does not end
    assert first.look() == SENTENCE.format("the host 127.0.0.2 says: a connection is broken")


def test_a_host_that_says_late_what_went_wrong_is_waited_for(lead, meeting, training):
    first = lead()
    training()
    first.look()
    threading.Timer(0.3, meeting.faults.update, [{"127.0.0.2": "no GPU here"}]).start()
    assert first.explained("a process has ended") == SENTENCE.format(
        "the first host says: a process has ended; the host 127.0.0.2 says: no GPU here"
    )


def test_what_goes_wrong_elsewhere_after_the_training_ends_nothing(lead, meeting, training):
    first = lead()
    begun = training()
    first.look()
    (begun.parent / "supernet").mkdir()
    meeting.faults["127.0.0.2"] = "a connection is broken"
    meeting.lost = ("127.0.0.2",)
    assert first.look() is None
    assert first.explained("no task") == "no task"


def test_the_search_s_own_reason_counts_where_all_hosts_are_well(lead, training, monkeypatch):
    monkeypatch.setattr(module, "ROLL_CALL_SECONDS", 0.2)
    first = lead()
    training()
    first.look()
    assert first.explained("the loss became nan") == "the loss became nan"
