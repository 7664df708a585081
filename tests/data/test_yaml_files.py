"""The YAML reader: values as meant, text where names are meant, and nothing that explodes."""

import math
import time

import pytest

from data.errors import DatasetError
from data.yaml_files import parse_yaml, read_yaml


def bomb(levels: int, width: int = 2, link: str = "[{}]") -> str:
    lines = ["a0: &a0 [1, 2]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} " + link.format(", ".join([f"*a{level - 1}"] * width)))
    return "\n".join(lines)


def test_values_are_typed_and_numbers_may_lack_a_dot():
    assert parse_yaml("{a: 1e-4, b: -2E+3, c: yes, d: -7, e: null, f: 1.5, g: .5, h: 1_000, i: 0x1F, j: -.inf}") == {
        "a": 1e-4,
        "b": -2000.0,
        "c": True,
        "d": -7,
        "e": None,
        "f": 1.5,
        "g": 0.5,
        "h": 1000,
        "i": 31,
        "j": -math.inf,
    }
    assert parse_yaml("") is None


@pytest.mark.parametrize("written", ["010", "1:30", "1:30.5", "0b11", "-007"])
def test_no_number_is_read_in_a_base_of_yaml_1_1(written):
    assert parse_yaml(f"a: {written}") == {"a": written}


def test_values_as_text_are_what_is_written():
    text = "names: [yes, no, on, off, 007, 1e5, null, ~, 12:30, 2020-01-01, 'quoted', =]\n1: {}\n"
    assert parse_yaml(text, values_as_text=True) == {
        "names": ["yes", "no", "on", "off", "007", "1e5", "null", "~", "12:30", "2020-01-01", "quoted", "="],
        "1": {},
    }


def test_aliases_and_merges_of_a_usual_size_are_read():
    text = "base: &base {a: 1, b: 2}\nother: {<<: *base, b: 3}\nlist: [*base, *base]"
    for values_as_text, one in ((False, 1), (True, "1")):
        document = parse_yaml(text, values_as_text)
        assert document["other"]["a"] == one and len(document["list"]) == 2


@pytest.mark.parametrize("values_as_text", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        bomb(30),
        bomb(8, 20),
        bomb(40).replace("]", "]\n", 1),
        "a0: &a0 {x: 1, y: 2}\n" + "\n".join(f"a{i}: &a{i} {{x: *a{i - 1}, y: *a{i - 1}}}" for i in range(1, 30)),
        "a0: &a0 {x0: 1}\n" + "\n".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}], x{i}: 1}}" for i in range(1, 30)),
    ],
)
def test_aliases_that_explode_are_refused_at_once(text, values_as_text):
    start = time.monotonic()
    with pytest.raises(ValueError, match="aliases stand for more than"):
        parse_yaml(text, values_as_text)
    assert time.monotonic() - start < 1


def test_a_long_document_without_aliases_is_no_bomb():
    assert len(parse_yaml(f"[{', '.join(['1'] * 3000)}]")) == 3000


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: {c: *a}}", "&a [1, *a]"])
def test_an_alias_of_itself_is_refused(text):
    with pytest.raises(ValueError, match=r"alias of line 1 contains itself"):
        parse_yaml(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: [", "in line 2"),
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' occurs twice"),
        ("a: {0: x, 0: y}", "line 1: the key '0' occurs twice"),
        ("[" * 5000, "nested too deeply"),
        ("a: 2020-13-45", "not valid YAML"),
        ("!!bool maybe", "not valid YAML"),
        ("!!int ''", "not valid YAML"),
        ("!!timestamp x", "not valid YAML"),
        ("!!python/object/apply:os.system [ls]", "not valid YAML"),
        ("{[1]: 2}", "not valid YAML"),
        ("a: \x07", "unexpected character"),
        ("9" * 5000, "not valid YAML"),
        ("--- 1\n--- 2", "not valid YAML in line 2"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, text, words):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(DatasetError, match=rf"x\.yaml: .*{words}") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)
