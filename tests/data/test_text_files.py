"""Texts in the encodings of other systems are read as meant, or named with file, line and encoding."""

import gzip

import pytest

from data.errors import DatasetError
from data.text_files import read_json, read_lines, read_text

TEXT = "box\nÜber 東京\n"
FROM_THEIR_FIRST_BYTES = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


@pytest.mark.parametrize("encoding", FROM_THEIR_FIRST_BYTES)
def test_the_first_bytes_tell_the_encoding(tmp_path, encoding):
    path = tmp_path / "classes.txt"
    path.write_bytes(TEXT.encode(encoding))
    assert read_text(path) == TEXT
    path.write_bytes(b"")
    assert read_text(path) == ""


@pytest.mark.parametrize("mark", [b"\xfe\xff", b"\x00\x00\xfe\xff"])
def test_big_endian_marks(tmp_path, mark):
    path = tmp_path / "classes.txt"
    path.write_bytes(mark + TEXT.encode("utf-16-be" if len(mark) == 2 else "utf-32-be"))
    assert read_text(path) == TEXT


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("cat\n汽车\n".encode("gbk"), "line 2 is not UTF-8"),
        ("a\nb\ncafé\n".encode("cp1252"), "line 3 is not UTF-8"),
        (b"\xff\xfea", "line 1 is not UTF-16"),
    ],
)
def test_other_encodings_are_named_with_their_line(tmp_path, content, words):
    path = tmp_path / "classes.txt"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=rf"classes\.txt: {words}.*save the file as UTF-8"):
        read_text(path)


@pytest.mark.parametrize("content", [gzip.compress(TEXT.encode()), b"\x1f\x8b"], ids=["whole", "cut off"])
def test_compressed_files_are_told_from_other_encodings(tmp_path, content):
    path = tmp_path / "instances_train.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"instances_train\.json: compressed by gzip; unpack it"):
        read_json(path)


def test_lines_end_as_on_any_system_and_nowhere_else(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("a\r\nb\rc\nd\x0ce\u2028f\x85g".encode())
    assert read_lines(path) == ["a", "b", "c", "d\x0ce\u2028f\x85g"]


@pytest.mark.parametrize("encoding", FROM_THEIR_FIRST_BYTES)
def test_json_in_any_of_them(tmp_path, encoding):
    path = tmp_path / "x.json"
    path.write_bytes('{"name": "東京"}'.encode(encoding))
    assert read_json(path) == {"name": "東京"}


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"[1,]", b"9" * 5000])
def test_what_is_no_json_is_one_line(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"x\.json: not valid JSON") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "gone", tmp_path, tmp_path / "a\0b"):
        with pytest.raises(DatasetError, match="cannot be read"):
            read_text(path)
