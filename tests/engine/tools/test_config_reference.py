"""docs/config.md is what the settings classes say, and no key goes without a meaning."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from engine.run.config import Config, known_keys
from engine.tools.config_reference import config_reference, model_keys, settings_keys
from losses.loss import LossSettings

DOCUMENT = Path(__file__).resolve().parents[3] / "docs/config.md"


def test_the_document_is_the_printed_one():
    assert DOCUMENT.read_text() == config_reference(), "run python scripts/dev/config_reference.py"


def test_every_key_has_a_row():
    rows = set(re.findall(r"^\| `([\w.]+)` \|", DOCUMENT.read_text(), re.MULTILINE))
    assert rows == set(known_keys()) - set(Config.model_fields)


def test_rows_say_type_range_default_and_meaning():
    class Group(BaseModel):
        model_config = ConfigDict(use_attribute_docstrings=True)
        rates: list[float] | None = [1e-4, 2.0]
        """Of what,
        per step | epoch."""

    @dataclass(frozen=True, kw_only=True)
    class Settings(LossSettings):
        width: float = 0.5
        """Half of it."""

    assert list(model_keys(Group)) == [
        ("rates", "list of: number or null", "`[0.0001, 2.0]`", "Of what, per step \\| epoch.")
    ]
    assert list(settings_keys(Settings))[-1] == ("width", "number", "`0.5`", "Half of it.")


def test_keys_without_meaning_are_refused():
    class Group(BaseModel):
        rate: float = 1.0

    @dataclass(frozen=True, kw_only=True)
    class Settings(LossSettings):
        width: float = 0.5

    with pytest.raises(ValueError, match=r"Group\.rate has no meaning"):
        list(model_keys(Group))
    with pytest.raises(ValueError, match=r"Settings\.width has no meaning"):
        list(settings_keys(Settings))
