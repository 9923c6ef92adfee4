from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlnas.data.containment import ContainmentIndex, normalise, stands_alone

WORDS = st.lists(st.sampled_from(["a", "b", "ab", "ba", "abc"]), min_size=1, max_size=7).map(" ".join)
ITEMS = st.integers(1, 2).flatmap(
    lambda width: st.lists(st.tuples(*[WORDS] * width), min_size=1, max_size=12)
)


def holds_phrase(text: str, phrase: str) -> bool:
    return f" {phrase} " in f" {text} "


def test_normal_form_is_case_folded_words_with_single_spaces():
    assert normalise("  It's  GOOD, isn't_it?\n") == "it s good isn t_it"
    assert normalise("Straße") == "strasse"
    assert normalise("... !?") == ""


@given(st.text(max_size=30), st.integers(0, 30), st.integers(0, 30))
def test_what_stands_in_a_text_verbatim_stands_in_its_normal_form(text, start, stop):
    assert normalise(text[start:stop]) in normalise(text)


@given(st.text(max_size=30))
def test_normal_form_is_its_own_normal_form(text):
    assert normalise(normalise(text)) == normalise(text)


@given(ITEMS)
def test_stands_alone_agrees_with_brute_force(items):
    expected = [
        not any(
            text != other and holds_phrase(other, text)
            for text in item
            for number, others in enumerate(items)
            if others is not item and number != index
            for other in others
        )
        for index, item in enumerate(items)
    ]
    assert stands_alone(items).tolist() == expected


def test_the_texts_of_one_pair_may_stand_in_each_other():
    assert stands_alone([("a b c d", "b c"), ("e", "f")]).tolist() == [True, True]
    assert stands_alone([("a b c d", "b c"), ("b c", "f")]).tolist() == [True, False]


def test_a_text_of_two_items_stands_in_the_longer_one_of_the_other_item_alone():
    assert stands_alone([("a", "a"), ("a", "a a")]).tolist() == [False, True]


def test_equal_texts_do_not_count_as_standing_in_each_other():
    assert stands_alone([("a b",), ("a b",)]).tolist() == [True, True]


def test_a_text_without_words_stands_everywhere():
    assert stands_alone([("",), ("a",)]).tolist() == [False, True]


@given(st.lists(WORDS, max_size=12), WORDS)
def test_index_agrees_with_brute_force(texts, text):
    expected = [index for index, other in enumerate(texts) if text in other]
    assert list(ContainmentIndex(texts).holders(text)) == expected


@given(st.lists(WORDS | st.just(""), max_size=5))
def test_index_finds_the_empty_text_in_every_text(texts):
    assert list(ContainmentIndex(texts).holders("")) == list(range(len(texts)))


def test_index_finds_texts_that_end_inside_a_word():
    index = ContainmentIndex(["hearts are fun", "the arts are funny", "arts"])
    assert list(index.holders("arts are fun")) == [0, 1]
    assert list(index.holders("art")) == [0, 1, 2]
    assert list(index.holders("ts are")) == [0, 1]
