"""The shared weights of one checkpoint, and the subnets inside."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from transformers import AutoTokenizer

from rlnas.errors import CheckpointError, InvalidSubnetError, RunFolderError, first_line
from rlnas.space import ModelShape
from rlnas.supernet.checkpoint import check_vocabulary, load_checkpoint, quiet_transformers, with_new_head
from rlnas.supernet.encoding import encode
from rlnas.supernet.importance import Importance
from rlnas.supernet.modeling_subnet import SubnetModel, SubnetModelConfig
from rlnas.supernet.own_checkpoint import is_own, load_own

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    from rlnas.space import SubnetConfig
    from rlnas.supernet.encoding import Batch, EncodedSplit
    from rlnas.supernet.modeling_subnet import AttentionBlock, FFNBlock, Layer
    from rlnas.task import Split, Task

STATE_FILE = "supernet.json"
IMPORTANCE_FILE = "importance.safetensors"


class Supernet:
    """A full model of which every subnet is a view: the first k heads and units of each layer.

    Attributes:
        model: The full model; its weights are the shared weights.
        tokenizer: Its tokenizer.
        max_seq_len: Longer texts are cut to this many tokens.
        fine_tuned: Whether the head has been trained for the task. Importance through a random
            head is noise.
        block_importance: Shape ``(num_hidden_layers, 2)``: how much the attention and the FFN block
            of each layer matter to the full model; None before `estimate_importance`.
        importance: The same of every head and unit, in the order of the weights; None before
            `order_by_importance`.
    """

    def __init__(
        self,
        model: SubnetModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_seq_len: int = 128,
        fine_tuned: bool = False,
        block_importance: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_seq_len = min(max_seq_len, self.max_positions)
        self.fine_tuned = fine_tuned
        self.block_importance = block_importance
        self.importance: Importance | None = None

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        task: Task | None,
        *,
        pooling: str | None = None,
        max_seq_len: int = 128,
        device: str = "cpu",
        seed: int = 0,
        trust_remote_code: bool = False,
    ) -> Supernet:
        """Start from a BERT, RoBERTa, DistilBERT or ELECTRA checkpoint.

        Args:
            model: A hub name or a local folder; also a full model that a run or `rlnas.deploy.export`
                has written, whose code is not run.
            task: Its labels shape the classifier; None keeps the labels of the checkpoint.
            pooling: ``"cls"`` or ``"mean"``; None takes what the checkpoint was made for.
            max_seq_len: Longer texts are cut to this many tokens.
            device: Where the weights live.
            seed: For the classifier's weights where the checkpoint brings none.
            trust_remote_code: Whether code inside the checkpoint may run.

        Raises:
            CheckpointError: If it cannot be read or is of no supported family.
        """
        if is_own(model):
            loaded = load_own(model, task, pooling, seed=seed)
        else:
            loaded = load_checkpoint(model, task, pooling, seed=seed, trust_remote_code=trust_remote_code)
        return cls(
            loaded.model.to(device),  # type: ignore[arg-type]
            loaded.tokenizer,
            max_seq_len=max_seq_len,
            fine_tuned=loaded.fine_tuned,
        )

    def for_task(self, task: Task, *, seed: int = 0) -> Supernet:
        """The same encoder, in a copy, with an untrained classifier for another task.

        Heads and units stay in their order; what is known of their importance does not, as it was for the
        earlier task.

        Args:
            task: Its labels shape the classifier.
            seed: For the classifier's weights.
        """
        model = with_new_head(self.model, task, seed)
        return Supernet(model.to(self.device), self.tokenizer, max_seq_len=self.max_seq_len)  # type: ignore[arg-type]

    @property
    def shape(self) -> ModelShape:
        """Sizes of the full model."""
        config = self.model.config
        return ModelShape(
            num_hidden_layers=len(config.kept_heads),
            num_attention_heads=config.kept_heads[0],
            intermediate_size=config.kept_units[0],
            hidden_size=config.kept_heads[0] * config.head_size,
        )

    @property
    def max_positions(self) -> int:
        """Tokens that the checkpoint has positions for."""
        config = self.model.config
        # RoBERTa counts from its padding index, so its first rows are never a token's position.
        first = 0 if config.position_padding is None else config.position_padding + 1
        return config.max_position_embeddings - first

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.model.device

    @property
    def blocks(self) -> list[tuple[AttentionBlock, FFNBlock]]:
        """Attention and FFN block of every layer; a full model has them all."""
        layers = cast("list[Layer]", self.model.layers)
        return [
            (layer.attention, layer.ffn)
            for layer in layers
            if layer.attention is not None and layer.ffn is not None
        ]

    @property
    def label_names(self) -> tuple[str, ...]:
        """Class names in the order of the outputs; empty for regression."""
        if self.is_regression:
            return ()
        names = {int(index): name for index, name in (self.model.config.id2label or {}).items()}
        return tuple(names[index] for index in sorted(names))

    @property
    def is_regression(self) -> bool:
        """Whether the one output is a value to predict."""
        return bool(self.model.config.problem_type == "regression")

    def encode(self, split: Split) -> EncodedSplit:
        """Tokens of a split."""
        return encode(self.tokenizer, split, self.max_seq_len)

    def check(self, config: SubnetConfig) -> None:
        """Whether a config fits into this supernet.

        Raises:
            InvalidSubnetError: If it has another number of layers, or asks for more than there is.
        """
        shape = self.shape
        if len(config.layers) != shape.num_hidden_layers:
            raise InvalidSubnetError(
                f"the supernet has {shape.num_hidden_layers} layers, "
                f"but the subnet has {len(config.layers)}"
            )
        for index, layer in enumerate(config.layers):
            for name in ("num_attention_heads", "intermediate_size"):
                value, limit = getattr(layer, name), getattr(shape, name)
                if value > limit:
                    raise InvalidSubnetError(
                        f"{name} of layer {index} may be at most {limit} in this supernet, but got {value}"
                    )

    def forward(self, config: SubnetConfig, batch: Batch) -> Tensor:
        """Logits of a subnet, shape ``(batch, num_labels)``, from views of the shared weights."""
        hidden = self.model.embeddings(batch.input_ids, batch.token_type_ids)
        mask = self.model.attention_mask(batch.attention_mask)
        for layer, kept in zip(self.model.layers, config.layers, strict=True):
            hidden = layer(hidden, mask, kept.num_attention_heads, kept.intermediate_size)
        logits: Tensor = self.model.head(hidden, batch.attention_mask)
        return logits

    def extract(self, config: SubnetConfig) -> SubnetModel:
        """A stand-alone copy of a subnet, in evaluation mode on this supernet's device.

        Raises:
            InvalidSubnetError: If the config does not fit.
        """
        self.check(config)
        sizes = copy.deepcopy(self.model.config)
        sizes.kept_heads = [layer.num_attention_heads for layer in config.layers]
        sizes.kept_units = [layer.intermediate_size for layer in config.layers]
        # Of the CPU alone: forking every GPU's generator would start every GPU.
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            model = SubnetModel(sizes)
        shared = dict(self.model.named_parameters())
        weights = {
            name: shared[name][tuple(slice(0, size) for size in parameter.shape)]
            .detach()
            .clone()
            .contiguous()
            for name, parameter in model.named_parameters()
        }
        model.load_state_dict(weights, assign=True)
        model.eval()  # type: ignore[no-untyped-call]
        return model

    def n_params(self, config: SubnetConfig) -> int:
        """Parameters of the stand-alone subnet.

        Raises:
            InvalidSubnetError: If the config does not fit.
        """
        self.check(config)
        hidden, head_size = self.model.config.hidden_size, self.model.config.head_size
        rest = sum(p.numel() for p in [*self.model.embeddings.parameters(), *self.model.head.parameters()])
        for layer in config.layers:
            if layer.num_attention_heads:
                inner = layer.num_attention_heads * head_size
                rest += 4 * hidden * inner + 3 * inner + 3 * hidden
            if layer.intermediate_size:
                rest += (2 * hidden + 1) * layer.intermediate_size + 3 * hidden
        return rest

    def save(self, folder: str | Path) -> None:
        """Write weights (safetensors), tokenizer and state into a folder.

        Raises:
            RunFolderError: If the folder cannot be written.
        """
        path = Path(folder)
        importance = self.block_importance
        state = {
            "max_seq_len": self.max_seq_len,
            "fine_tuned": self.fine_tuned,
            "block_importance": None if importance is None else importance.tolist(),
        }
        try:
            path.mkdir(parents=True, exist_ok=True)
            with quiet_transformers():
                self.model.save_pretrained(path)
            self.tokenizer.save_pretrained(path)
            (path / STATE_FILE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
            if self.importance is not None:
                values = {"heads": self.importance.heads, "units": self.importance.units}
                save_file(values, path / IMPORTANCE_FILE)
        except (OSError, SafetensorError) as error:
            raise RunFolderError(f"cannot write the supernet into {str(path)!r}: {error}") from error

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> Supernet:
        """Inverse of `save`.

        Raises:
            CheckpointError: If the folder is missing, incomplete or damaged.
        """
        path = Path(folder)
        try:
            state = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
            config = SubnetModelConfig.from_pretrained(path)
            with quiet_transformers():
                loaded = SubnetModel.from_pretrained(
                    path, config=config, dtype=torch.float32, output_loading_info=True
                )
            model, info = cast("tuple[SubnetModel, dict[str, set[str]]]", loaded)
            if info["missing_keys"]:  # transformers would fill them with random numbers
                raise ValueError(f"it lacks the weight {sorted(info['missing_keys'])[0]!r}")
            tokenizer = AutoTokenizer.from_pretrained(path, config=config, trust_remote_code=False)
            check_vocabulary(tokenizer, str(path))
            importance = state["block_importance"]
            supernet = cls(
                model.to(device).eval(),  # type: ignore[arg-type]
                tokenizer,
                max_seq_len=state["max_seq_len"],
                fine_tuned=state["fine_tuned"],
                block_importance=None if importance is None else np.array(importance),
            )
            if (path / IMPORTANCE_FILE).is_file():
                supernet.importance = Importance(**load_file(path / IMPORTANCE_FILE))
            return supernet
        except Exception as error:  # json, safetensors and transformers each raise their own
            reason = first_line(error)
            raise CheckpointError(
                f"cannot read the supernet in {str(path)!r}; write it anew with Supernet.save: {reason}"
            ) from error

    def permute(self, head_order: npt.NDArray[np.int64], unit_order: npt.NDArray[np.int64]) -> None:
        """Reorder heads and units; the full model's outputs do not change.

        Args:
            head_order: Shape ``(num_hidden_layers, num_attention_heads)``, which head comes first,
                second, ...
            unit_order: Shape ``(num_hidden_layers, intermediate_size)``, likewise for FFN units.
        """
        head_size = self.model.config.head_size
        for (attention, ffn), heads, units in zip(self.blocks, head_order, unit_order, strict=True):
            rows = (heads[:, None] * head_size + np.arange(head_size)[None]).reshape(-1)
            _permute_block(
                [attention.query, attention.key, attention.value], attention.output, torch.from_numpy(rows)
            )
            _permute_block([ffn.inner], ffn.outer, torch.from_numpy(np.asarray(units)))


def _permute_block(inputs: list[nn.Linear], output: nn.Linear, order: Tensor) -> None:
    with torch.no_grad():
        index = order.to(output.weight.device)
        for linear in inputs:
            linear.weight.copy_(linear.weight[index].clone())
            linear.bias.copy_(linear.bias[index].clone())
        output.weight.copy_(output.weight[:, index].clone())
