"""The generations of a search: those that a run folder has and that still fit the sweep file, and the next one.

Generation g is a pure function of the sweep and of the results of generations 0 to g-2. So the slots that generation
g-1 keeps busy need not wait, and whatever the order in which trials end, on however many slots, and through whatever
kills, the same trials are proposed. Once made, a generation is read from the run folder and not made again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from raysweep.results.search.sampler import ask
from raysweep.results.search.told import tell
from raysweep.store import Record, RunFolder
from raysweep.store.generations import Made, read_generations
from raysweep.sweepfile import Sweep
from raysweep.sweepfile.patch import get
from raysweep.sweepfile.plan import (
    accepting,
    config_of_proposal,
    first_of_search,
    mark_of_proposal,
    trials_of_generation,
)
from raysweep.sweepfile.proposals import WITHOUT_RESULTS, Generation, drawn, enqueued, size_of
from raysweep.sweepfile.space import Settings, Space
from raysweep.terminal import count_of, some_of


@dataclass(frozen=True)
class Proposed:
    """What a search has proposed so far."""

    generations: list[Generation]
    made: int  # how many of them the run folder has
    notes: list[str]  # what became of proposals that the sweep file does not have any more, in words


def proposed(sweep: Sweep, folder: RunFolder) -> Proposed:
    """Return the generations of a sweep as its run folder, which may be empty, has them, or else the first ones.

    Proposals that the sweep file can no longer make are left out: outside of the space, beyond `trials`, or with
    another config since `base` has changed. Their trials still compete with those of their generation.
    """
    assert sweep.search is not None
    made = read_generations(folder)
    kept = [_kept(sweep, each) for each in made]
    if not any(generation.proposals for generation, _ in kept):
        anew = "search: no earlier proposal fits the sweep file any more; the search starts over"
        return Proposed(first_of_search(sweep), 0, [anew] if made else [])
    gone: dict[str, list[str]] = {}  # reasons, by the key that they begin with
    for why in (why for _, reasons in kept for why in reasons):
        gone.setdefault(why.partition(" ")[0], []).append(why)
    generations = _up_to(sweep, [generation for generation, _ in kept])
    notes = [
        f"search: {count_of(len(reasons), 'earlier proposal')} no longer fit: {some_of(reasons, 3)}"
        for reasons in gone.values()
    ]
    proposals = [settings for generation in generations for settings in generation.proposals]
    if beyond := sum(len(each.proposals) for each, _ in kept) - len(proposals):
        notes.append(f"search: {count_of(beyond, 'earlier proposal')} beyond search.trials, {sweep.search.trials}")
    if (waiting := enqueued(sweep.search, proposals)) and not size_of(sweep.search, len(proposals)):
        notes.append(
            f"search: {count_of(len(waiting), 'enqueued config')} not proposed, since search.trials, "
            f"{sweep.search.trials}, are; raise it"
        )
    return Proposed(generations, len(generations), notes)


def _kept(sweep: Sweep, made: Made) -> tuple[Generation, list[str]]:
    """Return a generation without the proposals that the sweep file can no longer make, and why it cannot."""
    proposals, gone, ids = list[Settings](), list[str](), list[str]()
    for proposal, mark in zip(made.generation.proposals, made.marks, strict=True):
        settings, why = _as_it_is_now(sweep, proposal, mark)
        if why:
            gone.append(why)
            (own,) = trials_of_generation(sweep, replace(made.generation, proposals=[proposal]), lenient=True)
            ids += [trial.id for trial in own]
        else:
            proposals.append(settings)
    return replace(made.generation, proposals=proposals, knows=[*made.generation.knows, *ids]), gone


def _as_it_is_now(sweep: Sweep, proposal: Settings, mark: str) -> tuple[Settings, str]:
    """Return a proposal as one of the present space, and why it is none, in words.

    Its trials must be the same: a key may be new in the space, or no longer in it, if it has the value that they had.
    """
    assert sweep.search is not None
    space, config = Space(sweep.search.space), config_of_proposal(sweep, proposal, problems=[])
    if config is None or mark_of_proposal(sweep, proposal) != mark:
        return proposal, "its config is another one now"
    document = config.model_dump(mode="json")
    trained_with: Settings = {}
    for key, dimension in space.dimensions.items():
        if key not in proposal:
            alike = [
                value for value in dimension.choice or () if mark_of_proposal(sweep, {**proposal, key: value}) == mark
            ]
            trained_with[key] = alike[0] if alike else get(document, key)
    settings = space.fill({**trained_with, **proposal}, lambda key, _: None)
    if why := space.why_not(settings):
        return settings, why
    if mark_of_proposal(sweep, settings) == mark:
        return settings, ""
    lost = [key for key in proposal if mark_of_proposal(sweep, {**settings, key: proposal[key]}) == mark]
    return settings, " and ".join(f"{key} {proposal[key]}" for key in lost or proposal) + " is not in the space"


def _up_to(sweep: Sweep, generations: Sequence[Generation]) -> list[Generation]:
    """Return the generations up to `trials` proposals."""
    assert sweep.search is not None
    left, kept = sweep.search.trials, list[Generation]()
    for each in generations:
        if left <= 0:
            break
        kept.append(replace(each, proposals=each.proposals[:left]))
        left -= len(kept[-1].proposals)
    return kept


def next_generation(
    sweep: Sweep,
    generations: Sequence[Generation],
    records: Mapping[str, Record],
    given_up: Collection[str] = (),
) -> Generation | None:
    """Return the next generation; None while trials that it depends on have not ended, or if there is none.

    Args:
        sweep: with a search.
        generations: all of before.
        records: those of their trials, by id.
        given_up: the ids of failed trials that are not to be tried again.

    Raises:
        UserError: a package that proposes is missing.
    """
    number = len(generations)
    before = [settings for generation in generations for settings in generation.proposals]
    assert sweep.search is not None
    size = size_of(sweep.search, len(before))
    ids = {
        (generation.number, place): [trial.id for trial in trials]
        for generation in generations
        for place, trials in enumerate(trials_of_generation(sweep, generation))
    }
    earlier = [id for (made, _), own in ids.items() if made <= number - WITHOUT_RESULTS for id in own]
    if not size or not all(records[id].is_final or id in given_up for id in earlier):
        return None
    knows = list(dict.fromkeys(id for id in earlier if records[id].is_final))
    accepts = accepting(sweep, before, problems=[])
    if sweep.search.learns and number >= WITHOUT_RESULTS:
        proposals = ask(sweep, number, tell(sweep, generations, ids, records, knows), size, accepts)
    else:
        proposals = drawn(sweep, before, size, accepts)
    return Generation(number, proposals, knows) if proposals else None
