"""What a resumed run must have in common with its checkpoint: all differences are named at once."""

import json
import shutil

import pytest
import torch

from engine.run.config import ConfigError, load_config
from engine.run.datasets import training_set
from engine.run.distributed import Processes
from engine.run.resume import recipe_facts, require_same_recipe
from engine.run.run_folder import RunFolder
from engine.training.trainer import Trainer

CPU = torch.device("cpu")


def checkpoint_of(config) -> dict:
    dataset = training_set(config)
    state = {"config": config.to_dict(), "classes": dataset.class_names, "model": {}, "epoch": 0, "step": 1}
    return state | recipe_facts(config, dataset, CPU)


def check(config, state) -> None:
    dataset = training_set(config)
    require_same_recipe(config, state, "last.pt", dataset, recipe_facts(config, dataset, CPU))


@pytest.fixture
def edit_training_set(shapes, tmp_path):
    """edit(f) -> root of a copy of the data whose training annotations went through f."""

    def edit(change) -> str:
        root = tmp_path / "edited"
        shutil.copytree(shapes, root, dirs_exist_ok=True)
        path = root / "annotations/instances_train.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))
        return f"data.root={root}"

    return edit


def test_another_root_worker_count_and_end_are_no_differences(config_file, edit_training_set):
    root = edit_training_set(lambda document: None)
    state = checkpoint_of(load_config(config_file))
    others = ["data.workers=3", "data.on_error=skip", "schedule.max_steps=9", "run.log_every=7"]
    check(load_config(config_file, [root, *others]), state)


def fewer_images(document):
    del document["images"][-1]
    ids = {image["id"] for image in document["images"]}
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] in ids]


def one_box_moved(document):
    document["annotations"][0]["bbox"][0] += 0.5


def one_image_with_another_id(document):
    old = document["images"][0]["id"]
    document["images"][0]["id"] = 1000
    for annotation in document["annotations"]:
        if annotation["image_id"] == old:
            annotation["image_id"] = 1000


def images_in_another_order(document):
    document["images"].reverse()


def one_label_changed(document):
    first = document["annotations"][0]
    first["category_id"] = next(c["id"] for c in document["categories"] if c["id"] != first["category_id"])


def one_object_marked_as_crowd(document):
    document["annotations"][0]["iscrowd"] = 1


@pytest.mark.parametrize(
    ("change", "count"),
    [
        (fewer_images, 11),
        (one_box_moved, 12),
        (one_label_changed, 12),
        (one_object_marked_as_crowd, 12),
        (one_image_with_another_id, 12),
        (images_in_another_order, 12),
    ],
)
def test_another_training_set_is_refused(config_file, edit_training_set, change, count):
    state = checkpoint_of(load_config(config_file))
    config = load_config(config_file, [edit_training_set(change)])
    with pytest.raises(
        ConfigError, match=rf"training set is {count} images .* now and was 12 images .*edited/annotations"
    ):
        check(config, state)


def test_all_differences_are_named_in_one_line(config_file, edit_training_set):
    state = checkpoint_of(load_config(config_file))
    changes = ["run.seed=5", "run.precision=bfloat16", "optimizer.lr=0.5", "data.batch_size=2"]
    with pytest.raises(ConfigError) as caught:
        check(load_config(config_file, [*changes, edit_training_set(one_box_moved)]), state)
    text = str(caught.value)
    assert text.startswith("last.pt: ") and "\n" not in text
    for part in (
        "run.seed is 5 now and was 0",
        "run.precision is 'bfloat16' now and was 'float32'",
        "optimizer.lr is 0.5 now and was 0.01",
        "data.batch_size is 2 now and was 4",
        "the training set is 12 images",
    ):
        assert part in text


def test_the_precision_that_counts_is_the_resolved_one(config_file):
    state = checkpoint_of(load_config(config_file)) | {"precision": "bfloat16"}
    with pytest.raises(ConfigError, match=r"run\.precision is 'float32' now and was 'bfloat16'"):
        check(load_config(config_file), state)
    config = load_config(config_file, ["run.precision=auto"])
    check(config, checkpoint_of(config) | {"config": load_config(config_file).to_dict()})


def test_an_old_checkpoint_passes_with_one_line(config_file, caplog):
    config = load_config(config_file)
    state = {key: value for key, value in checkpoint_of(config).items() if key not in ("training_set", "precision")}
    check(config, state)
    (record,) = caplog.records
    assert "did not record the training set" in record.getMessage()


def test_differences_come_with_the_command_that_continues(config_file):
    begun = load_config(config_file, ["run.name=a"])
    here = RunFolder(begun)
    here.begin(begun, 0, 0)
    here.save_last(checkpoint_of(begun))
    state = here.find_checkpoint("auto", False)
    config = load_config(config_file, ["run.name=a", "optimizer.lr=0.5", "run.seed=3"])
    dataset = training_set(config)
    facts = recipe_facts(config, dataset, CPU)
    with pytest.raises(ConfigError) as caught:
        require_same_recipe(config, state, str(here.source), dataset, facts)
    text = str(caught.value)
    assert "optimizer.lr is 0.5 now and was 0.01; run.seed is 3 now and was 0;" in text
    assert text.endswith(f"to continue: python train.py --resume {here.path}")
    with pytest.raises(ConfigError) as caught:  # as begun it would not go on with these data either
        require_same_recipe(config, {**state, "classes": ["x"]}, str(here.source), dataset, facts)
    assert "to continue" not in str(caught.value)


@pytest.mark.parametrize(("here", "others", "words"), [(4, [None], "here step 4"), (None, [4], "here none")])
def test_hosts_that_do_not_share_a_folder_are_refused_before_anything_else(
    config_file, monkeypatch, here, others, words
):
    monkeypatch.setattr(Processes, "gather", lambda _, value: [value, *others])
    config, state = load_config(config_file), None if here is None else {"step": here}
    with pytest.raises(ConfigError, match=rf"checkpoints differ \({words}\); put run\.dir on a disk"):
        Trainer(config, Processes(0, 2, CPU), RunFolder(config), state)


def test_an_evaluation_that_is_no_longer_comparable_is_warned_of(config_file, caplog):
    state = checkpoint_of(load_config(config_file))
    check(load_config(config_file, ["evaluation.every=2"]), state)
    assert not caplog.records
    check(load_config(config_file, ["evaluation.flip=true", "evaluation.every=2"]), state)
    (record,) = caplog.records
    expected = "evaluation.flip is True now and was False: best.pt still stands for its AP of before"
    assert record.getMessage() == expected
