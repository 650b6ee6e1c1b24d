"""tasks/release/recalibrate.py: the same model with other decision parameters, judged by the gate like any other release."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from service.decision import decide
from service.release import Release, verify
from service.store import release_folder
from tasks.files import read_json
from tasks.kinds.text_classification.compress.networks import save_student
from tasks.monitor.reference import load_reference
from tasks.monitor.signals import label_mix
from tasks.release.evaluation_set import FOLDER, keep, kept, with_labels
from tasks.release.promote import add, judge, promote
from tasks.release.recalibrate import recalibrate
from tasks.stage import Paths, StageError
from tests.conftest import fitted_network, made_prepared
from tests.shifted import GATE, SETTINGS, UNTIL, World, messages


@pytest.fixture
def world(students: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.delenv("RESTILL_HOME", raising=False)
    return World(tmp_path, students[1], ["ham", "spam"], "spam")


def errors(release: Release, sent: list[tuple[str, str]]) -> int:
    answers = release.answer([text for text, _ in sent])
    return sum(answer.label != label for answer, (_, label) in zip(answers, sent, strict=True))


@pytest.mark.parametrize("labels", [60, 150])
def test_a_recalibrated_release_is_the_same_model_makes_fewer_errors_and_passes_the_gate(
    world: World, tmp_path: Path, labels: int
) -> None:
    sent = messages(1000, spam=0.1, seed=3)
    world.label(sent[:labels])
    target = tmp_path / "made"
    facts = world.recalibrate(sent, target)
    assert (facts["answers"], facts["of_which_labelled"]) == (1000, labels)
    assert facts["mix_before"]["spam"] == pytest.approx(0.5, abs=0.06)
    assert facts["mix"]["spam"] == pytest.approx(0.1, abs=0.05)
    made, champion = Release(target / "release"), Release(world.folder)
    for name in ("model.onnx", "variant.json"):
        assert (target / "release/model" / name).read_bytes() == (world.folder / "model" / name).read_bytes()
    later = messages(3000, spam=0.1, seed=4)
    assert errors(made, later) < 0.9 * errors(champion, later)
    scores = made.probabilities([text for text, _ in later])[:, 1]
    assert scores.mean() == pytest.approx(0.1, abs=0.06), "a score means what it says in the new mix"
    report, _, token = judge(world.paths, Paths(target), GATE)
    assert report.passed, [(check.name, check.reason) for check in report.failed]
    release = add(world.paths.store, target / "release")
    pointer = promote(world.paths.store, release, expected=token, who="tests", why="", gate=None)
    assert pointer.previous == world.champion
    lineage = read_json(release_folder(world.paths.store, release) / "lineage.json")
    assert lineage["recalibrated"]["parent"] == world.champion
    assert lineage["recalibrated"]["new_labels"] == facts["new_labels"] <= labels


def test_after_it_the_mix_is_as_expected_and_the_reference_is_of_the_new_scores(world: World, tmp_path: Path) -> None:
    sent = messages(1000, spam=0.1, seed=3)
    world.label(sent[:150])
    world.recalibrate(sent, tmp_path / "made")
    made = Release(tmp_path / "made/release")

    def surprise(folder: Path, release: Release) -> float | None:
        held = load_reference(folder)
        answers, probabilities, _ = release.predict([text for text, _ in sent[:250]])
        records = [
            {"kind": "answer", "label": answer.label, "probabilities": row.tolist(), "features": [],
             "descriptors": dict.fromkeys(held.names, 0.0)}
            for answer, row in zip(answers, probabilities, strict=True)
        ]  # fmt: skip
        return label_mix(held.reference, held.sample_of(records), 1).p

    before, after = surprise(world.folder, Release(world.folder)), surprise(tmp_path / "made/release", made)
    assert before is not None
    assert after is not None
    assert before < 1e-6
    assert after > 0.02
    held = load_reference(tmp_path / "made/release")
    assert held.arrays["label_ids"].mean() == pytest.approx(0.1, abs=0.05)
    rows = kept(world.paths, world.folder, world.champion)
    texts = list(rows.input[rows.split.isin(["valid", "test", "golden"])])
    known = {tuple(row.round(4)) for row in made.probabilities(texts)}
    assert {tuple(row.round(4)) for row in held.arrays["probabilities"]} <= known


def test_the_same_answers_and_labels_make_the_same_release(world: World, tmp_path: Path) -> None:
    sent = messages(600, spam=0.1, seed=3)
    world.label(sent[:60])
    for name in ("one", "two"):
        world.recalibrate(sent, tmp_path / name)
    assert verify(tmp_path / "one/release") == verify(tmp_path / "two/release") != world.champion


def test_a_recalibrated_release_can_be_recalibrated_and_goes_back_to_where_it_came_from(world: World, tmp_path: Path) -> None:
    first, start = messages(800, spam=0.1, seed=3), Release(world.folder)
    world.label(first[:150])
    world.recalibrate(first, tmp_path / "one")
    report, _, token = judge(world.paths, Paths(tmp_path / "one"), GATE)
    assert report.passed, [(check.name, check.reason) for check in report.failed]
    parent = world.champion
    world.champion = add(world.paths.store, tmp_path / "one/release")
    world.folder = release_folder(world.paths.store, world.champion)
    promote(world.paths.store, world.champion, expected=token, who="tests", why="", gate=None)
    back = messages(800, spam=0.5, seed=5)
    world.label(back[:150], start=150)
    facts = world.recalibrate(back, tmp_path / "two", start=150)
    assert facts["new_labels"] <= 150 < facts["chosen_on"]["labels"], "the first ones are known by now, and still choose"
    assert facts["mix_before"]["spam"] == pytest.approx(0.1, abs=0.05)
    assert facts["mix"]["spam"] == pytest.approx(0.5, abs=0.1)
    again = Release(tmp_path / "two/release")
    later = messages(2000, spam=0.5, seed=6)
    assert errors(again, later) < errors(Release(world.folder), later)
    assert errors(again, later) < 1.1 * errors(start, later)
    assert {path.stem for path in (world.paths.home / FOLDER).glob("*")} == {parent, world.champion}


def test_nothing_is_made_of_too_few_labels_or_where_nothing_could_judge_it(world: World, tmp_path: Path) -> None:
    sent = messages(300, spam=0.1, seed=3)
    with pytest.raises(StageError, match=r"recalibrate\.least = 20: 0 confirmed labels came since the training"):
        world.recalibrate(sent, tmp_path / "made")
    world.label(sent[:40])
    with pytest.raises(StageError, match=f"release {world.champion}: no answer of it is there"):
        world.recalibrate([], tmp_path / "made")
    (world.paths.home / FOLDER / f"{world.champion}.parquet").unlink()
    world.recalibrate(sent, tmp_path / "made")
    world.trial.prepared.unlink()
    with pytest.raises(StageError, match="the rows that it was judged on are neither in"):
        world.recalibrate(sent, tmp_path / "made")


def test_many_labels_are_shifted_though_there_is_no_threshold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RESTILL_HOME", raising=False)
    labels = ["ham", "news", "spam"]
    student = tmp_path / "student"
    student.mkdir()
    save_student(*fitted_network(made_prepared(labels, 300)), student, opset=20)
    world = World(tmp_path / "world", student, labels, None)
    sent = messages(1000, spam=0.8, seed=3, labels=("ham", "news", "spam"))
    world.label(sent[:60])
    facts = world.recalibrate(sent, tmp_path / "made")
    assert facts["mix"]["spam"] == pytest.approx(0.8, abs=0.07)
    later = messages(2000, spam=0.8, seed=4, labels=("ham", "news", "spam"))
    assert errors(Release(tmp_path / "made/release"), later) < errors(Release(world.folder), later)


def test_a_new_label_goes_where_prepare_would_put_it(world: World) -> None:
    known = kept(world.paths, world.folder, world.champion)
    release, params = Release(world.folder), read_json(world.folder / "lineage.json")["params"]
    long = {split: " ".join(f"{split}{number}" for number in range(60)) for split in ("train", "golden", "future")}
    for split, text in long.items():
        row = known.index[known.split == split][0]
        known.loc[row, ["input", "raw"]] = text
    rows = [
        ("copy", long["train"], "ham"), ("like train", long["train"] + " and more", "ham"),
        ("like golden", long["golden"] + " and more", "ham"), ("like the future", long["future"] + " and more", "ham"),
        ("another", "winner prize kernel patch", "spam"), ("twice", "winner prize kernel patch", "spam"),
        ("unknown", "election market", "news"), ("empty", "  ", "ham"), (str(known.id.iloc[0]), "known by its id", "ham"),
    ]  # fmt: skip
    feedback = pd.DataFrame(rows, columns=["id", "text", "label"]).assign(subject="", received=None)
    found, new = with_labels(known, feedback, release, params, pd.Timestamp(UNTIL))
    placed = found.tail(new).set_index("id")
    assert set(placed.index) == {"like train", "like golden", "another"}
    assert (placed.split["like train"], placed.split["like golden"]) == ("train", "golden")
    assert (placed.source == "feedback").all()
    assert (placed.received == pd.Timestamp(UNTIL)).all()
    assert list(found.columns) == list(known.columns)
    assert (found.dtypes == known.dtypes).all()


def test_the_threshold_decides_as_the_release_answers(world: World, tmp_path: Path) -> None:
    sent = messages(600, spam=0.1, seed=3)
    world.label(sent[:60])
    world.recalibrate(sent, tmp_path / "made")
    made, settings = Release(tmp_path / "made/release"), read_json(tmp_path / "made/release/settings.json")
    texts = [text for text, _ in sent]
    answered = decide(made.probabilities(texts), 1, settings["threshold"])
    assert [answer.label for answer in made.answer(texts)] == [["ham", "spam"][label] for label in answered]
    assert sum(settings["shift"]) == pytest.approx(0)
    assert settings["shift"][1] < -0.5, "spam has become rarer"


def test_a_rare_label_is_not_given_up_for_the_sake_of_the_others_and_not_little_by_little(world: World, tmp_path: Path) -> None:
    sent = messages(1000, spam=0.05, seed=3)
    world.label(sent[:150])
    spam = [text for text, label in messages(4000, spam=0.5, seed=4) if label == "spam"]

    def recall(folder: Path) -> float:
        return sum(answer.label == "spam" for answer in Release(folder).answer(spam)) / len(spam)

    def made(loss: float, name: str, parent: str) -> Path:
        settings = SETTINGS.model_copy(update={"recall_loss": loss})
        answers = [answer | {"release": parent} for answer in world.answers(sent)]
        recalibrate(settings, world.paths, tmp_path / name, parent, answers, UNTIL)
        return tmp_path / name

    before = recall(world.folder)
    assert recall(made(1.0, "free", world.champion) / "release") < before - 0.07
    held, recalls = world.champion, []
    for turn in range(3):
        folder = made(0.02, f"held-{turn}", held)
        held = add(world.paths.store, folder / "release")
        keep(world.paths, held, Paths(folder).prepared, None)
        recalls.append(recall(folder / "release"))
    assert recalls == pytest.approx([before - 0.02] * 3, abs=0.03)
    assert recalls[2] > recalls[0] - 0.01
