"""The house rules, held by machine: floors, names, dependencies, one home for everything."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.deployments import Deployments
from tasks.kinds import PARTS, settings_class
from tasks.release.choice import exported
from tasks.replay.world import merged
from tasks.stage import Paths, Settings, read_settings
from tests.imports import FLOORS, MAIL, ROOT, closure, file_of, local_imports

STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
WORKLOADS: dict[str, dict[str, Any]] = {
    path.parent.name: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "workloads").glob("*/params.yaml"))
}
PARAMS = WORKLOADS["mail"]
KINDS = sorted({params["kind"] for params in WORKLOADS.values()})
SHARED: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
EFFECTS = {
    "restill": "flows.restill",
    "replay": "flows.replay",
    "recalibrate": "tasks.release.recalibrate",
    "gate": "tasks.release.gate",
    "monitor": "tasks.monitor.settings",
    "decide": "tasks.monitor.policy",
    "tune": "tasks.tune.search",
}
"""Blocks of ``params.yaml`` that no stage reads: what touches time or the world, and the module with its settings."""
MADE = ("data/", "models/", "reports/", "release")
"""Where outputs of stages lie."""
BELOW = {"service": {"service"}, "tasks": {"tasks", "service"}, "flows": {"flows", "tasks", "service"}}
MODULES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))
CONSTRAINTS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if "==" in line and not line.startswith("#")
)


def module_of(stage: str) -> Path:
    return ROOT / (name_of_module(stage).replace(".", "/") + ".py")


def name_of_module(stage: str) -> str:
    """A stage runs in its workload's folder, on the code of the project around it."""
    command, name = STAGES[stage]["cmd"].rsplit(maxsplit=1)
    assert command == "PYTHONPATH=../.. python -m"
    assert name.startswith("tasks.")
    return str(name)


def settings_of(stage: str, kind: str) -> type[Settings]:
    if stage in PARTS:
        return settings_class(kind, stage)
    name = EFFECTS.get(stage) or name_of_module(stage)
    found: type[Settings] = getattr(importlib.import_module(name), stage.capitalize())
    return found


def names(entries: list[Any]) -> list[str]:
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def filled(dep: str) -> str:
    """A dependency with its parameters put in, as DVC does it."""
    dep = dep.replace("${kind}", PARAMS["kind"])
    return re.sub(r"\$\{(\w+)\.(\w+)\}", lambda found: str(PARAMS[found[1]][found[2]]), dep)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_go_down_only(path: Path) -> None:
    floor = path.relative_to(ROOT).parts[0]
    for other in local_imports(path):
        assert other.relative_to(ROOT).parts[0] in BELOW[floor], f"{path.name} imports {other}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_every_module_imports_and_no_name_says_nothing(path: Path) -> None:
    relative = path.relative_to(ROOT).with_suffix("")
    assert path.stem not in {"utils", "helpers", "common", "misc"}
    if relative.parts != ("tasks", "release", "pyfunc"):  # MLflow runs that one, and it registers itself
        importlib.import_module(".".join(part for part in relative.parts if part != "__init__"))


@pytest.mark.parametrize("stage", STAGES)
def test_stage_module_params_block_and_function_have_one_name(stage: str) -> None:
    path = module_of(stage)
    assert path.stem == stage
    assert stage in STAGES[stage]["params"]
    module = importlib.import_module(name_of_module(stage))
    assert callable(getattr(module, stage))
    assert STAGES[stage]["desc"]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_kind_imports_no_other_and_nothing_else_names_one(path: Path) -> None:
    """What is shared loads a kind by its name; a kind may import what is shared, and itself."""

    def kind_in(file: Path) -> str | None:
        parts = file.relative_to(ROOT).parts
        return parts[2] if parts[1] == "kinds" and len(parts) > 3 else None

    own = kind_in(path)
    for other in local_imports(path):
        assert kind_in(other) in (None, own), f"{path.relative_to(ROOT)} imports {other.relative_to(ROOT)}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", STAGES)
def test_deps_cover_the_module_and_all_it_imports(stage: str, kind: str) -> None:
    deps = {dep.removeprefix("../../").replace("${kind}", kind) for dep in names(STAGES[stage]["deps"])}
    start = [module_of(stage)]
    if stage in PARTS:
        part = file_of(f"tasks.kinds.{kind}.{PARTS[stage]}")
        assert part is not None
        start.append(part)
    needed = {str(path.relative_to(ROOT)) for path in closure(start, kind)}
    code = {dep for dep in deps if dep.startswith(FLOORS)}
    missing = {name for name in needed if not any(name == dep or name.startswith(f"{dep}/") for dep in code)}
    assert not missing, f"missing in dvc.yaml: {sorted(missing)}"
    for dep in deps:
        if not dep.startswith((*MADE, "${")):
            assert (ROOT / dep).exists() or (MAIL / dep).exists(), dep


@pytest.mark.parametrize("stage", STAGES)
def test_no_dependency_on_code_is_idle(stage: str) -> None:
    """Each file or package in ``deps`` is needed for some kind."""
    needed: set[str] = set()
    for kind in KINDS:
        start = [module_of(stage)]
        start += [file for file in (file_of(f"tasks.kinds.{kind}.{PARTS.get(stage, 'none')}"),) if file is not None]
        needed |= {str(path.relative_to(ROOT)).replace(f"/kinds/{kind}/", "/kinds/${kind}/") for path in closure(start, kind)}
    for dep in names(STAGES[stage]["deps"]):
        name = dep.removeprefix("../../")
        if name.startswith(FLOORS) and not name.endswith(".j2"):
            modules = (f"{name}/", f"{name}.py")
            assert name in needed or any(file.startswith(modules) for file in needed), f"{stage}: {name} is not imported"


def test_every_file_a_stage_reads_is_made_by_one_before_it() -> None:
    made: set[str] = set()
    for stage in STAGES.values():
        for dep in names(stage["deps"]):
            if dep.startswith(MADE):
                dep = filled(dep)
                assert dep in made, f"{dep} is read before it is made"
        made |= set(names(stage.get("outs", []) + stage.get("metrics", []) + stage.get("plots", [])))


def test_package_depends_on_every_variant_that_it_may_choose() -> None:
    models = {dep for dep in names(STAGES["package"]["deps"]) if dep.startswith("models/")}
    assert models == {f"models/{name}" for name in PARAMS["package"]["among"]}


@pytest.mark.parametrize("workload", WORKLOADS)
def test_what_may_be_released_is_evaluated_or_a_form_of_the_teacher_and_ends_in_the_teacher_itself(
    workload: str,
) -> None:
    own = WORKLOADS[workload]
    for params in (own, merged(own, own["replay"]["params"])):
        *others, last = params["package"]["among"]
        assert last == exported(params["evaluate"]["teacher"])
        later = [name for name in others if name not in params["evaluate"]["variants"]]
        assert later == others[len(others) - len(later) :], "package evaluates what comes last, if it comes to it"
        assert all(name.startswith(f"{params['evaluate']['teacher']}-") for name in later)
    assert own["package"]["margin"] <= own["package"]["largest_loss"]


def test_the_world_of_a_replay_has_valid_params_and_evaluates_its_teacher() -> None:
    params = merged(PARAMS, PARAMS["replay"]["params"])
    for stage in (*STAGES, *EFFECTS):
        read_settings(settings_of(stage, params["kind"]), stage, params)
    assert params["evaluate"]["teacher"] in params["evaluate"]["variants"]


def test_evaluate_depends_on_every_variant_that_it_may_judge() -> None:
    models = {dep for dep in names(STAGES["evaluate"]["deps"]) if dep.startswith("models/")}
    assert models == {f"models/{name}" for name in PARAMS["evaluate"]["variants"]}


def test_the_path_of_compression_is_of_variants_and_ends_in_what_is_released() -> None:
    block = PARAMS["compression"]
    for params in (PARAMS, merged(PARAMS, PARAMS["replay"]["params"])):
        assert {*block["path"], *block["beside"], block["student"]} <= set(params["evaluate"]["variants"])
    assert block["path"][0] == PARAMS["evaluate"]["teacher"]
    assert block["student"] == block["path"][-1] == PARAMS["package"]["among"][0]
    assert block["path"][-2] == PARAMS["quantize"]["parent"]


def test_every_output_survives_a_stage_that_fails() -> None:
    for name, stage in STAGES.items():
        for entry in stage.get("outs", []) + stage.get("metrics", []) + stage.get("plots", []):
            assert isinstance(entry, dict), f"{name}: {entry} is not persisted"
            assert next(iter(entry.values()))["persist"] is True


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("stage", [*STAGES, *EFFECTS])
def test_params_are_valid_complete_and_nothing_else(stage: str, workload: str) -> None:
    params = WORKLOADS[workload]
    settings = settings_of(stage, params["kind"])
    read_settings(settings, stage, params)
    for name, field in settings.model_fields.items():
        assert field.is_required(), f"{stage}.{name} has a default in the code"


@pytest.mark.parametrize("workload", WORKLOADS)
def test_params_holds_no_block_that_no_stage_reads(workload: str) -> None:
    assert set(WORKLOADS[workload]) == set(STAGES) | set(EFFECTS) | {"kind"}
    assert set(SHARED) == {"workloads", "deployments"}
    read_settings(Deployments, "deployments", SHARED)


def test_paths_and_graph_name_the_same_places() -> None:
    made = {out for stage in STAGES.values() for out in names(stage.get("outs", []))}
    paths = Paths(Path())
    for path in (paths.corpus, paths.validated, paths.prepared, paths.schema, paths.logits, paths.release):
        assert str(path) in made


def test_every_dependency_is_pinned_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {re.sub(r"[-_.]+", "-", name).lower() for name in CONSTRAINTS}
    for name in project["dependencies"] + [name for extra in project["optional-dependencies"].values() for name in extra]:
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name), f"{name}: versions stand in constraints.txt"
        assert re.sub(r"[-_.]+", "-", name).lower() in pinned, name


def test_the_bento_runs_on_the_versions_that_were_tested() -> None:
    bento = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    module, _, name = bento["service"].partition(":")
    assert hasattr(importlib.import_module(module), name)
    for requirement in bento["python"]["packages"]:
        package, version = requirement.split("==")
        assert CONSTRAINTS[package] == version, requirement


def test_the_bento_needs_no_tool_of_the_floors_above() -> None:
    bento = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    packed = {requirement.split("==")[0] for requirement in bento["python"]["packages"]}
    assert not packed & {"torch", "transformers", "prefect", "mlflow", "dvc", "evidently", "great-expectations"}


def test_no_secret_host_or_machine_path_is_written_anywhere() -> None:
    forbidden = re.compile(
        r"/root/|/home/[a-z]|registry\.npmjs|pypi\.org|files\.pythonhosted|(?:api|secret)_?key\s*[:=]\s*['\"]\w{8}", re.I
    )
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(listed) > 150
    for path in (ROOT / name for name in listed):
        if path.is_file() and path != Path(__file__):
            assert not forbidden.search(path.read_text(errors="replace")), path


def make_database(folder: Path, **environment: str) -> str:
    """What make knows after reading our Makefile, on a machine that has make, cat and a shell."""
    for name in ("make", "cat", "sh"):
        (folder / name).symlink_to(str(shutil.which(name)))
    return subprocess.run(
        ["make", "-pn", "help"], cwd=ROOT, env={"PATH": str(folder), **environment}, capture_output=True, text=True, check=False
    ).stdout


def test_a_machine_without_npm_gets_the_one_from_pypi(tmp_path: Path) -> None:
    assert "EXTRAS := dev,npm" in make_database(tmp_path)


def test_every_tool_is_offline_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    database = make_database(tmp_path, HF_HUB_OFFLINE="0")
    assert re.search(r"^HF_HUB_OFFLINE = 0$", database, re.M)
    for line in (ROOT / "offline.env").read_text().splitlines():
        name, value = line.split("=")
        assert name == "HF_HUB_OFFLINE" or re.search(rf"^{name} = {value}$", database, re.M), line
