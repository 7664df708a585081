"""YAML files: the one reader for configurations and for the descriptions of data sets."""

import re
from pathlib import Path
from typing import Any

import yaml

from data.errors import DatasetError
from data.text_files import read_text

MAX_EXPANDED = 100_000  # values that aliases may stand for; people write a handful of them


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads numbers as YAML 1.2 does: 1e-4 is one; 010 and 1:30 are no numbers of another base."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":int", ":float"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_NUMBER_STARTS = list("-+.0123456789")
_INTEGER = r"^([-+]?(0|[1-9][0-9_]*)|0x[0-9a-fA-F]+)$"
_FLOAT = r"^([-+]?(\d[0-9_]*\.[0-9_]*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(_INTEGER), _NUMBER_STARTS)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_FLOAT), _NUMBER_STARTS)


class _TextLoader(yaml.SafeLoader):
    """SafeLoader to which every plain value is text as it is written: `no` and 007 are names."""

    yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile("^<<$"))]}  # noqa: RUF012


def read_yaml(path: str | Path, values_as_text: bool = False) -> Any:
    """The content of a YAML file; None for an empty one. Arguments as of `parse_yaml`.

    Raises:
        DatasetError: it cannot be read, or `parse_yaml` refuses it.
    """
    text = read_text(path)
    try:
        return parse_yaml(text, values_as_text)
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from None


def parse_yaml(text: str, values_as_text: bool = False) -> Any:
    """Plain values, lists and dicts of one YAML document.

    Args:
        values_as_text: numbers, booleans and null stay the text that is written.
    Raises:
        ValueError: not YAML, a key that occurs twice, or aliases that contain themselves or stand for more than
            MAX_EXPANDED values.
    """
    try:
        loader = (_TextLoader if values_as_text else _Loader)(text)
        node = loader.get_single_node()
        if node is None:
            return None
        sizes: dict[int, int] = {}
        if _expanded_size(node, sizes) > max(MAX_EXPANDED, 2 * len(sizes)):
            raise ValueError(f"aliases stand for more than {MAX_EXPANDED} values; write out what is meant")
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "unexpected character"
        raise ValueError(f"not valid YAML{line}: {problem}") from error
    except RecursionError:
        raise ValueError("not valid YAML: nested too deeply") from None
    except (ValueError, LookupError, AttributeError, TypeError) as error:  # an impossible date, `!!bool maybe`
        raise ValueError(f"not valid YAML: {' '.join(str(error).split()) or 'impossible value'}") from error


def _expanded_size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Number of values in a node, those behind aliases counted each time; `sizes` keeps them by node, 0 while open."""
    if (known := sizes.get(id(node))) is not None:
        if known == 0:
            raise ValueError(f"the alias of line {node.start_mark.line + 1} contains itself")
        return known
    sizes[id(node)] = 0
    total = 1
    if isinstance(node, yaml.MappingNode):
        _refuse_repeated_keys(node)
        total += sum(_expanded_size(part, sizes) for pair in node.value for part in pair)
    elif isinstance(node, yaml.SequenceNode):
        total += sum(_expanded_size(part, sizes) for part in node.value)
    sizes[id(node)] = total
    return total


def _refuse_repeated_keys(node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            if (key.tag, key.value) in seen:
                raise ValueError(f"line {key.start_mark.line + 1}: the key {key.value!r} occurs twice")
            seen.add((key.tag, key.value))
