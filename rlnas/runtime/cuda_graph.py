"""CUDA graphs: the launches of a forward pass recorded once and replayed as one."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING

import torch

from rlnas.errors import DeviceError, first_line
from rlnas.runtime.eager import eager_call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn
    from torch.cuda import _POOL_HANDLE

WARM_UP_RUNS = 3
"""Runs before a recording, in which libraries choose kernels and set aside work space."""


class GraphMemory:
    """What the graphs of one GPU share: one pool for what they compute, and the stream that records.

    Graphs that share it run one after the other: a replay overwrites what the others computed,
    results included. So sixty models need the memory of the largest one's activations.

    Made for the GPU on which the first graph is recorded.
    """

    def __init__(self) -> None:
        self._pool: _POOL_HANDLE | None = None
        self._stream: torch.cuda.Stream | None = None

    @property
    def pool(self) -> _POOL_HANDLE:
        """Handle of the pool, as ``torch.cuda.graph`` takes it."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        return self._pool

    @property
    def stream(self) -> torch.cuda.Stream:
        """The stream on which graphs are warmed up and recorded.

        The same for both and for all, since cuBLAS sets work space aside for every stream.
        """
        if self._stream is None:
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        return self._stream


def graph_call(
    module: nn.Module, inputs: Mapping[str, Tensor | None], memory: GraphMemory | None = None
) -> Callable[[], Tensor]:
    """A call that replays a module's forward pass on the same inputs.

    The graph reads the tensors of `inputs` where they are: values written into them later count.
    The result is overwritten by the next replay of any graph of the same memory.

    Args:
        module: On a GPU, as are all inputs.
        inputs: What its `forward` takes, by name; at least one tensor.
        memory: What other graphs share with this one; by default its own.

    Raises:
        DeviceError: If there is no CUDA, nothing runs on it, or the pass cannot be recorded,
            e.g. because it copies values to the host.
    """
    if not torch.cuda.is_available():
        raise DeviceError("mode='cuda_graph' needs CUDA, which is not available; use mode='eager'")
    memory, run = memory or GraphMemory(), eager_call(module, inputs)
    tensor = next(value for value in inputs.values() if value is not None)
    with torch.cuda.device_of(tensor):  # type: ignore[no-untyped-call]
        stream = memory.stream
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph, output = _recorded(run, memory, type(module).__name__)

    return partial(_replay, graph, output, run)


def _replay(graph: torch.cuda.CUDAGraph, output: Tensor, _run: object) -> Tensor:
    # `_run` keeps the inputs and the weights alive: the graph knows only their addresses.
    graph.replay()
    return output


def _recorded(
    run: Callable[[], Tensor], memory: GraphMemory, name: str
) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """A graph of what `run` launches, and the tensor that each replay writes."""
    graph = torch.cuda.CUDAGraph()
    try:
        with warnings.catch_warnings():
            # What ran on a CPU was not recorded: a replay would give the first result for ever.
            warnings.filterwarnings("error", message="The CUDA Graph is empty")
            with torch.cuda.graph(graph, pool=memory.pool, stream=memory.stream):
                output = run()
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"the GPU has no memory left to record a {name} as a CUDA graph; stop other work on it"
        ) from error
    except (RuntimeError, UserWarning) as error:
        # Ending a recording that broke off fails as well, and hides why it broke off.
        reason = first_line(error.__context__ or error)
        raise DeviceError(
            f"a {name} could not be recorded as a CUDA graph ({reason}); "
            "use mode='eager' or mode='compiled'"
        ) from error
    return graph, output
