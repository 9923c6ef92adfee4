"""Runs a command as if there were a GPU, on a CPU: what GPU code does can be tried anywhere.

    python -m benchmarks.fake_cuda -m rlnas search --device cuda ...
    python -m benchmarks.fake_cuda -m pytest tests -m gpu
    python -m benchmarks.fake_cuda -c "import torch; print(torch.cuda.get_device_name())"

Every request for a CUDA device is answered with the CPU, so results are right and times say nothing
about a GPU; wherever a device is named, the name is "fake GPU (CPU)". A CUDA graph records the operations
of a pass and runs them again, from the same tensors into the same result, and refuses what a real one
refuses: to wait for a value. Tensors themselves say that they are on a CPU, so code that asks them
(``tensor.is_cuda``) takes the CPU's way. Only one process is deceived, not those that it starts.

No seconds or hours of a real GPU are replaced by this: it finds typos, wrong calls and wrong shapes.
"""

from __future__ import annotations

import argparse
import re
import runpy
import sys
import time
import warnings
import weakref
from contextlib import ExitStack, contextmanager, nullcontext
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from torch._dynamo.trace_rules import get_torch_obj_rule_map
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch._ops import OpOverload

DEVICE_NAME = "fake GPU (CPU)"

_CUDA = re.compile(r"cuda(:0)?")
_WAITS = ("item", "_local_scalar_dense", "equal", "nonzero", "is_nonzero")
"""Operations whose result the host needs, which a graph cannot record."""


class FakeEvent:
    """Marks a moment; between two of them passes processor time of this process."""

    def __init__(self, enable_timing: bool = False, **_: object) -> None:
        self._seconds = 0.0

    def record(self, stream: object = None) -> None:
        """Everything before is done already."""
        self._seconds = time.process_time()

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def query(self) -> bool:
        """Always done."""
        return True

    def elapsed_time(self, end: FakeEvent) -> float:
        """Milliseconds."""
        return (end._seconds - self._seconds) * 1e3


class FakeStream:
    """A queue in which everything is done at once."""

    def __init__(self, device: object = None, priority: int = 0) -> None:
        self.cuda_stream = 0

    def wait_stream(self, stream: object) -> None:
        """Nothing to wait for."""

    def synchronize(self) -> None:
        """Nothing to wait for."""


class FakeGraph:
    """Operations in their order, as `_Recorder` saw them."""

    def __init__(self, keep_graph: bool = False) -> None:
        self.steps: list[_Step] = []
        self.results: dict[int, weakref.ref[torch.Tensor]] = {}

    def replay(self) -> None:
        """Run the operations again, and write what is still in use where it was."""
        made: dict[int, torch.Tensor] = {}
        with torch.inference_mode():
            for function, flat, form, places in self.steps:
                values = [made[value.place] if isinstance(value, _Made) else value for value in flat]
                args, kwargs = tree_unflatten(values, form)
                leaves = tree_leaves(function(*args, **kwargs))
                made |= {
                    place: leaf for place, leaf in zip(places, leaves, strict=True) if place is not None
                }
            for place, reference in self.results.items():
                result = reference()
                if result is not None:
                    result.copy_(made[place])

    def reset(self) -> None:
        """Forget everything."""
        self.steps, self.results = [], {}


class _Made:
    """Stands for a tensor that the graph itself computes."""

    def __init__(self, place: int) -> None:
        self.place = place


_Step = tuple["Callable[..., Any]", list[Any], Any, list[int | None]]


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes operations into a graph while they run."""

    def __init__(self, graph: FakeGraph) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._graph = graph
        self._places: dict[int, int] = {}  # by the tensors' identities, which are valid while they live:
        self._made: list[torch.Tensor] = []

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        if func.overloadpacket.__name__ in _WAITS:
            raise RuntimeError(f"{func}: operation not permitted when stream is capturing")
        flat, form = tree_flatten((args, kwargs or {}))
        result = func(*args, **(kwargs or {}))
        given = {id(value) for value in flat}
        flat = [_Made(self._places[id(value)]) if id(value) in self._places else value for value in flat]
        self._graph.steps.append((func, flat, form, [self._place(t, given) for t in tree_leaves(result)]))
        return result

    def _place(self, tensor: object, given: set[int]) -> int | None:
        """Where a result is kept during a replay; None for what was there before."""
        if id(tensor) in self._places:
            return self._places[id(tensor)]
        if not isinstance(tensor, torch.Tensor) or id(tensor) in given:
            return None
        self._places[id(tensor)] = len(self._made)
        self._made.append(tensor)
        return len(self._made) - 1

    def finish(self) -> None:
        """Keep no result alive: what somebody else still holds afterwards is what a replay has to write."""
        self._graph.results = {place: weakref.ref(tensor) for place, tensor in enumerate(self._made)}
        self._made, self._places = [], {}


class FakeCapture:
    """``torch.cuda.graph``: records into a graph what runs inside."""

    active = 0
    """Recordings under way."""

    def __init__(
        self, cuda_graph: FakeGraph, pool: object = None, stream: object = None, **_: object
    ) -> None:
        self._graph, self._recorder = cuda_graph, _Recorder(cuda_graph)

    def __enter__(self) -> None:
        FakeCapture.active += 1
        self._recorder.__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: object) -> None:
        FakeCapture.active -= 1
        self._recorder.__exit__(*error)  # type: ignore[no-untyped-call]
        self._recorder.finish()
        if not self._graph.steps:
            warnings.warn("The CUDA Graph is empty", stacklevel=2)


class _OnCpu(TorchFunctionMode):
    """Answers every request for a CUDA device with the CPU."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        if func in (torch.Tensor.cuda, torch.Tensor.pin_memory):
            return args[0]
        if func is torch.device:  # a name is no request yet
            return func(*args, **(kwargs or {}))
        kwargs = {name: _on_cpu(value) for name, value in (kwargs or {}).items()}
        return func(*map(_on_cpu, args), **kwargs)


def _on_cpu(value: object) -> object:
    is_cuda = isinstance(value, torch.device) and value.type == "cuda"
    return "cpu" if is_cuda or (isinstance(value, str) and _CUDA.fullmatch(value)) else value


def _name(device: object = None) -> str:
    return DEVICE_NAME


def _nothing(*_: object, **__: object) -> None:
    return None


def _replacements() -> list[tuple[object, str, object]]:
    """Attributes of torch and of rlnas, and what stands in for them."""
    cuda = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": _name,
        "get_device_capability": lambda device=None: (8, 0),
        "is_bf16_supported": lambda including_emulation=True: True,
        "is_current_stream_capturing": lambda: FakeCapture.active > 0,
        "graph_pool_handle": lambda: (0, 0),
        "current_stream": FakeStream,
        "default_stream": FakeStream,
        "device": nullcontext,
        "stream": nullcontext,
        "Event": FakeEvent,
        "Stream": FakeStream,
        "CUDAGraph": FakeGraph,
        "graph": FakeCapture,
        "get_rng_state": lambda device=None: torch.zeros(16, dtype=torch.uint8),  # nothing is drawn there
        **dict.fromkeys(("set_rng_state", "set_device", "synchronize", "empty_cache"), _nothing),
        "reset_peak_memory_stats": _nothing,
        **dict.fromkeys(("memory_allocated", "max_memory_allocated"), lambda device=None: 0),
    }
    # The compiler builds for the CPU, whose own compiler it needs instead of Triton.
    modes = import_module("rlnas.runtime.prepare")
    own_check = modes.check_compiler
    return [
        *((torch.cuda, name, value) for name, value in cuda.items()),
        (modes, "check_compiler", lambda device: own_check("cpu")),
    ]


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Within the context this process believes in a GPU."""
    get_torch_obj_rule_map()  # the compiler's list of torch's functions, made once: of the real ones
    mode = _OnCpu()
    patches = [mock.patch.object(owner, name, value) for owner, name, value in _replacements()]

    @contextmanager
    def truth() -> Iterator[None]:
        """Compilers look for themselves what there is, and trace every mode they find."""
        mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        for patch in reversed(patches):
            patch.stop()
        try:
            yield
        finally:
            for patch in patches:
                patch.start()
            mode.__enter__()  # type: ignore[no-untyped-call]

    def truthful(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: object, **kwargs: object) -> object:
            with truth():
                return function(*args, **kwargs)

        return call

    compile_, export = torch.compile, torch.onnx.export
    with ExitStack() as stack:
        for patch in patches:
            patch.start()
            stack.callback(patch.stop)
        stack.enter_context(
            mock.patch.object(torch, "compile", lambda *args, **kwargs: truthful(compile_(*args, **kwargs)))
        )
        stack.enter_context(mock.patch.object(torch.onnx, "export", truthful(export)))
        stack.enter_context(mode)
        yield


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a module or a piece of code with a fake GPU."""
    parser = argparse.ArgumentParser(
        description="Run a command as if there were a GPU.", allow_abbrev=False, prog="fake_cuda"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("-m", nargs=argparse.REMAINDER, metavar="MODULE", help="a module and its arguments")
    what.add_argument("-c", nargs=argparse.REMAINDER, metavar="CODE", help="code and its arguments")
    given, unknown = parser.parse_known_args(arguments)
    command = given.m or given.c
    if unknown or not command:
        got = " ".join(unknown) or "nothing"
        parser.error(f"write -m MODULE or -c CODE before all else, but got {got}")
    print(f"fake_cuda: there is NO GPU here; what is timed is the CPU, as '{DEVICE_NAME}'", file=sys.stderr)
    with fake_cuda():
        if given.m:
            with mock.patch.object(sys, "argv", command):
                runpy.run_module(command[0], run_name="__main__", alter_sys=True)
        else:
            with mock.patch.object(sys, "argv", ["-c", *command[1:]]):
                exec(compile(command[0], "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    main()
