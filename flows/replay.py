"""The replay behind `make demo`: months of real mail through the real loop, frozen against restilled.

    python -m flows.replay             everything; the page is var/replay/replay.html
    python -m flows.replay --no-injected

A world that ends at ``replay.since`` is trained, promoted and served. What came later is sent to the service in its
order; a tenth of it gets its label some time after. The flows monitor and restill run as they would by schedule, after
each window of messages; while a retraining runs, the stream waits.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import log10
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field
from tqdm import tqdm

from service.access import add
from service.release import Release
from service.store import read_pointer, release_folder
from service.text import document
from tasks.data.ingest import Ingest, collect, read_source
from tasks.monitor.decide import Seen
from tasks.monitor.state import State
from tasks.monitor.watch import Monitor
from tasks.replay.page import draw_weeks, replay_page
from tasks.replay.scenarios import Scenario, scenarios
from tasks.replay.stream import Client, Reviewer, ask
from tasks.replay.weeks import MODELS, total, weekly
from tasks.replay.world import make_world, run_in
from tasks.stage import Paths, Settings, StageError, as_time, read_params, read_settings, whole, write_json

SWAP_SECONDS = 30


class Injected(Settings):
    messages: int = Field(ge=1)
    campaign: float = Field(gt=0, lt=1)
    """Share of the unseen campaign."""
    prior: float = Field(gt=0, lt=1)
    """Points by which the positive label's share is moved."""


class Replay(Settings):
    since: str
    """The frozen model knows what was received before this time; what follows is the stream."""
    positive: str
    labelled: float = Field(gt=0, le=1)
    """Share of the answered messages that a reviewer labels."""
    delay: int = Field(ge=0)
    """Messages between an answer and its label."""
    resamples: int = Field(ge=100)
    seed: int
    params: dict[str, Any]
    """What is other in the world of the replay than in params.yaml."""
    injected: Injected


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


@contextmanager
def service(world: Path, environment: Mapping[str, str], home: Path, release: Path | None, log: Path) -> Iterator[Client]:
    """The service on a free port of loopback, over the runtime state in ``home``; stopped at the end."""
    key = add(home / "keys.json", "replay", ["classify", "feedback"])
    port = free_port()
    own = dict(environment) | {"RESTILL_HOME": str(home), "RESTILL_STATUS_SECONDS": "5"}
    if release is not None:
        own["RESTILL_RELEASE"] = str(release)
    command = [sys.executable, "-m", "bentoml", "serve", "service.app:Restill", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("ab") as out:
        process = subprocess.Popen(command, cwd=world, env=own, stdout=out, stderr=out, start_new_session=True)
    try:
        yield _ready(port, key, process, log)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _ready(port: int, key: str, process: subprocess.Popen[bytes], log: Path) -> Client:
    for _ in range(240):
        if process.poll() is not None:
            break
        try:
            client = Client(port, key)
            if client.call("GET", "/model")[0] == 200:
                return client
        except (OSError, ValueError):
            time.sleep(0.5)
    raise StageError(f"the service did not start: {log}")


def every_window(state: State) -> tuple[Seen, ...]:
    """All judged windows, oldest first."""
    return state.past(sys.maxsize, -1)


def judge_traffic(world: Path, environment: Mapping[str, str], log: Path, state: State) -> tuple[Seen, ...]:
    """Run the flow monitor once; the windows that it judged."""
    before = every_window(state)
    run_in(world, environment, log, sys.executable, "-m", "flows.monitor")
    return every_window(state)[len(before) :]


def follow(settings: Replay, world: Path, environment: dict[str, str], stream: pd.DataFrame, progress: Any) -> dict[str, Any]:
    """Send the stream, watch it, restill when the monitor says so; every answer, window and change."""
    home, log = world / "var", world / "replay.log"
    window = read_settings(Monitor, "monitor", read_params(world)).windows.count
    pointer = read_pointer(home / "store")
    assert pointer is not None
    frozen = Release(release_folder(home / "store", pointer.champion))
    state = State(home / "monitor/state.db")
    answers: list[tuple[Any, ...]] = []
    windows: list[Seen] = []
    changes: list[dict[str, Any]] = []
    with service(world, environment, home, None, world / "service.log") as client:
        reviewer = Reviewer(client, settings.labelled, settings.delay, settings.seed)
        for number, row in enumerate(stream.to_dict("records"), start=1):
            text = document(row["subject"], row["text"])[: frozen.limits["characters"]]
            if not frozen.normalise(text):
                progress.update()
                continue
            said = ask(client, text)
            answers.append(
                (row["id"], row["received"], row["label"], frozen.answer([text])[0].label, said["label"], said["release"])
            )
            reviewer.see(number, row["id"], said["id"], row["label"], text)
            reviewer.work(number)
            progress.update()
            progress.set_postfix(day=str(row["received"].date()), release=said["release"], labels=reviewer.given)
            if len(answers) % window == 0:
                time.sleep(1)  # the journal's last group commit, and a status record
                windows += judge_traffic(world, environment, log, state)
                if (intent := state.open_intent("restill")) is not None:
                    changes.append(restill_now(world, environment, log, state, intent.id, client, progress) | {
                        "number": number, "received": row["received"], "labels": reviewer.given})  # fmt: skip
    names = ["id", "received", "label", "frozen", "restilled", "release"]
    return {"answers": pd.DataFrame(answers, columns=names), "windows": windows, "changes": changes}


def restill_now(
    world: Path, environment: Mapping[str, str], log: Path, state: State, identity: int, client: Client, progress: Any
) -> dict[str, Any]:
    """Run the flow restill until the intent is closed, and wait until the service answers with what it promoted."""
    progress.set_postfix(restilling=identity)
    while state.intent(identity).outcome is None:
        try:
            run_in(world, environment, log, sys.executable, "-m", "flows.restill")
        except StageError as error:
            progress.write(str(error))
    intent = state.intent(identity)
    release = intent.facts.get("release") if intent.outcome == "promoted" else None
    until = time.monotonic() + SWAP_SECONDS
    while release and client.call("GET", "/model")[1]["release"] != release:
        if time.monotonic() > until:
            raise StageError(f"release {release} was promoted, and the service does not serve it")
        time.sleep(0.2)
    decided = [seen.decision.reasons for seen in every_window(state) if seen.decision and seen.decision.id == intent.decision]
    why = "; ".join(*decided) if release else "; ".join(intent.facts.get("failed") or [intent.facts.get("error", "")])
    return {"outcome": intent.outcome, "release": release, "why": why}


def inject(
    world: Path, environment: Mapping[str, str], release: Path, scenario: Scenario, window: int, progress: Any
) -> dict[str, Any]:
    """One injected change, through a service and a monitor with a runtime state of their own."""
    home = world / "injected" / scenario.name.replace(" ", "-").replace("%", "")
    shutil.copytree(world / "var/store", home / "store")
    own = dict(environment) | {"RESTILL_HOME": str(home)}
    log = world / "replay.log"
    with service(world, own, home, release, world / "service.log") as client:
        for text in scenario.texts:
            client.call("POST", "/classify", {"text": text})
            progress.update()
    state = State(home / "monitor/state.db")
    judged = judge_traffic(world, own, log, state)
    loud = [entry for entry in judged if entry.decision is not None and entry.decision.action != "none"]
    after = max(0, loud[0].number * window - scenario.start) if loud else None
    actions = [entry.decision.action for entry in loud if entry.decision is not None]
    right = bool(loud) if scenario.must_be_seen else not loud
    return {"name": scenario.name, "messages": len(scenario.texts), "decisions": actions, "seen_after": after, "right": right}


def replay(settings: Replay, root: Path, folder: Path, injected: bool) -> dict[str, Any]:
    """The whole replay; its report."""
    started = time.monotonic()
    params = read_params(root)
    since = as_time(pd.Timestamp(settings.since).to_pydatetime())
    source = read_settings(Ingest, "ingest", params)
    corpus, _ = collect(read_source(source, Paths(root)), since, source.feedback_weight, source.label_mix_prior)
    known, stream = corpus[corpus.known], corpus[~corpus.known].reset_index(drop=True)
    if stream.empty or known.empty:
        raise StageError(f"replay.since = {settings.since}: {len(known)} messages before it, {len(stream)} after it")
    world = folder / "world"
    environment = make_world(root, world, known, settings.params)
    log = world / "replay.log"
    print(f"The world before {settings.since}: {len(known)} messages. Training (its output: {log})", flush=True)
    run_in(world, environment, log, sys.executable, "-m", "flows.pipeline")
    run_in(world, environment, log, sys.executable, "-m", "tasks.release.promote", "--bootstrap", "release")
    with tqdm(total=len(stream), desc="stream", unit=" messages", mininterval=1) as progress:
        found = follow(settings, world, environment, stream, progress)
    report = {
        "since": settings.since, "labelled": settings.labelled, "delay": settings.delay, "seed": settings.seed,
        "positive": settings.positive, "known": len(known), **figures(settings, found), "injected": [],
    }  # fmt: skip
    if injected:
        report["injected"] = inject_all(settings, world, environment)
    report["minutes"] = round((time.monotonic() - started) / 60, 1)
    return report


def inject_all(settings: Replay, world: Path, environment: Mapping[str, str]) -> list[dict[str, Any]]:
    window = read_settings(Monitor, "monitor", read_params(world)).windows.count
    rows = pd.read_parquet(Paths(world).prepared)
    pool = rows[rows.split.isin(["valid", "test", "golden"])].reset_index(drop=True)
    chosen = settings.injected
    every = scenarios(pool, settings.positive, chosen.messages, window, chosen.campaign, chosen.prior, settings.seed)
    with tqdm(total=sum(len(s.texts) for s in every), desc="injected", unit=" messages", mininterval=1) as progress:
        return [inject(world, environment, world / "release", scenario, window, progress) for scenario in every]


def figures(settings: Replay, found: Mapping[str, Any]) -> dict[str, Any]:
    """Weeks, totals, windows and changes as the report holds them."""
    answers: pd.DataFrame = found["answers"]
    weeks = weekly(answers, settings.positive)
    totals = {"The whole stream": total(answers, settings.positive, settings.resamples, settings.seed)}
    promoted = [change for change in found["changes"] if change["release"]]
    if promoted:
        later = answers[answers.received > promoted[0]["received"]]
        totals["After the first promotion"] = total(later, settings.positive, settings.resamples, settings.seed)
    starts = [week["week"] for week in weeks]
    changes = []
    for change in found["changes"]:
        place = sum(pd.Timestamp(start, tz="UTC") <= change["received"] for start in starts) - 1
        changes.append({**change, "received": str(change["received"]), "place": place, "week": starts[place]})
    windows = [
        {
            "number": seen.number, "release": seen.release, "action": seen.decision.action if seen.decision else "",
            "reasons": list(seen.decision.reasons) if seen.decision else [],
            "surprise": {s.key: round(-log10(max(s.p, 1e-300)), 3) for s in seen.signals if s.p is not None},
        }
        for seen in found["windows"]
    ]  # fmt: skip
    return {"weeks": weeks, "totals": totals, "changes": changes, "windows": windows}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flows.replay", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("var/replay"), help="where the world and the report are made")
    parser.add_argument("--no-injected", action="store_true", help="leave the injected changes out")
    given = parser.parse_args()
    root = Path.cwd()
    try:
        report = replay(read_settings(Replay, "replay", read_params(root)), root, given.out.resolve(), not given.no_injected)
    except StageError as error:
        sys.exit(f"replay: {error}")
    write_json(given.out / "replay.json", report)
    with whole(given.out / "replay.html") as temporary:
        temporary.write_text(replay_page(report), encoding="utf-8")
    with whole(given.out / "weeks.svg") as temporary:
        temporary.write_text(draw_weeks(report), encoding="utf-8")
    for title, entry in report["totals"].items():
        print(f"{title}: {entry['messages']} messages")
        for name, change in entry["difference"].items():
            both = "  ".join(f"{model} {entry[model][name]:.4f}" for model in MODELS)
            print(f"  {name:20} {both}  difference {change['interval']}")
    print(f"{report['minutes']} minutes; {given.out / 'replay.html'}")


if __name__ == "__main__":
    main()
