"""tasks/data/prepare.py and grouping.py: copies stay together, golden stays golden, the future is not used."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.grouping import group_of_each, split_of
from tasks.data.prepare import assign_splits, drop_copies, prepare, with_inputs
from tasks.files import read_json
from tasks.kinds import data_part
from tasks.kinds.text_classification.data import Prepare, fingerprint
from tasks.stage import Paths, StageError
from tests.conftest import KIND, made_table, of_kind
from tests.imports import MAIL

PARAMS = yaml.safe_load((MAIL / "params.yaml").read_text())["prepare"]
SHARES = {"golden": 0.1, "test": 0.15, "valid": 0.15}
LIKE = {"shingle_words": 4, "permutations": 128, "similarity": 0.7}


def prepare_texts(rows: pd.DataFrame, settings: Prepare) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, int]]:
    return with_inputs(rows, settings, data_part(KIND))


def groups_of(ids: list[str], texts: list[str], shares: dict[str, float] = SHARES, **like: Any) -> list[str | None]:
    like_settings = settings_for(near_duplicates=LIKE | like)
    return group_of_each(ids, (fingerprint(text, like_settings) for text in texts), like_settings.near_duplicates, shares)


def settings_for(**changes: Any) -> Prepare:
    return Prepare.model_validate(PARAMS | {"redact": []} | changes)


def made_rows(rows: int = 300, labels: tuple[str, ...] = ("ham", "spam")) -> pd.DataFrame:
    return made_table(list(labels), rows).assign(source="made", warnings="", known=True, weight=1.0)


def near_copy(text: str) -> str:
    words = text.split()
    return " ".join([*words[:-1], "changed"])


def test_near_duplicates_share_a_group_and_others_do_not() -> None:
    texts = list(made_rows(40).text)
    ids = [str(number) for number in range(41)]
    groups = groups_of(ids, [*texts, near_copy(texts[7])])
    assert groups[40] == groups[7] == "7"
    assert len(set(groups)) == 40


def test_groups_never_straddle_a_split_and_bridges_belong_to_none() -> None:
    texts = list(made_rows(60).text)
    names = [str(number) for number in range(60)]
    other = next(name for name in names if split_of(name, SHARES) != split_of("0", SHARES))
    first, second = texts[0], texts[int(other)]
    groups = groups_of([*names, "bridge"], [*texts, f"{first} {second}"], similarity=0.4)
    assert groups[60] is None
    assert groups[0] == "0"
    assert groups[int(other)] == other


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 79), st.integers(0, 5))
def test_what_comes_later_never_moves_what_was_there(cut: int, seed: int) -> None:
    texts = list(made_table(["ham", "spam"], 60, seed).text)
    texts += [near_copy(text) for text in texts[::3]]
    ids = [str(number) for number in range(len(texts))]
    whole = groups_of(ids, texts)
    assert groups_of(ids[:cut], texts[:cut]) == whole[:cut]


def test_shares_are_what_they_say() -> None:
    counts = pd.Series([split_of(f"group-{number}", SHARES) for number in range(20_000)]).value_counts(normalize=True)
    assert counts.to_dict() == pytest.approx({"train": 0.6, "test": 0.15, "valid": 0.15, "golden": 0.1}, abs=0.01)


def test_short_texts_have_a_shingle() -> None:
    near = settings_for(near_duplicates=LIKE)
    assert fingerprint("Two Words", near) == {b"two words"}
    assert len(fingerprint("one two three four five", near)) == 2


def test_golden_is_golden_in_every_snapshot() -> None:
    rows, _, _ = prepare_texts(made_rows(400), settings_for())
    late = assign_splits(rows, settings_for(), data_part(KIND))
    early = assign_splits(rows.assign(known=rows.index < 200), settings_for(), data_part(KIND))
    golden = set(late.id[late.split == "golden"])
    assert set(early.id[early.split == "golden"]) == {name for name in golden if int(name.split("-")[1]) < 200}
    assert not golden & set(early.id[early.split.isin(["train", "valid", "test"])])


def test_the_future_is_what_came_later_and_was_never_seen() -> None:
    rows = made_rows(100)
    rows.loc[60:, "known"] = False
    rows.loc[99, "text"] = near_copy(rows.text[3])
    rows.loc[99, "subject"] = rows.subject[3]
    prepared, _, _ = prepare_texts(rows, settings_for())
    splits = assign_splits(prepared, settings_for(), data_part(KIND)).set_index("id").split
    assert splits["row-99"] == "seen"
    assert (splits[[f"row-{n}" for n in range(60, 99)]] == "future").all()
    assert not (splits[[f"row-{n}" for n in range(60)]] == "future").any()


def prepared_whole(rows: pd.DataFrame, **changes: Any) -> tuple[pd.DataFrame, dict[str, str]]:
    """(rows that are left, reason of each that is not)."""
    settings_ = settings_for(**changes)
    kept, empty, _ = prepare_texts(rows, settings_)
    left, copies = drop_copies(assign_splits(kept, settings_, data_part(KIND)), settings_)
    reasons = pd.concat([empty, copies]).set_index("id").reason.to_dict()
    assert len(left) + len(reasons) == len(rows)
    return left, reasons


def contradicts(rows: pd.DataFrame, late: int, early: int) -> None:
    rows.loc[late, ["subject", "text"]] = rows.loc[early, ["subject", "text"]].to_list()
    rows.loc[late, "label"] = "spam" if rows.label[early] == "ham" else "ham"


def test_missing_parts_copies_and_contradictions_each_go_where_the_parameter_says() -> None:
    rows = made_rows(20)
    rows.loc[1, ["subject", "text"]] = rows.loc[0, ["subject", "text"]].to_list()
    rows.loc[1, "label"] = rows.label[0]
    contradicts(rows, late=3, early=2)
    rows.loc[4, "subject"] = None
    rows.loc[5, ["subject", "text"]] = ["", "<p> </p>"]
    assert prepare_texts(rows, settings_for())[2]["missing_subject"] == 2
    assert prepared_whole(rows)[1] == {
        "row-1": "duplicate", "row-2": "same_input_other_label", "row-3": "same_input_other_label",
        "row-5": "no_text_after_normalisation",
    }  # fmt: skip
    strict = prepared_whole(rows, missing="quarantine", duplicates="keep")[1]
    assert strict["row-4"] == "missing_part"
    assert "row-1" not in strict


def test_a_later_contradiction_does_not_unteach_the_past() -> None:
    rows = made_rows(20)
    contradicts(rows, late=19, early=0)
    rows.loc[19, "known"] = False
    assert prepared_whole(rows)[1] == {"row-19": "same_input_other_label"}


def test_a_row_that_goes_does_not_take_its_group_s_split_with_it() -> None:
    rows = made_rows(60)
    rows.loc[30, "text"] = near_copy(rows.text[3])
    rows.loc[30, "subject"] = rows.subject[3]
    contradicts(rows, late=59, early=3)
    early, _ = prepared_whole(rows.head(59))
    late, reasons = prepared_whole(rows)
    assert reasons == {"row-3": "same_input_other_label", "row-59": "same_input_other_label"}
    assert late.set_index("id").split["row-30"] == early.set_index("id").split["row-30"]
    assert late.set_index("id").group["row-30"] == "row-3"


def test_most_pairs_just_over_the_threshold_are_found() -> None:
    words = [f"w{number}" for number in range(4000)]
    rng = random.Random(0)
    texts = []
    for _ in range(200):
        own = rng.sample(words, 60)
        texts += [" ".join(own), " ".join([*own[:55], *rng.sample(words, 4)])]
    near = settings_for(near_duplicates=LIKE)
    sets = [fingerprint(text, near) for text in texts]
    shared = [len(a & b) / len(a | b) for a, b in zip(sets[::2], sets[1::2], strict=True)]
    assert all(0.8 < similarity < 0.9 for similarity in shared)
    groups = groups_of([str(n) for n in range(400)], texts)
    assert sum(groups[n] == groups[n + 1] for n in range(0, 400, 2)) >= 195


UNLABELLED = ["id", "received", "source", "subject", "text"]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "data").mkdir()
    made_rows(1)[UNLABELLED].head(0).to_parquet(tmp_path / "data/unlabelled.parquet")
    return Paths(of_kind(tmp_path))


def test_the_stage_writes_splits_schema_and_an_account(paths: Paths) -> None:
    made_rows(400).to_parquet(paths.validated)
    prepare(settings_for(), paths)
    rows = pd.read_parquet(paths.prepared)
    assert set(rows.split) == {"train", "valid", "test", "golden"}
    assert read_json(paths.schema)["labels"] == ["ham", "spam"]
    assert (rows.label_id == (rows.label == "spam")).all()
    report = read_json(paths.report("prepare.json"))
    assert sum(sum(split.values()) for split in report["splits"].values()) + sum(report["quarantined"].values()) == 400
    assert any(name.endswith("_whitespace") for name in report["steps"])


def test_what_has_no_label_may_teach_but_not_what_is_measured(paths: Paths) -> None:
    rows = made_rows(400)
    rows.to_parquet(paths.validated)
    prepare(settings_for(), paths)
    before = pd.read_parquet(paths.prepared)
    copied = before.groupby("split").head(2)
    originals = rows.set_index("id").loc[copied.id].reset_index()
    near = originals.assign(id="near-" + originals.id, text=originals.text + " indeed")
    new = made_table(["ham", "spam"], 30, seed=77).assign(source="made", id=[f"new-{number}" for number in range(30)])
    pd.concat([originals.assign(id="copy-" + originals.id), near, new])[UNLABELLED].to_parquet(
        paths.root / "data/unlabelled.parquet"
    )
    prepare(settings_for(), paths)
    after = pd.read_parquet(paths.prepared)
    pd.testing.assert_frame_equal(after[after.split != "unlabelled"].reset_index(drop=True), before)
    taken = after[after.split == "unlabelled"]
    assert set(taken.label_id) == {-1}
    assert taken.label.isna().all()
    from_train = {f"near-{name}" for name in copied.id[copied.split == "train"]}
    assert set(taken.id) == from_train | set(new.id)
    reasons = pd.read_csv(paths.quarantine / "prepare.csv").set_index("id").reason
    assert set(reasons[[f"near-{name}" for name in copied.id[copied.split != "train"]]]) == {"unlabelled_like_held_out"}
    assert all(f"copy-{name}" in reasons for name in copied.id)


def test_three_labels_have_no_positive_one(paths: Paths) -> None:
    made_rows(400, ("ham", "spam", "news")).to_parquet(paths.validated)
    prepare(settings_for(positive=None), paths)
    assert read_json(paths.schema)["labels"] == ["ham", "news", "spam"]
    with pytest.raises(StageError, match=r"prepare\.positive = 'spam'"):
        prepare(settings_for(), paths)


def test_a_split_may_lack_a_rare_label_of_many_and_says_so(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    rare = made_rows(900, ("ham", "spam", "news")).query("label == 'news'").head(4).assign(id=[f"rare-{n}" for n in range(4)])
    pd.concat([made_rows(400), rare], ignore_index=True).to_parquet(paths.validated)
    prepare(settings_for(positive=None), paths)
    report = read_json(paths.report("prepare.json"))
    assert read_json(paths.schema)["labels"] == ["ham", "news", "spam"]
    assert report["labels_missing"], "four rows cannot be everywhere"
    printed = capsys.readouterr().out
    for split, names in report["labels_missing"].items():
        assert names == ["news"]
        assert "news" not in report["splits"][split]
        assert f"{split} holds no row of 1 labels, and its figures say nothing of them: news" in printed


@pytest.mark.parametrize(
    ("frame", "changes", "says"),
    [
        (made_rows(400, ("ham",)), {}, "two at least"),
        (made_rows(8), {}, "do not hold two labels"),
        (made_rows(400), {"normalise": ["spellcheck"]}, "prepare.normalise: unknown normalisation step"),
    ],
)
def test_what_cannot_be_prepared_is_said(paths: Paths, frame: pd.DataFrame, changes: dict[str, Any], says: str) -> None:
    frame.to_parquet(paths.validated)
    with pytest.raises(StageError, match=says):
        prepare(settings_for(**changes), paths)
