"""The graph that DVC owns, as Prefect needs it. Nothing is changed here, only read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import networkx  # type: ignore[import-untyped]
from dvc.dependency.param import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import SCMError
from dvc.stage import PipelineStage

from flows.fault import dvc_fault
from tasks.stage import Paths, StageError


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
    """Files and folders that it reads, as seen from the workload's folder; parameters are not among them."""
    outs: tuple[str, ...]
    workload: str = ""

    @property
    def address(self) -> str:
        """Its name in DVC: ``train@mail``."""
        return f"{self.name}@{self.workload}" if self.workload else self.name


def read_graph(paths: Paths) -> list[Node]:
    """The workload's stages of ``dvc.yaml`` in an order in which they can run. Raises StageError where DVC cannot read it.

    ``Repo.index.graph`` is not public API; a test holds this function against ``dvc dag``.
    """
    try:
        index = Repo(str(paths.project)).index
        graph = index.graph  # consumer -> producer
        place = {stage: number for number, stage in enumerate(index.stages)}  # as written, where the graph leaves a choice
        order = list(networkx.lexicographical_topological_sort(graph.reverse(), key=place.__getitem__))
    except SCMError as error:
        mend = "say `git init`, or `dvc config --local core.no_scm true` to do without"
        raise StageError(f"{error}, and DVC asks for one: {mend}") from error
    except DvcException as error:
        raise StageError(dvc_fault(error)) from error
    stages = (stage for stage in order if isinstance(stage, PipelineStage))
    selected = [stage for stage in stages if _split(stage.name)[1] == paths.workload]
    return [_node(stage, graph) for stage in selected]


def _split(name: str) -> tuple[str, str]:
    """``train@mail`` as the stage and its workload, which is empty outside of a matrix."""
    stage, _, workload = name.partition("@")
    return stage, workload


def _node(stage: Any, graph: Any) -> Node:
    meta = stage.meta or {}
    unknown = meta.keys() - {"retries", "seconds", "shorter", "timeout"}
    if unknown:
        known = "retries, seconds, shorter and timeout"
        raise StageError(f"dvc.yaml: stage {stage.name}: meta knows {known}, not {', '.join(sorted(unknown))}")
    needs = tuple(sorted(_split(other.name)[0] for other in graph.successors(stage) if isinstance(other, PipelineStage)))
    deps = tuple(dep.def_path for dep in stage.deps if not isinstance(dep, ParamsDependency))
    outs = tuple(out.def_path for out in stage.outs)
    times = meta.get("timeout"), meta.get("shorter"), meta.get("seconds")
    name, workload = _split(stage.name)
    return Node(name, stage.desc or "", int(meta.get("retries", 0)), *times, needs, stage.cmd, deps, outs, workload)
