"""What the other hosts of a job do: they join the first one's Ray cluster, and train along when called."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

from rlnas.errors import RLNASError
from rlnas.sagemaker.child import Child
from rlnas.sagemaker.hosts import ip_of
from rlnas.sagemaker.leading import RAY, TRAINING
from rlnas.sagemaker.meeting import DONE, FirstHost
from rlnas.sagemaker.ray_node import Head, Node

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rlnas.sagemaker.hosts import Hosts
    from rlnas.sagemaker.sharing import Machine

ASK_SECONDS = 1.0


def help_first(
    hosts: Hosts, port: int, machine: Machine, stopped: Callable[[], bool], environ: Mapping[str, str]
) -> None:
    """Do what the first host says until it is done, or this one is stopped.

    A cluster that cannot be joined is left to the others; what goes wrong in the training is told to the
    first host, which then ends the job.

    Args:
        hosts: Of the job.
        port: Where the first one is asked; torchrun has the next one.
        machine: What this host has.
        stopped: Whether to end, asked every second.
        environ: Variables for what is started.

    Raises:
        ContainerError: If the first host never comes, or goes without a word.
    """
    first = FirstHost(hosts, port)
    with Helper(hosts, port, machine, environ) as helper:
        while not stopped():
            facts = first.ask(helper.fault)
            if DONE in facts:
                return
            helper.follow(facts)
            time.sleep(ASK_SECONDS)


class Helper:
    """What one of the other hosts has begun; ends with its block.

    Args:
        hosts: Of the job.
        port: Where the first one is asked.
        machine: What this host has.
        environ: Variables for what is started.

    Attributes:
        fault: What has gone wrong in the training, if anything.
    """

    def __init__(self, hosts: Hosts, port: int, machine: Machine, environ: Mapping[str, str]) -> None:
        self._hosts, self._port, self._machine, self._environ = hosts, port, machine, environ
        self.fault: str | None = None
        self._stack = ExitStack()
        self._followed: set[str] = set()
        self._node: Node | None = None
        self._training: Child | None = None

    def __enter__(self) -> Helper:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def follow(self, facts: Mapping[str, Any]) -> None:
        """Begin what the first host asks for, each thing once, and see how it goes."""
        for name, begin in ((RAY, self._join), (TRAINING, self._train)):
            if name in facts and name not in self._followed:
                self._followed.add(name)
                begin(facts[name])
        self._look_at_cluster()
        self._look_at_training()

    def _join(self, told: Mapping[str, Any]) -> None:
        try:
            head = Head.of(self._hosts, self._port)
            node = Node(head, ip_of(self._hosts.current), told["n_cpus"], self._machine.n_gpus)
        except RLNASError as error:
            print(f"no worker runs here: {error}", flush=True)
            return
        self._node = self._stack.enter_context(closing(node))

    def _look_at_cluster(self) -> None:
        if self._node is None:
            return
        try:
            if self._node.is_ready():
                print("this host has joined the Ray cluster", flush=True)
                self._node = None
        except RLNASError as error:
            print(f"no worker runs here: {error}", flush=True)
            self._node = None

    def _train(self, told: Mapping[str, Any]) -> None:
        print("this host trains along", flush=True)
        hosts = self._hosts
        flags = {
            "nproc": told["nproc"],
            "nnodes": len(hosts.names),
            "node-rank": hosts.rank,
            "rdzv-endpoint": f"{ip_of(hosts.first)}:{self._port + 1}",
            "device": told["device"],
        }
        arguments = [f"--{name}={value}" for name, value in flags.items()]
        self._training = Child(arguments, {**self._environ, **hosts.variables}, "rlnas.run.node")
        self._stack.callback(self._training.end)

    def _look_at_training(self) -> None:
        if self._training is None or (code := self._training.wait(0)) is None:
            return
        if code:
            self.fault = self._training.failure(code)
        else:
            print("the training is done here", flush=True)
        self._training = None
