"""service/release.py: only a whole release that answers as it did is served."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from service.release import Release, ReleaseError, verify
from tasks.release.package import seal


def test_a_whole_release_answers(release: Path) -> None:
    loaded = Release(release)
    spam, ham = loaded.answer(["winner prize money free offer cash", "kernel patch compile branch review"])
    assert (spam.label, ham.label) == ("spam", "ham")
    assert 0 <= ham.score < 0.5 <= spam.score <= 1
    assert spam.release == loaded.id == verify(release)
    assert loaded.answer([]) == []


def test_a_batch_answers_as_its_texts_do_alone(release: Path) -> None:
    loaded = Release(release)
    texts = ["free money " * n + "kernel" for n in (1, 3, 40)] + ["x"]
    together = [answer.score for answer in loaded.answer(texts)]
    assert together == pytest.approx([loaded.answer([text])[0].score for text in texts], abs=2e-2)


@pytest.mark.parametrize("name", ["model/model.onnx", "model/words.npz", "settings.json", "probes.json", "card.json"])
def test_a_flipped_bit_is_refused_by_the_file_s_name(release: Path, name: str) -> None:
    data = bytearray((release / name).read_bytes())
    data[len(data) // 2] ^= 1
    (release / name).write_bytes(data)
    with pytest.raises(ReleaseError, match=f"{name} was changed"):
        Release(release)


def test_missing_foreign_and_unlisted_files_are_refused(release: Path) -> None:
    (release / "extra.txt").write_text("x")
    with pytest.raises(ReleaseError, match=r"extra.txt is not listed"):
        verify(release)
    (release / "extra.txt").unlink()
    (release / "card.json").unlink()
    with pytest.raises(ReleaseError, match=r"card.json is missing"):
        verify(release)
    (release / "manifest.json").write_text("{}")
    with pytest.raises(ReleaseError, match="cannot be read"):
        verify(release)


def test_a_manifest_with_another_id_is_refused(release: Path) -> None:
    manifest = json.loads((release / "manifest.json").read_text())
    (release / "manifest.json").write_text(json.dumps(manifest | {"id": "0" * 12}))
    with pytest.raises(ReleaseError, match="does not belong"):
        verify(release)


def test_probes_that_score_otherwise_on_this_host_are_refused(release: Path) -> None:
    probes = json.loads((release / "probes.json").read_text())
    probes["probes"][0]["probabilities"].reverse()
    (release / "probes.json").write_text(json.dumps(probes))
    seal(release)
    with pytest.raises(ReleaseError, match=r"differs by \d"):
        Release(release)


def test_the_command_prints_the_id_or_the_reason(release: Path) -> None:
    command = [sys.executable, "-m", "service.release", str(release)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == verify(release)
    (release / "card.json").unlink()
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "card.json is missing" in failed.stderr
