"""flows/pace.py: what is left of a run is the usual time of the stages left, at the pace of those that ran."""

from __future__ import annotations

from flows.graph import Node, read_graph
from flows.pace import WEIGHT, Pace
from tasks.stage import Paths
from tests.imports import MAIL


def node(name: str, seconds: float | None) -> Node:
    return Node(name, "", 0, None, None, seconds, (), "", (), ())


def test_a_machine_that_takes_twice_as_long_is_told_so() -> None:
    pace = Pace([node("a", 300), node("b", 600)])
    assert pace.left() == "up to 15 min left"
    pace.ran("a", 600)
    assert pace.left() == f"up to {round(10 * (600 + WEIGHT) / (300 + WEIGHT))} min left"


def test_a_stage_that_had_nothing_to_do_says_nothing_of_the_pace() -> None:
    pace = Pace([node("a", 300), node("b", 60)])
    pace.skipped("a")
    assert pace.left() == "up to 60 s left"


def test_what_nobody_has_measured_is_not_guessed() -> None:
    pace = Pace([node("a", None), node("b", 60)])
    assert pace.left() == ""
    pace.ran("a", 10)
    assert pace.left() == "up to 60 s left"


def test_every_stage_of_the_graph_has_its_usual_time() -> None:
    assert all(stage.seconds for stage in read_graph(Paths(MAIL)))
    assert "min left" in Pace(read_graph(Paths(MAIL))).left()
