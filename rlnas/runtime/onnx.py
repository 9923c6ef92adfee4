"""ONNX Runtime: a model exported to ONNX and run without PyTorch."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlnas.errors import DeviceError, MissingDependencyError, first_line
from rlnas.precision import INT8_BLOCKS
from rlnas.runtime.eager import first_tensor
from rlnas.runtime.onnx_int8 import check_int8, save_int8

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from onnxruntime import InferenceSession, IOBinding, SessionOptions

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
DTYPES = ("float32", "float16", *INT8_BLOCKS)
"""Number formats that ONNX Runtime has kernels for; on a CPU it computes float16 in float32."""


def check_onnxruntime(device: str, dtype: str) -> None:
    """Make sure that ONNX Runtime is there, for this device and number format.

    Args:
        device: ``"cpu"`` or a CUDA device.
        dtype: Number format, one of `rlnas.precision.PRECISIONS`.

    Raises:
        MissingDependencyError: If one of its packages is not installed.
        DeviceError: If it has no kernels for the number format, was built without CUDA, or int8 is asked
            for on a GPU.
    """
    if dtype not in DTYPES:
        raise DeviceError(
            f"mode='onnxruntime' runs {', '.join(DTYPES)}, but got dtype={dtype!r}; use dtype='float32'"
        )
    if dtype in INT8_BLOCKS:
        check_int8(device, dtype)
    check_packages("mode='onnxruntime'")
    import onnxruntime

    if device.startswith("cuda") and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise DeviceError(
            f"mode='onnxruntime' on device={device!r} needs a build of ONNX Runtime with CUDA: "
            "install onnxruntime-gpu in place of onnxruntime, or use mode='cuda_graph'"
        )


def check_packages(what: str, packages: tuple[str, ...] = PACKAGES) -> None:
    """Make sure that packages are there.

    Args:
        what: What needs them, for the message.
        packages: Names to import.

    Raises:
        MissingDependencyError: If one is not installed.
    """
    absent = [package for package in packages if importlib.util.find_spec(package) is None]
    if absent:
        raise MissingDependencyError(
            f"{what} needs {', '.join(absent)}; install with: pip install 'rlnas[onnx]'"
        )


def onnx_call(
    module: nn.Module, inputs: Mapping[str, Tensor | None], precision: str | None = None
) -> Callable[[], Tensor]:
    """A call that runs a module in ONNX Runtime, on one thread of a CPU or on a GPU.

    Inputs and output stay where they are: values written into the tensors of `inputs` later count,
    and every call overwrites the result of the one before.

    Args:
        module: In the number format that it is stored in.
        inputs: What its `forward` takes, by name; at least one tensor.
        precision: One of `rlnas.precision.INT8_BLOCKS`, or None to compute as it is stored.

    Raises:
        DeviceError: If the module cannot be exported, or ONNX Runtime does not take it.
    """
    given = {name: value.contiguous() for name, value in inputs.items() if value is not None}
    with tempfile.TemporaryDirectory(prefix="rlnas-onnx-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "model.onnx"
        try:
            write_graph(module, inputs, path, precision=precision)
            session = open_session(path, _providers(given))
            _check_provider(session, given)
        except Exception as error:  # the exporter's and the runtime's classes share no parent of their own
            raise DeviceError(
                f"a {type(module).__name__} could not be brought to ONNX Runtime ({first_line(error)}); "
                "use mode='eager' or mode='compiled'"
            ) from error
    binding, output = session.io_binding(), _output_of(session, given)
    taken = {argument.name for argument in session.get_inputs()}
    for name, tensor in given.items():
        if name in taken:
            binding.bind_input(name, *_buffer(tensor))
    binding.bind_output("output", *_buffer(output))

    return partial(_run, session, binding, output, given)


def _run(session: InferenceSession, binding: IOBinding, output: Tensor, _given: object) -> Tensor:
    # `_given` keeps the inputs alive: the binding knows only their addresses.
    session.run_with_iobinding(binding)
    return output


class Positional(nn.Module):
    """A module that takes only tensors, by position, and returns one: what a graph can express."""

    def __init__(self, module: nn.Module, inputs: Mapping[str, Tensor | None]) -> None:
        super().__init__()
        self.module = module
        self._absent = {name: None for name, value in inputs.items() if value is None}
        self._names = [name for name, value in inputs.items() if value is not None]

    def forward(self, *tensors: Tensor) -> Tensor:
        """The module's logits, or the first tensor that it returns."""
        given = dict(zip(self._names, tensors, strict=True))
        return first_tensor(self.module(**given, **self._absent))


def write_graph(
    module: nn.Module,
    inputs: Mapping[str, Tensor | None],
    path: Path,
    *,
    output_name: str = "output",
    dynamic: Mapping[int, str] | None = None,
    external_data: bool = True,
    precision: str | None = None,
) -> None:
    """Write a module as an ONNX file.

    Args:
        module: Anything whose `forward` takes the inputs by name.
        inputs: Tensors to trace it with, or None, by name.
        path: The file.
        output_name: What the graph calls its output.
        dynamic: Axes of all inputs that may have another size than the traced one, with their names.
        external_data: Whether the weights lie beside the file, under its name and ``.data``: a file
            of 2 GB or more cannot hold them.
        precision: One of `rlnas.precision.INT8_BLOCKS`, or None to compute as it is stored.
    """
    given = {name: value for name, value in inputs.items() if value is not None}
    axes = None if dynamic is None else (tuple(dict(dynamic) for _ in given),)
    # Tracing asks tensors for versions that those of inference mode do not have.
    with quiet_exporter(), torch.inference_mode(False), torch.no_grad():
        program = torch.onnx.export(
            Positional(module, inputs),
            tuple(tensor.clone() for tensor in given.values()),
            input_names=list(given),
            output_names=[output_name],
            dynamic_shapes=axes,
            dynamo=True,
            verbose=False,
        )
        if precision is None:
            _forget_places(program)
            program.save(str(path), external_data=external_data)  # type: ignore[union-attr]  # only None without dynamo
        else:
            save_int8(program, path, precision)  # type: ignore[arg-type]  # likewise


def _forget_places(program: Any) -> None:  # noqa: ANN401 - an ONNXProgram, which may be None for types
    """Drop what each operation's lines of code were: they name folders of this machine."""
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()


def quantize_graph(source: Path, target: Path) -> None:
    """Write an ONNX file with the weights of its matrix products and tables in int8.

    Each column of a matrix has a scale of its own; activations are brought to int8 while the model
    runs, with a scale for each tensor.

    Args:
        source: A file in float32.
        target: The file to write.
    """
    import onnxruntime

    external = source.with_name(f"{source.name}.data").is_file()
    with quiet_exporter(), tempfile.TemporaryDirectory(prefix="rlnas-onnx-") as folder:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        # The exporter leaves transpositions of large weights in the graph, and what is no weight stays
        # in float32; the runtime folds them.
        folded, options = Path(folder) / "folded.onnx", session_options()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)
        if external:
            name = "session.optimized_model_external_initializers_file_name"
            options.add_session_config_entry(name, f"{folded.name}.data")
        onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
        quantize_dynamic(
            folded,
            target,
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=external,
        )


def open_session(path: Path, providers: list[Any] | None = None) -> InferenceSession:
    """An ONNX file, ready to run: on one thread that does not spin.

    Args:
        path: The file.
        providers: Where it runs, as ONNX Runtime takes it; on the CPU by default.
    """
    import onnxruntime

    return onnxruntime.InferenceSession(
        str(path), session_options(), providers=providers or ["CPUExecutionProvider"], enable_fallback=0
    )


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """The exporter reports its progress on all channels; none of it helps where the export succeeds."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def session_options() -> SessionOptions:
    """One thread that does not spin."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors
    return options


def _providers(given: Mapping[str, Tensor]) -> list[Any]:
    device = next(iter(given.values())).device
    if device.type == "cpu":
        return ["CPUExecutionProvider"]
    return [("CUDAExecutionProvider", {"device_id": device.index or 0}), "CPUExecutionProvider"]


def _check_provider(session: InferenceSession, given: Mapping[str, Tensor]) -> None:
    """A provider that cannot start (a library is missing) leaves the session to the CPU."""
    wanted, found = _providers(given)[0], session.get_providers()[0]
    name = wanted if isinstance(wanted, str) else wanted[0]
    if found != name:
        raise DeviceError(f"it runs on {found} instead of {name}; see its own messages for what is missing")


def _output_of(session: InferenceSession, given: Mapping[str, Tensor]) -> Tensor:
    """Room for the result."""
    (result,) = session.get_outputs()
    dtype = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16}[result.type]
    return torch.empty(result.shape, dtype=dtype, device=next(iter(given.values())).device)


def _buffer(tensor: Tensor) -> tuple[str, int, Any, list[int], int]:
    """Where a tensor lies, as an I/O binding takes it: device, its number, type, shape, address."""
    kind = torch.empty(0, dtype=tensor.dtype).numpy().dtype.type
    return tensor.device.type, tensor.device.index or 0, kind, list(tensor.shape), tensor.data_ptr()
