"""tasks/stage.py: params.yaml as a person wrote it; what is wrong in it has a place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.stage import StageError, read_params


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: 1\nb: [1, 2\nc: 3\n", "line 3, column 2: expected ',' or ']', but got ':', while parsing"),
        (b"a:\n\tb: 1\n", "line 2, column 1: found character '\\t' that cannot start any token"),
        (b"a: 'x\n", "line 2, column 1: found unexpected end of stream"),
        (b"a: *x\n", "line 1, column 4: found undefined alias 'x'"),
        (b"a: 1\nb: x\x07y\n", "line 2, column 5: special characters are not allowed: U+0007"),
        ("a: é\n".encode() + b"b: \xe9\n", "line 2, column 4: this is not UTF-8"),
        (b"\xff\xfea\x00", "line 1, column 1: this is not UTF-8"),
        (b"", "expected a block for each stage, found NoneType"),
        (b"- 1\n", "expected a block for each stage, found list"),
    ],
)
def test_a_fault_in_params_yaml_is_one_line_with_its_place(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(StageError) as caught:
        read_params(tmp_path)
    said = str(caught.value)
    assert said.startswith(f"params.yaml: {says}")
    assert "\n" not in said


def test_no_params_yaml_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"^params\.yaml: cannot be read: No such file or directory$"):
        read_params(tmp_path)
