"""Timing on another node of a Ray cluster: the device that counts need not be of this machine."""

from __future__ import annotations

import io
import pickle
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from rlnas.errors import ScaleError
from rlnas.run.apart import Setting
from rlnas.run.messages import TIMED, MessagePickler, MessageUnpickler, tried, value_of
from rlnas.scale.cluster import Cluster
from rlnas.scale.files import packed, passing_folder, unpacked
from rlnas.scale.pool import START_SECONDS, connect, lost, resources_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rlnas.run.job import Job
    from rlnas.scale.files import Files
    from rlnas.supernet import Supernet
    from rlnas.supernet.timing import TimedPrecisions
    from rlnas.workload import Workload

P = ParamSpec("P")
T = TypeVar("T")


class _There:
    """Stands for what the node has to be timed."""


class Elsewhere:
    """Calls functions on the node that carries the resource of a cluster; else as `rlnas.run.apart.Apart`.

    Folders among the arguments travel with them.

    Args:
        cluster: With a resource.
        supernet: Folder of the supernet whose subnets are timed.
        workload: What is asked of the full model.
        precisions: Those that subnets may have.

    Attributes:
        timed: What functions get that time.
        supernet: The folder.

    Raises:
        MissingDependencyError: If Ray is not installed.
        ScaleError: If there is no cluster, or no node of it has the resource to give.
        RLNASError: One of its kinds, if the model or its workload does not run on that node.
    """

    def __init__(
        self, cluster: Cluster, supernet: Path, workload: Workload, precisions: tuple[str, ...] = ()
    ) -> None:
        self.timed = cast("TimedPrecisions", _There())
        self.supernet = supernet
        self._ray, self._cluster = connect(cluster.address), cluster
        needs = {
            "num_cpus": 0,  # the node is there for this
            "num_gpus": int(cluster.latency_device == "cuda"),
            "resources": {str(cluster.latency_resource): 1},
        }
        make = self._ray.remote(**needs)(_Timer)
        setting = Setting(supernet, workload, precisions, cluster.latency_device, 1)
        self._actor = make.remote(packed(supernet), setting)
        prepared = self._actor.prepare.remote()
        ready, _ = self._ray.wait([prepared], timeout=START_SECONDS)
        if not ready:
            self._ray.kill(self._actor)
            gpu = " and a GPU" if needs["num_gpus"] else ""
            raise ScaleError(
                f"no node could time models within {START_SECONDS:.0f} s: that takes 1 of "
                f"latency_resource={cluster.latency_resource!r}{gpu}, and the cluster has "
                f"{resources_of(self._ray)}, perhaps in use by another run; start a node with it: "
                f"ray start --address HEAD:6379 --resources '{{\"{cluster.latency_resource}\": 1}}'"
            )
        self._answer(prepared)

    def close(self) -> None:
        """End the process."""
        self._ray.kill(self._actor)

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function returns or raises there.

        Args:
            function: Of a module, by whose name it is found.
            args: May hold `timed`, and paths of folders.
            kwargs: Likewise.

        Raises:
            ScaleError: If the node or its process has died.
        """
        message, folders = _packed_call((function, args, kwargs), self.timed)
        result: T = self._answer(self._actor.answer.remote(message, folders))
        return result

    def _answer(self, reference: Any) -> Any:  # noqa: ANN401
        try:
            answer = pickle.loads(self._ray.get(reference))
        except lost(self._ray) as error:
            raise ScaleError(
                f"the node that times models (latency_resource={self._cluster.latency_resource!r}) was "
                "lost; bring it back and go on with --resume"
            ) from error
        return value_of(answer)


@contextmanager
def elsewhere_before_training(job: Job, supernet: Supernet, workload: Workload) -> Iterator[Elsewhere]:
    """Where models are timed, while a run's folder has no supernet yet: time does not depend on weights.

    Args:
        job: With a cluster.
        supernet: What is timed.
        workload: What is asked of it.
    """
    with passing_folder() as folder:
        supernet.save(folder)
        with closing(Elsewhere(job.cluster or Cluster(), folder, workload, job.precisions)) as there:
            yield there


class _Timer:
    """The process on the node.

    Args:
        files: Of the supernet's folder.
        setting: What is timed, but for where the folder lies.
    """

    def __init__(self, files: Files, setting: Setting) -> None:
        self._made_of = files, setting
        self._timed: TimedPrecisions | None = None

    def prepare(self) -> bytes:
        """Pickled: whether the model can be timed here, and what speaks against it."""
        return pickle.dumps(tried(self._load))

    def answer(self, message: bytes, folders: Sequence[Files]) -> bytes:
        """Pickled: whether the call has returned, and what; or what it has raised."""
        with ExitStack() as stack:
            places = [stack.enter_context(unpacked(files)) for files in folders]

            def known(key: str) -> object:
                return self._timed if key == TIMED else places[int(key)]

            function, args, kwargs = MessageUnpickler(io.BytesIO(message), known).load()
            return pickle.dumps(tried(function, *args, **kwargs))

    def _load(self) -> None:
        files, setting = self._made_of
        with unpacked(files) as folder:
            self._timed = replace(setting, supernet=folder).timed()


def _packed_call(call: object, timed: object) -> tuple[bytes, list[dict[str, bytes]]]:
    """A message, and the folders in it, which it names by their places in the list."""
    folders: list[dict[str, bytes]] = []

    def name_of(obj: object) -> str | None:
        if obj is timed:
            return TIMED
        if isinstance(obj, Path) and obj.is_dir():
            folders.append(packed(obj))
            return str(len(folders) - 1)
        return None

    buffer = io.BytesIO()
    MessagePickler(buffer, name_of).dump(call)
    return buffer.getvalue(), folders
