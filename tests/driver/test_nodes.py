"""Which deaths of processes speak against their node, and which against their trial."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raysweep.driver.nodes import MOST_NODES, Nodes


def nodes_of(*names: str) -> Nodes:
    """Nodes that hold a trial each."""
    return Nodes(lambda without: len(set(names) - set(without)))


def die(nodes: Nodes, *deaths: tuple[str, str]) -> None:
    for trial, node in deaths:
        nodes.die(trial, node, had_begun=True)


def test_two_trials_that_die_on_one_node_in_a_row_are_its_fault_and_it_is_avoided():
    nodes = nodes_of("good", "bad")
    nodes.work("bad")
    die(nodes, ("a", "bad"))
    assert (nodes.deaths("a"), nodes.avoided) == (1, []), "one alone says nothing about a node that worked before"
    die(nodes, ("b", "bad"))
    assert (nodes.deaths("a"), nodes.deaths("b"), nodes.avoided) == (0, 0, ["bad"])


def test_a_death_on_a_node_on_which_nothing_has_worked_yet_is_not_the_trials_even_if_it_may_not_be_retried():
    nodes = nodes_of("good", "bad")
    die(nodes, ("a", "bad"))
    assert (nodes.deaths("a"), nodes.avoided) == (0, [])


def test_deaths_between_trials_that_work_are_the_trials_own():
    nodes = nodes_of("x", "y")
    nodes.work("x")
    for trial in "abc":
        die(nodes, (trial, "x"))
        nodes.work("x")
    assert [nodes.deaths(trial) for trial in "abc"] == [1, 1, 1]
    assert nodes.avoided == []


def test_on_the_only_node_and_on_the_last_one_left_deaths_are_the_trials_own():
    alone = nodes_of("x")
    die(alone, ("a", "x"), ("b", "x"))
    assert (alone.deaths("a"), alone.deaths("b"), alone.avoided) == (1, 1, [])
    two = nodes_of("x", "y")
    die(two, ("a", "x"), ("b", "x"), ("a", "y"), ("b", "y"))
    assert (two.deaths("a"), two.deaths("b"), two.avoided) == (1, 1, ["x"])


def test_a_trial_that_dies_wherever_it_is_put_is_to_blame_and_its_nodes_are_used_again():
    nodes = nodes_of("x", "y", "z", "u")
    die(nodes, ("a", "x"), ("a", "x"), ("a", "y"), ("a", "y"))
    assert nodes.avoided == ["x", "y"]
    die(nodes, ("a", "z"))
    assert (nodes.deaths("a"), nodes.avoided) == (5, [])


def test_a_bad_node_stays_out_when_the_good_ones_go_away_and_trials_there_are_still_excused():
    there = {"good", "bad"}
    nodes = Nodes(lambda without: len(there - set(without)))
    nodes.work("bad")
    die(nodes, ("a", "bad"), ("b", "bad"))
    there.remove("good")
    die(nodes, ("c", "bad"))  # of a process that was asked for before
    assert nodes.avoided == ["bad"]
    assert [nodes.deaths(trial) for trial in "abc"] == [0, 0, 0]
    nodes.work("bad")
    assert nodes.avoided == []


def test_the_deaths_of_a_trial_that_failed_speak_against_no_node():
    nodes = nodes_of("x", "y")
    die(nodes, ("a", "x"), ("a", "x"))
    assert nodes.avoided == ["x"]
    nodes.fail("a")
    assert nodes.avoided == []


def test_a_death_of_which_ray_does_not_say_where_is_the_trials_own():
    nodes = nodes_of("x", "y")
    die(nodes, ("a", ""), ("b", ""))
    assert (nodes.deaths("a"), nodes.deaths("b"), nodes.avoided) == (1, 1, [])


def test_deaths_before_a_trial_had_begun_are_counted_apart():
    nodes = nodes_of("x")
    nodes.die("a", "x", had_begun=False)
    assert (nodes.deaths("a"), nodes.deaths("a", had_begun=False)) == (0, 1)


@given(st.integers(1, 5), st.integers(0, 3), st.randoms(use_true_random=False))
def test_no_run_goes_on_for_ever_and_none_is_left_without_nodes(count: int, retries: int, random) -> None:
    """Trials that die wherever they are put, in any order, each fail in the end, and only after their retries."""
    names = [f"node {number}" for number in range(count)]
    nodes = nodes_of(*names)
    deaths = dict.fromkeys("abc", 0)
    left = set(deaths)
    while left:
        allowed = sorted(set(names) - set(nodes.avoided))
        assert allowed
        trial = random.choice(sorted(left))
        nodes.die(trial, random.choice(allowed), had_begun=True)
        deaths[trial] += 1
        assert deaths[trial] <= 2 * MOST_NODES * len(deaths) + retries + 1
        if nodes.deaths(trial) > retries:
            nodes.fail(trial)
            left.remove(trial)
    assert nodes.avoided == []
    assert all(count > retries for count in deaths.values())
