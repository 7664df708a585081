"""docs/config.md is what the settings classes say, and no key goes without a meaning."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ConfigDict

from detector.families import FAMILIES
from engine.run.config import Config, known_keys, parse_config
from engine.tools.config_reference import config_reference, model_keys, settings_keys
from losses.loss import LossSettings

DOCUMENT = Path(__file__).resolve().parents[3] / "docs/config.md"


def test_the_document_is_the_printed_one():
    assert DOCUMENT.read_text() == config_reference(), "run python scripts/dev/config_reference.py"


def test_every_key_has_a_row():
    rows = set(re.findall(r"^\| `([\w.]+)` \|", DOCUMENT.read_text(), re.MULTILINE))
    assert rows == set(known_keys()) - set(Config.model_fields)


ROW = re.compile(r"^\| `(model|loss)\.(\w+)` \| [^|]+ \| ([^|]+) \|", re.MULTILINE)


@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_are_those_of_a_configuration_that_names_family_and_loss_alone(family):
    for loss in FAMILIES[family].losses:
        config = parse_config({"model": {"family": family}, "loss": {"name": loss}}, "test")
        actual = {("model", key): value for key, value in config.model.model_dump(mode="json").items()}
        actual |= {("loss", key): value for key, value in dataclasses.asdict(config.loss).items()}
        written = {("model", "family"): family, ("loss", "name"): loss}
        for section in re.split(r"^(?=##)", DOCUMENT.read_text(), flags=re.MULTILINE):
            of = re.match(r"### (?:model\.family|loss\.name): (\w+)", section)
            if of and of[1] not in (family, loss):
                continue
            for group, key, default in ROW.findall(section):  # a family's own row comes after the shared one
                usual, *exceptions = default.split("; ")
                others = dict(exception.split(": ", 1) for exception in exceptions)
                value = yaml.safe_load(others.get(family if group == "loss" else loss, usual).strip("`"))
                if key not in ("family", "name"):
                    written[group, key] = value
        assert written == actual


def test_the_usual_loss_of_each_family_is_that_of_a_configuration_without_one():
    (default,) = (default for _, key, default in ROW.findall(DOCUMENT.read_text()) if key == "name")
    usual, *exceptions = default.replace("`", "").split("; ")
    others = dict(exception.split(": ") for exception in exceptions)
    for family in FAMILIES:
        assert parse_config({"model": {"family": family}}, "test").loss.name == others.get(family, usual)


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
