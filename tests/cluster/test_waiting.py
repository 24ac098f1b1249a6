"""Where tasks without a slot may run, and what a run that waits for nodes does when it is told to stop."""

from __future__ import annotations

import time
from typing import Any

import pytest

from raysweep.cluster import slots
from raysweep.cluster.autoscaler import Autoscaler, NodeType
from raysweep.cluster.slots import OBJECT_STORE, Slot, Store, find_slot, smallest_store, where_trials_run
from raysweep.sweepfile.schema import Resources


def node(id: str, cpus: float) -> dict[str, Any]:
    return {"NodeID": id, "Resources": {"CPU": cpus} if cpus else {}, "NodeManagerAddress": f"of {id}", "Alive": True}


def test_data_is_loaded_where_it_was_prepared_and_later_on_any_node_but_those_that_hold_no_trial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = [node("head", 0), node("a", 2), node("b", 2), node("small", 1)]
    monkeypatch.setattr(slots, "alive_nodes", lambda: there)
    options = where_trials_run(Slot(workers=1, gpus=0, cpus=2), first="a")
    # Ray would take a space after a comma for a part of the next id, and that node would not be avoided.
    assert options["label_selector"] == {"ray.io/node-id": "!in(head,b,small)"}
    assert options["fallback_strategy"] == [{"label_selector": {"ray.io/node-id": "!in(head,small)"}}]


def test_on_a_single_machine_data_is_loaded_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "alive_nodes", lambda: [node("a", 2)])
    options = where_trials_run(Slot(workers=1, gpus=0, cpus=2), first="a")
    assert options == {"label_selector": {}, "fallback_strategy": [{"label_selector": {}}]}


def test_the_smallest_object_store_is_sought_where_trials_may_run_now_or_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def has(cpus: int, store: int) -> dict[str, float]:
        return {"CPU": cpus, OBJECT_STORE: store}

    nodes = [("head", has(0, 10)), ("a", has(2, 50)), ("b", has(2, 40))]
    types = [NodeType("none", has(2, 20), 0, 0), NodeType("some", has(2, 30), 0, 1), NodeType("unknown", {}, 0, 1)]
    monkeypatch.setattr(slots, "alive_nodes", lambda: [{"NodeManagerHostname": n, "Resources": r} for n, r in nodes])
    monkeypatch.setattr(slots, "read_autoscaler", lambda: Autoscaler(tuple(types)))
    assert smallest_store(Slot(1, 0, 2)) == Store(30, "a node of type some")
    monkeypatch.setattr(slots, "read_autoscaler", Autoscaler)
    assert smallest_store(Slot(1, 0, 2)) == Store(40, "b")


def test_ctrl_c_is_answered_while_the_run_waits_for_hosts_that_have_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Autoscaler((NodeType("local", {}, 1, 1),), ("10.0.0.9",), 1)
    monkeypatch.setattr(slots, "read_autoscaler", lambda: hosts)
    monkeypatch.setattr(slots, "alive_nodes", lambda: [node("head", 0)])
    began = time.monotonic()
    find_slot(Resources(), lambda text: None, is_stopped=lambda: time.monotonic() - began > 0.1)
    assert time.monotonic() - began < 5


def test_a_run_waits_for_the_nodes_that_it_was_promised_and_begins_without_those_that_do_not_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there, said = [node("a", 2)], list[str]()

    def say(text: str) -> None:
        said.append(text)
        there.append(node("b", 2))

    monkeypatch.setattr(slots, "alive_nodes", lambda: there)
    slots.wait_for_nodes(2, say, is_stopped=lambda: False)
    assert said == ["waiting: 1 of 2 nodes are there yet"]
    monkeypatch.setattr(slots, "JOIN_WITHIN_S", 0.6)
    slots.wait_for_nodes(9, said.append, is_stopped=lambda: False)
    assert said[1:] == [
        "waiting: 2 of 9 nodes are there yet",
        "2 of 9 nodes are there after 1 s; the run begins on these",
    ]
