from __future__ import annotations

import gc
import importlib.util
import weakref

import pytest
import torch
from models import Narrow, Refused
from torch import nn
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch._dynamo.utils import counters

from rlnas.errors import DeviceError, MissingDependencyError
from rlnas.runtime.compiled import check_compiler, compiled_call

X = torch.linspace(-1.0, 1.0, 8).view(2, 4)


@torch._dynamo.config.patch(recompile_limit=2, accumulated_recompile_limit=4)
def test_any_number_of_modules_of_one_class_are_all_compiled(quick_compiler):
    # Torch's own limits are 8 programs kept with a forward and 256 ever made of one: 300 were tried.
    counters.clear()
    for units in range(1, 11):
        module = Narrow(units)
        torch.testing.assert_close(compiled_call(module, {"x": X})(), module(X))
    assert counters["stats"]["unique_graphs"] == 10


@torch._dynamo.config.patch(recompile_limit=2, accumulated_recompile_limit=4)
def test_modules_that_share_their_code_object_would_hit_the_limit(quick_compiler):
    compiled = [torch.compile(Narrow(units), fullgraph=True, dynamic=False) for units in (1, 2, 3)]
    for program in compiled[:2]:
        program(X)
    with pytest.raises(FailOnRecompileLimitHit):
        compiled[2](X)


def test_a_call_is_compiled_once(quick_compiler):
    counters.clear()
    calls = [compiled_call(Narrow(units), {"x": X}) for units in range(1, 12)]
    for _ in range(3):
        for call in calls:
            call()
    assert counters["stats"]["unique_graphs"] == len(calls)


def test_another_number_of_threads_compiles_again_and_is_right(quick_compiler):
    module = Narrow()
    call = compiled_call(module, {"x": X})
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        torch.testing.assert_close(call(), module(X))
    finally:
        torch.set_num_threads(before)


def test_a_call_that_is_gone_keeps_no_module(quick_compiler):
    modules = []
    for units in range(1, 9):
        module = Narrow(units)
        modules.append(weakref.ref(module))
        compiled_call(module, {"x": X})()
    del module
    gc.collect()
    assert [reference for reference in modules if reference() is not None] == []


def test_the_real_compiler_runs():
    module = nn.Linear(4, 3)  # one library call: there is no C++ to build
    torch.testing.assert_close(compiled_call(module, {"input": X})(), module(X))


def test_a_module_that_cannot_be_compiled_whole_is_refused_by_name(quick_compiler):
    with pytest.raises(DeviceError, match=r"torch\.compile failed on a Refused \(.+\); use mode='eager'"):
        compiled_call(Refused(), {"x": X})


def test_what_a_compiler_says_is_in_the_message(monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no room left")

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **options: real(f, backend=broken, **options))
    with pytest.raises(DeviceError, match=r"failed on a Narrow \(no room left\)"):
        compiled_call(Narrow(), {"x": X})


def test_a_cpu_needs_a_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(DeviceError, match=r"device='cpu' needs a C\+\+ compiler, but 'no-such-compiler'"):
        check_compiler("cpu")


@pytest.mark.parametrize(("platform", "compiler"), [("linux", "g[+][+]"), ("darwin", "clang[+][+]")])
def test_the_compiler_is_the_usual_one_of_the_system(monkeypatch, platform, compiler):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DeviceError, match=compiler):
        check_compiler("cpu")


def test_a_compiler_that_is_there_is_found(monkeypatch):
    monkeypatch.setenv("CXX", "sh")
    check_compiler("cpu")


def test_a_gpu_needs_triton(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"device='cuda:0' needs Triton.*pip install triton"):
        check_compiler("cuda:0")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    check_compiler("cuda:0")
