"""What one of several processes does to the others: it fails, dies, hangs, or meets bad data or a loss of NaN."""

import shutil
import time
from multiprocessing.connection import wait

import pytest
import torch
import torch.distributed as dist
import train_worker
from fork_server import fork_server
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine import load_config
from engine.run.checkpoint import load_checkpoint
from engine.run.run_folder import RunFolder


@pytest.fixture
def launch(tmp_path):
    """launch(n, "--config", …, fault=f) -> (exit statuses, what each process said, seconds), as under torchrun."""

    def run(world_size: int, *arguments: object, fault: train_worker.Fault | None = None, survivors: int = 0):
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # torchrun's part
        outputs = [tmp_path / f"said-{rank}.txt" for rank in range(world_size)]
        words = [str(argument) for argument in arguments]
        workers = [
            fork_server().Process(
                target=train_worker.main, args=(rank, world_size, store.port, words, outputs[rank], fault)
            )
            for rank in range(world_size)
        ]
        start = time.monotonic()
        for worker in workers:
            worker.start()
        running = {worker.sentinel for worker in workers}
        while len(running) > survivors and time.monotonic() < start + 150:
            running -= set(wait(running, 1))
        seconds = time.monotonic() - start
        for worker in workers:
            worker.kill()
            worker.join()
        return [worker.exitcode for worker in workers], [output.read_text() for output in outputs], seconds

    return run


def errors(said: list[str]) -> list[str]:
    return [line for text in said for line in text.splitlines() if line.startswith("error:")]


def test_a_bug_on_one_process_ends_all_and_is_shown_once(launch, config_file):
    statuses, said, seconds = launch(2, "--config", config_file, fault=train_worker.raise_on_rank_1)
    assert statuses == [1, 1]
    assert seconds < 60
    assert ["Traceback" in text for text in said] == [False, True]
    assert said[1].count("ValueError: a bug on rank 1") == 1
    assert errors(said) == []


def test_a_killed_process_ends_the_others_with_one_line(launch, config_file):
    statuses, said, seconds = launch(3, "--config", config_file, "data.batch_size=3", fault=train_worker.die_on_rank_1)
    assert statuses == [1, -9, 1]
    assert seconds < 60
    (line,) = errors(said)
    assert "lost contact with another process" in line and "--resume auto" in line
    assert not any("Traceback" in text for text in said)


@pytest.mark.slow
def test_a_process_that_hangs_is_given_up_after_the_configured_time(launch, config_file):
    arguments = ("--config", config_file, "run.collective_minutes=0.15")
    statuses, said, seconds = launch(2, *arguments, fault=train_worker.hang_on_rank_1, survivors=1)
    assert statuses == [1, -9]
    assert seconds < 60
    (line,) = errors(said)
    assert "run.collective_minutes" in line


def test_nan_on_one_process_is_skipped_by_all_and_leaves_no_trace_in_running_statistics(launch, config_file):
    arguments = ("schedule.max_steps=4", "evaluation.every=9", "data.accumulate=2")
    arguments += ("model.norm=batch", "optimizer.ema_decay=0.5")
    statuses, said, _ = launch(2, "--config", config_file, *arguments, fault=train_worker.nan_on_each_rank)
    assert statuses == [0, 0], said
    assert said[0].count("not finite") == 2
    assert all(f"step {step}: loss or gradient not finite" in said[0] for step in (2, 3))
    state = load_checkpoint(RunFolder(load_config(config_file)).last)
    assert (state["step"], state["skipped"], state["skipped_in_a_row"]) == (4, 2, 0)
    for weights in (state["model"], state["ema"]):
        assert all(tensor.isfinite().all() for tensor in weights.values())
        assert weights["backbone.bn1.num_batches_tracked"] == 4  # two micro-batches of each of the two other steps


def test_a_killed_loader_process_ends_the_run_with_one_line(launch, config_file):
    arguments = ("data.workers=1", "schedule.epochs=99")
    statuses, said, _ = launch(1, "--config", config_file, *arguments, fault=train_worker.kill_a_loader_process)
    assert statuses == [1]
    (line,) = errors(said)
    assert "loader process was lost" in line and "data.workers" in line
    assert "Traceback" not in said[0]


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_signal_to_one_process_ends_the_wait_of_another_for_data(launch, config_file, world_size):
    arguments = ("schedule.epochs=99", "run.log_every=1")
    statuses, said, seconds = launch(
        world_size, "--config", config_file, *arguments, fault=train_worker.starve_the_last_rank
    )
    assert statuses == [143] * world_size, said
    assert seconds < 60
    assert errors(said) == []
    assert "stopped by signal 15 after step 2; continue with" in said[0]
    folder = RunFolder(load_config(config_file))
    assert load_checkpoint(folder.last)["step"] == 2
    assert list(losses(folder)) == [1, 2]  # the step that the others gave up is none


def test_a_signal_ends_the_wait_for_data_in_an_evaluation(launch, config_file):
    arguments = ("schedule.max_steps=2", "evaluation.batch_size=1")
    statuses, said, _ = launch(2, "--config", config_file, *arguments, fault=train_worker.starve_the_last_rank)
    assert statuses == [143, 143], said
    assert errors(said) == []
    state = load_checkpoint(RunFolder(load_config(config_file)).last)
    assert (state["step"], state["evaluated_step"]) == (2, 0)


@pytest.mark.slow
def test_after_too_many_bad_steps_every_process_leaves_its_batch(launch, config_file):
    arguments = ("--config", config_file, "run.max_bad_steps=2")
    statuses, said, _ = launch(2, *arguments, fault=train_worker.nan_on_rank_1)
    assert statuses == [1, 1]
    (line,) = errors(said)
    assert "step 3" in line and "run.max_bad_steps" in line
    folder = RunFolder(load_config(config_file)).path
    batches = [torch.load(folder / f"bad_batch.rank{rank}.pt", weights_only=True) for rank in range(2)]
    ids = [target["image_id"] for batch in batches for targets in batch["targets"] for target in targets]
    assert len(ids) == 4
    assert str(ids) in line


@pytest.mark.slow
def test_an_image_that_one_process_cannot_read_stops_all_with_its_name(launch, config_file, broken_data):
    statuses, said, seconds = launch(3, "--config", config_file, "data.batch_size=3", f"data.root={broken_data}")
    assert statuses[0] in (1, 2) and set(statuses) <= {1, 2}
    assert seconds < 60
    (line,) = errors(said)
    assert "unreadable image" in line and "image id" in line


def test_skipping_bad_images_keeps_the_processes_in_step(launch, config_file, broken_data):
    arguments = (f"data.root={broken_data}", "data.on_error=skip", "evaluation.every=9", "schedule.max_steps=4")
    statuses, said, _ = launch(2, "--config", config_file, *arguments)  # all images once, and a step more
    assert statuses == [0, 0], said
    assert load_checkpoint(RunFolder(load_config(config_file)).last)["step"] == 4
    assert "1 training image could not be read (1 damaged): skipped" in said[0]


@pytest.fixture
def broken_data(shapes, tmp_path):
    """The generated data with one of its twelve training images cut off."""
    root = tmp_path / "broken"
    shutil.copytree(shapes, root)
    path = sorted((root / "train").iterdir())[4]
    path.write_bytes(path.read_bytes()[:100])
    return root


@pytest.mark.parametrize("world_size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_stopping_and_resuming_changes_nothing_on_several_processes(launch, config_file, world_size):
    recipe = ("schedule.epochs=4", "data.batch_size=6", "evaluation.every=9")  # two steps an epoch
    for name, last_steps in (("whole", [3]), ("resumed", [1, 3])):
        for steps in last_steps:
            words = (f"run.name={name}", f"schedule.max_steps={steps}", *recipe)
            statuses, said, _ = launch(world_size, "--config", config_file, *words, "--resume", "auto")
            assert set(statuses) == {0}, said
    whole, resumed = (
        load_checkpoint(RunFolder(load_config(config_file, [f"run.name={n}"])).last) for n in ("whole", "resumed")
    )
    assert all(torch.equal(resumed["model"][name], tensor) for name, tensor in whole["model"].items())
    for index, state in whole["optimizer"]["state"].items():
        assert torch.equal(resumed["optimizer"]["state"][index]["momentum_buffer"], state["momentum_buffer"])


@pytest.mark.slow
def test_another_number_of_processes_goes_on_with_the_same_images_and_says_so(launch, config_file):
    def run(world_size, name, steps):
        words = (f"run.name={name}", f"schedule.max_steps={steps}", "evaluation.every=9", "--resume", "auto")
        statuses, said, _ = launch(world_size, "--config", config_file, *words)
        assert set(statuses) == {0}, said
        return said[0]

    run(1, "whole", 5)
    assert "bit for bit" not in run(1, "changed", 2)
    assert "continues on 2 processes what 1 began" in run(2, "changed", 5)
    whole, changed = (losses(RunFolder(load_config(config_file, [f"run.name={n}"]))) for n in ("whole", "changed"))
    assert list(changed) == [1, 2, 3, 4, 5]
    assert changed == pytest.approx(whole, rel=1e-4)


def losses(folder: RunFolder) -> dict[int, float]:
    events = EventAccumulator(str(folder.path)).Reload()
    return {point.step: point.value for point in events.Scalars("train/loss")}
