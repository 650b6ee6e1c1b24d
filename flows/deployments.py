"""The schedules: pipeline, monitor and restill as deployments, served by this process.

    python -m flows.deployments        needs PREFECT_API_URL, the address of a Prefect server

Without a Prefect server nothing can fire a schedule, so that is an error and not silence. Before it serves, it
reconciles: what died with an earlier process does not stay "running" for ever, in Prefect or in MLflow, and runs that
came due while nobody was there are dropped, for the next one does their work too.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from prefect import Flow, serve
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, FlowRunFilterState, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Crashed
from pydantic import Field

from flows.monitor import monitor
from flows.pipeline import pipeline
from flows.restill import restill
from tasks.stage import WORKLOADS, Paths, Settings, StageError, project_folder, read_params, read_settings, workloads
from tasks.tracking import reconcile

FLOWS: dict[str, Flow[Any, Any]] = {"pipeline": pipeline, "monitor": monitor, "restill": restill}
AT_WORK = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
PAGE = 200
"""Runs that the server gives at once, at most."""
WAIT_SECONDS = 90
RUNS = 6
"""Runs at once of a workload: one of each flow, and some that only look and end."""


class Schedule(Settings):
    """When a flow runs by itself: every so many seconds, or by a cron line (UTC); neither: only when it is called."""

    seconds: float | None = Field(gt=0)
    cron: str | None


class Deployments(Settings):
    pipeline: Schedule
    monitor: Schedule
    restill: Schedule


def wait_for_server(seconds: float) -> str:
    """The address of the Prefect server, once it is healthy. Raises StageError where there is none to wait for."""
    address: str | None = PREFECT_API_URL.value()
    if not address:
        raise StageError(
            "PREFECT_API_URL is not set: a schedule needs a Prefect server that fires it. "
            "`make up` starts one, or start `prefect server start` and set PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    until = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):  # noqa: S310  (the user's own server)
                return address
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > until:
                raise StageError(f"PREFECT_API_URL = {address}: no Prefect server answers there: {error}") from error
            time.sleep(1)


def tag_of(root: Path) -> str:
    """The tag on every deployment of this project, and so on its runs: others may have flows of the same names."""
    return f"restill-{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]}"


async def settle_flow_runs(root: Path) -> list[str]:
    """End the runs of our deployments that nobody works on any more; what was done, a line each.

    Whoever serves the deployments is gone when this process starts, and so are its runs.
    """
    done = []
    async with get_client() as client:
        for run in await _unsettled(client, tag_of(root)):
            if state := _settled(run):
                await client.set_flow_run_state(run.id, state, force=True)
                done.append(f"{run.name}: {run.state_name} -> {state.name}")
    return done


async def _unsettled(client: PrefectClient, tag: str) -> list[FlowRun]:
    """Runs of our flows, and with our tag, that say they are at work or late: all pages of them."""
    found: list[FlowRun] = []
    left = FlowRunFilterState.model_validate({"operator": "or_", "type": {"any_": AT_WORK}, "name": {"any_": ["Late"]}})
    while True:
        page = await client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=list(FLOWS))),
            flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[tag]), state=left),
            sort=FlowRunSort.ID_DESC,
            limit=PAGE,
            offset=len(found),
        )
        found += page
        if len(page) < PAGE:
            return found


def _settled(run: FlowRun) -> Any:
    if run.state_type in AT_WORK:
        return Crashed(message="its process died; the next run goes on where it stopped")
    if run.state_name == "Late":
        return Cancelled(message="it came due while nothing served it; the next run does its work")
    return None


def deployment_of(name: str, schedule: Schedule, paths: Paths) -> Any:
    """The deployment ``FLOW/WORKLOAD``. A run that comes while another works sees the lock and ends at once."""
    when: dict[str, Any] = (
        {"interval": schedule.seconds} if schedule.seconds else {"cron": schedule.cron} if schedule.cron else {}
    )
    return FLOWS[name].to_deployment(
        name=paths.workload,
        description=FLOWS[name].__doc__,
        tags=[tag_of(paths.project)],
        parameters={"folder": str(paths.root)},
        **when,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flows.deployments", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.parse_args()
    try:
        project = project_folder()
        schedules = read_settings(Deployments, "deployments", read_params(project))
        every = [Paths(project / WORKLOADS / name) for name in workloads(project)]
        wait_for_server(WAIT_SECONDS)
    except StageError as error:
        sys.exit(f"deployments: {error}")
    for line in asyncio.run(settle_flow_runs(project)):
        print(f"reconciled {line}", flush=True)
    for paths in every:
        for run in reconcile(paths):
            print(f"reconciled MLflow run {run}: its process died", flush=True)
    served = [deployment_of(name, getattr(schedules, name), paths) for paths in every for name in FLOWS]
    serve(*served, pause_on_shutdown=False, limit=RUNS * len(every))


if __name__ == "__main__":
    main()
