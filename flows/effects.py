"""What follows the stages of a run and touches the world, each a Prefect task: the registry, the Bento, the artifacts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from service.release import ReleaseError
from tasks.files import read_json
from tasks.release.bento import bento
from tasks.release.register import register
from tasks.release.table import evaluation_rows
from tasks.stage import Paths, StageError

CACHED = "Cached"
"""How a task that had nothing to do is called in Prefect."""


@task(name="register", retries=2, retry_delay_seconds=2, cache_policy=NO_CACHE)
def register_release(paths: Paths, invocation: str) -> State[Any]:
    return _state("register", "version ", lambda: register(paths, invocation))


@task(name="bento", retries=1, retry_delay_seconds=2, cache_policy=NO_CACHE)
def build_bento(paths: Paths, invocation: str) -> State[Any]:
    return _state("bento", "", lambda: bento(paths))


def _state(name: str, kind: str, make: Callable[[], tuple[object, bool]]) -> State[Any]:
    """How ``make`` ended, which tells what it made and whether that is new. What the user can mend is no traceback."""
    try:
        made, new = make()
    except (StageError, ReleaseError) as error:
        return Failed(message=f"{name}: {' '.join(str(error).split())}")
    message = f"{kind}{made}"
    return Completed(message=message) if new else Completed(name=CACHED, message=message)


@task(name="publish", cache_policy=NO_CACHE)
def publish(paths: Paths) -> None:
    """The evaluation as a Prefect artifact, and where the reports lie."""
    create_table_artifact(
        evaluation_rows(read_json(paths.report("evaluation.json"))),
        key="evaluation",
        description="Every variant on test and future",
    )
    pages = ("evaluation.html", "compression.html", "drift.html", "data_docs/index.html")
    reports = (*pages, "ingest.json", "validate.json", "prepare.json")
    links = [f"- [{name}]({paths.report(name).resolve().as_uri()})" for name in reports]
    create_markdown_artifact("# Reports\n\n" + "\n".join(links), key="reports")
