from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from rlnas.calibration import calibrate
from rlnas.errors import DeviceError
from rlnas.latency import CudaClock, describe_device, resolve_device
from rlnas.runtime import GraphMemory, check_mode, prepare
from rlnas.space import UniformSpace
from rlnas.workload import Workload

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real GPU")


@pytest.fixture
def fake(monkeypatch):
    """The script."""
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.fake_cuda")


@pytest.fixture
def gpu(fake):
    """A machine with a fake GPU."""
    with fake.fake_cuda():
        yield


class Steps(nn.Module):
    """What graphs have to get right: results written in place, views, several outputs, buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        first, second = self.linear(x).chunk(2, dim=1)
        total = torch.zeros(len(x), 3, device=x.device)
        total += first
        total[0] += 1.0
        return (total.t() * second.t()).t().reshape(-1)[1:]


class Waits(nn.Module):
    """Looks at a value on the host."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum().item() > 0 else x - 1


def test_devices_are_there_and_named_as_fakes(gpu):
    assert resolve_device("auto") == resolve_device("cuda") == "cuda:0"
    info = describe_device("cuda")
    assert (info.kind, info.name) == ("cuda", "fake GPU (CPU)")
    with pytest.raises(DeviceError, match="cuda:1"):
        resolve_device("cuda:1")


def test_afterwards_everything_is_as_before(fake):
    before = {name: getattr(torch.cuda, name) for name in ("is_available", "Event", "graph", "device")}
    compile_, export = torch.compile, torch.onnx.export
    with fake.fake_cuda():
        assert torch.cuda.is_available()
    assert {name: getattr(torch.cuda, name) for name in before} == before
    assert (torch.compile, torch.onnx.export) == (compile_, export)
    with pytest.raises((RuntimeError, AssertionError)):
        torch.zeros(1, device="cuda")


@pytest.mark.parametrize("device", ["cuda", "cuda:0", torch.device("cuda"), torch.device("cuda", 0)])
def test_what_goes_to_the_gpu_stays_on_the_cpu(gpu, device):
    made = [torch.zeros(2, device=device), torch.ones(2).to(device), torch.tensor([1.0], device=device)]
    made += [torch.ones(2).cuda(), torch.ones(2).pin_memory(), torch.empty_like(made[0], device=device)]
    made += list(nn.Linear(2, 2).to(device).parameters()) + list(nn.Linear(2, 2).cuda().parameters())
    with torch.device(device):
        made.append(torch.arange(3))
    assert {tensor.device.type for tensor in made} == {"cpu"}


def test_the_name_of_a_device_keeps_its_kind(gpu):
    assert torch.device("cuda").type == "cuda"


def test_random_states_can_be_forked(gpu):
    before = torch.get_rng_state()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        torch.randn(3, device="cuda")
    assert torch.equal(torch.get_rng_state(), before)


def test_another_gpu_is_not_there(gpu):
    with pytest.raises((RuntimeError, AssertionError)):
        torch.zeros(2, device="cuda:1")


def test_the_clock_times_calls(gpu):
    small, large = torch.randn(8, 8, device="cuda"), torch.randn(512, 512, device="cuda")
    clock = CudaClock("cuda:0")
    assert clock.time_ms(lambda: large @ large, 10) > clock.time_ms(lambda: small @ small, 10) > 0


def test_a_replay_computes_from_the_same_tensors_into_the_same_result(gpu):
    module, x = Steps().to("cuda"), torch.randn(5, 4, device="cuda")
    call = prepare(module, {"x": x}, "cuda_graph")
    seen = module.seen.item()
    result = call()
    assert module.seen.item() == seen + 1
    torch.testing.assert_close(result, module(x).detach())
    x.mul_(-2.0)
    module.linear.weight.data.mul_(3.0)
    assert call() is result
    torch.testing.assert_close(result, module(x).detach())


def test_a_graph_keeps_only_the_result(gpu):
    memory, x = GraphMemory(), torch.randn(5, 4)
    call = prepare(Steps(), {"x": x}, "cuda_graph", share=memory)
    graph = call.args[0]
    assert len(graph.steps) > 5
    assert sum(reference() is not None for reference in graph.results.values()) == 1
    graph.reset()
    assert graph.steps == []


def test_a_graph_cannot_wait_for_a_value(gpu):
    with pytest.raises(DeviceError, match=r"a Waits could not be recorded .*not permitted.* capturing"):
        prepare(Waits(), {"x": torch.ones(2)}, "cuda_graph")
    assert not torch.cuda.is_current_stream_capturing()


def test_an_empty_graph_is_refused(gpu):
    with pytest.raises(DeviceError, match=r"a Identity could not be recorded .*is empty"):
        prepare(nn.Identity(), {"input": torch.ones(2)}, "cuda_graph")


@pytest.mark.parametrize("mode", ["eager", "compiled", "cuda_graph", "onnxruntime"])
def test_every_mode_runs(gpu, mode):
    if mode == "onnxruntime":
        pytest.importorskip("onnxruntime")
    module, x = nn.Linear(4, 3).to("cuda"), torch.randn(2, 4, device="cuda")
    torch.testing.assert_close(prepare(module, {"input": x}, mode)(), module(x).detach())


def test_a_command_runs_in_another_process_and_the_fake_is_announced():
    code = "import sys, torch; print(torch.cuda.get_device_name(), sys.argv)"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fake_cuda", "-c", code, "--x"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "fake GPU (CPU) ['-c', '--x']\n"
    assert "NO GPU" in done.stderr


def test_a_module_runs_with_its_own_arguments(fake, tmp_path, monkeypatch, capsys):
    (tmp_path / "shown.py").write_text(
        "import json, sys, torch\nprint(json.dumps([__name__, sys.argv[1:], torch.cuda.device_count()]))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    fake.main(["-m", "shown", "-m", "--device", "cuda"])
    assert json.loads(capsys.readouterr().out) == ["__main__", ["-m", "--device", "cuda"], 1]


@pytest.mark.parametrize("arguments", [[], ["--quick", "-m", "x"], ["rlnas"], ["-m"]])
def test_a_command_must_be_given_first(fake, arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        fake.main(arguments)
    assert exit_.value.code == 2
    assert "-m" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["eager", "cuda_graph"])
def test_a_calibration_of_the_fake_bears_its_name(gpu, bert, mode):
    bert.model.to("cuda")
    space = UniformSpace.for_model(bert.shape)
    table = calibrate(bert, space, Workload(batch_size=2, seq_len=8, mode=mode), "cuda")
    assert (table.device.kind, table.device.name) == ("cuda", "fake GPU (CPU)")
    assert table([space.largest()])[0] > 0


def test_what_is_compiled_needs_no_compiler_of_a_gpu(gpu):
    check_mode("compiled", "cuda:0", "bfloat16")
