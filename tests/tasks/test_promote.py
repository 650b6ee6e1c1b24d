"""Promotion: one moment in which it happens, whatever dies before or after it, and whoever else tries."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import mlflow
import pytest

from service.release import verify
from service.store import POINTER, Pointer, read_pointer, release_folder
from tasks.files import write_json
from tasks.lineage import sha256
from tasks.release.mirror import alias_registered, mirror
from tasks.release.package import seal
from tasks.release.promote import Fenced, add, history, main, promote, rollback
from tasks.release.register import register
from tasks.release.store import HISTORY
from tasks.stage import Paths, StageError
from tests.imports import MAIL, ROOT
from tests.trial import CHAMPION_KNOWS, Trial, messages, with_feedback

MODEL = "restill"

WHO = {"who": "tester", "why": "a test"}


def bare_release(folder: Path, number: int) -> Path:
    """A sealed folder, which is all that the store asks of a release."""
    write_json(folder / "card.json", {"number": number})
    (folder / "model").mkdir()
    (folder / "model/model.onnx").write_bytes(bytes([number]) * 2000)
    seal(folder)
    return folder


@pytest.fixture
def bare(tmp_path: Path) -> list[Path]:
    return [bare_release(tmp_path / f"made-{number}", number) for number in range(3)]


def promoted(store: Path, releases: list[Path]) -> list[str]:
    """Add all of them and promote them in turn; their ids."""
    ids = [add(store, release) for release in releases]
    for token, release in enumerate(ids):
        promote(store, release, expected=token, gate=None, **WHO)
    return ids


def test_a_promotion_moves_the_pointer_and_writes_the_history(tmp_path: Path, bare: list[Path]) -> None:
    store = tmp_path / "store"
    first, second, _ = (add(store, release) for release in bare)
    assert promote(store, first, expected=0, gate="one.json", **WHO) == read_pointer(store)
    pointer = promote(store, second, expected=1, gate="two.json", **WHO)
    assert (pointer.token, pointer.champion, pointer.previous) == (2, second, first)
    back = rollback(store, expected=2, **WHO)
    assert (back.token, back.champion, back.previous) == (3, first, second)
    told = [(entry["token"], entry["action"], entry["from"], entry["to"], entry["gate"]) for entry in history(store)]
    assert told == [
        (1, "bootstrap", None, first, "one.json"),
        (2, "promote", first, second, "two.json"),
        (3, "rollback", second, first, None),
    ]
    assert all((entry["who"], entry["why"]) == ("tester", "a test") for entry in history(store))


def test_a_release_in_the_store_is_a_read_only_copy_and_is_added_once(tmp_path: Path, bare: list[Path]) -> None:
    store = tmp_path / "store"
    release = add(store, bare[0])
    stored = release_folder(store, release)
    assert verify(stored) == release
    for path in stored.rglob("*"):
        assert path.is_dir() or stat.S_IMODE(path.stat().st_mode) == 0o444
    before = {path: path.stat().st_mtime_ns for path in stored.rglob("*")}
    assert add(store, bare[0]) == release
    assert add(store, stored) == release
    assert {path: path.stat().st_mtime_ns for path in stored.rglob("*")} == before


def test_what_is_not_whole_is_neither_added_nor_promoted_nor_gone_back_to(tmp_path: Path, bare: list[Path]) -> None:
    store = tmp_path / "store"
    first, second = promoted(store, bare[:2])
    (bare[2] / "model/model.onnx").write_bytes(b"other")
    with pytest.raises(StageError, match=r"model\.onnx was changed"):
        add(store, bare[2])
    assert {path.name for path in (store / "releases").iterdir()} == {first, second}
    before = read_pointer(store)
    (release_folder(store, first) / "card.json").chmod(0o644)
    (release_folder(store, first) / "card.json").write_text("{}")
    for again in (
        lambda: add(store, bare[0]),
        lambda: promote(store, first, expected=2, gate=None, **WHO),
        lambda: rollback(store, expected=2, **WHO),
    ):
        with pytest.raises(StageError, match=r"card\.json was changed"):
            again()
    with pytest.raises(StageError, match="cannot be read"):
        promote(store, "0123456789ab", expected=2, gate=None, **WHO)
    shutil.copytree(release_folder(store, second), release_folder(store, "0123456789ab"))
    with pytest.raises(StageError, match=f"holds the release {second}"):
        promote(store, "0123456789ab", expected=2, gate=None, **WHO)
    assert read_pointer(store) == before


def test_a_promoter_that_looked_too_early_is_fenced(tmp_path: Path, bare: list[Path]) -> None:
    store = tmp_path / "store"
    _, second = promoted(store, bare[:2])
    third = add(store, bare[2])
    for late in (
        lambda: promote(store, third, expected=1, gate=None, **WHO),
        lambda: promote(store, third, expected=3, gate=None, **WHO),
        lambda: rollback(store, expected=1, who="other", why="late"),
    ):
        with pytest.raises(Fenced, match=rf"to token 2, by tester: {second}; nothing was changed"):
            late()
    assert len(history(store)) == 2


def test_asking_again_changes_nothing(tmp_path: Path, bare: list[Path]) -> None:
    store = tmp_path / "store"
    _, second = promoted(store, bare[:2])
    pointer = read_pointer(store)
    for expected in (1, 2):
        assert promote(store, second, expected=expected, gate="another.json", **WHO) == pointer
    back = rollback(store, expected=2, **WHO)
    assert rollback(store, expected=2, **WHO) == back
    assert len(history(store)) == 3


def test_without_a_previous_release_there_is_no_way_back(tmp_path: Path, bare: list[Path]) -> None:
    store = tmp_path / "store"
    with pytest.raises(StageError, match="no previous release"):
        rollback(store, expected=0, **WHO)
    promoted(store, bare[:1])
    with pytest.raises(StageError, match="no previous release"):
        rollback(store, expected=1, **WHO)
    assert history(tmp_path / "nowhere") == []
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("torn", [b"", b'{"token": 2', b'{"token": 2}'])
def test_a_torn_history_is_cut_and_written_anew_from_the_pointer(tmp_path: Path, bare: list[Path], torn: bytes) -> None:
    store = tmp_path / "store"
    promoted(store, bare[:2])
    whole = history(store)
    path = store / HISTORY
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0] + torn)
    assert history(store) == whole
    assert [json.loads(line) for line in path.read_text().splitlines()] == whole


def test_a_history_that_cannot_be_mended_is_said_and_not_overwritten(tmp_path: Path, bare: list[Path]) -> None:
    store = tmp_path / "store"
    first, _ = promoted(store, bare[:2])
    old = (store / POINTER).read_bytes()
    promote(store, first, expected=2, gate=None, **WHO)
    (store / POINTER).write_bytes(old)
    with pytest.raises(StageError, match=r"knows token 3, pointer\.json is at 2"):
        rollback(store, expected=2, **WHO)
    (store / HISTORY).write_text("broken\n" + (store / HISTORY).read_text())
    with pytest.raises(StageError, match="a line in its middle is broken"):
        history(store)
    (store / POINTER).write_text("{")
    with pytest.raises(StageError, match="cannot be read"):
        promote(store, first, expected=2, gate=None, **WHO)


class Dying:
    """The program that dies where it is told."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.tasks.dying"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, call: str, at: int | None = None, seconds: float | None = None, **arguments: Any) -> dict[str, int]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        order = {"call": call, "at": at, "seconds": seconds, "arguments": arguments}
        print(json.dumps(order, default=str), file=self.process.stdin, flush=True)
        answer: dict[str, int] = json.loads(self.process.stdout.readline())
        return answer


@pytest.fixture(scope="module")
def dying() -> Iterator[Dying]:
    program = Dying()
    yield program
    program.process.communicate()
    assert program.process.returncode == 0


def test_a_hundred_kills_leave_the_old_pointer_or_the_new_and_a_rerun_ends_right(
    tmp_path: Path, bare: list[Path], dying: Dying
) -> None:
    """At each file operation of a promotion and of a rollback, and then at moments of chance."""
    world = tmp_path / "world"
    first, second = promoted(world, bare[:2])
    third = add(world, bare[2])
    calls: dict[str, dict[str, Any]] = {
        "promote": {"release": third, "expected": 2, "gate": "gate.json", **WHO},
        "rollback": {"expected": 2, **WHO},
    }
    rng = random.Random(1)
    plan: list[tuple[str, int | None, float | None]] = []
    for call, arguments in calls.items():
        store = shutil.copytree(world, tmp_path / call)
        started = time.perf_counter()
        operations = dying(call, store=store, **arguments)["operations"]
        taken = time.perf_counter() - started
        assert operations > 10
        plan += [(call, at, None) for at in range(1, operations + 1)]
        plan += [(call, None, rng.uniform(0, taken)) for _ in range(50 - operations // 2)]
    assert len(plan) >= 100
    found = {"old": 0, "new": 0}
    for number, (call, at, seconds) in enumerate(plan):
        store = shutil.copytree(world, tmp_path / f"{number}")
        ended = dying(call, at, seconds, store=store, **calls[call])["signal"]
        assert ended == SIGKILL or (at is None and ended == SIGTERM)
        pointer, champion = read_pointer(store), third if call == "promote" else first
        assert pointer is not None
        assert (pointer.token, pointer.champion, pointer.previous) in [(2, second, first), (3, champion, second)]
        found["old" if pointer.token == 2 else "new"] += 1
        told = history(store)  # the next command
        assert [entry["token"] for entry in told] == list(range(1, pointer.token + 1))
        assert told[-1] == pointer.entry
        again = promote(store, **calls[call]) if call == "promote" else rollback(store, **calls[call])
        assert (again.token, again.champion, again.previous) == (3, champion, second)
        assert [entry["token"] for entry in history(store)] == [1, 2, 3]
        assert [json.loads(line) for line in (store / HISTORY).read_text().splitlines()] == history(store)
        shutil.rmtree(store)
    assert min(found.values()) > 5, found


def test_a_kill_while_a_release_is_added_leaves_none_or_a_whole_one(tmp_path: Path, bare: list[Path], dying: Dying) -> None:
    operations = dying("add", store=tmp_path / "count", folder=bare[0])["operations"]
    assert operations > 10
    for at in range(1, operations + 1):
        store = tmp_path / f"{at}"
        assert dying("add", at, store=store, folder=bare[0])["signal"] == 9
        releases = store / "releases"
        for release in releases.glob("[!.]*") if releases.exists() else []:
            assert verify(release) == release.name
        identity = add(store, bare[0])
        assert [path.name for path in releases.iterdir()] == [identity]


RACER = """
import sys, time
from pathlib import Path
from tasks.release.store import Fenced, promote
folder, release, who = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
for number in range(int(sys.argv[4])):
    (folder / f"{who}-{number}.ready").touch()
    while not (folder / f"go-{number}").exists():
        pass
    try:
        print(promote(folder / f"store-{number}", release, expected=2, who=who, why="race", gate=None).champion, flush=True)
    except Fenced as error:
        print(f"fenced: {error}", flush=True)
"""


def test_of_two_promoters_one_wins_and_the_other_is_told(tmp_path: Path, bare: list[Path]) -> None:
    rounds, world = 12, tmp_path / "world"
    ids = promoted(world, bare[:2])
    rivals = [add(world, bare[2]), add(world, bare_release(tmp_path / "made-3", 3))]
    for number in range(rounds):
        shutil.copytree(world, tmp_path / f"store-{number}")
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path), release, who, str(rounds)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for release, who in zip(rivals, ("anna", "bela"), strict=True)
    ]
    for number in range(rounds):
        while not all((tmp_path / f"{who}-{number}.ready").exists() for who in ("anna", "bela")):
            assert all(racer.poll() is None for racer in racers)
            time.sleep(0.001)
        (tmp_path / f"go-{number}").touch()
    said = [racer.communicate()[0].splitlines() for racer in racers]
    for number, answers in enumerate(zip(*said, strict=True)):
        pointer = read_pointer(tmp_path / f"store-{number}")
        assert pointer is not None
        winner = rivals.index(pointer.champion)
        assert answers[winner] == pointer.champion
        assert answers[1 - winner].startswith("fenced: the pointer moved from token 2 to token 3")
        assert (pointer.token, pointer.previous) == (3, ids[1])
        assert len(history(tmp_path / f"store-{number}")) == 3


@pytest.fixture
def project(
    students: tuple[Path, Path],
    mlflow_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Trial:
    """A project's folder with a release, its messages and the parameters, in which commands run."""
    for name in ("MLFLOW_TRACKING_URI", "RESTILL_HOME"):
        monkeypatch.delenv(name, raising=False)
    trial = Trial(tmp_path / "project", students[1], ["ham", "spam"], "spam")
    shutil.copy2(MAIL / "params.yaml", trial.root)
    shutil.copy2(mlflow_store, trial.root / "mlflow.db")
    monkeypatch.chdir(trial.root)
    return trial


def registered(trial: Trial, *releases: str) -> None:
    """Versions of the registered model, as ``register`` makes them, in the project's own MLflow."""
    mlflow.set_tracking_uri(f"sqlite:///{trial.root}/mlflow.db")
    client = mlflow.MlflowClient()
    if not client.search_registered_models():
        client.create_registered_model(MODEL)
    for release in releases:
        client.create_model_version(MODEL, f"file://{trial.root}", tags={"release": release})


def aliases(trial: Trial) -> dict[str, str]:
    """The release that each alias of MLflow stands for."""
    mlflow.set_tracking_uri(f"sqlite:///{trial.root}/mlflow.db")
    client = mlflow.MlflowClient()
    model = client.get_registered_model(MODEL)
    return {alias: client.get_model_version(MODEL, version).tags["release"] for alias, version in model.aliases.items()}


def pointer_of(trial: Trial) -> Pointer | None:
    return read_pointer(Paths(trial.root).store)


def test_the_commands_of_a_life(project: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = verify(project.champion), verify(project.challenger)
    assert main(["release"]) == 1, "there is no champion, and nobody said that this is the first"
    assert "champion" in capsys.readouterr().err
    messages(["ham", "spam"], until=CHAMPION_KNOWS).to_parquet(project.prepared)
    project.change(project.champion, "lineage.json", {"data": {"prepared.parquet": sha256(project.prepared)}})
    project.change(project.champion, "card.json", {"chosen_by": {"choose": "smallest"}, "fallback": "student"})
    first = verify(project.champion)
    registered(project, first, second)
    assert main(["--bootstrap", "champion", "--who", "anna", "--why", "first"]) == 0
    messages(["ham", "spam"]).to_parquet(project.prepared)
    assert aliases(project) == {"champion": first, "challenger": second}
    assert main(["--bootstrap", "release"]) == 1
    assert f"{first} is the champion already" in capsys.readouterr().err
    assert main(["release"]) == 0
    shown = capsys.readouterr().out
    assert "worst_slice" in shown
    assert f"{second} is the champion, token 2" in shown
    assert aliases(project)["champion"] == second
    assert aliases(project)["previous"] == first
    assert main([second]) == 0
    assert "is the champion already" in capsys.readouterr().out
    assert main(["rollback", "--token", "1"]) == 1
    assert main(["rollback"]) == 0
    assert aliases(project)["champion"] == first
    assert main(["history"]) == 0
    shown = capsys.readouterr().out
    assert "anna" in shown
    assert "rollback" in shown
    assert main(["show", first]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["release"], told["place"]) == (first, "champion")
    assert (told["chosen_by"], told["fallback"]) == ({"choose": "smallest"}, "student")
    assert [entry["action"] for entry in told["history"]] == ["bootstrap", "promote", "rollback"]
    assert sorted(path.name for path in Paths(project.root).gates.glob("*.json")) == sorted(
        [f"{second}-0.json", f"{first}-0.json", f"{second}-1.json"]
    )


def test_a_release_that_the_gate_refuses_is_not_promoted(project: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    store = Paths(project.root).store
    first = add(store, project.champion)
    promote(store, first, expected=0, gate=None, **WHO)
    project.say(with_feedback(messages(["ham", "spam"]), 200, 0.05))
    assert main(["release"]) == 1
    assert "was refused: labels" in capsys.readouterr().err
    pointer = pointer_of(project)
    assert pointer is not None
    assert pointer.champion == first
    assert len(history(store)) == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "required"),
        (["show"], 2, "show needs a RELEASE"),
        (["release", "another"], 2, "unrecognized"),
        (["rollback", "--bootstrap"], 2, "not with rollback"),
        (["--token", "x", "rollback"], 2, "invalid int"),
        (["--help"], 0, "Exit codes"),
        (["nowhere"], 1, "nowhere: is no folder"),
        (["0123456789ab"], 1, "neither a release in"),
        (["show", "0123456789ab"], 1, "neither a release in"),
        (["show", "data"], 1, "cannot be read"),
        (["data"], 1, "cannot be read"),
        (["rollback"], 1, "no previous release"),
    ],
)
def test_wrong_use_is_one_clear_line(
    project: Trial, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    try:
        found = main(words)
    except SystemExit as error:
        found = int(str(error.code))
    shown = capsys.readouterr()
    assert found == code
    assert said in shown.err + shown.out
    assert "Traceback" not in shown.err
    assert pointer_of(project) is None


def test_an_mlflow_that_is_away_costs_a_line_and_is_made_up_for(
    project: Trial, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Paths(project.root).store
    release = add(store, project.champion)
    (project.root / "not-a-folder").touch()
    with monkeypatch.context() as away:
        away.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.root}/not-a-folder/mlflow.db")
        pointer = promote(store, release, expected=0, gate=None, **WHO)
        mirror(Paths(project.root), pointer)
        assert "the next command tries again" in capsys.readouterr().err
    assert read_pointer(store) == pointer
    assert main(["history"]) == 0
    assert f"{release} is not registered" in capsys.readouterr().err
    registered(project, release)
    assert main(["history"]) == 0
    assert aliases(project) == {"champion": release}
    mlflow.MlflowClient().delete_registered_model_alias(MODEL, "champion")
    mirror(Paths(project.root), pointer)
    assert aliases(project) == {}, "what MLflow was told once is not told again"


def test_an_alias_is_taken_from_a_release_that_is_not_in_service_any_more(project: Trial) -> None:
    store = Paths(project.root).store
    first, second = add(store, project.champion), add(store, project.challenger)
    registered(project, first)
    mirror(Paths(project.root), promote(store, first, expected=0, gate=None, **WHO))
    mirror(Paths(project.root), promote(store, second, expected=1, gate=None, **WHO))
    assert aliases(project) == {"previous": first}, "the champion is not registered: no other may carry its name"


def test_a_worktree_s_release_is_registered_as_the_real_store_stands(
    project: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Paths(project.root).store
    first, second = add(store, project.champion), add(store, project.challenger)
    registered(project, first, second)
    mirror(Paths(project.root), promote(store, first, expected=0, gate=None, **WHO))
    worktree = tmp_path / "worktree"
    shutil.copytree(project.challenger, worktree / "release")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.root}/mlflow.db")
    assert register(Paths(worktree), "intent-1", store) == ("2", False)
    assert aliases(project) == {"champion": first, "challenger": second}


def test_the_challenger_is_what_was_registered_last_whatever_moves_then(project: Trial) -> None:
    store = Paths(project.root).store
    first, second = add(store, project.champion), add(store, project.challenger)
    registered(project, first, second, "0123456789ab", "ba9876543210")
    mirror(Paths(project.root), promote(store, first, expected=0, gate=None, **WHO))
    assert aliases(project)["challenger"] == "ba9876543210"
    alias_registered(MODEL, store, "3")
    mirror(Paths(project.root), promote(store, second, expected=1, gate=None, **WHO))
    assert aliases(project) == {"champion": second, "previous": first, "challenger": "0123456789ab"}
    alias_registered(MODEL, store, "2")
    assert aliases(project)["challenger"] == "0123456789ab", "what is in service is no challenger"


@pytest.mark.parametrize("module", ["bento", "register"])
@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("--tags", 2)])
def test_an_effect_that_is_asked_for_help_does_nothing_else(tmp_path: Path, module: str, word: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"tasks.release.{module}", word], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert f"tasks.release.{module}" in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []
