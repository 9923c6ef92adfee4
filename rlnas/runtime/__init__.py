"""How a model is served: plain PyTorch, ``torch.compile``, a replayed CUDA graph, ONNX Runtime."""

from rlnas.runtime.cuda_graph import GraphMemory
from rlnas.runtime.prepare import check_mode, prepare

__all__ = ["GraphMemory", "check_mode", "prepare"]
