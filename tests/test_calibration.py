from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from rlnas.calibration import block_options, calibrate, calibrate_timeable, choose_models
from rlnas.latency.clock import FakeClock
from rlnas.latency.device import DeviceInfo
from rlnas.latency.table import LatencyTable
from rlnas.space import LayerConfig, LayerOptions, LayerwiseSpace, ModelShape, SubnetConfig, UniformSpace
from rlnas.supernet.modeling_subnet import SubnetModel, SubnetModelConfig
from rlnas.supernet.supernet import Supernet
from rlnas.workload import Workload

SHAPE = ModelShape(num_hidden_layers=6, num_attention_heads=4, intermediate_size=64, hidden_size=16)
SPACE = LayerwiseSpace.for_model(SHAPE)
WORKLOAD = Workload(1, 32)
DEVICE = DeviceInfo("cpu", "Fake CPU")


@dataclass
class Synthetic:
    """Blocks of known cost; a whole model takes ``scale`` times their sum, and ``offset`` more."""

    clock: FakeClock
    scale: float = 1.0
    offset: float = 0.0
    launch_ms: float = 0.0
    shape: ModelShape = SHAPE
    asked: Counter = field(default_factory=Counter)

    def block_ms(self, kind: str, size: int) -> float:
        # A block takes its work, or its launches where these take longer.
        work = 0.1 + 0.45 * size if kind == "attention" else 0.2 + 0.06 * size
        return max(work, self.launch_ms)

    def model_ms(self, config: SubnetConfig) -> float:
        blocks = 0.0
        for layer in config.layers:
            blocks += (
                self.block_ms("attention", layer.num_attention_heads) if layer.num_attention_heads else 0
            )
            blocks += self.block_ms("ffn", layer.intermediate_size) if layer.intermediate_size else 0
        return 0.6 + blocks if not blocks else self.scale * (0.6 + blocks) + self.offset

    def block_call(self, kind, size):
        self.asked[kind, size] += 1
        return self.clock.call(self.block_ms(kind, size))

    def model_call(self, config):
        self.asked[config] += 1
        return self.clock.call(self.model_ms(config))


def calibrate_synthetic(model: Synthetic, space=SPACE, **settings) -> LatencyTable:
    return calibrate_timeable(model, space, WORKLOAD, device=DEVICE, clock=model.clock, **settings)


def held_out_configs(n: int, seed: int = 99) -> list[SubnetConfig]:
    rng = np.random.default_rng(seed)
    return [SPACE.sample(rng) for _ in range(n)]


def test_a_scaled_and_shifted_sum_is_recovered_exactly():
    model = Synthetic(FakeClock(), scale=1.2, offset=0.5)
    table = calibrate_synthetic(model, n_rounds=5)
    configs = held_out_configs(50)
    assert table(configs) == pytest.approx([model.model_ms(config) for config in configs], rel=1e-6)
    assert table.correction.form == "scale_offset"
    assert table.correction.ffn_scale == pytest.approx(1.2)
    assert table.correction.offset_ms == pytest.approx(0.5)
    assert table.error is not None
    assert table.error.n_held_out == 13
    assert table.error.mape < 1e-6
    assert table.error.noise < 1e-6
    assert table.error.controls["blocks"] > 0.1
    assert table.error.controls["flops"] > 0.005


def test_counting_blocks_is_as_good_where_launches_take_the_time():
    model = Synthetic(FakeClock(), scale=1.1, launch_ms=50.0)
    error = calibrate_synthetic(model, n_rounds=5).error
    assert error is not None
    assert error.controls["blocks"] == pytest.approx(0, abs=1e-3)
    assert error.mape == pytest.approx(0, abs=1e-3)
    assert error.controls["flops"] > 0.1


@pytest.mark.parametrize("seed", range(3))
def test_drift_and_outliers_leave_the_table_right(seed):
    rng = np.random.default_rng(seed)

    def slowdown(now_ms: float) -> float:
        drift = 1 + 4 * abs(np.sin(now_ms / 3_000))
        return float(drift * (20 if rng.random() < 0.05 else rng.lognormal(0, 0.03)))

    model = Synthetic(FakeClock(slowdown), scale=1.3, offset=0.4)
    table = calibrate_synthetic(model, n_rounds=25, seed=seed)
    configs = held_out_configs(50)
    truth = np.array([model.model_ms(config) for config in configs])
    # Milliseconds depend on the drift; ratios to the full model do not.
    predicted_ratio = table(configs) / table([SHAPE.full])
    assert np.abs(predicted_ratio / (truth / model.model_ms(SHAPE.full)) - 1).mean() < 0.03


def test_the_largest_takes_longer_than_the_smallest():
    table = calibrate_synthetic(Synthetic(FakeClock(), launch_ms=50.0), n_rounds=5)
    smallest, middle, largest = table([SPACE.smallest(), SPACE.decode([1] * 12), SPACE.largest()])
    assert 0 < smallest < middle <= largest


def test_every_block_is_built_once_and_every_model_once():
    model = Synthetic(FakeClock())
    table = calibrate_synthetic(model, n_rounds=5)
    assert set(model.asked.values()) == {1}
    assert table.attention_ms.keys() == {1, 2, 3, 4}
    assert table.ffn_ms.keys() == {16, 32, 48, 64}
    assert len(table.block_timings) == 9
    assert len(table.model_timings) == 13


def test_the_raw_timings_stand_in_the_table(tmp_path):
    model = Synthetic(FakeClock(), scale=1.2)
    table = calibrate_synthetic(model, n_rounds=6)
    assert table.device == DEVICE
    assert table.workload == WORKLOAD
    assert table.block_timings[0].kind == "floor"
    assert all(raw.timing.n_samples == 6 for raw in table.model_timings)
    assert [raw.timing.median_ms for raw in table.model_timings] == pytest.approx(
        [model.model_ms(raw.config) for raw in table.model_timings]
    )
    table.save(tmp_path / "latency.json")
    assert LatencyTable.load(tmp_path / "latency.json") == table


def test_the_same_seed_gives_the_same_table():
    tables = [calibrate_synthetic(Synthetic(FakeClock(), scale=1.2), n_rounds=5, seed=3) for _ in range(2)]
    assert tables[0] == tables[1]


def test_time_bounds_the_rounds():
    table = calibrate_synthetic(Synthetic(FakeClock()), n_rounds=10_000, max_seconds=3.0)
    assert 5 <= table.model_timings[0].timing.n_samples < 100


def test_progress_is_told():
    seen: list[tuple[int, int]] = []
    calibrate_synthetic(Synthetic(FakeClock()), n_rounds=5, progress=lambda *state: seen.append(state))
    assert seen[-1] == (5, 5)


def test_a_uniform_space_is_calibrated_too():
    space = UniformSpace.for_model(SHAPE)
    model = Synthetic(FakeClock(), scale=1.2, offset=0.5)
    table = calibrate_synthetic(model, space, n_rounds=5)
    configs = [space.sample(np.random.default_rng(seed)) for seed in range(20)]
    assert table(configs) == pytest.approx([model.model_ms(config) for config in configs], rel=1e-6)


def test_a_space_of_one_config_is_calibrated_too():
    space = LayerwiseSpace((LayerOptions((2,), (16,)),) * 6)
    model = Synthetic(FakeClock())
    table = calibrate_synthetic(model, space, n_rounds=5)
    config = space.largest()
    assert table([config, SHAPE.full]) == pytest.approx(
        [model.model_ms(config), model.model_ms(SHAPE.full)]
    )
    assert len(table.model_timings) == 2


def test_the_full_model_can_be_predicted_even_if_the_space_leaves_it_out():
    space = LayerwiseSpace.for_model(SHAPE, (0, 2), (0, 32))
    assert block_options(space, SHAPE) == [("attention", 2), ("attention", 4), ("ffn", 32), ("ffn", 64)]


def test_blocks_that_occur_in_one_layer_only_are_found():
    layers = [LayerOptions((0, 4), (0, 64))] * 5 + [LayerOptions((0, 3, 4), (48, 64))]
    space = LayerwiseSpace(tuple(layers))
    assert block_options(space, SHAPE) == [("attention", 3), ("attention", 4), ("ffn", 48), ("ffn", 64)]


@pytest.mark.parametrize("seed", range(5))
def test_the_chosen_models_span_the_space(seed):
    configs = choose_models(SPACE, SHAPE, 13, seed)
    assert len(set(configs)) == len(configs) == 13
    assert configs[0] == SHAPE.full
    assert all(config in SPACE for config in configs)
    assert all(config.num_hidden_layers > 0 for config in configs)
    depths = {config.num_hidden_layers for config in configs}
    assert {1, 6} <= depths
    assert len(depths) >= 4


def test_the_choice_follows_from_the_seed():
    assert choose_models(SPACE, SHAPE, 13, 0) == choose_models(SPACE, SHAPE, 13, 0)
    assert choose_models(SPACE, SHAPE, 13, 0) != choose_models(SPACE, SHAPE, 13, 1)


def test_one_model_is_the_full_one():
    assert choose_models(SPACE, SHAPE, 1, 0) == [SHAPE.full]


def test_no_models_are_refused():
    with pytest.raises(ValueError, match="n_models=0"):
        choose_models(SPACE, SHAPE, 0, 0)


def test_the_model_without_blocks_is_the_floor_not_a_model():
    assert SubnetConfig((LayerConfig(0, 0),) * 6) not in choose_models(SPACE, SHAPE, 60, 0)


def test_a_real_supernet_is_calibrated_on_this_cpu():
    sizes = SubnetModelConfig(
        vocab_size=100,
        hidden_size=32,
        head_size=8,
        kept_heads=[4, 4],
        kept_units=[64, 64],
        max_position_embeddings=40,
    )
    model = SubnetModel(sizes).eval()
    supernet = Supernet(model, tokenizer=None, max_seq_len=32)  # type: ignore[arg-type]
    space = LayerwiseSpace.for_model(supernet.shape)
    table = calibrate(supernet, space, WORKLOAD, "cpu", n_rounds=5, n_models=6)
    assert table.device.kind == "cpu"
    assert table.device.threads == 1
    assert table.shape == supernet.shape
    assert table.attention_ms.keys() == {1, 2, 3, 4}
    assert table.ffn_ms.keys() == {16, 32, 48, 64}
    assert len(table.model_timings) == 6
    assert table.error is not None
    smallest, largest = table([space.smallest(), space.largest()])
    assert 0 < smallest < largest
    # The weights stay trainable: nothing of the timing's inference mode is left in them.
    assert not any(weight.is_inference() for weight in model.parameters())
