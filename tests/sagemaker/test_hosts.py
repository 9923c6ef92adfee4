from __future__ import annotations

import pytest

from rlnas.errors import ContainerError
from rlnas.sagemaker.hosts import Hosts, ip_of


def test_hosts_are_in_the_order_of_their_numbers():
    hosts = Hosts(("algo-10", "algo-2", "algo-1"), "algo-10")
    assert hosts.names == ("algo-1", "algo-2", "algo-10")
    assert (hosts.rank, hosts.first, hosts.is_first) == (2, "algo-1", False)
    assert hosts.others == ("algo-2", "algo-10")
    assert Hosts(("b", "a"), "a").is_first


def test_a_host_that_is_not_among_the_hosts_is_refused():
    with pytest.raises(ContainerError, match=r"current_host='algo-3' is none of the hosts algo-1, algo-2"):
        Hosts(("algo-1", "algo-2"), "algo-3")
    with pytest.raises(ContainerError, match=r"is none of the hosts \(none\)"):
        Hosts((), "algo-1")


def test_libraries_are_told_the_network_where_there_is_more_than_one_host():
    assert Hosts(("a", "b"), "a", "eth0").variables == {
        "GLOO_SOCKET_IFNAME": "eth0",
        "NCCL_SOCKET_IFNAME": "eth0",
    }
    assert Hosts(("a", "b"), "a").variables == {}
    assert Hosts(("a",), "a", "eth0").variables == {}


def test_a_signature_is_of_one_message_by_one_secret_which_nothing_shows():
    hosts = Hosts(("a", "b"), "a", secret="of the job")
    found = hosts.sign(b"ray")
    assert len(found) == 64
    assert found == Hosts(("a", "b"), "b", secret="of the job").sign(b"ray")
    assert found != hosts.sign(b"torchrun")
    assert found != Hosts(("a", "b"), "a", secret="of another").sign(b"ray")
    assert "of the job" not in repr(hosts)


def test_a_name_without_an_address_is_told():
    assert ip_of("127.0.0.2") == "127.0.0.2"
    with pytest.raises(
        ContainerError, match=r"the host algo-1\.invalid has no address: .*; hosts of a job in"
    ):
        ip_of("algo-1.invalid")
