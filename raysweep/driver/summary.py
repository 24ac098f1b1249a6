"""After the trials: the run folder brought up to date, how the run ended and what comes next, the exit code."""

from __future__ import annotations

import json
from functools import partial

from raysweep.driver.before import Run
from raysweep.driver.endings import drop_weights_of_losers, losers_of
from raysweep.driver.sharing import keys_of_last_states, whose_last_stays
from raysweep.errors import Interrupted, LimitReached, StorageError
from raysweep.report import write_report
from raysweep.results import mistakes
from raysweep.results.evaluation import is_wanted
from raysweep.results.failed import failure_lines
from raysweep.results.hours import hours_of
from raysweep.results.ranking import has_ended, standings
from raysweep.results.run import SweepResult, as_json, read_results
from raysweep.results.table import print_results
from raysweep.results.verdict import judgement_of
from raysweep.store.exports import write_results
from raysweep.store.newest import remove_newest
from raysweep.store.spent import read_spent
from raysweep.store.states import StateStore
from raysweep.terminal import counting, say, some_of


def sum_up(run: Run, as_json_document: bool, quiet: bool = False) -> int:
    """Bring the run folder up to date, print the results and what comes next; return the exit code.

    If `quiet`, nothing is printed but why the run stopped.

    Raises:
        StorageError: the run ended because trials could not commit.
    """
    run.endings.finish()
    if run.stop.fault:
        raise StorageError(run.stop.fault)
    if run.stop.requested and not run.folder.files.is_file("resolved.yaml"):
        run.view.say("stopped before anything was trained. To begin, run the same command again")
        return Interrupted.exit_code
    run.meter.save(cut_short=run.stop.limit)
    result = read_results(run.folder, tell=counting, has_ended=True)
    _bring_up_to_date(run, result)
    if quiet:
        return _say_if_stopped(run) or int(any(not has_ended(record) for record in result.trials))
    result = read_results(run.folder, has_ended=True)  # without the weights that were deleted
    judgement = judgement_of(result, run.named.in_words())
    if as_json_document:
        print(json.dumps(as_json(result, judgement.as_json() if judgement else None), allow_nan=False))
    for sentence in judgement.sentences if judgement else ():
        say(sentence, stderr=as_json_document)
    print_results(result, stderr=as_json_document)
    if run.sweep.confirm and judgement is None and all(map(has_ended, result.trials)):
        run.view.say("confirm: nothing to compare: it takes two configs that trained to the end")
    hours = hours_of(result.trials, read_spent(run.folder))
    if hours.shared:
        run.view.say(hours.in_words)
    run.view.say(f"run folder: {run.folder.path}")
    _write_report(run, result)
    return _say_if_stopped(run) or _say_what_is_missing(run, result)


def evaluation_is_wanted(run: Run, result: SweepResult) -> bool:
    """Whether accuracies that the sweep asks for are missing from the winner's evaluation, or its mistakes are."""
    rival, images = mistakes.rival_of(run.folder, result.configs), run.sweep.report.images
    if mistakes.is_wanted(run.folder, result.best, rival, images):
        return True
    return is_wanted(run.folder, result.best, run.sweep.evaluate.tta)


def _bring_up_to_date(run: Run, result: SweepResult) -> None:
    """Delete what is no longer needed, unless trials will go on, and rebuild the exports."""
    from raysweep.store.tensorboard import outdated_tensorboard, write_tensorboard

    folder = run.folder
    if not run.stop.requested:
        drop_weights_of_losers(folder, result.configs, run.sweep.checkpoints.keep_best, result.objective)
        _drop_states(run, result)
        rubbish = folder.rubbish(folder.files.list_files(recursive=True))
        folder.files.for_each(folder.files.delete, list(rubbish))
    folder.files.for_each(partial(write_tensorboard, folder), outdated_tensorboard(folder, result.trials))
    write_results(folder, result.trials, standings(result.configs))
    remove_newest(folder)


def _drop_states(run: Run, result: SweepResult) -> None:
    """Delete the states of this plan's trials, but for those that `keep_last` keeps and those that a rerun may want."""
    store, trials = StateStore(run.folder), (*run.trials, *run.fresh)
    kept, listed = store.all(), store.listed()
    store.drop(key for key in listed if key not in kept)  # torn, or of a trial that was killed while it kept one
    if not kept:
        return
    records = {record.id: record for record in result.trials}
    stays = whose_last_stays(run.sweep, losers_of(result.configs, run.sweep.checkpoints.keep_best, result.objective))
    wanted = {key for id, key in keys_of_last_states(trials, records).items() if stays(id)}
    if run.sharing is not None:
        wanted |= run.sharing.wanted({id: each.epoch for id, each in records.items() if not each.is_final})
    ids = {trial.id for trial in trials}
    of_this_plan = (key for key, record in kept.items() if record.id in ids or any(each.run for each in record.origins))
    store.drop(key for key in of_this_plan if key not in wanted)


def _write_report(run: Run, result: SweepResult) -> None:
    """Write the report. It can be made again, so a fault in it is said and changes nothing about how the run ended."""
    try:
        page = write_report(result, run.named, has_ended=True)
    except Exception as error:
        again = f"python -m raysweep report {run.named.in_words()}"
        run.view.say(f"no report: {type(error).__name__}: {error}; try again: {again}")
    else:
        run.view.say(f"report: {page}")


def _say_if_stopped(run: Run) -> int:
    """Say why the run was stopped and how it goes on; return the exit code, 0 if it was not stopped."""
    if run.stop.limit:
        run.view.say(
            f"{run.stop.limit}; what is whole is committed, the ranking is that of trials cut short. "
            "To go on, raise the limit and run the same command again"
        )
        return LimitReached.exit_code
    if run.stop.requested:
        run.view.say("stopped; what is whole is committed. To go on, run the same command again")
        return Interrupted.exit_code
    return 0


def _say_what_is_missing(run: Run, result: SweepResult) -> int:
    """Say which trials failed or did not finish, and how to get the best; return 1 if anything is missing."""
    failed = [record for record in result.trials if record.status == "failed"]
    for line in failure_lines(result.trials, run.named.in_words()):
        run.view.say(line)
    is_whole = result.best is None or run.folder.is_whole(result.best, "best", again=True)
    if result.best and is_whole:
        run.view.say(f"best checkpoint: python -m raysweep pull {run.named.in_words()}")
    elif result.best:
        run.view.say(f"{result.best.id}: its best weights are damaged; run the same command again: it trains it anew")
    unfinished = [record.id for record in result.trials if not record.is_final and record.status != "failed"]
    if unfinished:
        run.view.say(f"not finished, run the same command again: {some_of(unfinished)}")
    return 1 if failed or unfinished or not is_whole or evaluation_is_wanted(run, result) else 0
