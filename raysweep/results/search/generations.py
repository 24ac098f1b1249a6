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
from raysweep.store.document import digest
from raysweep.store.generations import Made, read_generations
from raysweep.sweepfile import Sweep
from raysweep.sweepfile.patch import get
from raysweep.sweepfile.plan import config_of_proposal, trials_of_generation
from raysweep.sweepfile.proposals import WITHOUT_RESULTS, Generation, drawn, first_generations, size_of
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
    another config since `base` has changed.
    """
    made = read_generations(folder)
    kept = [_kept(sweep, each) for each in made]
    before = sum(len(each.generation.proposals) for each in made)
    if not any(generation.proposals for generation, _ in kept):
        notes = ["search: no proposal of before has the config that it had; the search begins anew"] if before else []
        return Proposed(first_generations(sweep)[:WITHOUT_RESULTS], 0, notes)
    gone: dict[str, list[str]] = {}  # reasons, by the key that they begin with
    for why in (why for _, reasons in kept for why in reasons):
        gone.setdefault(why.partition(" ")[0], []).append(why)
    generations = _up_to(sweep, [generation for generation, _ in kept])
    notes = [
        f"search: {count_of(len(reasons), 'proposal')} of before left out: {some_of(reasons, 3)}"
        for reasons in gone.values()
    ]
    beyond = sum(len(each.proposals) for each, _ in kept) - sum(len(each.proposals) for each in generations)
    notes += [f"search: {count_of(beyond, 'proposal')} of before left out: beyond search.trials"] if beyond else []
    return Proposed(generations, len(generations), notes)


def _kept(sweep: Sweep, made: Made) -> tuple[Generation, list[str]]:
    """Return a generation without the proposals that the sweep file can no longer make, and why it cannot."""
    assert sweep.search is not None
    space, proposals, gone = Space(sweep.search.space), list[Settings](), list[str]()
    for proposal, config_then in zip(made.generation.proposals, made.configs, strict=False):
        config = config_of_proposal(sweep, proposal, problems=[])
        document = config.model_dump(mode="json") if config else {}
        if config is None or digest(document) != config_then:
            gone.append("its config is another one now")
            continue
        # The trial is the same if a key is new in the space, or no longer in it, as long as it has the value of before
        settings = space.fill({key: get(document, key) for key in space.dimensions}, lambda key, _: None)
        why = space.why_not(settings)
        if not why and _config_hash(sweep, settings) != config_then:
            why = (
                " and ".join(f"{key} {proposal[key]}" for key in proposal if key not in settings)
                + " is not in the space"
            )
        if why:
            gone.append(why)
        else:
            proposals.append(settings)
    return replace(made.generation, proposals=proposals), gone


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


def configs_of(sweep: Sweep, generation: Generation) -> list[str]:
    """Return the hash of each proposal's config, by which it is known again."""
    return [_config_hash(sweep, each) for each in generation.proposals]


def _config_hash(sweep: Sweep, proposal: Settings) -> str:
    config = config_of_proposal(sweep, proposal, problems=[])
    return digest(config.model_dump(mode="json")) if config else ""


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
    if sweep.search.learns and number >= WITHOUT_RESULTS:
        proposals = ask(sweep, number, tell(sweep, generations, ids, records, knows), size)
    else:
        proposals = drawn(sweep, before, size)
    proposals = _new_and_valid(sweep, before, proposals)
    return Generation(number, proposals, knows) if proposals else None


def _new_and_valid(sweep: Sweep, before: Sequence[Settings], proposals: Sequence[Settings]) -> list[Settings]:
    """Return the proposals whose config is valid, and none that there was: settings may differ where a config does not.

    A loop's own check may refuse values together that are each within the space.
    """
    known, kept = {_config_hash(sweep, each) for each in before}, []
    for proposal in proposals:
        config = _config_hash(sweep, proposal)
        if config and config not in known:
            known.add(config)
            kept.append(proposal)
    return kept
