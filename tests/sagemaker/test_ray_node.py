from __future__ import annotations

import importlib.util
import os
import secrets
import socket
import subprocess
import sys
import time

import pytest

from rlnas.errors import MissingDependencyError, ScaleError
from rlnas.sagemaker import ray_node as module
from rlnas.sagemaker.hosts import Hosts
from rlnas.sagemaker.ray_node import Head, Node

HEAD = Head("127.0.0.1", 3, "secret")
TWO_HOSTS = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
@ray.remote(num_cpus=2)
class Worker:
    def host(self):
        return ray.util.get_node_ip_address()
worker = Worker.remote()
print(ray.get(worker.host.remote()), flush=True)
sys.stdin.read()
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


@pytest.fixture
def instead(monkeypatch):
    """A program in the place of ``ray start``; the arguments that it got."""
    told, popen = [], subprocess.Popen

    def replace(program):
        def start(line, **how):
            told.append((line, how["env"]))
            return popen([sys.executable, "-c", program], **how)

        monkeypatch.setattr(module.subprocess, "Popen", start)
        return told

    return replace


def test_hosts_of_a_job_agree_on_a_head_without_a_word():
    names = ("127.0.0.1", "127.0.0.2")
    heads = [Head.of(Hosts(names, current, secret="of the job"), 5) for current in names]
    assert heads[0] == heads[1]
    assert heads[0].address == "127.0.0.1:7"
    assert heads[0].token != Head.of(Hosts(names, names[0], secret="of another"), 5).token
    assert heads[0].token not in repr(heads)


def test_a_head_is_an_address_and_what_opens_it():
    assert HEAD.address == "127.0.0.1:3"
    assert HEAD.variables["RAY_AUTH_MODE"] == "token"
    assert HEAD.variables["RAY_AUTH_TOKEN"] == "secret"


def test_the_host_of_the_head_starts_the_cluster_and_others_join_it(instead):
    told = instead("")
    for host in ("127.0.0.1", "127.0.0.2"):
        node = Node(HEAD, host, 4, 1)
        assert node.is_ready(20)
        node.close()
    ((first, environ), (other, _)) = told
    assert {"--head", "--port=3", "--include-dashboard=false", "--disable-usage-stats"} < set(first)
    assert {"--node-ip-address=127.0.0.1", "--num-cpus=4", "--num-gpus=1"} < set(first)
    assert "--address=127.0.0.1:3" in other
    assert "--head" not in other
    assert environ["RAY_AUTH_TOKEN"] == "secret"


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("print('wrong'); print(' another version '); raise SystemExit(1)", "another version"),
        ("exit(3)", "exit code 3"),
    ],
)
def test_a_node_that_does_not_start_says_why(instead, program, reason):
    instead(program)
    node = Node(HEAD, "127.0.0.1", 1, 0)
    with pytest.raises(ScaleError, match=f"^Ray does not start on 127.0.0.1: {reason}$"):
        node.is_ready(20)
    folder = node._folder
    node.close()
    assert not folder.exists()


def test_a_node_that_is_starting_can_be_ended(instead):
    instead("import time; time.sleep(600)")
    node = Node(HEAD, "127.0.0.1", 1, 0)
    assert not node.is_ready()
    node.close()
    node.close()  # twice does no harm


def test_an_absent_ray_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"^Ray is not installed; pip install 'rlnas\[ray\]'$"):
        Node(HEAD, "127.0.0.1", 1, 0)


def ready(node):
    deadline = time.monotonic() + 200
    while not node.is_ready(1):
        assert time.monotonic() < deadline
    return node


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_two_hosts_make_one_cluster_which_only_the_token_opens():
    """The worker needs two cores, which the first host does not give."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'rlnas[ray]'")
    head = Head("127.0.0.1", free_port(), secrets.token_hex(32))
    nodes, stranger = [], {name: value for name, value in os.environ.items() if "RAY" not in name}
    line = [sys.executable, "-c", TWO_HOSTS, head.address]
    try:
        nodes.append(ready(Node(head, "127.0.0.1", 1, 0)))
        nodes.append(ready(Node(head, "127.0.0.2", 2, 0)))
        refused = subprocess.run(line, env=stranger, capture_output=True, timeout=100, check=False)
        assert refused.returncode != 0
        assert refused.stdout == b""
        own = {**stranger, **head.variables}
        pipe = subprocess.PIPE
        with subprocess.Popen(line, env=own, stdin=pipe, stdout=pipe, text=True) as driver:
            assert driver.stdout.readline() == "127.0.0.2\n"
            driver.stdin.close()
    finally:
        for node in nodes:
            node.close()
    for node in nodes:
        assert own_processes(node._process.pid) == []


def own_processes(group):
    """Commands of a process group that have not ended."""
    table = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 2) for line in table.stdout.splitlines()]
    return [row for row in rows if int(row[0]) == group and not row[1].startswith("Z")]
