"""The project in folders of any name, by any owner, in any locale: it works, or make and the commands say one clear line."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import yaml
from sqlalchemy import create_engine, text
from supervisor.options import ServerOptions

from flows.supervisor import SERVICE
from tasks.files import sqlite_uri
from tasks.lineage import commit_text, git_commit
from tasks.stage import Paths, StageError, project_folder
from tasks.tracking import connect
from tests.imports import MAIL, ROOT

ODD = "Jörg's 100% #1 what? [x] (y) & ; ~ ! * <z> | a=b@c, ^ %41 %(here)s"
"""Every character that a folder's name may hold here."""
NAMES = [
    "plain",
    "a b",
    " a ",
    "Bücher",
    "what?",
    "what?x=1",
    "#1",
    "100%",
    "%20",
    "it's",
    'a"b',
    "$HOME",
    "a\\b",
    "a\nb",
    "x@y:z",
    ODD,
]


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    folder = tmp_path / ODD
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_database_is_where_its_url_says_and_nowhere_else(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / "mlflow.db"
    path.parent.mkdir()
    engine = create_engine(sqlite_uri(path))
    with engine.begin() as connection:
        connection.execute(text("create table t (x integer)"))
    engine.dispose()
    with sqlite3.connect(path) as opened:
        assert opened.execute("select name from sqlite_master").fetchall() == [("t",)]
    assert [found.name for found in tmp_path.iterdir()] == [name]


def test_a_plain_path_keeps_the_url_that_it_had() -> None:
    assert sqlite_uri(Path("/a b/mlflow.db")) == "sqlite:////a b/mlflow.db"
    assert sqlite_uri(Path("/a?/p.db"), "sqlite+aiosqlite") == "sqlite+aiosqlite:///file:/a%3F/p.db?uri=true"


def test_mlflow_keeps_runs_and_files_in_the_project_s_folder(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # set, and empty: as if it were not set
    monkeypatch.chdir(odd)
    experiment = connect(Paths(odd))
    assert connect(Paths(odd)) == experiment
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.log_text("hello", "notes/a.txt")
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/notes/a.txt") == "hello"
    assert (odd / "mlflow.db").stat().st_size > 0
    assert len(list((odd / "mlartifacts").rglob("a.txt"))) == 1
    assert {found.name for found in odd.iterdir()} == {"mlflow.db", "mlartifacts"}
    assert [found.name for found in odd.parent.iterdir()] == [ODD]


def test_an_mlflow_that_is_not_there_is_one_line_without_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    with pytest.raises(
        StageError, match=r"^MLFLOW_TRACKING_URI = http://\*\*\*@127\.0\.0\.1:9: MLflow cannot be reached: .*$"
    ) as caught:
        connect(Paths(tmp_path))
    assert "secret" not in str(caught.value)


def make(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What make would do in a copy of the Makefile in ``folder``; it does nothing."""
    folder.mkdir(exist_ok=True)
    for name in ("Makefile", "offline.env", "params.yaml", "constraints.txt", "pyproject.toml"):
        shutil.copy2(ROOT / name, folder / name)
    return subprocess.run(
        ["make", "--no-print-directory", "-n", *words], cwd=folder, env=os.environ | environment, capture_output=True,
        encoding="utf-8", check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "name", ["a b", "  a  b ", "Bücher", "what?", "#1", "it's", "[x] (y)", "a&b;c", "-x", "~", "a=b", "*", "<a>|b"]
)
def test_make_works_in_a_folder_of_this_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    done = make(folder, "setup")
    assert done.returncode == 0, done.stderr
    assert f'"{folder}/.venv/bin/python" -m pip install' in done.stdout
    told = [line for line in done.stdout.splitlines() if "BENTOML_HOME" in line]
    (folder / ".venv/bin").mkdir(parents=True)
    subprocess.run(["sh", "-c", "\n".join(told)], cwd=folder, check=True)
    say = '. .venv/bin/activate; echo "$BENTOML_HOME"'
    without = {key: value for key, value in os.environ.items() if key != "BENTOML_HOME"}
    said = subprocess.run(["bash", "-c", say], cwd=folder, env=without, capture_output=True, encoding="utf-8", check=True)
    assert said.stdout == f"{folder}/.bentoml\n"
    said = subprocess.run(["sh", "-c", say], cwd=folder, env=without | {"BENTOML_HOME": "/b"}, capture_output=True, check=True)
    assert said.stdout == b"/b\n"


@pytest.mark.parametrize("name", ["a:b", 'a"b', "a$b", "a\\b", "a`b", "{a", "a}", "a\nb", "100%"])
def test_make_refuses_a_folder_of_this_name_in_one_line(tmp_path: Path, name: str) -> None:
    done = make(tmp_path / name, "run")
    assert done.returncode == 2
    assert not done.stdout
    said = done.stderr.splitlines()
    assert len(said) == 1 + name.count("\n") * ("\n" in done.stderr.removesuffix("\n")), done.stderr
    assert "the name of the" in done.stderr or "whose name holds" in done.stderr


def test_make_works_beside_an_environment_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "env").mkdir()
    assert make(tmp_path / "100%", "run", f"VENV={tmp_path / 'env'}").returncode == 0
    refused = make(tmp_path / "100%", "run", "VENV=my env")
    assert refused.returncode == 2
    assert "VENV = my env: the name of the environment's folder cannot hold a blank" in refused.stderr


def test_make_says_where_it_works(tmp_path: Path) -> None:
    done = subprocess.run(
        ["make", "-f", str(ROOT / "Makefile"), "run"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "make works in the project's folder: cd there, or say make -C FOLDER" in done.stderr


def test_the_caller_s_python_and_pip_settings_do_not_reach_the_environment(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    for name in ("Makefile", "offline.env", "params.yaml"):
        shutil.copy2(ROOT / name, folder / name)
    (folder / "Makefile").write_text(
        (ROOT / "Makefile").read_text(encoding="utf-8") + "\nshow:\n\t@env\n", encoding="utf-8"
    )  # fmt: skip
    given = {"PYTHONHOME": "/nowhere", "PIP_USER": "1", "PIP_TARGET": "/t", "CDPATH": "/", "MAKEFLAGS": "-j4", "KEPT": "a$b 'c"}
    done = subprocess.run(
        ["make", "show"], cwd=folder, env=os.environ | given, capture_output=True, encoding="utf-8", check=True
    )
    held = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert not held.keys() & {"PYTHONHOME", "PIP_USER", "PIP_TARGET"}
    assert held["KEPT"] == given["KEPT"]
    assert held["PYTHONUTF8"] == "1"
    assert held["PATH"].split(":")[0] == f"{folder}/.venv/bin"


def test_the_supervisor_writes_and_starts_where_the_home_is(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (odd / "log").mkdir()
    ports = dict.fromkeys(("RESTILL_PORT", "PREFECT_PORT", "MLFLOW_PORT", "EVIDENTLY_PORT"), "1")
    found = ports | {"RESTILL_HOME": str(odd), "RESTILL_LOG": f"{odd}/log".replace("%", "%%")}
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    options = ServerOptions()
    written = (ROOT / "supervisord.conf").read_text(encoding="utf-8") + SERVICE.format(
        workload="mail", tag="restill-mail:1", port=1
    )
    (odd / "supervisord.conf").write_text(written, encoding="utf-8")
    options.realize(["-c", str(odd / "supervisord.conf")])
    assert options.configroot.supervisord.logfile == f"{odd}/log/supervisord.log"
    programs = {process.name: process for group in options.process_group_configs for process in group.process_configs}
    assert {Path(program.stdout_logfile) for program in programs.values()} == {odd / f"log/{name}.log" for name in programs}
    words = programs["evidently"].command.split()
    show = [sys.executable, "-c", "import sys; print(sys.argv[1])", words[words.index("--workspace") + 1]]
    done = subprocess.run(
        [sys.executable, "-m", "flows.process_group", *show],
        cwd=ROOT, env=os.environ | {"RESTILL_PROGRAM": "evidently"}, capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    assert done.stdout == f"{odd}/evidently\n"


@pytest.mark.parametrize(("name", "says"), [(b"caf\xe9", "is not UTF-8"), (b"a{b", "DVC cannot work")])
def test_a_folder_that_no_tool_can_name_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes, says: str
) -> None:
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(StageError, match=says):
        project_folder()


PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_a_name_that_the_locale_cannot_read_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "Bücher"
    folder.mkdir()
    code = "from tasks.stage import project_folder\ntry: print(project_folder())\nexcept Exception as error: print(error)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | PLAIN | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    )
    assert b"set PYTHONUTF8=1" in done.stdout
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=os.environ | PLAIN | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout.decode() == f"{folder}\n"


@pytest.mark.parametrize(
    "environment",
    [PLAIN, {"PYTHONIOENCODING": "latin-1"}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}, {"LC_ALL": "no_SUCH.locale"}],
)
def test_what_a_terminal_cannot_show_is_replaced(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import tasks; print('\\u00b5 \\u2192 \\udc80 end')"], cwd=ROOT, env=os.environ | environment,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(b" end\n")


@pytest.mark.parametrize("given", [{}, {"NO_PROXY": "example.org"}, {"no_proxy": "127.0.0.1,localhost"}])
def test_no_proxy_is_asked_for_our_own_servers(given: dict[str, str]) -> None:
    code = "import tasks, urllib.request as u; print(u.proxy_bypass('127.0.0.1:3000'), u.proxy_bypass('example.net'))"
    clean = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    environment = clean | {"HTTP_PROXY": "http://10.0.0.1:1", "https_proxy": "http://10.0.0.1:1"} | given
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert [bool(eval(word)) for word in done.stdout.split()] == [True, False]


def git(folder: Path, *words: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", *words], cwd=folder, check=True, capture_output=True
    )


@pytest.fixture
def repository(odd: Path) -> Path:
    git(odd, "init", "-q", "-b", "main")
    (odd / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    git(odd, "add", "-A")
    git(odd, "commit", "-qm", "one")
    return odd


def test_a_commit_is_named_and_says_what_differs(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, reason = git_commit(repository)
    assert len(str(commit)) == 40
    assert reason is None
    monkeypatch.setenv("GIT_DIR", str(ROOT / ".git"))  # as in a hook of another repository
    assert git_commit(repository)[0] == commit == commit_text(repository)
    (repository / "dvc.yaml").write_text("stages: {a: 1}\n", encoding="utf-8")
    assert git_commit(repository)[0] == f"{commit}-dirty"


def test_a_merge_in_progress_is_a_changed_commit(repository: Path) -> None:
    git(repository, "checkout", "-qb", "other")
    for branch, content in (("other", "a: 1"), ("main", "b: 2")):
        git(repository, "checkout", "-q", branch)
        (repository / "dvc.yaml").write_text(content, encoding="utf-8")
        git(repository, "commit", "-qam", branch)
    assert subprocess.run(["git", "merge", "other"], cwd=repository, capture_output=True, check=False).returncode == 1
    assert str(git_commit(repository)[0]).endswith("-dirty")


def test_no_commit_comes_with_its_reason(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = repository / "unpacked"
    inner.mkdir()
    (inner / "dvc.yaml").touch()
    assert "did not match any file" in str(git_commit(inner)[1]), "somebody else's repository has no commit of ours"
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    assert git_commit(empty)[0] is None
    shutil.rmtree(repository / ".git")
    assert "not a git repository" in commit_text(repository)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(repository) == (None, "git cannot be run: No such file or directory")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_the_folder_of_another_user_has_no_commit_for_us(repository: Path) -> None:
    for path in (repository, *repository.rglob("*")):
        os.chown(path, 65534, 65534)
    commit, reason = git_commit(repository)
    assert commit is None
    assert "dubious ownership" in str(reason)
    assert commit_text(repository).startswith("none: fatal: detected dubious ownership")


@pytest.mark.parametrize(
    ("given", "mask"),
    [
        ({"TZ": "Pacific/Auckland"}, 0o022),
        ({"TZ": "nowhere"}, 0o022),
        ({"TZ": "UTC"}, 0o077),
        (PLAIN | {"PYTHONUTF8": "1"}, 0o077),
    ],
)
def test_neither_clock_nor_locale_nor_umask_changes_the_data(tmp_path: Path, given: dict[str, str], mask: int) -> None:
    mails = {
        "grüße.eml": "From a Sun Mar 31 02:30:00 2002\nSubject: no zone, in the hour that summer time takes\n\nSchöne Grüße\n",
        "zone.eml": "Date: Sat, 31 Aug 2002 23:59:59 -0700\nSubject: after the end of August in UTC\n\nhello\n",
    }
    times = []
    for name, environment, umask in (("plain", {"TZ": "UTC"}, 0o022), ("given", given, mask)):
        folder = tmp_path / name
        (folder / "mail/ham").mkdir(parents=True)
        for file, mail in mails.items():
            (folder / "mail/ham" / file).write_text(mail, encoding="utf-8")
        params = yaml.safe_load((MAIL / "params.yaml").read_text(encoding="utf-8"))
        params["ingest"] |= {"source": "folder", "path": "mail", "feedback": "none.jsonl"}
        (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        (folder / "none.jsonl").touch()
        subprocess.run(
            [sys.executable, "-m", "tasks.data.ingest"], cwd=folder, env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
            umask=umask, check=True, capture_output=True,
        )  # fmt: skip
        times.append(pd.read_parquet(folder / "data/corpus.parquet"))
    pd.testing.assert_frame_equal(*times)
    assert times[0].set_index("id").known.to_dict() == {"ham/grüße.eml": True, "ham/zone.eml": False}


def test_make_up_names_a_port_that_is_taken_before_anything_starts(tmp_path: Path) -> None:
    lines = make(tmp_path / "p", "up", MLFLOW_PORT="5001").stdout.splitlines()
    check = next(number for number, line in enumerate(lines) if "service.port" in line)
    assert "MLFLOW_PORT=$MLFLOW_PORT" in " ".join(lines[check : check + 2])
    assert check < next(number for number, line in enumerate(lines) if "flows.bootstrap" in line)
