"""Architectures and the sets that they are drawn from.

An *action* is a sequence of integers, one per position, each in ``[0, nvec[i])``. In every
space the first option of a position is the smallest choice and the last one the largest: the
environment relies on this when it clips an action to a budget.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from rlnas.errors import InvalidSpaceError, InvalidSubnetError
from rlnas.precision import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, order=True)
class LayerConfig:
    """What is kept of one transformer layer.

    Attributes:
        num_attention_heads: Heads kept; 0 drops the attention block.
        intermediate_size: FFN units kept; 0 drops the FFN block.

    A dropped block is the identity: no bias, no LayerNorm, no cost. A layer with both
    blocks dropped is gone.

    Raises:
        InvalidSubnetError: If a field is negative or not an integer.
    """

    num_attention_heads: int
    intermediate_size: int

    def __post_init__(self) -> None:
        for name in ("num_attention_heads", "intermediate_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise InvalidSubnetError(f"{name} must be an integer, but got {name}={value!r}")
            if value < 0:
                raise InvalidSubnetError(
                    f"{name} must be at least 0 (0 drops the block), but got {name}={value}"
                )
            object.__setattr__(self, name, int(value))

    @property
    def is_dropped(self) -> bool:
        """Whether nothing of the layer is left."""
        return self.num_attention_heads == 0 and self.intermediate_size == 0

    def __str__(self) -> str:
        return "-" if self.is_dropped else f"{self.num_attention_heads}h{self.intermediate_size}"


@dataclass(frozen=True, slots=True)
class SubnetConfig:
    """One architecture: frozen, hashable, and plain JSON outside.

    Attributes:
        layers: One `LayerConfig` per layer of the full model, dropped ones included.
        precision: Number format of the subnet, one of `rlnas.precision.PRECISIONS`, or None for that of
            the workload.

    Raises:
        InvalidSubnetError: If there is no layer or the precision is unknown.
    """

    layers: tuple[LayerConfig, ...]
    precision: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers:
            raise InvalidSubnetError("a subnet needs at least one LayerConfig, but layers is empty")
        if self.precision is not None and self.precision not in PRECISIONS:
            raise InvalidSubnetError(
                f"precision must be None or one of {', '.join(PRECISIONS)}, "
                f"but got precision={self.precision!r}"
            )

    @property
    def num_hidden_layers(self) -> int:
        """Number of layers of which something is left."""
        return sum(not layer.is_dropped for layer in self.layers)

    def __str__(self) -> str:
        layers = " ".join(str(layer) for layer in self.layers)
        return layers if self.precision is None else f"{layers} in {self.precision}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "layers": [[layer.num_attention_heads, layer.intermediate_size] for layer in self.layers],
            "precision": self.precision,
        }

    def to_json(self) -> str:
        """Canonical JSON: equal configs give equal strings."""
        return json.dumps(self.to_dict(), separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_dict(cls, values: object) -> SubnetConfig:
        """Inverse of `to_dict`.

        Raises:
            InvalidSubnetError: If `values` has not the form that `to_dict` gives.
        """
        try:
            pairs = values["layers"]  # type: ignore[index]
            layers = tuple(LayerConfig(heads, units) for heads, units in pairs)
            precision = values.get("precision")  # type: ignore[attr-defined]
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise InvalidSubnetError(
                'a subnet reads {"layers": [[heads, units], ...], "precision": null}, '
                f"but got {str(values)[:200]} ({error})"
            ) from error
        return cls(layers, precision)

    @classmethod
    def from_json(cls, text: str) -> SubnetConfig:
        """Inverse of `to_json`.

        Raises:
            InvalidSubnetError: If the text is no JSON or has another form.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise InvalidSubnetError(f"a subnet must be JSON, but got {text[:200]!r}") from error
        return cls.from_dict(values)


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes of a full model, which bound its subnets.

    Attributes:
        num_hidden_layers: Layers, at least 1.
        num_attention_heads: Heads of every layer, at least 1.
        intermediate_size: FFN units of every layer, at least 1.
        hidden_size: Width of the residual stream.
    """

    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_size: int

    def __post_init__(self) -> None:
        for name in ("num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_size"):
            value = getattr(self, name)
            if value < 1:
                raise InvalidSpaceError(f"{name} must be at least 1, but got {name}={value}")
        if self.hidden_size % self.num_attention_heads:
            raise InvalidSpaceError(
                f"hidden_size={self.hidden_size} does not divide into "
                f"num_attention_heads={self.num_attention_heads} equal heads"
            )

    @property
    def full(self) -> SubnetConfig:
        """The config that keeps everything."""
        layer = LayerConfig(self.num_attention_heads, self.intermediate_size)
        return SubnetConfig((layer,) * self.num_hidden_layers)


@runtime_checkable
class SearchSpace(Protocol):
    """A finite set of configs with an integer coding; `LayerwiseSpace` is the usual one."""

    @property
    def nvec(self) -> tuple[int, ...]:
        """Number of options at each position; options ascend in size."""

    def decode(self, action: Sequence[int]) -> SubnetConfig:
        """The config of an action."""

    def encode(self, config: SubnetConfig) -> tuple[int, ...]:
        """The action of a config: ``decode(encode(c)) == c``."""

    def sample(self, rng: np.random.Generator) -> SubnetConfig:
        """A random member."""

    def smallest(self) -> SubnetConfig:
        """The member of action ``(0, ..., 0)``."""

    def largest(self) -> SubnetConfig:
        """The member of the greatest action."""

    def __contains__(self, config: object) -> bool:
        """Whether `config` is a member."""


def check_action(action: Sequence[int], nvec: tuple[int, ...]) -> tuple[int, ...]:
    """The action as plain integers.

    Raises:
        InvalidSubnetError: If its length or an entry is outside `nvec`.
    """
    if len(action) != len(nvec):
        raise InvalidSubnetError(f"an action has {len(nvec)} entries here, but got {len(action)}")
    entries = tuple(int(entry) for entry in action)
    for position, (entry, n_options) in enumerate(zip(entries, nvec, strict=True)):
        if not 0 <= entry < n_options:
            raise InvalidSubnetError(
                f"entry {position} of an action must be in [0, {n_options - 1}], but got {entry}"
            )
    return entries


def _ascending(name: str, options: Sequence[int], highest: int | None = None) -> tuple[int, ...]:
    values = tuple(options)
    if not values:
        raise InvalidSpaceError(f"{name} needs at least one option, but got none")
    is_integral = all(isinstance(option, int | np.integer) for option in values)
    if not is_integral or values[0] < 0 or any(a >= b for a, b in pairwise(values)):
        raise InvalidSpaceError(
            f"{name} must be ascending integers of at least 0 without repeats, but got {values}"
        )
    if highest is not None and values[-1] > highest:
        raise InvalidSpaceError(f"{name} may go up to {highest} for this model, but got {values[-1]}")
    return tuple(int(option) for option in values)


QUARTERS = 4


def equal_parts(full: int, parts: int = QUARTERS) -> tuple[int, ...]:
    """0, 1, 2 and so on up to all of so many equal parts of `full`, rounded, without repeats.

    Args:
        full: At least 1.
        parts: At least 1.

    Raises:
        InvalidSpaceError: If `parts` is less than 1.
    """
    if parts < 1:
        raise InvalidSpaceError(f"sizes come in at least 1 part, but got parts={parts}")
    return tuple(sorted({0, *(max(1, round(full * k / parts)) for k in range(1, parts)), full}))


@dataclass(frozen=True, slots=True)
class LayerOptions:
    """What one layer may become.

    Attributes:
        num_attention_heads: Heads on offer, ascending; 0 offers to drop the block.
        intermediate_size: FFN units on offer, ascending; 0 offers to drop the block.
    """

    num_attention_heads: tuple[int, ...]
    intermediate_size: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("num_attention_heads", "intermediate_size"):
            object.__setattr__(self, name, _ascending(name, getattr(self, name)))


@dataclass(frozen=True, slots=True)
class LayerwiseSpace:
    """Every layer chooses its heads and its FFN width by itself.

    An action has two entries per layer: heads, then units. ``LayerwiseSpace.for_model(shape)``
    offers quarters of the full sizes, dropping included.

    Attributes:
        layers: The options of each layer.
    """

    layers: tuple[LayerOptions, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers:
            raise InvalidSpaceError("a space needs at least one layer, but layers is empty")

    @classmethod
    def for_model(
        cls,
        shape: ModelShape,
        num_attention_heads: Sequence[int] | None = None,
        intermediate_size: Sequence[int] | None = None,
        *,
        parts: int = QUARTERS,
        keep_last_layer: bool = False,
    ) -> LayerwiseSpace:
        """The same options for every layer of a model.

        Args:
            shape: Sizes of the full model.
            num_attention_heads: Heads on offer, ascending; by default equal parts of the full number.
            intermediate_size: FFN units on offer, ascending; by default equal parts.
            parts: How many equal parts, at least 1; by default quarters.
            keep_last_layer: Whether the last layer's blocks may only shrink, not go.

        Raises:
            InvalidSpaceError: If an option is negative, repeated or beyond the model, or `parts` is less
                than 1.
        """
        heads = _ascending(
            "num_attention_heads",
            equal_parts(shape.num_attention_heads, parts)
            if num_attention_heads is None
            else num_attention_heads,
            shape.num_attention_heads,
        )
        units = _ascending(
            "intermediate_size",
            equal_parts(shape.intermediate_size, parts) if intermediate_size is None else intermediate_size,
            shape.intermediate_size,
        )
        layers = [LayerOptions(heads, units)] * shape.num_hidden_layers
        if keep_last_layer:
            kept = LayerOptions(tuple(h for h in heads if h), tuple(u for u in units if u))
            layers[-1] = kept
        return cls(tuple(layers))

    def snapped(self, multiple: int) -> LayerwiseSpace:
        """The same space with FFN widths that the hardware likes.

        Each width goes to the nearest multiple (a tie goes up) that is neither 0 nor above its
        layer's largest option; where there is none, to that option. Widths that meet are merged;
        0 stays 0.

        Args:
            multiple: At least 1; `rlnas.alignment.probe_alignment` measures which one.

        Raises:
            InvalidSpaceError: If `multiple` is below 1 or not an integer.
        """
        if isinstance(multiple, bool) or not isinstance(multiple, int | np.integer) or multiple < 1:
            raise InvalidSpaceError(
                f"multiple must be an integer of at least 1 (1 keeps all), but got multiple={multiple}"
            )
        return LayerwiseSpace(
            tuple(
                LayerOptions(
                    layer.num_attention_heads, _snapped_widths(layer.intermediate_size, int(multiple))
                )
                for layer in self.layers
            )
        )

    @property
    def nvec(self) -> tuple[int, ...]:
        """Number of options: heads of layer 0, units of layer 0, heads of layer 1, ..."""
        return tuple(len(options) for options in self._options)

    @property
    def size(self) -> int:
        """Number of members."""
        return math.prod(self.nvec)

    @property
    def _options(self) -> tuple[tuple[int, ...], ...]:
        return tuple(
            options
            for layer in self.layers
            for options in (layer.num_attention_heads, layer.intermediate_size)
        )

    def decode(self, action: Sequence[int]) -> SubnetConfig:
        """The config of an action.

        Raises:
            InvalidSubnetError: If the action is not within `nvec`.
        """
        entries = check_action(action, self.nvec)
        chosen = [options[entry] for options, entry in zip(self._options, entries, strict=True)]
        return SubnetConfig(
            tuple(LayerConfig(h, u) for h, u in zip(chosen[::2], chosen[1::2], strict=True))
        )

    def encode(self, config: SubnetConfig) -> tuple[int, ...]:
        """The action of a member.

        Raises:
            InvalidSubnetError: If `config` is not a member; the message names the layer.
        """
        _check_fits(config, len(self.layers))
        action: list[int] = []
        for index, (options, layer) in enumerate(zip(self.layers, config.layers, strict=True)):
            for name in ("num_attention_heads", "intermediate_size"):
                allowed, value = getattr(options, name), getattr(layer, name)
                if value not in allowed:
                    raise InvalidSubnetError(
                        f"{name} of layer {index} must be one of {allowed}, but got {value}"
                    )
                action.append(allowed.index(value))
        return tuple(action)

    def sample(self, rng: np.random.Generator) -> SubnetConfig:
        """A member drawn uniformly."""
        return self.decode([int(rng.integers(n)) for n in self.nvec])

    def smallest(self) -> SubnetConfig:
        """The least that may be kept of every layer."""
        return self.decode([0] * len(self.nvec))

    def largest(self) -> SubnetConfig:
        """The most that may be kept of every layer."""
        return self.decode([n - 1 for n in self.nvec])

    def __contains__(self, config: object) -> bool:
        return _is_member(self, config)


@dataclass(frozen=True, slots=True)
class UniformSpace:
    """All kept layers have the same heads and units; kept layers are spread evenly.

    An action has three entries: depth, heads, units.

    Attributes:
        num_layers: Layers of the full model.
        num_hidden_layers: Depths on offer, ascending, from 1 to `num_layers`.
        num_attention_heads: Heads on offer, ascending, at least 1.
        intermediate_size: FFN units on offer, ascending, at least 1.
    """

    num_layers: int
    num_hidden_layers: tuple[int, ...]
    num_attention_heads: tuple[int, ...]
    intermediate_size: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("num_hidden_layers", "num_attention_heads", "intermediate_size"):
            options = _ascending(name, getattr(self, name))
            if options[0] == 0:
                raise InvalidSpaceError(f"{name} must be at least 1 in a UniformSpace, but got 0")
            object.__setattr__(self, name, options)
        if self.num_hidden_layers[-1] > self.num_layers:
            raise InvalidSpaceError(
                f"num_hidden_layers may go up to {self.num_layers} for this model, "
                f"but got {self.num_hidden_layers[-1]}"
            )

    @classmethod
    def for_model(cls, shape: ModelShape) -> UniformSpace:
        """All depths, and quarters of the full widths."""
        return cls(
            num_layers=shape.num_hidden_layers,
            num_hidden_layers=tuple(range(1, shape.num_hidden_layers + 1)),
            num_attention_heads=equal_parts(shape.num_attention_heads)[1:],
            intermediate_size=equal_parts(shape.intermediate_size)[1:],
        )

    @property
    def nvec(self) -> tuple[int, ...]:
        """Number of depths, of heads and of units on offer."""
        return (len(self.num_hidden_layers), len(self.num_attention_heads), len(self.intermediate_size))

    @property
    def size(self) -> int:
        """Number of members."""
        return math.prod(self.nvec)

    def kept_layers(self, depth: int) -> tuple[int, ...]:
        """Indices of the layers kept at a depth: evenly spread, always with the last one."""
        return tuple(-(-self.num_layers * (step + 1) // depth) - 1 for step in range(depth))

    def decode(self, action: Sequence[int]) -> SubnetConfig:
        """The config of an action.

        Raises:
            InvalidSubnetError: If the action is not within `nvec`.
        """
        depth, heads, units = check_action(action, self.nvec)
        kept = self.kept_layers(self.num_hidden_layers[depth])
        layer = LayerConfig(self.num_attention_heads[heads], self.intermediate_size[units])
        dropped = LayerConfig(0, 0)
        return SubnetConfig(tuple(layer if i in kept else dropped for i in range(self.num_layers)))

    def encode(self, config: SubnetConfig) -> tuple[int, ...]:
        """The action of a member.

        Raises:
            InvalidSubnetError: If `config` is not a member.
        """
        kept = [layer for layer in config.layers if not layer.is_dropped]
        try:
            action = (
                self.num_hidden_layers.index(len(kept)),
                self.num_attention_heads.index(kept[0].num_attention_heads),
                self.intermediate_size.index(kept[0].intermediate_size),
            )
        except (ValueError, IndexError):
            action = None
        if action is None or self.decode(action) != config:
            raise InvalidSubnetError(f"the subnet is not in this UniformSpace: {config}")
        return action

    def sample(self, rng: np.random.Generator) -> SubnetConfig:
        """A member drawn uniformly."""
        return self.decode([int(rng.integers(n)) for n in self.nvec])

    def smallest(self) -> SubnetConfig:
        """Least depth, heads and units."""
        return self.decode((0, 0, 0))

    def largest(self) -> SubnetConfig:
        """Greatest depth, heads and units."""
        return self.decode([n - 1 for n in self.nvec])

    def __contains__(self, config: object) -> bool:
        return _is_member(self, config)


@dataclass(frozen=True, slots=True)
class ChoiceSpace:
    """Every layer makes one choice from one list.

    An action has one entry per layer. ``ChoiceSpace.for_model(shape)`` offers nothing, a third,
    two thirds and all of a layer.

    Attributes:
        num_layers: Layers of the full model, at least 1.
        options: What a layer may become, without repeats. The first one is contained in all others and
            the last one contains them; what lies between may trade heads against units.
    """

    num_layers: int
    options: tuple[LayerConfig, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(self.options))
        if self.num_layers < 1:
            raise InvalidSpaceError(f"num_layers must be at least 1, but got num_layers={self.num_layers}")
        if not self.options:
            raise InvalidSpaceError("options needs at least one LayerConfig, but got none")
        listed = ", ".join(str(option) for option in self.options)
        if len(set(self.options)) < len(self.options):
            raise InvalidSpaceError(f"options must not repeat, but got {listed}")
        smallest, largest = self.options[0], self.options[-1]
        if not all(_holds(option, smallest) and _holds(largest, option) for option in self.options):
            raise InvalidSpaceError(
                "options must begin with the smallest in both sizes and end with the largest, "
                f"but got {listed}"
            )

    @classmethod
    def for_model(cls, shape: ModelShape, shares: Sequence[float] = (0, 1 / 3, 2 / 3, 1)) -> ChoiceSpace:
        """The same shares for every layer of a model.

        Sizes are rounded to the nearest integer, but a share above 0 keeps at least one head and
        one unit; shares that come to the same sizes are one option.

        Args:
            shape: Sizes of the full model.
            shares: Of the full sizes, ascending, in [0, 1]; 0 offers to drop the layer.

        Raises:
            InvalidSpaceError: If there is no share, or they do not ascend within [0, 1].
        """
        values = tuple(shares)
        # In this form a NaN is refused too.
        is_ascending = all(a < b for a, b in pairwise(values)) and all(0 <= v <= 1 for v in values)
        if not values or not is_ascending:
            raise InvalidSpaceError(
                f"shares must be ascending numbers in [0, 1] without repeats, but got {values}"
            )
        options = [
            LayerConfig(
                _share_of(shape.num_attention_heads, share), _share_of(shape.intermediate_size, share)
            )
            for share in values
        ]
        return cls(shape.num_hidden_layers, tuple(dict.fromkeys(options)))

    @property
    def nvec(self) -> tuple[int, ...]:
        """Number of options of each layer."""
        return (len(self.options),) * self.num_layers

    @property
    def size(self) -> int:
        """Number of members."""
        return math.prod(self.nvec)

    def decode(self, action: Sequence[int]) -> SubnetConfig:
        """The config of an action.

        Raises:
            InvalidSubnetError: If the action is not within `nvec`.
        """
        return SubnetConfig(tuple(self.options[entry] for entry in check_action(action, self.nvec)))

    def encode(self, config: SubnetConfig) -> tuple[int, ...]:
        """The action of a member.

        Raises:
            InvalidSubnetError: If `config` is not a member; the message names the layer.
        """
        _check_fits(config, self.num_layers)
        for index, layer in enumerate(config.layers):
            if layer not in self.options:
                allowed = ", ".join(str(option) for option in self.options)
                raise InvalidSubnetError(f"layer {index} must be one of {allowed}, but got {layer}")
        return tuple(self.options.index(layer) for layer in config.layers)

    def sample(self, rng: np.random.Generator) -> SubnetConfig:
        """A member drawn uniformly."""
        return self.decode([int(rng.integers(n)) for n in self.nvec])

    def smallest(self) -> SubnetConfig:
        """The least that may be kept of every layer."""
        return self.decode([0] * self.num_layers)

    def largest(self) -> SubnetConfig:
        """The most that may be kept of every layer."""
        return self.decode([n - 1 for n in self.nvec])

    def __contains__(self, config: object) -> bool:
        return _is_member(self, config)


def _snapped_widths(widths: tuple[int, ...], multiple: int) -> tuple[int, ...]:
    """The widths as multiples within their range; see `LayerwiseSpace.snapped`."""
    largest = widths[-1]
    highest = largest // multiple * multiple or largest
    nearest = [(2 * width + multiple) // (2 * multiple) * multiple for width in widths if width]
    snapped = {min(max(width, multiple), highest) for width in nearest}
    return tuple(sorted(snapped | ({0} if widths[0] == 0 else set())))


def _share_of(full: int, share: float) -> int:
    return max(1, round(full * share)) if share > 0 else 0


def _holds(larger: LayerConfig, smaller: LayerConfig) -> bool:
    """Whether no size of the smaller one is above the larger one's."""
    return (
        smaller.num_attention_heads <= larger.num_attention_heads
        and smaller.intermediate_size <= larger.intermediate_size
    )


def _check_fits(config: SubnetConfig, n_layers: int) -> None:
    """Refuse a subnet of another depth or with a precision of its own."""
    if len(config.layers) != n_layers:
        raise InvalidSubnetError(
            f"this space has {n_layers} layers, but the subnet has {len(config.layers)}"
        )
    if config.precision is not None:
        raise InvalidSubnetError(
            f"this space does not choose the precision, but got precision={config.precision!r}"
        )


def _is_member(space: SearchSpace, config: object) -> bool:
    if not isinstance(config, SubnetConfig):
        return False
    try:
        space.encode(config)
    except InvalidSubnetError:
        return False
    return True
