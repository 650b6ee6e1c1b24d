"""Images as data: every reader, the quarantine, what is measured, the model's inputs, near-duplicates."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import yaml
from PIL import Image

from service.kinds.image_classification.images import encode_png
from service.kinds.image_classification.serving import Serving
from tasks.data.cells import Unreadable
from tasks.data.grouping import group_of_each
from tasks.data.sources import Rejected, Row
from tasks.data.validate import broken_rows
from tasks.kinds import data_part
from tasks.kinds.image_classification.data import debian
from tasks.kinds.image_classification.replay import CHANGES, ingest_table
from tasks.stage import Paths, StageError
from tests.imports import ROOT
from tests.service.test_image_files import BAD, file_of, gradient

PARAMS = yaml.safe_load((ROOT / "workloads/fashion/params.yaml").read_text())
PART = data_part("image_classification")
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
LABELS = np.array([0, 1, 0, 1, 2, 0], dtype=np.uint8)


def read(source: str, path: Path, folder: Path, **changes: Any) -> list[Row | Rejected]:
    block = PARAMS["ingest"] | {"source": source, "path": str(path), "label_names": None, "label_table": None} | changes
    return list(PART.read(PART.Ingest.model_validate(block), Paths(folder)))


def idx(values: npt.NDArray[np.uint8]) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def idx_files(folder: Path, packed: bool) -> Path:
    folder.mkdir()
    for what, values in (("images-idx3", IMAGES), ("labels-idx1", LABELS)):
        content = idx(values)
        name = f"train-{what}-ubyte" + (".gz" if packed else "")
        (folder / name).write_bytes(gzip.compress(content) if packed else content)
    return folder


def made_corpus(raws: list[bytes]) -> pd.DataFrame:
    return pd.DataFrame({"id": list(map(str, range(len(raws)))), "label": "bag", "image": raws})


def settings_for(**changes: Any) -> Any:
    return PART.Prepare.model_validate(PARAMS["prepare"] | changes)


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_read_in_pairs(tmp_path: Path, packed: bool) -> None:
    rows = read("idx", idx_files(tmp_path / "idx", packed), tmp_path, label_names=["a", "b", "c"])
    assert [row.label for row in rows if isinstance(row, Row)] == ["a", "b", "a", "b", "c", "a"]
    assert [row.content["image"] for row in rows if isinstance(row, Row)] == list(map(encode_png, IMAGES))
    assert {(row.id, row.source) for row in rows} == {(f"train#{number}", "train") for number in range(6)}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "train-labels-idx1-ubyte").unlink(), "has no labels beside it"),
        (lambda folder: (folder / "train-labels-idx1-ubyte").write_bytes(idx(LABELS[:5])), "6 images and labels"),
        (lambda folder: (folder / "train-images-idx3-ubyte").write_bytes(idx(IMAGES)[:-1]), "its header says 6 x 28 x 28"),
        (lambda folder: (folder / "train-images-idx3-ubyte").write_bytes(b""), "is broken"),
        (lambda folder: (folder / "train-images-idx3-ubyte").write_bytes(b"\0\0\x0d\1\0\0\0\0"), "no idx file of unsigned"),
    ],
)
def test_idx_files_that_do_not_fit_are_an_error_that_names_them(tmp_path: Path, spoil: Any, words: str) -> None:
    folder = idx_files(tmp_path / "idx", False)
    spoil(folder)
    with pytest.raises(StageError, match=words):
        read("idx", folder, tmp_path)


def test_a_label_number_without_a_name_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"ingest\.label_names: 2 names"):
        read("idx", idx_files(tmp_path / "idx", False), tmp_path, label_names=["a", "b"])


def test_npz_files_of_one_or_two_pairs_are_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", images=IMAGES, labels=np.array(list("abcabc")))
    np.savez(tmp_path / "two.npz", x_train=IMAGES[:4], y_train=LABELS[:4], x_test=IMAGES[4:], y_test=LABELS[4:, None])
    assert [row.label for row in read("npz", tmp_path / "one.npz", tmp_path) if isinstance(row, Row)] == list("abcabc")
    rows = read("npz", tmp_path / "two.npz", tmp_path)
    assert [(row.source, row.label) for row in rows if isinstance(row, Row)] == [
        *(("train", str(label)) for label in LABELS[:4]),
        *(("test", str(label)) for label in LABELS[4:]),
    ]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": IMAGES}, "images and no labels"),
        ({"pictures": IMAGES}, "has the arrays pictures"),
        ({"images": IMAGES / 255, "labels": LABELS}, "store them as uint8"),
        ({"images": IMAGES[0], "labels": LABELS}, "have the shape"),
        ({"images": IMAGES, "labels": LABELS / 2}, "one number or text each"),
        ({"images": IMAGES.astype(object), "labels": LABELS}, "cannot be read as .npz"),
    ],
)
def test_an_npz_file_that_does_not_fit_is_an_error(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(StageError, match=words):
        read("npz", tmp_path / "bad.npz", tmp_path)


def made_folder(folder: Path) -> Path:
    for label in ("bag", "shirt"):
        (folder / label).mkdir(parents=True)
        (folder / label / "a.png").write_bytes(file_of(gradient("L")))
        (folder / label / "b.jpg").write_bytes(file_of(gradient("CMYK", (300, 200)), "JPEG"))
    for reason, raw in BAD.items():
        (folder / "bag" / f"{reason}.png").write_bytes(raw)
    return folder


def test_a_folder_is_read_by_class_and_what_cannot_be_read_has_its_reason(tmp_path: Path) -> None:
    rows = read("folder", made_folder(tmp_path / "images"), tmp_path)
    assert {row.id: row.label for row in rows if isinstance(row, Row)} == {
        f"{label}/{name}": label for label in ("bag", "shirt") for name in ("a.png", "b.jpg")
    }
    assert {row.warnings for row in rows if row.id.endswith("b.jpg") and isinstance(row, Row)} == {("cmyk",)}
    assert {row.id: row.reason for row in rows if isinstance(row, Rejected)} == {f"bag/{r}.png": r for r in BAD}


def test_a_table_of_labels_takes_the_place_of_folders(tmp_path: Path) -> None:
    folder = made_folder(tmp_path / "images")
    (folder / "labels.csv").write_text("file,label\nbag/a.png,red\nshirt/a.png,\nnone.png,red\n")
    rows = read("folder", folder, tmp_path, label_table="labels.csv")
    labels = {row.id: row.label for row in rows if isinstance(row, Row)}
    assert labels["bag/a.png"] == "red"
    assert labels["shirt/a.png"] is None
    assert [row.id for row in rows if isinstance(row, Rejected) and row.reason == "label_without_file"] == ["none.png"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="there is no such folder"):
        read("folder", tmp_path / "none", tmp_path)


def test_a_table_of_the_corpus_own_columns_is_read(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "id": ["1", "2", "3"],
            "received": pd.to_datetime(["2020-01-01", None, None], utc=True),
            "source": "s",
            "label": ["bag", None, "bag"],
            "image": [encode_png(IMAGES[0]), encode_png(IMAGES[1]), b"?"],
        }
    )
    table.to_parquet(tmp_path / "t.parquet")
    first, second, third = read(**(ingest_table(str(tmp_path / "t.parquet")) | {"folder": tmp_path}))
    assert isinstance(first, Row)
    assert isinstance(second, Row)
    assert (str(first.received), second.received, second.label) == ("2020-01-01 00:00:00+00:00", None, None)
    assert isinstance(third, Rejected)
    assert third.reason == "not_png_or_jpeg"


def made_package(path: Path, folder: str) -> bytes:
    """A Debian package of idx files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as tar:
        for what, values in (("images-idx3", IMAGES), ("labels-idx1", LABELS)):
            member = tarfile.TarInfo(f"./{folder}/train-{what}-ubyte")
            member.size = len(idx(values))
            tar.addfile(member, io.BytesIO(idx(values)))
    package = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", buffer.getvalue())):
        package += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content + b"\n" * (len(content) % 2)
        )
    path.write_bytes(package)
    return package


def pointer_to(package: bytes, folder: Path, **changes: Any) -> Path:
    fields = {"package": "p", "version": "1", "file": "p.deb", "size": len(package), "folder": "usr/share/d", "licence": "MIT"}
    fields["sha256"] = hashlib.sha256(package).hexdigest()
    (folder / "pointer.json").write_text(json.dumps(fields | changes))
    return folder / "pointer.json"


def test_a_debian_package_is_read_without_being_installed(tmp_path: Path) -> None:
    (downloads := Paths(tmp_path).downloads).mkdir(parents=True)
    pointer = pointer_to(made_package(downloads / "p.deb", "usr/share/d"), tmp_path)
    assert len(read("debian", pointer, tmp_path)) == 6


def test_without_apt_the_other_ways_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian.shutil, "which", lambda name: None)
    with pytest.raises(StageError, match=r"there is no apt-get here; put p\.deb into .* idx, npz or folder"):
        read("debian", pointer_to(b"x", tmp_path), tmp_path)


def test_a_package_is_checked_by_size_and_sum(tmp_path: Path) -> None:
    package = made_package(tmp_path / "p.deb", "usr/share/d")
    pointer = debian.read_pointer(pointer_to(package, tmp_path, size=1))
    assert "its size is" in str(debian.fault(tmp_path / "p.deb", pointer))
    pointer = debian.read_pointer(pointer_to(package, tmp_path, sha256="0"))
    assert "its SHA-256 is" in str(debian.fault(tmp_path / "p.deb", pointer))
    with pytest.raises(StageError, match="holds no file below usr/none"):
        debian.files_in(tmp_path / "p.deb", "usr/none")
    (tmp_path / "p.deb").write_bytes(b"no package")
    with pytest.raises(StageError, match="cannot be read as a Debian package"):
        debian.files_in(tmp_path / "p.deb", "usr/share/d")


def test_feedback_is_decoded_and_a_broken_line_has_a_reason() -> None:
    raw = encode_png(IMAGES[0])
    assert PART.content_of({"image": base64.b64encode(raw).decode()}) == {"image": raw}
    for entry, reason in (
        ({}, "image_missing_or_no_text"),
        ({"image": "?"}, "image_not_base64"),
        ({"image": base64.b64encode(BAD["animated"]).decode()}, "image_animated"),
    ):
        with pytest.raises(Unreadable, match=f"^{reason}$"):
            PART.content_of(entry)


def test_rules_quarantine_what_shows_nothing_and_proposed_rules_pass() -> None:
    flat, small = encode_png(np.full((28, 28), 7, np.uint8)), encode_png(IMAGES[0][:5])
    corpus = made_corpus([*map(encode_png, IMAGES), encode_png(IMAGES[0]), flat, small])
    measured = PART.measure(corpus)
    assert list(measured.duplicate) == [0] * 6 + [1, 0, 0]
    assert list(measured.constant) == [0] * 7 + [1, 0]
    rules = PART.row_rules(PART.Validate.model_validate(PARAMS["validate"]).row_rules)
    assert dict(broken_rows(measured.assign(id=corpus.id), rules)) == {7: "contrast_too_low", 8: "height_out_of_range"}
    lines = [line for line, _ in PART.propose_row_rules(measured, PART.usable(measured))]
    assert set(yaml.safe_load("\n".join(lines))) == {"side_min", "side_max", "contrast_min"}
    bounds = yaml.safe_load("\n".join(line for line, _ in PART.propose_bounds(measured)))
    assert set(bounds) == set(PART.expectations(PART.Validate.model_validate(PARAMS["validate"])))


def test_inputs_are_what_the_service_makes_of_the_same_bytes() -> None:
    raws = [encode_png(IMAGES[0]), file_of(gradient("CMYK", (64, 48)), "JPEG"), BAD["truncated"]]
    settings = settings_for()
    prepared = PART.prepare_inputs(made_corpus(raws), settings)
    serving = Serving(PART.serving_settings(settings))
    assert prepared.inputs == [serving.preprocess(raw) for raw in raws]
    assert prepared.raws == raws
    assert prepared.reasons == [None, None, "truncated"]
    assert prepared.counts == {"resized": 1}


def test_near_copies_share_a_group_and_other_images_do_not() -> None:
    rng = np.random.default_rng(3)
    shapes = [np.asarray(Image.fromarray(rng.integers(0, 256, (7, 7), dtype=np.uint8)).resize((28, 28))) for _ in range(20)]
    copies = [
        np.minimum(shapes[0].astype(int) + 6, 255).astype(np.uint8),
        np.clip(shapes[1] + rng.normal(0, 2, (28, 28)), 0, 255).astype(np.uint8),
        np.asarray(Image.open(io.BytesIO(file_of(Image.fromarray(shapes[2]), "JPEG", quality=95)))),
    ]
    settings = settings_for()
    prints = [PART.fingerprint(image.tobytes(), settings) for image in (*shapes, *copies)]
    groups = group_of_each(list(map(str, range(23))), prints, settings.near_duplicates, {"test": 0.1})
    assert groups == [*map(str, range(20)), "0", "1", "2"]


def test_a_plain_image_has_a_fingerprint() -> None:
    assert PART.fingerprint(bytes(784), settings_for())


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("shape", [(28, 28), (20, 30, 3)])
def test_a_change_of_the_traffic_is_another_image_of_the_same_size(name: str, shape: tuple[int, ...]) -> None:
    raw = encode_png(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    changed = CHANGES[name](raw, np.random.default_rng(1))
    assert changed != raw
    assert Image.open(io.BytesIO(changed)).size == shape[1::-1]
    assert changed == CHANGES[name](raw, np.random.default_rng(1))
