"""Effect register: the packaged release as a version of the registered model, and the story on the pipeline's run.

``python -m tasks.release.register`` does it by hand after a plain ``dvc repro``; doing it twice changes nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import mlflow
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from service.release import ReleaseError, verify
from tasks.files import read_json
from tasks.release.mirror import alias_registered, evaluated_by
from tasks.release.table import evaluation_rows, markdown
from tasks.stage import Paths, StageError, add_option, find_workload
from tasks.tracking import connect, find_or_make_parent, invocation

SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec("string", "input")]),
    outputs=Schema([ColSpec("string", "label"), ColSpec("double", "score"), ColSpec("string", "release")]),
)
REQUIREMENTS = ("numpy", "onnxruntime", "selectolax")


def commit_of(lineage: dict[str, Any]) -> str:
    """The commit that a release is of, or ``none`` and why."""
    return str(lineage["git_commit"] or f"none: {lineage['git_reason']}")


def registered_version(model: str, release: str) -> str | None:
    """The version of the registered model that is this release, if there is one."""
    found = mlflow.MlflowClient().search_model_versions(f"name = '{model}' and tags.release = '{release}'")
    return str(found[0].version) if found else None


def pipeline_run(experiment: str, lineage: dict[str, Any], paths: Paths, key: str) -> str:
    """The run that tells of this release: the one that evaluated it, unless that tells of another, or is not here."""
    known = evaluated_by(experiment, lineage)
    if known is not None and "restill.release" not in known.data.tags:
        return str(known.info.run_id)
    made = find_or_make_parent(experiment, key, paths)
    mlflow.MlflowClient().set_terminated(made)
    return made


def register(paths: Paths, key: str | None = None, store: Path | None = None) -> tuple[str, bool]:
    """(version, whether it is new) of the release in release/; it is the ``challenger`` where it is not in service.

    ``key`` is the invocation, where the caller knows it. ``store`` says what is in service: a worktree has none of its
    own. Raises ReleaseError where the release is not whole.
    """
    release = verify(paths.release)
    experiment = connect(paths)
    client = mlflow.MlflowClient()
    version = registered_version(paths.name, release)
    new = version is None
    if version is None:
        lineage = read_json(paths.release / "lineage.json")
        pipeline = pipeline_run(experiment, lineage, paths, key or invocation())
        tags = {"release": release, "git.commit": commit_of(lineage)}
        # Logged first and registered in one call with its tags: a kill in between leaves no version without a name.
        version = str(mlflow.register_model(_log(paths, pipeline, release, lineage), paths.name, tags=tags).version)
        client.set_tag(pipeline, "restill.release", release)
        for name, value in headline(read_json(paths.release / "card.json")).items():
            client.log_metric(pipeline, name, value)
        client.update_run(pipeline, name=f"{client.get_run(pipeline).info.run_name}, released {release}")
        client.set_tag(pipeline, "mlflow.note.content", story(paths, release, version, lineage))
    alias_registered(paths.name, store or paths.store, version)
    return version, new


def register_recalibrated(paths: Paths, made: Paths, key: str) -> str:
    """The version of the recalibrated release in ``made``, which gets a run of its own, named by the invocation ``key``.

    Raises ReleaseError where the release is not whole.
    """
    release = verify(made.release)
    experiment = connect(paths)
    client = mlflow.MlflowClient()
    version = registered_version(paths.name, release)
    if version is None:
        lineage = read_json(made.release / "lineage.json")
        found, tags = lineage["recalibrated"], {"release": release, "git.commit": commit_of(lineage)}
        run = find_or_make_parent(experiment, key, paths)
        version = str(mlflow.register_model(_log(made, run, release, lineage), paths.name, tags=tags).version)
        client.update_run(run, name=f"recalibration of {found['parent']}, released {release}")
        client.set_tag(run, "restill.release", release)
        client.set_tag(run, "mlflow.note.content", recalibration_story(paths.name, release, version, found))
        client.set_terminated(run)
    alias_registered(paths.name, paths.store, version)
    return version


def recalibration_story(model: str, release: str, version: str, found: dict[str, Any]) -> str:
    """What a reviewer should know of a recalibration, as Markdown for its run's page."""
    lines = [
        f"Release **{release}**, version {version} of the model `{model}`: the model of release {found['parent']} with other",
        f"decision parameters, for the labels of {found['answers']} answers, {found['of_which_labelled']} of them confirmed:",
        "",
        "| label | share before | share now |",
        "| --- | ---: | ---: |",
    ]
    lines += [f"| {label} | {found['mix_before'][label]:.4f} | {share:.4f} |" for label, share in found["mix"].items()]
    return "\n".join(lines)


def headline(card: dict[str, Any]) -> dict[str, float]:
    """What a pipeline run came to, of the variant that it released; figures that are not known are left out.

    MLflow's table sorts metrics by name, and a digit comes before every letter.
    """
    against, measured = card["against_teacher"], card["figures"][card["variant"]]["metrics"]
    figures = {
        "1_pr_auc_kept_test": against["kept"].get("test", {}).get("pr_auc"),
        "2_times_smaller": against["times_smaller"],
        "3_times_faster": against["times_faster"],
        "4_pr_auc_test": measured.get("test", {}).get("pr_auc"),
        "5_pr_auc_future": measured.get("future", {}).get("pr_auc"),
    }
    return {name: float(value) for name, value in figures.items() if value is not None}


def _log(paths: Paths, pipeline: str, release: str, lineage: dict[str, Any]) -> str:
    """Log the release as a model of the pipeline's run; its URI."""
    versions = lineage["packages"]
    with mlflow.start_run(run_id=pipeline):
        return str(
            mlflow.pyfunc.log_model(
                name="release",
                python_model=str(Path(__file__).with_name("pyfunc.py")),
                artifacts={"release": str(paths.release)},
                code_paths=[str(paths.project / "service")],
                signature=SIGNATURE,
                pip_requirements=[f"{name}=={versions[name]}" for name in REQUIREMENTS],
                metadata={"release": release},
            ).model_uri
        )


def story(paths: Paths, release: str, version: str, lineage: dict[str, Any]) -> str:
    """What a reviewer should know of this pipeline run, as Markdown for its page."""
    model = paths.name
    lines = [
        f"Release **{release}**, version {version} of the model `{model}`, from commit `{commit_of(lineage)}`.",
        "",
        markdown(evaluation_rows(read_json(paths.report("evaluation.json")))),
    ]
    lines += ["", "The runs that made it (a stage that was up to date keeps its earlier run):", ""]
    lines += [f"- {stage}: `{ids['run']}`" for stage, ids in lineage["mlflow"].items()]
    lines += ["", "The whole report is the artifact `evaluation.html`."]
    return "\n".join(lines)


def main() -> None:
    summary, _, rest = str(__doc__).partition("\n\n")
    parser = argparse.ArgumentParser(prog="python -m tasks.release.register", description=summary, epilog=rest)
    add_option(parser)
    arguments = parser.parse_args()
    try:
        paths = find_workload(arguments.workload)
        version, new = register(paths)
    except (ReleaseError, StageError) as error:
        sys.exit(f"register: {error}")
    print(f"{paths.name} version {version}" + ("" if new else " is this release already"))


if __name__ == "__main__":
    main()
