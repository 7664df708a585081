"""Which file of a YOLO folder names the classes, and what those beside it say."""

import pytest
from yolo_files import convert, described, write

from data.errors import DatasetError
from data.formats.yolo import YoloFolder


def test_blank_lines_end_a_class_list_and_are_nowhere_else_in_it(tmp_path):
    write(tmp_path, classes="cat\n dog \n\n  \n")
    assert YoloFolder(tmp_path).class_names == ["cat", "dog"]
    write(tmp_path, classes="cat\n\ndog\n")
    with pytest.raises(DatasetError, match=r"classes\.txt: line 2 is blank, and numbers of classes.*remove it, or"):
        YoloFolder(tmp_path)


@pytest.mark.parametrize("name", ["dataset.yaml", "data.yaml"])
def test_a_yaml_file_with_names_comes_before_a_class_list(tmp_path, name):
    write(tmp_path, "a/1.jpg", "a/1.txt", "b/2.jpg", classes="dog\ncat\n")
    described(tmp_path, "train: a\nval: b\nnames: [cat, dog]", name)
    assert YoloFolder(tmp_path).class_names == ["cat", "dog"]
    found, lines = convert(tmp_path)
    assert found == {"train": {"1.jpg": 1}, "val": {"2.jpg": 0}}
    path = f"{tmp_path}/{name}"
    said = [line for line in lines if "classes.txt:" in line]
    assert said == [f"{tmp_path}/classes.txt: has other names or another order; the names of {path} are taken"]


@pytest.mark.parametrize(
    ("text", "said"), [("cat\ndog\n\n", None), ("cat\n", "has other names"), ("\ncat\ndog\n", "line 1 is blank")]
)
def test_a_class_list_beside_the_description_is_named_where_it_differs(tmp_path, text, said):
    write(tmp_path, "a.jpg", "a.txt", classes=text)
    described(tmp_path, "names: {1: dog, 0: cat}")
    lines = [line for line in convert(tmp_path)[1] if "are taken" in line]
    assert len(lines) == (said is not None) and all(said in line for line in lines)


@pytest.mark.parametrize("text", ["names: [cat", "names: data/coco.names", "names: []", "names:", "names: 3"])
def test_a_yaml_file_whose_names_cannot_be_read_gives_way_to_a_class_list(tmp_path, text):
    write(tmp_path, "a.jpg", "a.txt", classes="cat\n")
    assert YoloFolder(described(tmp_path, text, "hyp.yaml")).class_names == ["cat"]


@pytest.mark.parametrize("text", ["train: images", "- cat", "", "names", "!unknown [", "services: {web: {image: x}}"])
def test_a_yaml_file_without_names_beside_a_class_list_is_no_description(tmp_path, text):
    write(tmp_path, "images/a.jpg", "images/a.txt", classes="cat\n")
    folder = YoloFolder(described(tmp_path, text, "compose.yml"))
    assert (folder.class_names, folder.image_sets()) == (["cat"], {})


def test_a_yaml_file_that_cannot_be_read_beside_a_class_list_is_said(tmp_path):
    write(tmp_path, "a.jpg", "a.txt", classes="cat\n")
    described(tmp_path, "names: [cat", "cats.yaml")
    path = f"{tmp_path}/classes.txt"
    assert any(
        "cats.yaml: not valid YAML" in line and f"the names of {path} are taken" in line
        for line in convert(tmp_path)[1]
    )


def test_of_two_yaml_files_without_a_usual_name_neither_comes_before_a_class_list(tmp_path):
    write(tmp_path, "a.jpg", "a.txt", classes="cat\n")
    for name in ("x.yaml", "y.yaml"):
        described(tmp_path, "names: [dog]", name)
    assert YoloFolder(tmp_path).class_names == ["cat"]
