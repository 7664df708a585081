"""`train.py --resume RUN_FOLDER` without a configuration: the run goes on with its own."""

import shlex
import shutil

import pytest
import yaml
from format1 import CONFIG as OLD_CONFIG

import train
from engine.run.checkpoint import load_checkpoint
from engine.run.config import ConfigError, load_config
from engine.run.resume_command import resume_command, stored_config
from engine.run.run_folder import RunFolder


@pytest.fixture
def call(monkeypatch, capsys):
    """call(arguments …) -> (exit status, what it printed, its errors)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["train.py", *map(str, arguments)])
        try:
            status = train.main()
        except SystemExit as stop:
            status = stop.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture(scope="module")
def kept(tmp_path_factory, write_config):
    """The folder of a run of three of its six steps, started with two keys on the command line, and a copy of it."""
    config_file = write_config(tmp_path_factory.mktemp("begun"))
    with pytest.MonkeyPatch.context() as patch:
        words = ["--config", str(config_file), "schedule.max_steps=3", "optimizer.lr=0.02"]
        patch.setattr("sys.argv", ["train.py", *words])
        assert train.main() == 0
    folder = RunFolder(load_config(config_file)).path
    return folder, shutil.copytree(folder, config_file.with_name("copy"))


@pytest.fixture
def begun(kept):
    """The folder of that run as it was left, whatever another test did to it."""
    folder, copy = kept
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(copy, folder)
    return RunFolder(load_config(folder.parents[1] / "tiny.yaml"))


@pytest.mark.usefixtures("no_evaluation")
def test_a_run_goes_on_without_its_configuration_being_typed_again(call, begun):
    assert call("--resume", begun.path, "schedule.max_steps=6")[0] == 0
    state = load_checkpoint(begun.last)
    assert (state["step"], state["config"]["optimizer"]["lr"]) == (6, 0.02)
    assert "finished" in call("--resume", begun.path)[1]  # six steps are now what is stored


@pytest.mark.usefixtures("no_evaluation")
def test_a_folder_that_was_moved_is_where_the_run_goes_on(call, begun, tmp_path):
    moved = tmp_path / "elsewhere/renamed"
    moved.parent.mkdir()
    shutil.move(begun.path, moved)
    assert call("--resume", moved, "schedule.max_steps=4")[0] == 0
    assert load_checkpoint(moved / "checkpoints/last.pt")["step"] == 4
    assert not begun.path.exists()


@pytest.mark.usefixtures("no_evaluation")
def test_a_run_without_a_checkpoint_starts_afresh_with_its_own_configuration(call, begun):
    shutil.rmtree(begun.last.parent)
    (begun.path / "metrics.jsonl").write_text("")
    assert call("--resume", begun.path)[0] == 0
    assert load_checkpoint(begun.last)["step"] == 3


def test_an_override_that_changes_the_recipe_is_refused(call, begun):
    status, _, errors = call("--resume", begun.path, "optimizer.lr=0.5")
    assert status == 2
    assert f"to continue: python train.py --resume {begun.path}" in errors


def test_no_data_are_generated_for_a_stored_configuration(call, begun, tmp_path):
    stored = yaml.safe_load((begun.path / "config.yaml").read_text())
    stored["data"] |= {"root": str(tmp_path / "new"), "generate": {"train": 4, "val": 2, "test": 1, "image_size": 64}}
    (begun.path / "config.yaml").write_text(yaml.safe_dump(stored))
    status, _, errors = call("--resume", begun.path)
    assert status == 2 and "no such annotation file" in errors
    assert not (tmp_path / "new").exists()


def test_a_stored_configuration_of_format_1_is_read_as_its_checkpoints_are(begun):
    (begun.path / "config.yaml").write_text(yaml.safe_dump(OLD_CONFIG))  # with keys of all losses
    config = stored_config(str(begun.path))
    assert (config.data.exif, config.loss.name) == ("legacy", "alrp")
    assert not hasattr(config.loss, "gamma")


@pytest.mark.parametrize(
    ("resume", "said"),
    [
        ("auto", "give --config FILE"),
        ("absent", "check the path"),
        ("", "holds no config.yaml"),
        ("file.pt", "give --config too"),
    ],
)
def test_what_is_no_run_folder_is_refused_in_one_line(call, tmp_path, resume, said):
    (tmp_path / "file.pt").touch()
    status, _, errors = call("--resume", resume if resume == "auto" else tmp_path / resume)
    assert status == 2 and said in errors
    assert [line for line in errors.splitlines() if line.startswith("error:")] == errors.splitlines()


def test_another_folder_cannot_be_named_beside_it(begun):
    with pytest.raises(ConfigError, match=r"run\.name=b: --resume .* continues in that folder"):
        stored_config(str(begun.path), ["optimizer.lr=0.02", "run.name=b"])


def test_the_command_names_folder_and_processes(monkeypatch, tmp_path):
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert shlex.split(resume_command(tmp_path / "my run"))[-1] == str(tmp_path / "my run")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert resume_command(tmp_path) == f"torchrun --nproc-per-node 4 train.py --resume {tmp_path}"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert "--nnodes … --nproc-per-node 2 " in resume_command(tmp_path)


def test_a_folder_of_an_impossible_name_says_what_to_do(begun, tmp_path, call):
    shutil.move(begun.path, tmp_path / "my run (old)")
    status, _, said = call("--resume", tmp_path / "my run (old)")
    assert status == 2 and "run.name: has other signs than letters" in said and "rename the file or folder" in said
