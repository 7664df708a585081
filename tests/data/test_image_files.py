"""Files below a folder: links followed, circles ended, hidden ones passed over."""

import os

from data.image_files import files_below, is_image


def write(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")


def found(root):
    return sorted(path.relative_to(root).as_posix() for path in files_below(root))


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    write(tmp_path, "a.jpg", "._a.jpg", ".DS_Store", ".ipynb_checkpoints/a-checkpoint.jpg", "b/.cache/c.jpg", "b/c.jpg")
    assert found(tmp_path) == ["a.jpg", "b/c.jpg"]


def test_linked_folders_are_followed_and_circles_end(tmp_path):
    write(tmp_path, "outside/x.jpg", "root/b/y.jpg", "root/z.jpg")
    root = tmp_path / "root"
    (root / "a_link").symlink_to(tmp_path / "outside")
    (root / "b/up").symlink_to("..")
    (root / "b/self").symlink_to("self")  # a link to itself is a link to nothing
    (root / "0_same").symlink_to("b")  # found under its own name, though this one comes first
    (tmp_path / "outside/back").symlink_to(root)
    assert found(root) == ["a_link/x.jpg", "b/self", "b/y.jpg", "z.jpg"]


def test_links_to_nothing_are_found_and_pipes_are_not(tmp_path):
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert found(tmp_path) == ["gone.jpg"]


def test_suffixes_in_any_case(tmp_path):
    images = ("a.JPG", "a.jfif", "a.jpe", "a.GIF", "a.Jpeg", "a.tiff", "a.WebP")
    assert all(is_image(tmp_path / name) for name in images)
    assert not any(is_image(tmp_path / name) for name in ("a.txt", "jpg", "a.jpg.txt", "a.heic"))
