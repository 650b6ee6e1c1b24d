"""The search behind `make tune`: Optuna over the student's parameters for size, speed and quality, on valid alone.

    python -m flows.tune                  go on for tune.seconds, then show the front
    python -m flows.tune --seconds 3600   or so long
    python -m flows.tune --list           show every trial so far, and run none
    python -m flows.tune --apply best     write the chosen point to params.yaml; or a trial's number

What is searched is the block tune of params.yaml. A trial runs the stages of dvc.yaml from distill to the variant that
may be served. What was found is kept below var/tune: a search that is stopped or killed goes on where it was.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections import Counter
from collections.abc import Sequence

import mlflow

from flows.file_lock import run_lock
from flows.graph import Node, read_graph
from tasks.files import atomic_write
from tasks.kinds import PARTS, kind_of, settings_class
from tasks.release.table import markdown
from tasks.stage import Paths, StageError, add_option, find_workload, read_params, read_settings
from tasks.tune.front import Point, describe_changes, draw, rows
from tasks.tune.search import Search, Tune, run_trials
from tasks.tune.space import edit_yaml, read_point
from tasks.tune.studies import outcome
from tasks.tune.trial import Step

FIRST = "distill"
"""The stage that makes a student of the teacher's logits."""


def chain(nodes: Sequence[Node], variant: str) -> list[Node]:
    """The stages that stand behind ``FIRST``, up to the one that makes ``variant``. Raises StageError where none does."""
    last = next((number for number, node in enumerate(nodes) if f"models/{variant}" in node.outs), -1)
    found: list[Node] = []
    for node in nodes[: last + 1]:
        if node.name == FIRST or set(node.needs) & {before.name for before in found}:
            found.append(node)
    if not found or found[-1] != nodes[last]:
        raise StageError(f"params.yaml: tune.variant = {variant!r}: dvc.yaml makes no models/{variant} behind {FIRST}")
    return found


def step_of(node: Node, kind: str) -> Step:
    """A stage as a function: by the rule of names, its module holds it, and the module or the kind its settings."""
    module = importlib.import_module(node.command.split()[-1])
    own = settings_class(kind, node.name) if node.name in PARTS else getattr(module, node.name.capitalize())
    return Step(node.name, getattr(module, node.name), own)


def read_needs(nodes: Sequence[Node]) -> list[str]:
    """What these stages read and do not make."""
    made = {out for node in nodes for out in node.outs}
    return sorted({dep for node in nodes for dep in node.deps} - made)


def open_search(paths: Paths) -> Search:
    """The search that params.yaml and dvc.yaml speak of, new or as it was left."""
    params = read_params(paths.root)
    settings = read_settings(Tune, "tune", params)
    nodes = chain(read_graph(paths), settings.variant)
    return Search(settings, paths, params, [step_of(node, kind_of(paths)) for node in nodes], read_needs(nodes))


def tune(search: Search, seconds: float, trials: int | None) -> None:
    """Search, and leave the front as a picture, also in MLflow. Raises StageError where another search is at work."""
    with run_lock(search.workspace.paths, "tune") as free:
        if not free:
            raise StageError("another search is at work")
        run = run_trials(search, seconds, trials)
        picture = search.workspace.folder / "pareto.svg"
        with atomic_write(picture) as temporary:
            drawn = draw(search.points, search.front, search.chosen, search.min_pr_auc, search.present)
            temporary.write_text(drawn, encoding="utf-8")
        mlflow.MlflowClient().log_artifact(run, str(picture))


def every_trial(search: Search) -> str:
    """All trials in their order, as a table: how each ended, and why."""
    space, found = search.settings.space, {point.trial: point for point in search.points}
    table = []
    for trial in search.study.trials:
        point = found.get(trial.number)
        word, reason = outcome(trial)
        values = read_point(space, trial.params) if trial.params.keys() == space.keys() else search.present
        figures = rows([point], search.chosen, search.present)[0] if point else {
            "trial": str(trial.number), "bytes": "-", "µs an input": "-", "PR-AUC valid": "-",
            "other than params.yaml": describe_changes(values, search.present),
        }  # fmt: skip
        table.append(figures | {"outcome": f"{word}: {reason}" if reason else word})
    return markdown(table) if table else "no trial yet"


def summary(search: Search) -> str:
    """The front, the chosen point and that of params.yaml as a table, and what became of the other trials."""
    best, chosen, settings = search.front, search.chosen, search.settings
    shown = [point for point in search.points if point in (*best, chosen) or point.values == search.present]
    table = rows(sorted(shown, key=lambda point: point.bytes), chosen, search.present)
    counts = Counter(outcome(trial)[0] for trial in search.study.trials)
    lines = [markdown(table)] if table else []
    lines.append(f"{sum(counts.values())} trials: " + ", ".join(f"{count} {word}" for word, count in counts.items()))
    lines.append(
        f"chosen is the {settings.choose} of PR-AUC {search.min_pr_auc:.4f} or better, the teacher's less tune.margin: "
        + (f"trial {chosen.trial}" if chosen else "there is none")
    )
    if chosen and chosen.values != search.present:
        lines.append(f"`python -m flows.tune --apply {chosen.trial}` writes it to params.yaml")
    return "\n".join(lines)


def apply(search: Search, which: str) -> str:
    """Write the point of a trial, or of the ``best``, to params.yaml; what was changed, in words.

    Raises StageError where there is no such point: what broke a gate or was stopped is none.
    """
    point = _asked(search, which)
    path = search.workspace.paths.root / "params.yaml"
    new = {name: value for name, value in point.values.items() if value != search.present[name]}
    if not new:
        return f"trial {point.trial} is what params.yaml says already"
    with atomic_write(path) as temporary:
        temporary.write_text(edit_yaml(path.read_text(encoding="utf-8"), new), encoding="utf-8")
    changes = ", ".join(f"{name} {search.present[name]} -> {value}" for name, value in new.items())
    return f"params.yaml: {changes}; `make run` makes it"


def _asked(search: Search, which: str) -> Point:
    if which == "best":
        if search.chosen is None:
            raise StageError(f"params.yaml: tune.margin = {search.settings.margin}: no trial is so near to the teacher yet")
        return search.chosen
    for point in search.points:
        if str(point.trial) == which:
            return point
    for trial in search.study.trials:
        if str(trial.number) == which:
            raise StageError(f"--apply {which}: this trial cannot be applied: {': '.join(filter(None, outcome(trial)))}")
    raise StageError(f"--apply {which}: there is no such trial; --list shows all, and best is the chosen one")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flows.tune", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, help="time of this search, in place of tune.seconds")
    parser.add_argument("--trials", type=int, help="run at most so many")
    parser.add_argument("--list", action="store_true", help="show every trial so far, and run none")
    parser.add_argument(
        "--apply", metavar="TRIAL", help="write the point of this trial to params.yaml, or of the best; run none"
    )
    add_option(parser)
    given = parser.parse_args()
    try:
        search = open_search(find_workload(given.workload))
        if given.apply:
            print(apply(search, given.apply))
            return
        if not given.list:
            tune(search, given.seconds or search.settings.seconds, given.trials)
        print(every_trial(search) if given.list else summary(search))
    except StageError as error:
        sys.exit(f"tune: {error}")
    except KeyboardInterrupt:
        sys.exit("tune: stopped; `make tune` goes on")


if __name__ == "__main__":
    main()
