from __future__ import annotations

from rlnas.deploy.origin import DataFacts, Origin


def test_the_facts_of_a_task_are_its_sizes_and_where_its_items_come_from(task):
    facts = DataFacts.of(task, "owner/films")
    assert (facts.task, facts.metric, facts.hub_name) == ("films", "accuracy", "owner/films")
    assert (facts.splits, facts.names) == ((8, 8, 24), ("train", "search", "test"))


def test_of_an_origin_nothing_has_to_be_known():
    assert Origin().certificate is None
    assert not Origin().versions
