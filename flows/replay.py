"""The replay behind `make demo`: real data through the real loop; frozen, recalibrated and restilled side by side.

    python -m flows.replay             everything; the page is var/WORKLOAD/replay/replay.html
    python -m flows.replay --no-injected

A world that ends at ``replay.since``, or holds the rows that ``replay.drawn`` draws, is trained, promoted and served. The
rest is sent to the service; a tenth of it gets its label some time after. The flows monitor and restill run as they would by
schedule, after each window of inputs; while a retraining runs, the stream waits. Beside it, what recalibration alone would
reach is worked out in this process.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import chdir, closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field, field_validator, model_validator
from tqdm import tqdm

from flows.command import get_ready, run_command
from service.kinds import serving_class
from service.release import Release
from service.store import read_pointer, release_folder
from tasks.data.ingest import collect
from tasks.files import atomic_write, write_json
from tasks.kinds import data_part, kind_of, replay_part, settings_class
from tasks.monitor.decide import JudgedWindow
from tasks.monitor.state import State
from tasks.monitor.watch import Monitor
from tasks.replay.page import draw_periods, metrics_of, replay_page
from tasks.replay.periods import MODELS, figures, rollback_change, with_periods
from tasks.replay.recalibrated import RecalibratedArm
from tasks.replay.scenarios import Scenario, scenarios
from tasks.replay.server import prefect, service
from tasks.replay.source import Drawn, draw
from tasks.replay.stream import Client, Reviewer, ask
from tasks.replay.world import make_world, run_in
from tasks.stage import Paths, Settings, StageError, add_option, as_time, find_workload, read_params, read_settings

SWAP_SECONDS = 30
MORE = 2
"""Runs of restill beyond those in which it may fail: one that ends before it counts its failure would be run for ever."""


class Injected(Settings):
    inputs: int = Field(ge=1)
    changed: float = Field(gt=0, lt=1)
    """Share of the inputs that get one of the kind's changes."""
    prior: float = Field(gt=0, lt=1)
    """Points by which a label's share is moved."""


class Replay(Settings):
    since: str | None
    """The frozen model knows what was received before this time; what follows is the stream. null: ``drawn`` says."""
    drawn: Drawn | None
    """Where there are no times: what the frozen model knows, and the stream. null with no time: there is no replay."""
    positive: str | None
    """The label whose F1, false positives and misses are told; null: accuracy is."""
    labelled: float = Field(gt=0, le=1)
    """Share of the answered inputs that a reviewer labels."""
    delay: int = Field(ge=0)
    """Inputs between an answer and its label."""
    resamples: int = Field(ge=100)
    seed: int
    params: dict[str, Any]
    """What is other in the world of the replay than in params.yaml."""
    injected: Injected

    @field_validator("since")
    @classmethod
    def _is_a_time(cls, since: str | None) -> str | None:
        if since is not None:
            datetime.fromisoformat(since)  # its error says what is wrong
        return since

    @model_validator(mode="after")
    def _has_one_stream(self) -> Replay:
        if self.since is not None and self.drawn is not None:
            raise ValueError("since and drawn are two sources of one stream: one of them has to be null")
        return self


def every_window(state: State) -> tuple[JudgedWindow, ...]:
    """All judged windows, oldest first."""
    return state.past(sys.maxsize, -1)


def judge_traffic(world: Paths, environment: Mapping[str, str], log: Path, state: State) -> tuple[JudgedWindow, ...]:
    """Run the flow monitor once; the windows that it judged."""
    before = every_window(state)
    run_in(world.root, environment, log, sys.executable, "-m", "flows.monitor")
    return every_window(state)[len(before) :]


def follow(settings: Replay, world: Paths, environment: dict[str, str], stream: pd.DataFrame, progress: Any) -> dict[str, Any]:
    """Send the stream, watch it, act when the monitor says so; every answer, window and change."""
    home, log = world.home, world.project / "replay.log"
    window = read_settings(Monitor, "monitor", read_params(world.root)).windows.count
    pointer = read_pointer(home / "store")
    assert pointer is not None
    frozen = Release(release_folder(home / "store", pointer.champion))
    state = State(home / "monitor/state.db")
    answers: list[tuple[Any, ...]] = []
    windows: list[JudgedWindow] = []
    changes: list[dict[str, Any]] = []
    arm = RecalibratedArm(world, world.project / "recalibrated", settings.labelled, settings.delay, settings.seed)
    with closing(arm), service(world.project, environment, home, None, world.project / "service.log") as client:
        reviewer = Reviewer(client, settings.labelled, settings.delay, settings.seed)
        rows: list[dict[str, Any]] = stream.to_dict("records")  # type: ignore[assignment]
        for number, row in enumerate(rows, start=1):
            raw = frozen.serving.raw_of(row)
            if not frozen.preprocess(raw):
                progress.update()
                continue
            request = replay_part(frozen.kind).as_request(raw)
            said = ask(client, request)
            others = [frozen.answer([raw])[0].label, arm.answer(number, row, raw)]
            answers.append((number, row["period"], row["label"], *others, said["label"], said["release"]))
            reviewer.see(number, row["id"], said["id"], row["label"], request)
            reviewer.work(number)
            progress.set_postfix(period=row["period"], release=said["release"], labels=reviewer.label_count, refresh=False)
            progress.update()
            if len(answers) % window == 0:
                time.sleep(1)  # the journal's last group commit, and a status record
                judged = judge_traffic(world, environment, log, state)
                windows += judged
                here = {"number": number, "period": row["period"], "labels": reviewer.label_count}
                changes += [
                    rollback_change(seen) | here for seen in judged if seen.decision and seen.decision.action == "rollback"
                ]
                while (intent := state.open_intent("recalibrate") or state.open_intent("restill")) is not None:
                    changes.append(restill_now(world, environment, log, state, intent.id, client, progress) | here)
    names = ["number", "period", "label", *MODELS, "release"]
    found = {"answers": pd.DataFrame(answers, columns=names), "windows": windows, "changes": changes}
    return found | {"recalibrations": arm.changes}


def restill_now(
    world: Paths, environment: Mapping[str, str], log: Path, state: State, identity: int, client: Client, progress: Any
) -> dict[str, Any]:
    """Run the flow restill until the intent is closed, and wait until the service answers with what it promoted."""
    progress.set_postfix(restilling=identity)
    for _ in range(int(read_params(world.root)["restill"]["attempts"]) + MORE):
        try:
            run_in(world.root, environment, log, sys.executable, "-m", "flows.restill")
        except StageError as error:
            progress.write(str(error))
        if state.intent(identity).outcome is not None:
            break
    else:
        raise StageError(f"intent {identity} does not end, however often restill is run: {log}")
    intent = state.intent(identity)
    release = intent.facts.get("release") if intent.outcome == "promoted" else None
    until = time.monotonic() + SWAP_SECONDS
    while release and client.call("GET", "/model")[1]["release"] != release:
        if time.monotonic() > until:
            raise StageError(f"release {release} was promoted, and the service does not serve it")
        time.sleep(0.2)
    decided = [seen.decision.reasons for seen in every_window(state) if seen.decision and seen.decision.id == intent.decision]
    why = "; ".join(*decided) if release else "; ".join(intent.facts.get("failed") or [intent.facts.get("error") or ""])
    return {"kind": intent.kind, "outcome": intent.outcome, "release": release, "why": why}


def inject(
    world: Paths, environment: Mapping[str, str], release: Path, scenario: Scenario, window: int, progress: Any
) -> dict[str, Any]:
    """One injected change, through a service and a monitor with a runtime state of their own."""
    base = world.project / "injected" / scenario.name.replace(" ", "-").replace("%", "")
    home = base / world.workload
    shutil.copytree(world.store, home / "store")
    own = dict(environment) | {"RESTILL_HOME": str(base)}
    log, as_request = world.project / "replay.log", replay_part(kind_of(world)).as_request
    with service(world.project, own, home, release, world.project / "service.log") as client:
        for raw in scenario.raws:
            client.call("POST", "/classify", as_request(raw))
            progress.update()
    state = State(home / "monitor/state.db")
    judged = judge_traffic(world, own, log, state)
    loud = [entry for entry in judged if entry.decision is not None and entry.decision.action != "none"]
    after = max(0, loud[0].number * window - scenario.start) if loud else None
    actions = [entry.decision.action for entry in loud if entry.decision is not None]
    right = bool(loud) if scenario.must_be_seen else not loud
    return {"name": scenario.name, "inputs": len(scenario.raws), "decisions": actions, "seen_after": after, "right": right}


def split(settings: Replay, paths: Paths) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(what the frozen model knows, the stream) of the workload's source. Raises StageError."""
    params, kind = read_params(paths.root), kind_of(paths)
    if settings.since is None and settings.drawn is None:
        raise StageError(
            "replay: since and drawn are null: a replay needs the time from which the stream runs, or what to draw"
        )
    source = read_settings(settings_class(kind, "ingest"), "ingest", params)
    since = as_time(datetime.fromisoformat(settings.since)) if settings.since else None
    with chdir(paths.root):  # what params.yaml names is below it
        rows = data_part(kind).read(source, paths)
        corpus, _, _ = collect(rows, data_part(kind).CONTENT, since, source.feedback_weight, source.label_mix_prior)
    if settings.drawn is not None:
        prepare = read_settings(settings_class(kind, "prepare"), "prepare", params)
        serving = serving_class(kind)(data_part(kind).serving_settings(prepare))
        known, stream = draw(corpus, settings.drawn, kind, serving, settings.seed)
    else:
        known, stream = corpus[corpus.known], corpus[~corpus.known].reset_index(drop=True)
    if stream.empty or known.empty:
        raise StageError(f"replay.since = {settings.since}: {len(known)} rows before it, {len(stream)} after it")
    if settings.positive is not None:
        demand_label(settings.positive, known, stream)
    return known, with_periods(stream)


def replay(settings: Replay, paths: Paths, folder: Path, injected: bool) -> dict[str, Any]:
    """The whole replay; its report."""
    started = time.monotonic()
    known, stream = split(settings, paths)
    environment = make_world(paths, folder / "world", known, settings.params)
    world = Paths(folder / "world" / paths.root.relative_to(paths.project), folder / "world/var" / paths.workload)
    log = world.project / "replay.log"
    print(f"The world before the stream: {len(known)} rows. Training (its output: {log})", flush=True)
    with prefect(world.project, environment, world.project / "prefect.log") as environment:
        run_in(world.root, environment, log, sys.executable, "-m", "flows.pipeline")
        run_in(world.root, environment, log, sys.executable, "-m", "tasks.release.promote", "--bootstrap", "release")
        with tqdm(total=len(stream), desc="stream", unit=" inputs", mininterval=1) as progress:
            found = follow(settings, world, environment, stream, progress)
        changes = inject_all(settings, world, environment) if injected else []
    return {
        "since": settings.since, "labelled": settings.labelled, "delay": settings.delay, "seed": settings.seed,
        "positive": settings.positive, "known": len(known), "injected": changes, "begins": begins(settings, stream),
        **figures(found, settings.positive, settings.resamples, settings.seed),
        "minutes": round((time.monotonic() - started) / 60, 1),
    }  # fmt: skip


def begins(settings: Replay, stream: pd.DataFrame) -> list[dict[str, Any]]:
    """The changes of a drawn stream, with ``place``, the index of the period in which each begins."""
    names = list(dict.fromkeys(stream.period))
    changes = settings.drawn.changes if settings.drawn is not None else ()
    return [entry.model_dump() | {"place": names.index(stream.period[entry.start])} for entry in changes]


def demand_label(positive: str, known: pd.DataFrame, stream: pd.DataFrame) -> None:
    """Raises StageError where no row before or in the stream is positive: half an hour later it would have no figure."""
    for which, part in (("before the stream", known), ("in the stream", stream)):
        if positive not in set(part.label):
            labels = ", ".join(sorted(map(str, set(part.label))))
            raise StageError(f"replay.positive = {positive}: the labels {which} are {labels}")


def inject_all(settings: Replay, world: Paths, environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each injected change; the label mix moves by the positive label, or by the first one."""
    window = read_settings(Monitor, "monitor", read_params(world.root)).windows.count
    rows = pd.read_parquet(world.prepared)
    pool = rows[rows.split.isin(["valid", "test", "golden"])].reset_index(drop=True)
    chosen = settings.injected
    label = settings.positive if settings.positive is not None else min(pool.label)
    every = scenarios(kind_of(world), pool, label, chosen.inputs, window, chosen.changed, chosen.prior, settings.seed)
    with tqdm(total=sum(len(s.raws) for s in every), desc="injected", unit=" inputs", mininterval=1) as progress:
        return [inject(world, environment, world.release, scenario, window, progress) for scenario in every]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flows.replay", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_option(parser)
    parser.add_argument("--out", type=Path, help="where the world and the report are made; default: var/WORKLOAD/replay")
    parser.add_argument("--no-injected", action="store_true", help="leave the injected changes out")
    given = parser.parse_args()
    try:
        get_ready(api=False)
        paths = find_workload(given.workload)
        out: Path = given.out or paths.home / "replay"
        report = replay(read_settings(Replay, "replay", read_params(paths.root)), paths, out.resolve(), not given.no_injected)
    except StageError as error:
        sys.exit(f"replay: {error}")
    write_json(out / "replay.json", report)
    with atomic_write(out / "replay.html") as temporary:
        temporary.write_text(replay_page(report), encoding="utf-8")
    with atomic_write(out / "periods.svg") as temporary:
        temporary.write_text(draw_periods(report), encoding="utf-8")
    for title, entry in report["totals"].items():
        print(f"{title}: {entry['inputs']} inputs")
        for name in metrics_of(report):
            figures_of_all = "  ".join(f"{model} {_figure(entry[model][name])}" for model in MODELS)
            differences = "  ".join(f"{model} {found[name]['interval']}" for model, found in entry["difference"].items())
            print(f"  {name:20} {figures_of_all}  difference to frozen: {differences}")
    for entry in report["injected"]:
        seen = f"seen after {entry['seen_after']}" if entry["seen_after"] is not None else "not seen"
        print(f"injected: {entry['name']}: {seen}, {'as it should be' if entry['right'] else 'WRONG'}")
    print(f"{report['minutes']} minutes; {out / 'replay.html'}")


if __name__ == "__main__":
    run_command("replay", main)
