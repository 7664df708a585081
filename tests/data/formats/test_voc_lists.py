"""Lists of VOC that say nothing, or lie in another folder than the one that is named."""

import re

import pytest
from voc_files import convert, lists, write

from data.errors import DatasetError
from data.formats.voc import VocFolder


def three(root):
    return write(root, *(f"Annotations/{number}.xml" for number in "123"), *(f"JPEGImages/{n}.jpg" for n in "123"))


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        ({"train": "1\n2", "val": ""}, {"train": "12"}),
        ({"train": "1", "val": " \n\n", "test": "3"}, {"train": "1", "test": "3"}),
        ({"trainval": "12", "train": "12", "val": ""}, {"train": "12"}),
        ({"trainval": "12", "train": "", "val": ""}, {"train": "12"}),
        ({"train": "", "val": "", "test": ""}, {}),
    ],
)
def test_an_empty_list_is_no_split_and_said(tmp_path, contents, expected):
    root = lists(three(tmp_path), **{name: "\n".join(text) for name, text in contents.items()})
    voc = VocFolder(root)
    found = {split: "".join(path.stem for path in files) for split, files in voc.image_sets().items()}
    assert found == expected
    empty = [name for name, text in contents.items() if not text.strip()]
    said = [note for note in voc.tally.notes if "lists nothing, and is passed over" in note]
    assert said == [f"{root}/ImageSets/Main/{name}.txt: lists nothing, and is passed over" for name in empty]


def test_trainval_is_said_to_stand_for_a_list_only_where_it_does(tmp_path):
    lists(three(tmp_path), trainval="1\n2\n", train="1\n2\n", val="")
    assert not any("taken for" in line for line in convert(tmp_path)[1])
    lists(tmp_path, trainval="1\n2\n", train="1\n", val="")
    assert any("taken for val.txt, which lists nothing" in line for line in convert(tmp_path)[1])
    (tmp_path / "ImageSets/Main/val.txt").unlink()
    assert any("taken for val.txt, which is not there" in line for line in convert(tmp_path)[1])


@pytest.mark.parametrize("name", ["ImageSets", "imagesets"])
def test_a_folder_above_the_lists_is_refused_with_those_that_hold_them(tmp_path, name):
    for year in ("VOC2007", "VOC2012"):
        lists(three(tmp_path / year), train="1\n")
    (tmp_path / "VOC2012/ImageSets").rename(tmp_path / "VOC2012" / name)
    folders = re.escape(f"{tmp_path}/VOC2007, {tmp_path}/VOC2012")
    with pytest.raises(DatasetError, match=f"no ImageSets/ .*{folders}; name the folder that holds ImageSets/"):
        VocFolder(tmp_path)
    assert VocFolder(tmp_path / "VOC2012").image_sets().keys() == {"train"}


@pytest.mark.parametrize(("folder", "below"), [("Main", "Main/backup"), ("", "Segmentation")])
def test_a_list_in_a_folder_below_is_another(tmp_path, folder, below):
    three(tmp_path)
    for place, train, val in ((folder, "1\n2\n", "3\n"), (below, "1\n", "2\n")):
        (tmp_path / "ImageSets" / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / "ImageSets" / place / "train.txt").write_text(train)
        (tmp_path / "ImageSets" / place / "val.txt").write_text(val)
    names, _ = convert(tmp_path)
    assert {split: [name[0] for name in found] for split, found in names.items()} == {"train": ["1", "2"], "val": ["3"]}
    (tmp_path / "ImageSets" / folder / "train.txt").rename(tmp_path / "ImageSets" / folder / "trainval.txt")
    names, _ = convert(tmp_path)  # trainval.txt less val.txt, and not the older train.txt
    assert {split: [name[0] for name in found] for split, found in names.items()} == {"train": ["1", "2"], "val": ["3"]}
