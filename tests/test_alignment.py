from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rlnas.alignment import Alignment, probe_alignment
from rlnas.errors import DeviceError
from rlnas.latency.clock import FakeClock
from rlnas.space import LayerwiseSpace, ModelShape
from rlnas.supernet.modeling_subnet import SubnetModel, SubnetModelConfig
from rlnas.supernet.supernet import Supernet
from rlnas.supernet.timing import TimedModel
from rlnas.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable

MINILM = ModelShape(num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, hidden_size=384)


@dataclass
class Staircase:
    """An FFN block costs whole steps of its width, in ms per unit, and `launch_ms` on top."""

    clock: FakeClock
    step: int = 1
    launch_ms: float = 0.5
    shape: ModelShape = MINILM
    asked: list[int] = field(default_factory=list)

    def block_calls(self, kind, size):
        assert kind == "ffn"
        self.asked.append(size)
        return self.clock.call(self.launch_ms + 0.01 * self.step * math.ceil(size / self.step))

    def model_calls(self, config):
        raise NotImplementedError("the probe times no whole models")


def probe(model: Staircase, **settings) -> Alignment:
    return probe_alignment(model, clock=model.clock, **{"n_rounds": 5, **settings})


def noisy_clock(seed: int) -> FakeClock:
    """A machine that drifts by half, repeats to 3 %, and now and then does something else."""
    rng = np.random.default_rng(seed)

    def slowdown(now_ms: float) -> float:
        drift = 1 + 0.5 * abs(np.sin(now_ms / 3_000))
        return float(drift * (10 if rng.random() < 0.02 else rng.lognormal(0, 0.02)))

    return FakeClock(slowdown)


@pytest.mark.parametrize("step", [1, 2, 4, 8, 16, 32, 64, 128])
@pytest.mark.parametrize("full", [512, 768, 1536, 3072, 4096, 1100])
def test_the_step_of_a_staircase_is_found(step, full):
    model = Staircase(FakeClock(), step, shape=replace(MINILM, intermediate_size=full))
    alignment = probe(model, tolerance=0.0001)
    assert alignment.multiple == step
    assert alignment.yardstick == 128
    assert alignment.spread == pytest.approx(0)
    assert alignment.limit == pytest.approx(0.0001)


def test_the_excess_is_that_over_the_line_between_the_anchors():
    alignment = probe(Staircase(FakeClock(), 32, launch_ms=0))
    line = [(768 + m) / 32 for m in (1, 2, 4, 8, 16)]
    expected = [25 / units - 1 for units in line] + [0, 0]
    assert [m for m, _ in alignment.excess] == [1, 2, 4, 8, 16, 32, 64]
    assert [excess for _, excess in alignment.excess] == pytest.approx(expected, abs=1e-9)


def test_a_step_that_costs_little_is_let_pass():
    """One step of 32 in 784 is 2 %: below the default tolerance, so multiples of 16 will do."""
    assert probe(Staircase(FakeClock(), 32, launch_ms=0)).multiple == 16
    assert probe(Staircase(FakeClock(), 32, launch_ms=0), tolerance=0.02).multiple == 32
    assert probe(Staircase(FakeClock(), 32, launch_ms=0), tolerance=0.05).multiple == 1


def test_a_cost_along_a_line_likes_every_width():
    alignment = probe(Staircase(FakeClock()))
    assert alignment.multiple == 1
    assert [excess for _, excess in alignment.excess] == pytest.approx([0] * 7, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("step", [1, 32])
def test_noise_does_not_move_the_answer(step, seed):
    shape = replace(MINILM, intermediate_size=512)  # here half a step of 32 costs 6 %
    model = Staircase(noisy_clock(seed), step, launch_ms=0, shape=shape)
    alignment = probe(model, n_rounds=50, seed=seed)
    assert alignment.multiple == step
    assert 0.005 < alignment.spread < 0.1
    assert alignment.limit == pytest.approx(0.03 + 2 * alignment.spread / math.sqrt(50))


def test_the_anchors_are_multiples_of_128_about_half_as_wide_as_the_model():
    model = Staircase(FakeClock())
    probe(model)
    assert model.asked == [768, 769, 770, 772, 776, 784, 800, 832, 896]


@pytest.mark.parametrize("full", [8, 9, 63, 64, 100, 511, 512, 520, 1000, 11_008])
def test_no_width_is_beyond_the_model_and_each_has_its_multiple(full):
    model = Staircase(FakeClock(), shape=replace(MINILM, intermediate_size=full))
    alignment = probe(model)
    yardstick = alignment.yardstick
    assert (yardstick == 128) == (full >= 512)
    assert 4 * yardstick <= full
    assert max(model.asked) <= full
    assert model.asked[0] % yardstick == model.asked[-1] % yardstick == 0
    for width, (m, _) in zip(model.asked[1:-1], alignment.excess, strict=True):
        assert width % m == 0
        assert width % (2 * m) == m


def test_a_multiple_below_one_that_costs_more_does_not_count():
    excess = ((1, 0.0), (2, 0.05), (4, 0.01), (8, -0.01))
    assert Alignment(excess, limit=0.03, spread=0.0).multiple == 4
    assert Alignment((*excess[:3], (8, 0.031)), limit=0.03, spread=0.0).multiple == 16


@pytest.mark.parametrize(
    ("excess", "sentence"),
    [
        (
            ((1, 0.071), (2, 0.05), (4, 0.01)),
            "FFN widths that are multiples of 4 cost no more per unit than multiples of 8 here; "
            "odd widths cost 7.1% more (differences up to 3.5% count as none)",
        ),
        (
            ((1, -0.004), (2, 0.01)),
            "any FFN width costs no more per unit than multiples of 4 here; "
            "odd widths cost 0.4% less (differences up to 3.5% count as none)",
        ),
        (
            ((1, 0.2), (2, 0.1)),
            "FFN widths should be multiples of 4 here: multiples of 2 cost 10.0% more per unit; "
            "odd widths cost 20.0% more (differences up to 3.5% count as none)",
        ),
    ],
    ids=["some", "any", "largest"],
)
def test_it_says_what_to_choose(excess, sentence):
    assert str(Alignment(excess, limit=0.035, spread=0.02)) == sentence


def test_time_bounds_the_rounds_and_progress_is_told():
    seen: list[tuple[int, int]] = []
    probe(
        Staircase(FakeClock()),
        n_rounds=10_000,
        max_seconds=1.0,
        progress=lambda *state: seen.append(state),
    )
    assert seen[0] == (1, 10_000)
    assert 5 <= len(seen) < 100


def test_a_space_is_snapped_to_what_was_found():
    found = probe(Staircase(FakeClock(), 64), tolerance=0.001).multiple
    space = LayerwiseSpace.for_model(MINILM, intermediate_size=(0, 500, 1000, 1536)).snapped(found)
    assert space.layers[0].intermediate_size == (0, 512, 1024, 1536)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tolerance": -0.1}, "tolerance must be at least 0, but got tolerance=-0.1"),
        ({"tolerance": math.nan}, "tolerance must be at least 0, but got tolerance=nan"),
        ({"n_rounds": 0}, "n_rounds must be at least 1, but got n_rounds=0"),
    ],
    ids=["tolerance", "no number", "rounds"],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        probe(Staircase(FakeClock()), **settings)


def test_a_model_of_few_units_is_refused():
    with pytest.raises(ValueError, match="at least 8 FFN units, but got intermediate_size=7"):
        probe(Staircase(FakeClock(), shape=replace(MINILM, intermediate_size=7)))


def test_a_device_that_is_unknown_is_refused():
    with pytest.raises(DeviceError, match="device='tpu'"):
        probe_alignment(Staircase(FakeClock()), "tpu")


def test_a_clock_that_runs_backwards_is_refused():
    class Backwards(FakeClock):
        def time_ms(self, call: Callable[[], object], n_calls: int, /) -> float:
            return -1.0

    with pytest.raises(DeviceError, match=r"the clock ran backwards: a call took -1\.0 ms"):
        probe(Staircase(Backwards()))


def test_a_real_supernet_is_probed_on_this_cpu():
    sizes = SubnetModelConfig(
        vocab_size=100,
        hidden_size=32,
        head_size=8,
        kept_heads=[4],
        kept_units=[64],
        max_position_embeddings=40,
    )
    supernet = Supernet(SubnetModel(sizes).eval(), tokenizer=None, max_seq_len=32)  # type: ignore[arg-type]
    alignment = probe_alignment(TimedModel(supernet, Workload(1, 32)), n_rounds=5)
    assert [m for m, _ in alignment.excess] == [1, 2, 4, 8]
    assert alignment.multiple in (1, 2, 4, 8, 16)
    assert all(math.isfinite(excess) and excess > -1 for _, excess in alignment.excess)
    assert alignment.spread > 0
