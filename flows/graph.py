"""The graph that DVC owns, as Prefect needs it. Nothing is changed here, only read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx  # type: ignore[import-untyped]
from dvc.dependency.param import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import SCMError
from dvc.stage import PipelineStage

from flows.fault import dvc_fault
from tasks.stage import StageError


@dataclass(frozen=True)
class Node:
    """One stage of ``dvc.yaml``."""

    name: str
    desc: str
    retries: int
    timeout: float | None
    """Seconds; None: no limit."""
    shorter: str | None
    """The parameters that make its work less."""
    seconds: float | None
    """What it usually takes on two cores; None: nobody knows."""
    needs: tuple[str, ...]
    command: str
    deps: tuple[str, ...]
    """Files and folders that it reads, as seen from the project's root; parameters are not among them."""
    outs: tuple[str, ...]


def read_graph(root: Path) -> list[Node]:
    """The stages of ``dvc.yaml`` in an order in which they can run. Raises StageError where DVC cannot read it.

    ``Repo.index.graph`` is not public API; a test holds this function against ``dvc dag``.
    """
    try:
        index = Repo(str(root)).index
        graph = index.graph  # consumer -> producer
        place = {stage: number for number, stage in enumerate(index.stages)}  # as written, where the graph leaves a choice
        order = list(networkx.lexicographical_topological_sort(graph.reverse(), key=place.__getitem__))
    except SCMError as error:
        mend = "say `git init`, or `dvc config --local core.no_scm true` to do without"
        raise StageError(f"{error}, and DVC asks for one: {mend}") from error
    except DvcException as error:
        raise StageError(dvc_fault(error)) from error
    return [_node(stage, graph) for stage in order if isinstance(stage, PipelineStage)]


def _node(stage: Any, graph: Any) -> Node:
    meta = stage.meta or {}
    unknown = meta.keys() - {"retries", "seconds", "shorter", "timeout"}
    if unknown:
        known = "retries, seconds, shorter and timeout"
        raise StageError(f"dvc.yaml: stage {stage.name}: meta knows {known}, not {', '.join(sorted(unknown))}")
    needs = tuple(sorted(other.name for other in graph.successors(stage) if isinstance(other, PipelineStage)))
    deps = tuple(dep.def_path for dep in stage.deps if not isinstance(dep, ParamsDependency))
    outs = tuple(out.def_path for out in stage.outs)
    times = meta.get("timeout"), meta.get("shorter"), meta.get("seconds")
    return Node(stage.name, stage.desc or "", int(meta.get("retries", 0)), *times, needs, stage.cmd, deps, outs)
