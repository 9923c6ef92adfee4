from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from rlnas.calibration import Effort, calibrate, calibrate_timeable
from rlnas.latency.clock import FakeClock
from rlnas.latency.device import DeviceInfo
from rlnas.latency.table import LatencyTable
from rlnas.space import LayerOptions, LayerwiseSpace, ModelShape, SubnetConfig, UniformSpace
from rlnas.supernet.modeling_subnet import SubnetModel, SubnetModelConfig
from rlnas.supernet.supernet import Supernet
from rlnas.workload import Workload

SHAPE = ModelShape(num_hidden_layers=6, num_attention_heads=4, intermediate_size=64, hidden_size=16)
SPACE = LayerwiseSpace.for_model(SHAPE)
WORKLOAD = Workload(1, 32)
DEVICE = DeviceInfo("cpu", "Fake CPU")
FEW = Effort(n_rounds=5, max_seconds=None)


@dataclass
class Synthetic:
    """Blocks of known cost; a whole model takes ``scale`` times their sum, and ``offset`` more."""

    clock: FakeClock
    scale: float = 1.0
    offset: float = 0.0
    launch_ms: float = 0.0
    shape: ModelShape = SHAPE
    stack_size: int = 4
    n_requests: int = 1
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

    def block_calls(self, kind, size):
        self.asked[kind, size] += 1
        return [self.clock.call(self.stack_size * self.block_ms(kind, size))] * self.n_requests

    def model_calls(self, config):
        self.asked[config] += 1
        return [self.clock.call(self.model_ms(config))] * self.n_requests


def calibrate_synthetic(
    model: Synthetic, space=SPACE, workload=WORKLOAD, device=DEVICE, effort=FEW, **settings
) -> LatencyTable:
    return calibrate_timeable(
        model, space, workload, device=device, clock=model.clock, effort=effort, **settings
    )


def held_out_configs(n: int, seed: int = 99) -> list[SubnetConfig]:
    rng = np.random.default_rng(seed)
    return [SPACE.sample(rng) for _ in range(n)]


def test_a_scaled_and_shifted_sum_is_recovered_exactly():
    model = Synthetic(FakeClock(), scale=1.2, offset=0.5)
    table = calibrate_synthetic(model)
    configs = held_out_configs(50)
    assert table(configs) == pytest.approx([model.model_ms(config) for config in configs], rel=1e-6)
    assert table.correction.form == "scale_offset"
    assert table.correction.ffn_scale == pytest.approx(1.2)
    assert table.correction.offset_ms == pytest.approx(0.5)
    assert table.error is not None
    assert table.error.n_held_out == 16
    assert table.error.mape < 1e-6
    assert table.error.noise < 1e-6
    assert table.error.controls["blocks"].mape > 0.1
    assert table.error.controls["flops"].mape > 0.005


def test_counting_blocks_is_as_good_where_launches_take_the_time():
    model = Synthetic(FakeClock(), scale=1.1, launch_ms=50.0)
    error = calibrate_synthetic(model).error
    assert error is not None
    assert error.controls["blocks"].mape == pytest.approx(0, abs=1e-3)
    assert error.mape == pytest.approx(0, abs=1e-3)
    assert error.controls["flops"].mape > 0.1


@pytest.mark.parametrize("seed", range(3))
def test_drift_and_outliers_leave_the_table_right(seed):
    rng = np.random.default_rng(seed)

    def slowdown(now_ms: float) -> float:
        drift = 1 + 4 * abs(np.sin(now_ms / 3_000))
        return float(drift * (20 if rng.random() < 0.05 else rng.lognormal(0, 0.03)))

    model = Synthetic(FakeClock(slowdown), scale=1.3, offset=0.4)
    table = calibrate_synthetic(model, effort=Effort(n_rounds=25, max_seconds=None), seed=seed)
    configs = held_out_configs(50)
    truth = np.array([model.model_ms(config) for config in configs])
    # Milliseconds depend on the drift; ratios to the full model do not.
    predicted_ratio = table(configs) / table([SHAPE.full])
    assert np.abs(predicted_ratio / (truth / model.model_ms(SHAPE.full)) - 1).mean() < 0.03


def test_the_largest_takes_longer_than_the_smallest():
    table = calibrate_synthetic(Synthetic(FakeClock(), launch_ms=50.0))
    smallest, middle, largest = table([SPACE.smallest(), SPACE.decode([1] * 12), SPACE.largest()])
    assert 0 < smallest < middle <= largest


def test_every_block_is_built_once_and_every_model_once():
    model = Synthetic(FakeClock())
    table = calibrate_synthetic(model)
    assert set(model.asked.values()) == {1}
    assert table.attention_ms.keys() == {1, 2, 3, 4}
    assert table.ffn_ms.keys() == {16, 32, 48, 64}
    assert len(table.block_timings) == 9
    assert len(table.model_timings) == 16


def test_the_raw_timings_stand_in_the_table(tmp_path):
    model = Synthetic(FakeClock(), scale=1.2)
    table = calibrate_synthetic(model, effort=Effort(n_rounds=6))
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
    tables = [calibrate_synthetic(Synthetic(FakeClock(), scale=1.2), seed=3) for _ in range(2)]
    assert tables[0] == tables[1]


def test_time_bounds_the_rounds():
    table = calibrate_synthetic(Synthetic(FakeClock()), effort=Effort(n_rounds=10_000, max_seconds=3.0))
    assert 5 <= table.model_timings[0].timing.n_samples < 100


def test_progress_is_told():
    seen: list[tuple[int, int]] = []
    calibrate_synthetic(Synthetic(FakeClock()), progress=lambda *state: seen.append(state))
    n_calls = 1 + 8 + 16
    assert seen[0] == (2, n_calls + 5)
    assert seen[-1] == (n_calls + 5, n_calls + 5)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_uniform_space_is_calibrated_too():
    space = UniformSpace.for_model(SHAPE)
    model = Synthetic(FakeClock(), scale=1.2, offset=0.5)
    table = calibrate_synthetic(model, space)
    configs = [space.sample(np.random.default_rng(seed)) for seed in range(20)]
    assert table(configs) == pytest.approx([model.model_ms(config) for config in configs], rel=1e-6)


def test_a_space_of_one_config_is_calibrated_too():
    space = LayerwiseSpace((LayerOptions((2,), (16,)),) * 6)
    model = Synthetic(FakeClock())
    table = calibrate_synthetic(model, space)
    config = space.largest()
    assert table([config, SHAPE.full]) == pytest.approx(
        [model.model_ms(config), model.model_ms(SHAPE.full)]
    )
    assert len(table.model_timings) == 2


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
    table = calibrate(supernet, space, WORKLOAD, "cpu", effort=Effort(n_models=6, n_rounds=5))
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


def test_held_out_models_judge_the_table_and_take_no_part_in_it():
    def table_of(n_held_out: int) -> LatencyTable:
        effort = Effort(n_held_out=n_held_out, n_rounds=5, max_seconds=None)
        return calibrate_synthetic(Synthetic(FakeClock(), scale=1.2, offset=0.5), effort=effort)

    table, without = table_of(30), table_of(0)
    assert table.error is not None
    assert table.error.n_held_out == len(table.held_out_timings) == 30
    assert not table.error.leave_one_out
    assert table.error.mape < 1e-6
    assert table.error.table.tau_within_depth is not None
    assert {raw.config for raw in table.held_out_timings}.isdisjoint(
        raw.config for raw in table.model_timings
    )
    assert table.correction.ffn_scale == pytest.approx(without.correction.ffn_scale)
    repeated = [raw.config for raw in table.repeat_timings]
    assert repeated == [raw.config for raw in table.held_out_timings[::5]]
    assert without.repeat_timings == ()


def test_noise_is_how_far_two_builds_of_a_subnet_lie_apart():
    class Placed(Synthetic):
        """Each build of a model is slower or faster than others, for good."""

        def model_calls(self, config):
            luck = 1.04 if self.asked[config] else 1.0
            self.asked[config] += 1
            return [self.clock.call(luck * self.model_ms(config))]

    effort = Effort(n_held_out=20, n_rounds=5, max_seconds=None)
    error = calibrate_synthetic(Placed(FakeClock()), effort=effort).error
    assert error is not None
    assert error.noise == pytest.approx(0.04, rel=0.05)
    assert error.tau_ceiling is not None
    assert error.tau_ceiling < 1


@pytest.mark.parametrize("n_held_out", [0, 12])
def test_predictions_stand_beside_measurements(n_held_out):
    model = Synthetic(FakeClock(), scale=1.2, offset=0.5)
    effort = Effort(n_held_out=n_held_out, n_rounds=5, max_seconds=None)
    found = calibrate_synthetic(model, effort=effort).against_measured()
    assert len(found) == (n_held_out or 16)
    for config, predicted_ms, measured_ms in found:
        assert predicted_ms == pytest.approx(measured_ms)
        assert measured_ms == pytest.approx(model.model_ms(config))


def test_a_mix_of_requests_is_calibrated_by_its_mean():
    model = Synthetic(FakeClock(), n_requests=3)
    table = calibrate_synthetic(model, workload=Workload(1, 32, lengths=(8, 16, 32)))
    assert {raw.timing.n_requests for raw in table.block_timings} == {3}
    configs = held_out_configs(10)
    assert table(configs) == pytest.approx([model.model_ms(config) for config in configs], rel=1e-6)


def test_a_tail_is_predicted_from_the_tail_of_the_models():
    rng = np.random.default_rng(0)

    def slowdown(now_ms: float) -> float:
        return 3.0 if rng.random() < 0.05 else 1.0

    model, effort = Synthetic(FakeClock(slowdown)), Effort(n_held_out=20, n_rounds=60, max_seconds=None)
    table = calibrate_synthetic(model, workload=Workload(1, 32, statistic="p99"), effort=effort)
    assert table.model_timings[0].timing.n_rounds == 240
    assert table.model_timings[0].timing.n_calls == 1
    assert table.tail_ratio == pytest.approx(3.0, rel=0.05)
    configs = held_out_configs(10)
    expected = [3 * model.model_ms(config) for config in configs]
    assert table(configs) == pytest.approx(expected, rel=0.05)
    assert table.error is not None
    assert table.error.mape < 0.05


def test_a_machine_that_changes_its_speed_is_noted_though_it_does_not_matter():
    model = Synthetic(FakeClock(lambda now_ms: 1 + int(now_ms / 3_000) % 2))
    table = calibrate_synthetic(model, effort=Effort(n_rounds=20, max_seconds=None))
    (note,) = table.notes
    assert note.startswith("this machine changed its speed meanwhile (typical spread of a timing")
    assert table.error is not None
    assert table.error.mape < 0.02


def test_a_tail_of_few_rounds_is_noted():
    table = calibrate_synthetic(Synthetic(FakeClock()), workload=Workload(1, 32, statistic="p99"))
    assert table.notes == (
        "a p99 of 20 samples rests on one or two of them; give it more time or more rounds",
    )


def test_only_a_cpu_needs_a_pacemaker():
    on_cpu = calibrate_synthetic(Synthetic(FakeClock()))
    on_gpu = calibrate_synthetic(Synthetic(FakeClock()), device=DeviceInfo("cuda", "Fake GPU"))
    assert on_cpu.block_timings[0].timing.slowdowns == pytest.approx([1.0] * 5)
    assert on_gpu.block_timings[0].timing.slowdowns == ()


def test_a_space_without_ffn_blocks_is_calibrated_too():
    space = LayerwiseSpace.for_model(SHAPE, (0, 2, 4), (0,))
    table = calibrate_synthetic(Synthetic(FakeClock()), space)
    assert table.ffn_ms.keys() == {64}  # of the full model


def test_blocks_that_the_space_does_not_offer_are_timed_if_wanted():
    table = calibrate_synthetic(Synthetic(FakeClock()), extra_blocks=[("ffn", 40), ("attention", 4)])
    assert table.ffn_ms.keys() == {16, 32, 40, 48, 64}
    assert table.ffn_ms[40] == pytest.approx(0.2 + 0.06 * 40)


def test_what_was_wrong_with_the_machine_stands_in_the_table():
    clocks = iter([1_000.0, 1_000.0, 700.0, 700.0, None])
    rng = np.random.default_rng(0)
    model = Synthetic(FakeClock(lambda now_ms: float(rng.lognormal(0, 0.4))))
    table = calibrate_synthetic(model, frequency=lambda: next(clocks))
    noisy, throttled = table.notes
    assert noisy.startswith("this machine is noisy")
    assert "700" in throttled
    assert calibrate_synthetic(Synthetic(FakeClock())).notes == ()
