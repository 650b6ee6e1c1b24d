"""tasks/replay/recalibrated.py: the arm of a replay that only ever recalibrates, on made mail whose mix of labels moves."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from service.release import Release
from service.store import read_pointer
from tasks.replay.recalibrated import RecalibratedArm
from tasks.stage import Paths
from tests.imports import MAIL
from tests.shifted import GATE, SETTINGS, World, messages

RECEIVED = datetime(2020, 4, 1, tzinfo=UTC)


def test_the_decision_parameters_follow_the_stream_and_the_model_stays(
    students: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RESTILL_HOME", raising=False)
    params = yaml.safe_load((MAIL / "params.yaml").read_text())
    params["monitor"]["windows"]["least_seconds"] = 0  # as a replay has it: a month's mail comes in seconds
    params |= {"gate": GATE.model_dump(mode="json"), "recalibrate": SETTINGS.model_dump(mode="json")}
    world = World(tmp_path, students[1], ["ham", "spam"], "spam")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    frozen = Release(world.folder)
    stream = [*messages(250, spam=0.5, seed=1), *messages(1250, spam=0.1, seed=2)]
    with closing(RecalibratedArm(Paths(tmp_path), tmp_path / "arm", share=0.2, delay=10, seed=1)) as arm:
        rows = [
            {"id": f"m{n}", "label": label, "period": "2020-03-30", "subject": "", "text": text}
            for n, (text, label) in enumerate(stream, start=1)
        ]
        said = [arm.answer(n, row, row["text"]) for n, row in enumerate(rows, start=1)]
    as_frozen = [answer.label for answer in frozen.answer([text for text, _ in stream])]
    first, *_ = arm.changes
    assert (first["kind"], first["outcome"]) == ("recalibrate", "promoted"), first["why"]
    assert 250 < first["number"] <= 625
    assert first["labels"] > 20
    assert said[: first["number"]] == as_frozen[: first["number"]], "nothing is answered by what came later"
    wrong, wrong_frozen = (
        sum(answer != label for answer, (_, label) in list(zip(found, stream, strict=True))[first["number"] :])
        for found in (said, as_frozen)
    )
    assert wrong < 0.9 * wrong_frozen
    pointer = read_pointer(world.paths.store)
    assert pointer is not None
    assert pointer.champion == world.champion, "the store of the service is another"
