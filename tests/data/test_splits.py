from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlnas.data.containment import normalise
from rlnas.data.splits import PartSize, carve, normal_items, subsample, without_items_of
from rlnas.errors import DataError
from rlnas.task import Split

WORDS = st.lists(st.sampled_from(["a", "b", "Ab", "ba", "abc", "..."]), min_size=1, max_size=6).map(
    " ".join
)

# Enough to carve a part from, whatever the drawn texts are.
UNRELATED = ("one", "two", "three", "four")


def make_split(texts, labels=None, pairs=None, name="train") -> Split:
    if labels is None:
        labels = np.arange(len(texts)) % 2
    return Split(name, tuple(texts), None if pairs is None else tuple(pairs), np.asarray(labels))


def make_unrelated(n_items: int, labels=None) -> Split:
    return make_split([f"text number {index:05d} here" for index in range(n_items)], labels)


def texts_of(split: Split) -> list[str]:
    return [*split.texts, *(split.text_pairs or ())]


def assert_apart(first: Split, second: Split) -> None:
    """No text of one stands in, or contains, a text of the other: verbatim, and by their words."""
    for one in texts_of(first):
        for other in texts_of(second):
            assert one not in other
            assert other not in one
            assert normalise(one) not in normalise(other)
            assert normalise(other) not in normalise(one)


@settings(max_examples=40)
@given(st.lists(WORDS, min_size=2, max_size=30), st.integers(0, 3))
def test_carved_texts_stand_apart_from_the_rest(texts, seed):
    split = make_split([*texts, *UNRELATED])
    carved = carve(split, PartSize(), name="search", seed=seed, n_classes=2)
    assert_apart(carved.part, carved.rest)
    assert len(carved.part) + len(carved.rest) + carved.n_dropped == len(split)
    assert len(carved.part) >= 1


@settings(max_examples=40)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=2, max_size=30), st.integers(0, 3))
def test_carved_pairs_stand_apart_from_the_rest_on_either_side(pairs, seed):
    first, second = zip(*pairs, *zip(UNRELATED, reversed(UNRELATED), strict=True), strict=True)
    split = make_split(first, np.linspace(0, 5, len(first)), second)
    carved = carve(split, PartSize(), name="search", seed=seed, n_classes=0)
    assert_apart(carved.part, carved.rest)


def test_carving_drops_the_phrases_of_carved_sentences_alone():
    sentences = [f"the film number {index:03d} is quite good" for index in range(100)]
    phrases = [f"number {index:03d}" for index in range(100)]
    split = make_split(sentences + phrases)
    carved = carve(split, PartSize(n_items=20), name="search", seed=0, n_classes=2)
    assert set(carved.part.texts) < set(sentences)
    assert carved.n_dropped == 20
    numbers = {text.split()[3] for text in carved.part.texts}
    assert not any(number in text for number in numbers for text in carved.rest.texts)


def test_items_keep_their_texts_labels_and_order():
    split = make_unrelated(60, labels=np.arange(60) // 30)
    carved = carve(split, PartSize(n_items=10), name="search", seed=0, n_classes=2)
    label_of = dict(zip(split.texts, split.labels.tolist(), strict=True))
    for part in (carved.part, carved.rest):
        assert list(part.texts) == sorted(part.texts)
        assert part.labels.tolist() == [label_of[text] for text in part.texts]
    assert (carved.part.name, carved.rest.name) == ("search", "train")


def test_carving_is_stratified_by_class():
    split = make_unrelated(1000, labels=np.arange(1000) % 10 // 9)
    carved = carve(split, PartSize(n_items=200), name="search", seed=1, n_classes=2)
    assert np.bincount(carved.part.labels).tolist() == [180, 20]


def test_carving_is_stratified_by_value_in_regression():
    split = make_unrelated(1000, labels=np.linspace(0, 5, 1000, dtype=np.float32))
    carved = carve(split, PartSize(n_items=100), name="search", seed=1, n_classes=0)
    assert np.histogram(carved.part.labels, bins=10, range=(0, 5))[0].tolist() == [10] * 10


def test_the_only_item_of_a_class_is_not_carved():
    labels = np.zeros(40, dtype=int)
    labels[7] = 1
    for seed in range(10):
        carved = carve(make_unrelated(40, labels), PartSize(n_items=30), name="s", seed=seed, n_classes=2)
        assert 1 in carved.rest.labels


def test_a_class_without_free_texts_leaves_its_places_to_the_others():
    # Each text of class 1 ends inside a word of a text of class 0: the quick sieve lets it pass.
    longer = [f"xlong{index:02d} middle word y" for index in range(30)]
    shorter = [f"long{index:02d} middle word" for index in range(30)]
    split = make_split(longer + shorter, np.repeat([0, 1], 30))
    carved = carve(split, PartSize(n_items=10), name="search", seed=0, n_classes=2)
    assert carved.part.labels.tolist() == [0] * 10
    assert_apart(carved.part, carved.rest)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_the_part_does_not_depend_on_the_order_of_rows(seed):
    split = make_unrelated(60)
    shuffled = split.take(np.random.default_rng(seed).permutation(60))
    size = PartSize(n_items=15)
    part = carve(split, size, name="search", seed=3, n_classes=2).part
    assert set(part.texts) == set(carve(shuffled, size, name="search", seed=3, n_classes=2).part.texts)


def test_equal_seeds_give_equal_parts_and_others_do_not():
    split = make_unrelated(200)
    parts = [
        carve(split, PartSize(n_items=50), name="search", seed=seed, n_classes=2).part.texts
        for seed in (0, 0, 1)
    ]
    assert parts[0] == parts[1] != parts[2]


@pytest.mark.parametrize(
    ("size", "n_rows", "n_eligible", "expected"),
    [
        (PartSize(), 67_000, 8_000, 1_200),
        (PartSize(), 67_000, 50_000, 2_000),
        (PartSize(), 1_000, 1_000, 200),
        (PartSize(), 90, 90, 30),
        (PartSize(n_items=7), 1_000, 900, 7),
        (PartSize(fraction=0.1), 1_000, 900, 100),
        (PartSize(fraction=0.001), 100, 100, 1),
        (PartSize(default_share=0.2), 8_000, 8_000, 1_600),
    ],
)
def test_size_of_a_part(size, n_rows, n_eligible, expected):
    assert size.of(n_rows, n_eligible) == expected


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (
            PartSize(n_items=11),
            "search_items=11 asks for 11 of the 12 train items, but only 6 can be carved",
        ),
        (PartSize(fraction=0.75), r"search_fraction=0\.75 asks for 9 of the 12 train items, but only 6"),
    ],
)
def test_asking_for_more_than_can_be_carved_is_refused(size, text):
    sentences = [f"sentence{index} with words" for index in range(6)]
    split = make_split(sentences + [f"sentence{index}" for index in range(6)])
    with pytest.raises(DataError, match=text):
        carve(split, size, name="search", seed=0, n_classes=2)


def test_asking_for_all_items_is_refused():
    with pytest.raises(DataError, match="search_items=4 asks for 4 of the 4 train items"):
        carve(make_unrelated(4), PartSize(n_items=4), name="search", seed=0, n_classes=2)


def test_asking_for_texts_that_end_inside_a_word_is_refused():
    texts = [f"long{index} middle word" for index in range(4)]
    split = make_split(texts + [f"x{text}" for text in texts])
    with pytest.raises(DataError, match="search_items=6 asks for 6 of the 8 train items, but only 4"):
        carve(split, PartSize(n_items=6), name="search", seed=0, n_classes=2)


def test_carving_that_leaves_nothing_to_train_on_is_refused():
    split = make_split(["one text", "one text", "one", "text"])
    with pytest.raises(DataError, match="search_items=2 asks for 2 of the 4 train items"):
        carve(split, PartSize(n_items=2), name="search", seed=0, n_classes=2)


def test_a_split_too_small_to_carve_from_is_refused():
    with pytest.raises(DataError, match="no part can be carved from the 2 items of the train split"):
        carve(make_unrelated(2), PartSize(), name="search", seed=0, n_classes=2)


def test_items_of_another_split_are_left_out_whatever_their_spelling():
    split = make_split(["A film.", "another film", "a FILM", "film"])
    kept, n_shared = without_items_of(split, make_split(["a film"], name="test"))
    assert kept.texts == ("another film", "film")
    assert n_shared == 2


def test_pairs_are_shared_only_as_a_whole():
    split = make_split(["a", "a"], pairs=["b", "c"])
    kept, n_shared = without_items_of(split, make_split(["A"], [0], ["B"], name="test"))
    assert kept.text_pairs == ("c",)
    assert n_shared == 1


def test_a_split_that_stands_in_another_altogether_is_refused():
    with pytest.raises(DataError, match="all 2 items of the train split stand in the test split too"):
        without_items_of(make_split(["a", "b"]), make_split(["b", "a", "c"], name="test"))


def test_a_sample_is_stratified_and_keeps_its_order():
    split = make_unrelated(1000, labels=np.arange(1000) % 4 // 3)
    sample = subsample(split, 100, seed=0, n_classes=2)
    assert np.bincount(sample.labels).tolist() == [75, 25]
    assert list(sample.texts) == sorted(sample.texts)
    assert sample.texts != subsample(split, 100, seed=1, n_classes=2).texts
    assert subsample(split, 1000, seed=0, n_classes=2) is split


def test_normal_items_hold_both_texts_of_a_pair():
    assert normal_items(make_split(["A b"], pairs=["C!"])) == [("a b", "c")]
