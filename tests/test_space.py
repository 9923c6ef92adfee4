from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlnas.errors import InvalidSpaceError, InvalidSubnetError
from rlnas.space import (
    PRECISIONS,
    ChoiceSpace,
    LayerConfig,
    LayerOptions,
    LayerwiseSpace,
    ModelShape,
    SearchSpace,
    SubnetConfig,
    UniformSpace,
    check_action,
    equal_parts,
)
from rlnas.testing import check_space

SHAPE = ModelShape(num_hidden_layers=3, num_attention_heads=4, intermediate_size=16, hidden_size=8)
LAYERWISE = LayerwiseSpace.for_model(SHAPE)
UNIFORM = UniformSpace.for_model(SHAPE)
SCALED = ChoiceSpace.for_model(SHAPE)
SPACES = pytest.mark.parametrize(
    "space", [LAYERWISE, UNIFORM, SCALED], ids=["layerwise", "uniform", "scaled"]
)
MINILM = ModelShape(num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, hidden_size=384)


def ascending(low: int, high: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.sets(st.integers(low, high), min_size=1, max_size=5).map(
        lambda options: tuple(sorted(options))
    )


layer_configs = st.builds(LayerConfig, st.integers(0, 64), st.integers(0, 10_000))
configs = st.builds(
    SubnetConfig,
    st.lists(layer_configs, min_size=1, max_size=12).map(tuple),
    st.none() | st.sampled_from(PRECISIONS),
)
layerwise_spaces = st.builds(
    LayerwiseSpace,
    st.lists(st.builds(LayerOptions, ascending(0, 12), ascending(0, 99)), min_size=1, max_size=5).map(
        tuple
    ),
)
uniform_spaces = st.integers(1, 24).flatmap(
    lambda num_layers: st.builds(
        UniformSpace, st.just(num_layers), ascending(1, num_layers), ascending(1, 12), ascending(1, 99)
    )
)
scaled_spaces = st.builds(
    ChoiceSpace,
    st.integers(1, 12),
    st.tuples(st.booleans(), ascending(1, 12), ascending(1, 99)).map(
        lambda drawn: (
            *([LayerConfig(0, 0)] if drawn[0] else []),
            *(LayerConfig(*sizes) for sizes in zip(drawn[1], drawn[2], strict=False)),
        )
    ),
)
spaces = layerwise_spaces | uniform_spaces | scaled_spaces


def config_of(*layers: tuple[int, int], precision: str | None = None) -> SubnetConfig:
    return SubnetConfig(tuple(LayerConfig(*layer) for layer in layers), precision)


# Configs


@given(configs)
def test_json_gives_the_same_config_back(config):
    assert SubnetConfig.from_json(config.to_json()) == config
    assert SubnetConfig.from_dict(config.to_dict()) == config


@given(configs, configs)
def test_json_is_equal_where_configs_are(first, second):
    assert (first.to_json() == second.to_json()) == (first == second)


def test_json_is_canonical():
    assert config_of((4, 8), (0, 0)).to_json() == '{"layers":[[4,8],[0,0]],"precision":null}'


def test_equal_configs_hash_equally_whatever_their_integers_are_made_of():
    first = SubnetConfig([LayerConfig(np.int64(4), np.int32(8))])
    assert first == config_of((4, 8))
    assert hash(first) == hash(config_of((4, 8)))


def test_a_layer_is_dropped_when_both_blocks_are():
    config = config_of((0, 0), (0, 8), (4, 0), (4, 8))
    assert [layer.is_dropped for layer in config.layers] == [True, False, False, False]
    assert config.num_hidden_layers == 3
    assert str(config) == "- 0h8 4h0 4h8"


@pytest.mark.parametrize("name", ["num_attention_heads", "intermediate_size"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-1, r"must be at least 0 \(0 drops the block\), but got {}=-1"),
        (2.0, "must be an integer, but got {}=2.0"),
        (True, "must be an integer, but got {}=True"),
        ("4", "must be an integer, but got {}='4'"),
    ],
    ids=["negative", "float", "bool", "text"],
)
def test_a_layer_of_impossible_size_is_refused(name, value, message):
    sizes = {"num_attention_heads": 4, "intermediate_size": 8, name: value}
    with pytest.raises(InvalidSubnetError, match=f"{name} {message.format(name)}"):
        LayerConfig(**sizes)


def test_a_config_without_layers_is_refused():
    with pytest.raises(InvalidSubnetError, match="needs at least one LayerConfig, but layers is empty"):
        SubnetConfig(())


def test_an_unknown_precision_is_refused():
    with pytest.raises(InvalidSubnetError, match=r"None or one of float32, .*, but got precision='int3'"):
        config_of((4, 8), precision="int3")


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {},
        {"layers": 3},
        {"layers": [[1]]},
        {"layers": [[1, 2, 3]]},
        {"layers": [[1, -2]]},
        "layers",
    ],
    ids=str,
)
def test_a_config_of_another_form_is_refused(values):
    with pytest.raises(
        InvalidSubnetError, match=r'a subnet reads \{"layers": \[\[heads, units\]'
    ) as caught:
        SubnetConfig.from_dict(values)
    assert str(values) in str(caught.value)


def test_a_config_of_no_layers_is_refused_from_json_too():
    with pytest.raises(InvalidSubnetError, match="layers is empty"):
        SubnetConfig.from_json('{"layers": []}')


def test_a_text_that_is_no_json_is_refused():
    with pytest.raises(InvalidSubnetError, match="a subnet must be JSON, but got '4h8 4h8'"):
        SubnetConfig.from_json("4h8 4h8")


# Shapes


def test_the_full_config_keeps_everything():
    assert SHAPE.full == config_of((4, 16), (4, 16), (4, 16))


@pytest.mark.parametrize(
    "name", ["num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_size"]
)
def test_a_shape_without_size_is_refused(name):
    sizes = {"num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 16, "hidden_size": 8}
    with pytest.raises(InvalidSpaceError, match=f"{name} must be at least 1, but got {name}=0"):
        ModelShape(**{**sizes, name: 0})


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(InvalidSpaceError, match="hidden_size=8 does not divide into num_attention_heads=3"):
        ModelShape(3, 3, 16, 8)


@given(st.integers(1, 100_000))
def test_quarters_ascend_from_nothing_to_all(full):
    options = equal_parts(full)
    assert options[0] == 0
    assert options[-1] == full
    assert all(a < b for a, b in pairwise(options))
    assert len(options) == 5 or full < 4


def test_quarters_of_the_usual_sizes():
    assert equal_parts(12) == (0, 3, 6, 9, 12)
    assert equal_parts(3072) == (0, 768, 1536, 2304, 3072)
    assert equal_parts(2) == (0, 1, 2)
    assert equal_parts(1) == (0, 1)


@given(st.integers(1, 4096), st.integers(1, 24), st.integers(1, 4))
def test_finer_parts_hold_the_coarser_ones(full, parts, factor):
    coarse, fine = equal_parts(full, parts), equal_parts(full, parts * factor)
    assert set(coarse) <= set(fine)
    assert len(coarse) <= parts + 1


def test_no_parts_are_refused():
    with pytest.raises(InvalidSpaceError, match="at least 1 part, but got parts=0"):
        equal_parts(12, 0)
    with pytest.raises(InvalidSpaceError, match="parts=-1"):
        LayerwiseSpace.for_model(ModelShape(1, 4, 16, 8), parts=-1)


def test_a_space_of_twelfths():
    space = LayerwiseSpace.for_model(ModelShape(2, 12, 36, 24), parts=12)
    assert space.nvec == (13, 13, 13, 13)
    assert space.layers[0].intermediate_size == tuple(range(0, 37, 3))


# Spaces


@SPACES
def test_our_spaces_follow_the_protocol(space):
    assert isinstance(space, SearchSpace)
    check_space(space)


@given(data=st.data(), space=spaces)
def test_decoding_and_encoding_undo_each_other(data, space):
    action = tuple(data.draw(st.integers(0, n - 1)) for n in space.nvec)
    config = space.decode(action)
    assert space.encode(config) == action
    assert space.decode(np.array(action)) == config
    assert config in space


@given(space=spaces, seed=st.integers(0, 2**32 - 1))
def test_a_sample_is_a_member_and_repeats_with_its_seed(space, seed):
    config = space.sample(np.random.default_rng(seed))
    assert config in space
    assert space.sample(np.random.default_rng(seed)) == config


@given(space=spaces)
def test_the_ends_of_a_space_are_its_extreme_actions(space):
    assert space.encode(space.smallest()) == (0,) * len(space.nvec)
    assert space.encode(space.largest()) == tuple(n - 1 for n in space.nvec)
    assert space.size == np.prod(space.nvec, dtype=object)


@given(data=st.data(), space=spaces)
def test_a_larger_entry_never_keeps_less(data, space):
    action = [data.draw(st.integers(0, n - 1)) for n in space.nvec]
    position = data.draw(st.integers(0, len(action) - 1))
    larger = [*action]
    larger[position] = data.draw(st.integers(action[position], space.nvec[position] - 1))

    def sizes(config):
        return np.sum(
            [(layer.num_attention_heads, layer.intermediate_size) for layer in config.layers], axis=0
        )

    assert (sizes(space.decode(action)) <= sizes(space.decode(larger))).all()


@SPACES
@given(config=configs)
def test_a_space_holds_exactly_what_it_can_decode(space, config):
    if config in space:
        assert space.decode(space.encode(config)) == config
    else:
        with pytest.raises(InvalidSubnetError):
            space.encode(config)


@SPACES
@pytest.mark.parametrize("stranger", [None, "4h16", 3, (0, 0, 0)])
def test_what_is_no_config_is_not_in_a_space(space, stranger):
    assert stranger not in space


@SPACES
def test_all_members_are_drawn(space):
    rng = np.random.default_rng(0)
    actions = np.array([space.encode(space.sample(rng)) for _ in range(400)])
    assert tuple(len(set(column)) for column in actions.T) == space.nvec


@SPACES
def test_actions_outside_nvec_are_refused(space):
    n_entries = len(space.nvec)
    with pytest.raises(InvalidSubnetError, match=f"an action has {n_entries} entries here, but got 1"):
        space.decode([0])
    with pytest.raises(InvalidSubnetError, match=r"entry 1 of an action must be in \[0, \d\], but got 9"):
        space.decode([0, 9, *([0] * (n_entries - 2))])
    with pytest.raises(InvalidSubnetError, match=r"entry 0 of an action must be in \[0, \d\], but got -1"):
        space.decode([-1] + [0] * (n_entries - 1))


def test_an_action_becomes_plain_integers():
    action = check_action(np.array([1, 2]), (2, 3))
    assert action == (1, 2)
    assert {type(entry) for entry in action} == {int}


def test_the_preset_offers_quarters_and_dropping():
    assert LAYERWISE.nvec == (5, 5) * 3
    assert LAYERWISE.size == 5**6
    assert LAYERWISE.smallest() == config_of((0, 0), (0, 0), (0, 0))
    assert LAYERWISE.largest() == SHAPE.full


def test_the_preset_takes_other_options():
    space = LayerwiseSpace.for_model(SHAPE, num_attention_heads=[2, 4], intermediate_size=(8,))
    assert space.layers == (LayerOptions((2, 4), (8,)),) * 3


def test_the_last_layer_can_be_kept():
    space = LayerwiseSpace.for_model(SHAPE, keep_last_layer=True)
    assert space.nvec == (5, 5, 5, 5, 4, 4)
    assert space.smallest() == config_of((0, 0), (0, 0), (1, 4))


def test_keeping_a_last_layer_that_may_only_go_is_refused():
    with pytest.raises(
        InvalidSpaceError, match="intermediate_size needs at least one option, but got none"
    ):
        LayerwiseSpace.for_model(SHAPE, intermediate_size=(0,), keep_last_layer=True)


def test_a_space_without_layers_is_refused():
    with pytest.raises(InvalidSpaceError, match="needs at least one layer, but layers is empty"):
        LayerwiseSpace(())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "num_attention_heads needs at least one option, but got none"),
        ((4, 2), r"must be ascending integers of at least 0 without repeats, but got \(4, 2\)"),
        ((2, 2), r"without repeats, but got \(2, 2\)"),
        ((-1, 2), r"of at least 0 without repeats, but got \(-1, 2\)"),
        ((1.5, 2), r"must be ascending integers .*, but got \(1\.5, 2\)"),
        ((2, 5), "num_attention_heads may go up to 4 for this model, but got 5"),
    ],
    ids=["none", "descending", "repeated", "negative", "fraction", "beyond"],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(InvalidSpaceError, match=message):
        LayerwiseSpace.for_model(SHAPE, num_attention_heads=options)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (config_of((4, 16)), "this space has 3 layers, but the subnet has 1"),
        (config_of(*[(4, 16)] * 3, precision="float16"), "does not choose the precision, .*='float16'"),
        (
            config_of((4, 16), (3, 16), (5, 16)),
            r"num_attention_heads of layer 2 must be one of \(0, 1, 2, 3, 4\), but got 5",
        ),
        (config_of((4, 16), (3, 5), (4, 16)), r"intermediate_size of layer 1 must be one of .*, but got 5"),
    ],
    ids=["depth", "precision", "heads", "units"],
)
def test_a_stranger_is_told_what_is_wrong(config, message):
    with pytest.raises(InvalidSubnetError, match=message):
        LAYERWISE.encode(config)


@given(num_layers=st.integers(1, 48), data=st.data())
def test_kept_layers_are_evenly_spread_and_hold_the_last(num_layers, data):
    depth = data.draw(st.integers(1, num_layers))
    space = UniformSpace(num_layers, (depth,), (1,), (1,))
    kept = space.kept_layers(depth)
    assert len(kept) == depth
    assert kept[-1] == num_layers - 1
    gaps = [b - a for a, b in pairwise((-1, *kept))]
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1


def test_a_uniform_subnet_repeats_its_layer():
    assert UNIFORM.nvec == (3, 4, 4)
    assert UNIFORM.decode((1, 3, 0)) == config_of((0, 0), (4, 4), (4, 4))
    assert UNIFORM.largest() == SHAPE.full
    assert UNIFORM.smallest() == config_of((0, 0), (0, 0), (1, 4))


@pytest.mark.parametrize(
    "config",
    [
        config_of((0, 0), (0, 0), (0, 0)),
        config_of((4, 16), (0, 0), (0, 0)),
        config_of((4, 16), (2, 16), (4, 16)),
        config_of((4, 16)),
        config_of(*[(4, 16)] * 3, precision="float16"),
    ],
    ids=["nothing", "other layer", "mixed", "shallow", "precision"],
)
def test_a_subnet_that_is_not_uniform_is_refused(config):
    assert config not in UNIFORM
    with pytest.raises(InvalidSubnetError, match="the subnet is not in this UniformSpace: ") as caught:
        UNIFORM.encode(config)
    assert str(config) in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, (0, 1), (1,), (1,)), "num_hidden_layers must be at least 1 in a UniformSpace, but got 0"),
        ((3, (1,), (0, 1), (1,)), "num_attention_heads must be at least 1 in a UniformSpace, but got 0"),
        ((3, (1,), (1,), (0, 1)), "intermediate_size must be at least 1 in a UniformSpace, but got 0"),
        ((3, (1, 4), (1,), (1,)), "num_hidden_layers may go up to 3 for this model, but got 4"),
        ((3, (2, 1), (1,), (1,)), r"num_hidden_layers must be ascending integers .* but got \(2, 1\)"),
    ],
)
def test_an_impossible_uniform_space_is_refused(arguments, message):
    with pytest.raises(InvalidSpaceError, match=message):
        UniformSpace(*arguments)


def test_a_scaled_space_offers_thirds_of_whole_layers():
    space = ChoiceSpace.for_model(MINILM)
    assert space.options == tuple(LayerConfig(h, 128 * h) for h in (0, 4, 8, 12))
    assert space.nvec == (4,) * 6
    assert space.size == 4_096
    assert space.decode((3, 0, 1, 2, 3, 3)) == config_of(
        (12, 1536), (0, 0), (4, 512), (8, 1024), (12, 1536), (12, 1536)
    )
    assert space.largest() == MINILM.full
    assert space.smallest().num_hidden_layers == 0


@given(
    heads=st.integers(1, 24),
    units=st.integers(1, 5_000),
    shares=st.sets(st.floats(0, 1), min_size=1, max_size=9).map(sorted),
)
def test_every_share_is_an_option_of_its_nearest_sizes(heads, units, shares):
    space = ChoiceSpace.for_model(ModelShape(2, heads, units, 24 * heads), shares)
    check_space(space, n=4)
    assert len(space.options) <= len(shares)
    for share in shares:
        nearest = (abs(option.intermediate_size - share * units) for option in space.options)
        assert min(nearest) <= (0.5 if share * units >= 0.5 else 1) + 1e-6
    assert space.options[0].is_dropped == (shares[0] == 0)


def test_shares_that_come_to_the_same_sizes_are_one_option():
    space = ChoiceSpace.for_model(ModelShape(2, 2, 4, 8), (0, 0.1, 0.2, 0.5, 0.7, 1))
    assert space.options == tuple(LayerConfig(*sizes) for sizes in ((0, 0), (1, 1), (1, 2), (1, 3), (2, 4)))


@pytest.mark.parametrize("shares", [(), (0.5, 0.5), (1, 0), (-0.1, 1), (0, 1.5), (float("nan"),)], ids=str)
def test_impossible_shares_are_refused(shares):
    with pytest.raises(InvalidSpaceError, match=r"shares must be ascending numbers in \[0, 1\]") as caught:
        ChoiceSpace.for_model(SHAPE, shares)
    assert str(caught.value).endswith(f"but got {shares}")


@pytest.mark.parametrize(
    ("num_layers", "options", "message"),
    [
        (0, [(4, 16)], "num_layers must be at least 1, but got num_layers=0"),
        (3, [], "options needs at least one LayerConfig, but got none"),
        (3, [(4, 16), (4, 16)], "options must not repeat, but got 4h16, 4h16"),
        (3, [(2, 16), (4, 8)], "begin with the smallest in both sizes .* but got 2h16, 4h8"),
        (3, [(0, 0), (2, 16), (4, 8)], "end with the largest, but got -, 2h16, 4h8"),
        (3, [(2, 8), (0, 0)], "begin with the smallest in both sizes .* but got 2h8, -$"),
    ],
    ids=["depth", "none", "repeated", "crossing", "no largest", "descending"],
)
def test_an_impossible_choice_space_is_refused(num_layers, options, message):
    with pytest.raises(InvalidSpaceError, match=message):
        ChoiceSpace(num_layers, tuple(LayerConfig(*sizes) for sizes in options))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (config_of((4, 16)), "this space has 3 layers, but the subnet has 1"),
        (config_of(*[(4, 16)] * 3, precision="float16"), "does not choose the precision, .*='float16'"),
        (
            config_of((4, 16), (0, 0), (4, 5)),
            "layer 2 must be one of -, 1h5, 3h11, 4h16, but got 4h5",
        ),
    ],
    ids=["depth", "precision", "layer"],
)
def test_a_stranger_to_a_scaled_space_is_told_what_is_wrong(config, message):
    with pytest.raises(InvalidSubnetError, match=message):
        SCALED.encode(config)


# Snapping


@pytest.mark.parametrize(
    ("widths", "multiple", "snapped"),
    [
        ((0, 768, 1536), 1, (0, 768, 1536)),
        ((0, 100, 300, 1000), 64, (0, 128, 320, 960)),
        ((3, 100), 64, (64,)),
        ((0, 20, 40, 100), 64, (0, 64)),
        ((0, 32, 96, 192), 64, (0, 64, 128, 192)),
        ((0, 16, 64), 128, (0, 64)),
        ((0,), 8, (0,)),
    ],
    ids=["one", "nearest", "not to 0", "merged", "ties go up", "too wide a multiple", "nothing"],
)
def test_widths_go_to_the_nearest_multiple(widths, multiple, snapped):
    space = LayerwiseSpace((LayerOptions((0, 2, 4), widths),) * 2).snapped(multiple)
    assert space == LayerwiseSpace((LayerOptions((0, 2, 4), snapped),) * 2)


@given(space=layerwise_spaces, multiple=st.integers(1, 128))
def test_snapping_keeps_its_laws(space, multiple):
    snapped = space.snapped(multiple)
    assert snapped.snapped(multiple) == snapped
    for before, after in zip(space.layers, snapped.layers, strict=True):
        assert after.num_attention_heads == before.num_attention_heads
        widths, largest = after.intermediate_size, before.intermediate_size[-1]
        assert len(widths) <= len(before.intermediate_size)
        assert (0 in widths) == (0 in before.intermediate_size)
        assert widths[-1] <= largest
        assert all(width % multiple == 0 for width in widths) or max(widths) == largest < multiple


@pytest.mark.parametrize("multiple", [0, -8, 2.5, True])
def test_an_impossible_multiple_is_refused(multiple):
    with pytest.raises(
        InvalidSpaceError, match=f"an integer of at least 1 .*, but got multiple={multiple}"
    ):
        LAYERWISE.snapped(multiple)


def test_choices_may_trade_heads_against_units():
    options = tuple(LayerConfig(*sizes) for sizes in ((0, 0), (1, 4), (4, 4), (1, 16), (4, 16)))
    space = ChoiceSpace(3, options)
    check_space(space)
    assert space.size == 125
    assert space.encode(config_of((1, 16), (4, 4), (0, 0))) == (3, 2, 0)
