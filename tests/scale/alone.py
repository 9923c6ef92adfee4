"""A worker beside this process, on a machine that has nothing but its loopback: a program for a test."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
from contextlib import closing
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path += [str(Path(__file__).parents[1] / "supernet"), str(Path(__file__).parents[2])]


def raise_loopback() -> None:
    """What ``ip link set lo up`` does: a new network has its loopback down."""
    set_flags, is_up = 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh", b"lo", is_up))


def main(folder: str) -> None:
    """Judge the same subnets twice, and tell who answered where."""
    raise_loopback()
    names = [name for _, name in socket.if_nameindex()]
    import tiny

    from rlnas.evaluation import SupernetEvaluator
    from rlnas.scale import Cluster, RayEvaluator, connected
    from rlnas.supernet import Supernet

    task = tiny.make_task(n=40)
    supernet = Supernet.from_pretrained(tiny.write_checkpoint(Path(folder) / "model", "bert"), task)
    configs = tiny.random_configs(supernet, 12)

    def latency(configs: list[object]) -> list[float]:
        return [1.0] * len(configs)

    expected = SupernetEvaluator(supernet, task, latency, precision="float32")(configs)
    with (
        connected("local"),
        closing(RayEvaluator(supernet, task, latency, Cluster(n_workers=1), precision="float32")) as judge,
    ):
        assert judge(configs) == expected
    print(f"judged {len(configs)} subnets alike with the interfaces {names}")


if __name__ == "__main__":
    main(sys.argv[1])
