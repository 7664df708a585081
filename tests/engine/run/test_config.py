"""Configuration files, overrides, and the one line that a mistake gives."""

from pathlib import Path

import pytest
import yaml

from detector.families import FAMILIES
from engine.run.config import ConfigError, load_config, parse_config
from losses.table import LOSSES

CONFIGS = sorted((Path(__file__).resolve().parents[3] / "configs").glob("*.yaml"))


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_are_valid_and_survive_the_plain_form(path):
    config = load_config(path)
    assert config.run.name == path.stem
    assert parse_config(yaml.safe_load(yaml.safe_dump(config.to_dict())), "copy") == config


def test_base_is_overridden_key_by_key(tmp_path):
    write(tmp_path / "base.yaml", "optimizer: {lr: 0.5, momentum: 0.8}\nloss: {name: focal}\n")
    config = load_config(write(tmp_path / "top.yaml", "base: base.yaml\noptimizer: {lr: 0.25}\n"))
    assert (config.optimizer.lr, config.optimizer.momentum, config.loss.name) == (0.25, 0.8, "focal")
    assert config.run.name == "top"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_of_other_systems_are_read(tmp_path, encoding):
    (tmp_path / "c.yaml").write_bytes("data: {classes: [Katze, 猫]}\r\nrun: {compile: yes}\r\n".encode(encoding))
    config = load_config(tmp_path / "c.yaml")
    assert config.data.classes == ["Katze", "猫"] and config.run.compile is True


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("data: {classes: [汽车]}".encode("gbk"), "line 1 is not UTF-8"),
        (b"run: {seed: 1}\nrun: {seed: 2}\n", "line 2: the key 'run' occurs twice"),
        (b"c: &c {d: *c}\n", "contains itself"),
        (
            "\n".join(["a0: &a0 [1]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 30))]).encode(),
            "aliases",
        ),
    ],
)
def test_files_that_cannot_be_read_are_one_line(tmp_path, content, words):
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"c\.yaml: .*{words}"):
        load_config(tmp_path / "c.yaml")


def test_overrides_come_last_and_are_yaml_values(tmp_path):
    path = write(tmp_path / "c.yaml", "optimizer: {lr: 0.5}\n")
    config = load_config(path, ["optimizer.lr=1e-3", "data.classes=[cat, dog]", "model.weights=null", "run.name=x"])
    assert config.optimizer.lr == 1e-3
    assert config.data.classes == ["cat", "dog"]
    assert config.model.weights is None
    assert config.run.name == "x"


def test_the_focal_twin_differs_in_loss_and_learning_rate_only():
    alrp, focal = (load_config(path).to_dict() for path in CONFIGS if path.stem in ("bccd_r18_alrp", "bccd_r18_focal"))
    for values in (alrp, focal):
        del values["loss"], values["optimizer"]["lr"], values["run"]["name"]
    assert alrp == focal


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optimizer.learning_rate=3", "optimizer.learning_rate: unknown key; did you mean optimizer.lr?"),
        ("lr=3", "lr: unknown key; did you mean optimizer.lr?"),
        ("data.bach_size=3", "did you mean data.batch_size?"),
        ("optimizer.lr=abc", "optimizer.lr: Input should be a valid number"),
        ("optimizer.lr=true", "optimizer.lr: Input should be a valid number"),
        ("optimizer.lr=-1", "optimizer.lr: Input should be greater than 0"),
        ("optimizer.lr=.inf", "optimizer.lr"),
        ("schedule.epochs=1.5", "schedule.epochs: Input should be a valid integer"),
        ("model.backbone=vgg", "model.backbone: Input should be 'resnet18'"),
        ("model.frozen_stages=true", "model.frozen_stages"),
        ("loss.delta='1'", "loss.delta"),
        ("loss.delta=0", "loss.delta: must be a positive number"),
        ("data.image_size=[1, 2, 3]", "data.image_size: must be one side or [height, width]"),
        ("evaluation.short_side=300", "short_side and long_side are given together"),
        ("evaluation.extra_short_sides=[400]", "extra_short_sides and resize: torchvision need short_side"),
        ("evaluation.extra_short_sides=[4]", "evaluation.extra_short_sides"),
        ("data.short_side=300", "short_side and long_side are given together"),
        ("data={short_side: 300, long_side: 400, augmentation: crop}", "leave out short_side and long_side"),
        ("data.short_side=[800, 600]", "data.short_side: must be one side or [lowest, highest]"),
        ("run.name=../x", "run.name"),
        ("optimizer=3", "optimizer: "),
        ("image_size=512", "did you mean data.image_size?"),
        ("optimizer.lr=fast", "command line: optimizer.lr"),
        ("schedule.milestones=[15, 5]", "schedule.milestones: must be epochs in ascending order"),
        ("data.classes=[]", "data.classes: must be distinct"),
        ("run.seed=99999999999999999999999", "run.seed"),
        ("run.name=2024-02-30", "run.name: not a YAML value"),
        ("nonsense", "not of the form KEY=VALUE"),
        ("loss.name=[]", "loss.name: must be one of alrp, ap"),
        ("loss.name=null", "loss.name: must be one of alrp, ap"),
        ("model.family={}", "model.family: must be one of retinanet"),
        ("loss=3", "loss: must be a group"),
        ("model=null", "model: must be a group"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(tmp_path, override, expected):
    with pytest.raises(ConfigError) as error:
        load_config(write(tmp_path / "c.yaml", "run: {seed: 1}\n"), [override])
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the config file is empty"),
        ("data: [", "not valid YAML in line 1"),
        ("- 1", "found a list"),
        ("data:\n  rooot: x\n", "data.rooot: unknown key; did you mean data.root?"),
        ("base: nowhere.yaml\n", "nowhere.yaml: no such config file"),
        ("base: c.yaml\n", "in a circle"),
        ("!!python/object/apply:os.system [ls]\n", "not valid YAML"),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, expected):
    with pytest.raises(ConfigError) as error:
        load_config(write(tmp_path / "c.yaml", text))
    assert expected in str(error.value)
    assert "c.yaml" in str(error.value) or "nowhere" in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone.yaml: no such config file"):
        load_config(tmp_path / "gone.yaml")


LOSS_FILES = {"base.yaml": "loss: {name: alrp, delta: 0.7, balance_every: 50, ranking: local}\n"}


def test_another_loss_drops_the_keys_that_files_gave_the_former_one(tmp_path):
    base = write(tmp_path / "base.yaml", LOSS_FILES["base.yaml"])
    child = write(tmp_path / "child.yaml", "base: base.yaml\nloss: {name: focal, gamma: 1.5}\n")
    loss = load_config(child).loss
    assert (loss.name, loss.gamma, loss.ranking) == ("focal", 1.5, "global")
    for overrides in (["loss.name=rs", "loss.delta=0.3"], ["loss.delta=0.3", "loss.name=rs"]):
        loss = load_config(base, overrides).loss
        assert (loss.name, loss.delta, loss.ranking) == ("rs", 0.3, "global")
    same = load_config(base, ["loss.name=alrp", "loss.delta=0.9"]).loss  # no other loss: its keys stay
    assert (same.delta, same.balance_every, same.ranking) == (0.9, 50, "local")


def test_keys_of_another_loss_are_refused_with_the_losses_that_have_them(tmp_path):
    file = write(tmp_path / "c.yaml", "loss: {name: focal, delta: 0.5}\n")
    with pytest.raises(ConfigError, match=r"c\.yaml: loss\.delta: loss\.name=focal has no such key, alrp, ap, rs have"):
        load_config(file)
    having = ", ".join(name for name, loss in LOSSES.items() if "alpha" in loss.Settings.key_names())
    with pytest.raises(ConfigError, match=rf"command line: loss\.alpha: loss\.name=ap has no such key, {having} have"):
        load_config(write(tmp_path / "d.yaml", "run: {seed: 1}\n"), ["loss.name=ap", "loss.alpha=0.3"])


def test_a_loss_that_the_family_cannot_learn_by_is_refused_with_those_that_it_can(tmp_path, monkeypatch):
    monkeypatch.setitem(FAMILIES, "fcos", FAMILIES["fcos"]._replace(losses=("focal", "ap")))
    path = write(tmp_path / "c.yaml", "model: {family: fcos}\n")
    assert load_config(path).loss.name == "focal"
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["loss.name=alrp"])
    assert str(caught.value).endswith("c.yaml: loss.name: alrp does not go with model.family: fcos; focal, ap do")


def test_values_below_a_file_are_taken_where_it_names_none(tmp_path):
    below = {"loss": {"name": "rs", "delta": 1.0}, "data": {"exif": "legacy"}}
    same = load_config(write(tmp_path / "c.yaml", "loss: {name: rs}\n"), below=below)
    assert (same.loss.delta, same.data.exif) == (1.0, "legacy")
    assert load_config(tmp_path / "c.yaml", ["loss.delta=0.5"], below=below).loss.delta == 0.5
    assert load_config(tmp_path / "c.yaml", ["loss.name=ap"], below=below).loss.delta == 1.0  # of AP Loss itself
    other = write(tmp_path / "d.yaml", "loss: {name: alrp}\n")
    assert load_config(other, ["loss.name=rs"], below=below).loss.delta == 1.0


@pytest.mark.parametrize("override", ["run.name=null", "run={name: null}", "run.seed=1"])
def test_a_run_without_a_name_has_that_of_its_file(tmp_path, override):
    path = write(tmp_path / "mine.yaml", "run: {name: other}\n" if "name" in override else "data: {workers: 1}\n")
    assert load_config(path, [override]).run.name == "mine"


def test_a_file_whose_name_is_none_of_a_run_is_one_line(tmp_path):
    path = write(tmp_path / "my run (old).yaml", "data: {workers: 1}\n")
    with pytest.raises(ConfigError, match=r"run\.name: has other signs.*rename the file.*'my run \(old\)'"):
        load_config(path)
    assert load_config(path, ["run.name=x"]).run.name == "x"


def test_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    config = load_config(write(tmp_path / "a.yaml", "data: {root: ~/data}\n"), ["run.dir=~/runs"])
    assert (config.data.root, config.run.dir) == ("/home/me/data", "/home/me/runs")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data: {classes: [cat, no]}", r"data\.classes: .*write text in quotes \(found \['cat', False\]\)"),
        ("data: {test_split: off}", r"data\.test_split: .*write text in quotes"),
        ("run: {name: 2024-01-05}", r"run\.name: .*write text in quotes"),
        ("data: {classes: cat}", r"data\.classes: .*list, such as \[a, b\] \(found 'cat'\)"),
    ],
)
def test_what_yaml_reads_as_other_things_than_meant_is_explained(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words):
        load_config(write(tmp_path / "c.yaml", text + "\n"))
