"""The checkpoint that a run folder gives, and what becomes of the files that are there."""

import pytest

from engine.run.checkpoint import load_checkpoint, save_checkpoint
from engine.run.config import ConfigError, load_config
from engine.run.run_folder import RunFolder


def checkpoint_of(config) -> dict:
    return {"config": config.to_dict(), "classes": ["a"], "model": {}, "epoch": 0, "step": 1}


@pytest.fixture
def two_runs(config_file):
    """Folders of two runs with a checkpoint each."""
    folders = []
    for name in ("a", "b"):
        config = load_config(config_file, [f"run.name={name}"])
        folder = RunFolder(config)
        folder.begin(config, 0, 0)
        folder.save_last(checkpoint_of(config))
        folders.append(folder)
    return folders


def contents(folder: RunFolder) -> dict:
    return {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}


def test_a_checkpoint_of_another_run_is_refused_where_a_run_is(two_runs):
    here, other = two_runs
    before = contents(here)
    with pytest.raises(ConfigError, match=r"b/checkpoints/last\.pt: .*/a holds another run.*another run\.name"):
        here.find_checkpoint(str(other.last), False)
    here.last.unlink()
    here.add_metrics({"step": 3})  # its checkpoints are gone, its results are not
    with pytest.raises(ConfigError, match="holds another run"):
        here.find_checkpoint(str(other.last), False)
    assert before.keys() - contents(here).keys() == {here.last}


def test_checkpoints_of_the_run_itself_are_its_own_under_any_name(two_runs, tmp_path):
    here, _ = two_runs
    (tmp_path / "link.pt").symlink_to(here.last)
    save_checkpoint(here.best, load_checkpoint(here.last))
    for path in (here.last, here.best, tmp_path / "link.pt"):
        assert here.find_checkpoint(str(path), False)["step"] == 1


def test_a_start_that_was_killed_before_its_first_checkpoint_may_be_repeated(two_runs, config_file):
    _, other = two_runs
    config = load_config(config_file, ["run.name=c"])
    RunFolder(config).begin(config, 1, 0)
    assert RunFolder(config).find_checkpoint(str(other.last), False)["step"] == 1
    changed = RunFolder(load_config(config_file, ["run.name=c", "schedule.epochs=7"]))
    assert changed.find_checkpoint(str(other.last), False)["step"] == 1
    changed.add_metrics({"step": 3})
    with pytest.raises(ConfigError, match="holds another run"):
        changed.find_checkpoint(str(other.last), False)


def test_a_run_that_died_before_its_first_checkpoint_does_not_block_the_next(config_file, caplog):
    config = load_config(config_file)
    folder = RunFolder(config)
    folder.begin(config, 0, 0)
    events = folder.path / "events.out.tfevents.1"
    events.touch()
    with caplog.at_level("INFO"):
        assert RunFolder(config).find_checkpoint(None, False) is None
    assert "ended here before its first checkpoint" in caplog.text
    folder.begin(config, 0, 0)
    assert not events.exists()
    folder.last.parent.mkdir()
    (folder.last.parent / "last.pt.damaged").touch()  # which somebody may still want
    with pytest.raises(ConfigError, match="this run exists"):
        RunFolder(config).find_checkpoint(None, False)


@pytest.mark.parametrize("by_folder", [True, False])
def test_results_without_a_checkpoint_are_set_aside(two_runs, config_file, by_folder, caplog):
    here, _ = two_runs
    for time in (1, 2):
        caplog.clear()
        here = RunFolder(load_config(config_file, ["run.name=a"]))
        here.add_metrics({"step": time})
        here.last.unlink(missing_ok=True)
        before = {path.name: path.read_bytes() for path in here.path.iterdir() if path.is_file()}
        assert here.find_checkpoint(str(here.path) if by_folder else "auto", False) is None
        aside = here.path / f"earlier.{time}"
        assert not caplog.text  # a dry run moves nothing
        here.begin(load_config(config_file, ["run.name=a"]), 0, 0)
        assert f"no checkpoint to continue from; starts afresh, and keeps them in {aside}" in caplog.text
        assert {path.name: path.read_bytes() for path in aside.iterdir()} == before
        assert here.metrics() == []


@pytest.fixture
def five_steps(config_file):
    """A run with last.pt of step 5, last.1.pt of step 3, and best.pt of step 4."""
    config = load_config(config_file, ["run.keep_checkpoints=2"])
    folder = RunFolder(config)
    folder.begin(config, 0, 0)
    for step in (3, 5):
        folder.save_last(checkpoint_of(config) | {"step": step})
    folder.save_best(checkpoint_of(config) | {"step": 4})
    return config, folder.last.with_name("last.1.pt")


def test_the_same_rewind_gives_the_same_step_and_keeps_what_it_gives_up(five_steps, caplog):
    config, early = five_steps
    before = contents(RunFolder(config))
    for _ in range(2):
        folder = RunFolder(config)
        state = folder.find_checkpoint(str(early), False)
        assert state["step"] == 3 and folder.rewound and not folder.has_best
        folder.rewind(state)
        folder.begin(config, 3, 0)
        assert load_checkpoint(folder.last)["step"] == 3 and not folder.best.exists()
    aside = folder.path / "earlier.1"
    assert sorted(path.name for path in aside.iterdir()) == ["best.pt", "last.pt", "metrics.jsonl"]
    assert {path.read_bytes() for path in aside.iterdir()} <= set(before.values())
    assert not (folder.path / "earlier.2").exists()


def test_a_rewind_that_torchrun_starts_again_is_the_same(five_steps):
    config, early = five_steps
    assert RunFolder(config).find_checkpoint(str(early), False)["step"] == 3  # and the process dies
    again = RunFolder(config)
    assert again.find_checkpoint(str(early), False, restarted=True)["step"] == 3 and again.rewound
    again.begin(config, 3, 0)
    assert RunFolder(config).find_checkpoint(str(early), False, restarted=True)["step"] == 5  # what it has written


def test_going_back_to_the_best_keeps_it(five_steps):
    config, _ = five_steps
    folder = RunFolder(config)
    folder.rewind(folder.find_checkpoint(str(folder.best), False))
    assert folder.has_best and load_checkpoint(folder.last)["step"] == load_checkpoint(folder.best)["step"] == 4


def test_weights_that_are_saved_twice_are_one_checkpoint(config_file):
    config = load_config(config_file, ["run.keep_checkpoints=2"])
    folder = RunFolder(config)
    for step, evaluated in ((3, 0), (3, 3), (6, 3), (6, 6)):
        folder.save_last(checkpoint_of(config) | {"step": step, "evaluated_step": evaluated})
    assert steps_kept(folder) == [(3, 3), (6, 6)]


@pytest.mark.parametrize("resume", ["auto", "last.pt", "last.1.pt"])
def test_weights_that_are_evaluated_after_a_resume_are_one_checkpoint_too(config_file, resume):
    config = load_config(config_file, ["run.keep_checkpoints=3"])
    folder = RunFolder(config)
    for step, evaluated in ((3, 3), (6, 3)):
        folder.save_last(checkpoint_of(config) | {"step": step, "evaluated_step": evaluated})
    again = RunFolder(config)
    state = again.find_checkpoint(resume if resume == "auto" else str(folder.last.with_name(resume)), False)
    if again.rewound:
        again.rewind(state)
    again.save_last(state | {"evaluated_step": state["step"]})
    assert steps_kept(again) == [(3, 3), (3, 3) if again.rewound else (6, 6)]  # last.1.pt stays as it was


def steps_kept(folder: RunFolder) -> list[tuple[int, int]]:
    """Steps of the checkpoints, and those of their latest evaluations."""
    kept = [load_checkpoint(path) for path in sorted(folder.last.parent.iterdir(), reverse=True)]
    return sorted((state["step"], state["evaluated_step"]) for state in kept)


def test_the_curves_of_a_run_that_died_are_not_those_of_one_that_goes_on_in_its_folder(two_runs, config_file):
    _, other = two_runs
    config = load_config(config_file, ["run.name=c"])
    died = RunFolder(config)
    died.begin(config, 0, 0)
    died.curves.write_text('{"step": 1, "seconds": 3600.0}\n')
    folder = RunFolder(config)
    folder.begin(config, folder.find_checkpoint(str(other.last), False)["step"], 0)
    assert not folder.curves.exists()


def test_the_run_itself_may_be_named_by_its_folder(two_runs):
    here, other = two_runs
    assert here.find_checkpoint(str(here.path), False)["step"] == 1
    with pytest.raises(ConfigError, match="holds another run"):
        here.find_checkpoint(str(other.path), False)


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("resume", ["auto", None])
@pytest.mark.parametrize("names", [("config.yaml", "log.txt"), ("train_batch.png",), ("events.out.tfevents.1",)])
def test_files_that_no_run_wrote_are_never_replaced(config_file, names, resume, overwrite):
    folder = RunFolder(load_config(config_file))
    folder.path.mkdir(parents=True)
    for name in names:
        (folder.path / name).write_text("model: mine")
    with pytest.raises(ConfigError, match=f"holds {', '.join(names)}, which train.py did not write"):
        folder.find_checkpoint(resume, overwrite)


def test_a_process_that_does_not_write_leaves_no_trace(two_runs):
    here, _ = two_runs
    before = contents(here)
    assert here.find_checkpoint(None, True, writes=False) is None
    assert contents(here) == before


def test_fewer_checkpoints_are_kept_when_fewer_are_asked_for(config_file):
    config = load_config(config_file, ["run.keep_checkpoints=3"])
    many, one = RunFolder(config), RunFolder(load_config(config_file))
    for step in range(3):
        many.save_last(checkpoint_of(config) | {"step": step})
    assert len(list(many.last.parent.iterdir())) == 3
    one = RunFolder(load_config(config_file, ["run.keep_checkpoints=1"]))
    one.save_last(checkpoint_of(config))
    assert list(many.last.parent.iterdir()) == [one.last]
