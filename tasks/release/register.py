"""Effect register: the packaged release as a version of the registered model, and the story on the pipeline's run.

``python -m tasks.release.register`` does it by hand after a plain ``dvc repro``; doing it twice changes nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import mlflow
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from service.release import ReleaseError, verify
from tasks.release.table import evaluation_rows, markdown
from tasks.stage import Paths, read_json
from tasks.tracking import connect

MODEL = "restill"
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec("string", "text")]),
    outputs=Schema([ColSpec("string", "label"), ColSpec("double", "score"), ColSpec("string", "release")]),
)
REQUIREMENTS = ("numpy", "onnxruntime", "selectolax")


def registered_version(release: str) -> str | None:
    """The version of the registered model that is this release, if there is one."""
    found = mlflow.MlflowClient().search_model_versions(f"name = '{MODEL}' and tags.release = '{release}'")
    return str(found[0].version) if found else None


def register(paths: Paths) -> tuple[str, bool]:
    """(version, whether it is new) of the release in release/, under the alias ``challenger``.

    Raises ReleaseError where the release is not whole.
    """
    release = verify(paths.release)
    connect(paths.root)
    if version := registered_version(release):
        return version, False
    lineage = read_json(paths.release / "lineage.json")
    pipeline = lineage["mlflow"]["evaluate"]["pipeline"]
    versions = lineage["packages"]
    with mlflow.start_run(run_id=pipeline):
        info = mlflow.pyfunc.log_model(
            name="release",
            python_model=str(Path(__file__).with_name("pyfunc.py")),
            artifacts={"release": str(paths.release)},
            code_paths=[str(paths.root / "service")],
            signature=SIGNATURE,
            pip_requirements=[f"{name}=={versions[name]}" for name in REQUIREMENTS],
            registered_model_name=MODEL,
            metadata={"release": release},
        )
    client = mlflow.MlflowClient()
    version = str(info.registered_model_version)
    client.set_model_version_tag(MODEL, version, "release", release)
    client.set_model_version_tag(MODEL, version, "git.commit", lineage["git_commit"])
    client.set_registered_model_alias(MODEL, "challenger", version)
    client.set_tag(pipeline, "restill.release", release)
    client.set_tag(pipeline, "mlflow.note.content", story(paths, release, version, lineage))
    return version, True


def story(paths: Paths, release: str, version: str, lineage: dict[str, Any]) -> str:
    """What a reviewer should know of this pipeline run, as Markdown for its page."""
    lines = [
        f"Release **{release}**, version {version} of the model `{MODEL}`, from commit `{lineage['git_commit']}`.",
        "",
        markdown(evaluation_rows(read_json(paths.report("evaluation.json")))),
    ]
    lines += ["", "The runs that made it (a stage that was up to date keeps its earlier run):", ""]
    lines += [f"- {stage}: `{ids['run']}`" for stage, ids in lineage["mlflow"].items()]
    lines += ["", "The whole report is the artifact `evaluation.html`."]
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        version, new = register(Paths(Path.cwd()))
    except ReleaseError as error:
        sys.exit(f"register: {error}")
    print(f"{MODEL} version {version}" if new else f"{MODEL} version {version} is this release already")
