"""Folders that are written to keep what was not written there; named files are no inputs."""

import multiprocessing
import os

import pytest

from data.output_folder import LIST_NAME, OutputError, OutputFolder, refuse_inputs, require_writable


def write(path, text="mine"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_what_was_claimed_may_be_replaced_and_nothing_else(tmp_path):
    folder = OutputFolder(tmp_path / "out")
    folder.claim(["a.txt", "b/c.txt"])
    write(tmp_path / "out/a.txt")
    write(tmp_path / "out/mine.txt")
    folder.claim(["a.txt", "b/d.txt"])  # "b/d.txt" is new
    with pytest.raises(OutputError, match=r"mine\.txt: exists and was not written there"):
        folder.claim(["new.txt", "mine.txt"])
    assert folder.listed() == {"a.txt", "b/c.txt", "b/d.txt"}
    with pytest.raises(OutputError, match=r"a\.txt: exists from before"):
        folder.check(["a.txt"], replace=False)


def test_checking_and_refusing_write_nothing(tmp_path):
    OutputFolder(tmp_path / "out").check(["a.txt"])
    write(tmp_path / "out/a.txt")
    with pytest.raises(OutputError):
        OutputFolder(tmp_path / "out").claim(["a.txt", "b.txt"])
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "a.txt"]


@pytest.mark.parametrize("kind", ["file", "folder", "link", "link to nothing"])
def test_whatever_has_the_name_is_in_the_way(tmp_path, kind):
    target = tmp_path / "out/a.txt"
    target.parent.mkdir()
    if kind == "file":
        target.write_text("")
    elif kind == "folder":
        target.mkdir()
    else:
        target.symlink_to(tmp_path if kind == "link" else "nowhere")
    with pytest.raises(OutputError, match="not written there"):
        OutputFolder(tmp_path / "out").check(["a.txt"])


def test_folders_that_lead_out_are_refused_and_a_linked_root_is_not(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/train").symlink_to(tmp_path / "photos")
    with pytest.raises(OutputError, match="leads out of"):
        OutputFolder(tmp_path / "out").claim(["train/a.jpg"])
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    OutputFolder(tmp_path / "link").claim(["train/a.jpg"])
    write(tmp_path / "out/val")
    with pytest.raises(OutputError, match="in the way of a folder"):
        OutputFolder(tmp_path / "out").claim(["val/a.jpg"])


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_an_input_is_not_replaced_though_it_is_listed(tmp_path, link):
    folder = OutputFolder(tmp_path / "out")
    folder.claim(["a.txt"])
    write(tmp_path / "out/a.txt")
    link(tmp_path / "out/a.txt", tmp_path / "input.txt")
    for path in (tmp_path / "out/a.txt", tmp_path / "input.txt"):
        with pytest.raises(OutputError, match="is read for what would be written"):
            folder.claim(["a.txt"], inputs=[path])


@pytest.mark.parametrize("content", ["", '"a.txt"\n', "[1]\n", "{}\n", "text\n"])
def test_a_file_of_the_lists_name_is_not_believed(tmp_path, content):
    write(tmp_path / LIST_NAME, content)
    write(tmp_path / "a.txt")
    with pytest.raises(OutputError):
        OutputFolder(tmp_path).claim(["a.txt"])
    assert (tmp_path / LIST_NAME).read_text() == content


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_the_list_is_not_written_through_a_link(tmp_path, link):
    diary = write(tmp_path / "diary.txt")
    (tmp_path / "out").mkdir()
    link(diary, tmp_path / "out" / LIST_NAME)
    with pytest.raises(OutputError, match="is not the list"):
        OutputFolder(tmp_path / "out").claim(["a.txt"])
    assert diary.read_text() == "mine"


def test_a_line_that_a_kill_cut_off_is_no_name(tmp_path):
    folder = OutputFolder(tmp_path)
    folder.claim(["a.txt"])
    with open(tmp_path / LIST_NAME, "a") as file:
        file.write('"b.t')
    folder.claim(["c.txt"])
    assert folder.listed() == {"a.txt", "c.txt"}


def test_names_of_any_characters(tmp_path):
    names = ["a\nb.txt", "Ü 東京.jpg", os.fsdecode(b"\xff.jpg"), 'quote".txt']
    folder = OutputFolder(tmp_path)
    folder.claim(names)
    for name in names:
        write(tmp_path / name)
    folder.claim(names)
    folder.discard(names)
    assert [path.name for path in tmp_path.iterdir()] == [LIST_NAME]


def _claim_and_write(root, number):
    for index in range(20):
        OutputFolder(root).claim([f"{number}-{index}.txt", "both.txt"])
        write(root / f"{number}-{index}.txt")
        write(root / "both.txt")


def test_processes_that_fill_a_folder_together_lose_nothing_of_each_other(tmp_path):
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=_claim_and_write, args=(tmp_path, number)) for number in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    names = {path.name for path in tmp_path.iterdir()} - {LIST_NAME}
    assert OutputFolder(tmp_path).listed() == names and len(names) == 61


def test_named_files_may_be_replaced_but_inputs_may_not(tmp_path):
    source, other = write(tmp_path / "in.json"), write(tmp_path / "other.json")
    refuse_inputs([other, None, tmp_path / "new.json"], [source, tmp_path / "gone"])
    os.symlink(source, tmp_path / "link")
    os.symlink("link", tmp_path / "link to link")
    os.link(source, tmp_path / "hard")
    for path in (source, tmp_path / "link", tmp_path / "link to link", tmp_path / "hard", f"{tmp_path}/x/../in.json"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(OutputError, match="is an input, or a link to one"):
            refuse_inputs([other, path], [source])
    with pytest.raises(OutputError, match="is an input"):  # an input that leads to what would be written
        refuse_inputs([source], [tmp_path / "link to link"])


def test_two_results_have_two_files(tmp_path):
    os.symlink("a.json", tmp_path / "b.json")
    with pytest.raises(OutputError, match="two results"):
        refuse_inputs([tmp_path / "a.json", tmp_path / "b.json"], [])


def test_files_that_cannot_be_written_are_found_and_nothing_is_made(tmp_path, monkeypatch):
    write(tmp_path / "file")
    (tmp_path / "dangling").symlink_to("nowhere")
    require_writable([None, tmp_path / "file", tmp_path / "new/folder/a.json"])
    monkeypatch.chdir(tmp_path)
    require_writable(["a.json"])
    for path in (tmp_path, ".", "/"):
        with pytest.raises(OutputError, match="is a folder; name a file"):
            require_writable(["a.json", path])
    for path in ("file/a.json", tmp_path / "file/new/a.json", "dangling/a.json"):
        with pytest.raises(OutputError, match=r"cannot be written, as .*/(file|dangling) is no folder; choose"):
            require_writable([path])
    asked = []
    monkeypatch.setattr("os.access", lambda path, mode: asked.append(path))  # tests may run as a user who may do all
    with pytest.raises(OutputError, match=f"new/a.json: cannot be written, as {tmp_path} is write-protected; choose"):
        require_writable(["new/a.json"])
    assert asked == [tmp_path] and sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file"]


def test_a_full_disk_is_named_by_the_list(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("data.output_folder.os.fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        OutputFolder(tmp_path).claim(["a.jpg"])
    assert caught.value.filename == str(tmp_path / LIST_NAME)
