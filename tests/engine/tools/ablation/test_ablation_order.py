"""The order of an ablation's cells, and how processes take them."""

import subprocess
import sys
import threading
import time

import pytest
from ablation_grids import result

from engine.run.run_folder import RunFolder
from engine.tools.ablation.choice import chosen_cells, ready_cells, tie_cells
from engine.tools.ablation.grid import Cell, search_cells
from engine.tools.ablation.runs import Runner
from engine.tools.ablation.time_limit import TimeLimit


def names(ready):
    return [f"{cell.name} tested" if test else cell.name for cell, test in ready]


def test_a_variant_goes_on_without_waiting_for_the_others(searched):
    search = search_cells(searched)
    first = names(ready_cells(searched, {}))
    assert first == [cell.name for cell in search]
    aps = {0.01: 0.305, 0.02: 0.31, 0.04: 0.2}  # 0.01 and 0.02 tie
    found = dict(result(cell, aps[cell.learning_rate]) for cell in search if cell.variant == "aLRP")
    ties = ["search_alrp_lr0.02_seed7", "search_alrp_lr0.01_seed7"]
    assert names(ready_cells(searched, found)) == first + ties
    found |= dict(result(cell, 0.3) for cell in tie_cells(searched, found))
    comparison = [f"alrp_lr0.02_seed{seed} tested" for seed in (0, 1, 2)]
    assert names(ready_cells(searched, found)) == first + ties + comparison


def test_the_comparison_goes_seed_by_seed_and_without_what_failed(searched):
    search = search_cells(searched)
    found = dict(result(cell, 10 * cell.learning_rate) for cell in search if cell.learning_rate > 0.01)
    failed = [cell for cell in search if cell not in found]
    comparison = names(ready_cells(searched, found, failed))[len(search) :]
    assert comparison == [
        f"{variant}_lr0.04_seed{seed} tested" for seed in (0, 1, 2) for variant in ("alrp", "focal-giou")
    ]
    assert names(ready_cells(searched, {}, search)) == [cell.name for cell in search]


class Bar:
    count = 0

    def update(self, count):
        self.count += count


def test_a_free_process_takes_what_has_become_ready(searched, tmp_path, monkeypatch):
    """Focal loss's last cell of the search runs until aLRP's comparison has begun, which then does not come first."""
    runner, found, begun = Runner(searched, tmp_path, 2, TimeLimit(None)), {}, threading.Event()
    second = threading.Event()

    def run(cell, test):
        if test and cell.variant == "aLRP":
            begun.set()
            assert cell.seed == 0 or second.is_set()
            assert second.wait(20)
        if test and cell.variant != "aLRP":
            second.set()
        if cell.variant != "aLRP" and cell.learning_rate == 0.04 and not test:
            assert begun.wait(20)
        if cell.variant == "aLRP" and cell.learning_rate == 0.01:
            return False  # it fails
        found.update([result(cell, 10 * cell.learning_rate)])
        return True

    monkeypatch.setattr(runner, "_run_cell", run)
    monkeypatch.setattr(runner.cells, "results", lambda: dict(found))
    bar = Bar()
    failed = runner.run(bar)
    assert [cell.name for cell in failed] == ["search_alrp_lr0.01_seed0"]
    assert bar.count == searched.size and len(found) == searched.size - 1


def test_a_cell_that_is_tested_later_counts_once(grid, tmp_path, monkeypatch):
    runner, found, ran = Runner(grid, tmp_path, 1, TimeLimit(None)), {}, []

    def run(cell, test):
        ran.append((cell, test))
        found.update([result(cell, cell.learning_rate)])
        return True

    monkeypatch.setattr(runner, "_run_cell", run)
    monkeypatch.setattr(runner.cells, "results", lambda: dict(found))
    bar = Bar()
    assert runner.run(bar) == []
    assert bar.count == grid.size == len(ran) - 2  # the chosen two of the first seed ran again, for their test
    assert {cell for cell, test in ran if test} == set(chosen_cells(grid, found))


@pytest.mark.parametrize(
    ("given", "taken"),
    [(None, ["0", "1", "0"]), ("2,3", ["2", "3", "2"]), ("GPU-a,GPU-b", ["GPU-a", "GPU-b", "GPU-a"])],
)
def test_cells_take_turns_on_the_gpus_that_the_user_gave(grid, tmp_path, monkeypatch, given, taken):
    runner, seen = Runner(grid, tmp_path, 3, TimeLimit(None)), []

    class Ended:
        def __init__(self, command, env, **_):
            seen.append(env["CUDA_VISIBLE_DEVICES"])

        def wait(self, timeout=None):
            return 0

        poll = wait

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("subprocess.Popen", Ended)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given or "")
    if given is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    for slot in range(3):
        runner._call(["train.py"], Cell("aLRP", 0.01, slot), slot)
    assert seen == taken


def test_a_finished_run_of_other_settings_is_not_taken_for_the_cell(grid, write_config, tmp_path, caplog):
    write_config(tmp_path)
    cell, runner = Cell("aLRP", 0.01, 0), Runner(grid, tmp_path / "out", 1, TimeLimit(None))
    overrides, config = grid.cell_config(cell, runner.runs)
    run = RunFolder(config)
    run.begin(config, 0, 0)
    run.add_metrics({"epoch": config.schedule.epochs, "step": 6, "AP": 0.5})
    assert runner._train(cell, overrides, config, 0)
    assert not runner._train(cell, [*overrides, "loss.delta=0.7"], config, 0)
    assert "trained by other settings: loss.delta is 0.7 now and was 1.0; remove it" in caplog.text


def test_a_process_that_starts_while_the_grid_stops_ends_too(searched, tmp_path, monkeypatch):
    runner = Runner(searched, tmp_path, 1, TimeLimit(None))

    def start(*arguments, **keys):
        process = popen([sys.executable, "-c", "import time; time.sleep(60)"], **keys)
        runner.stop()  # which cannot know of it yet
        return process

    popen = subprocess.Popen
    monkeypatch.setattr("engine.tools.ablation.runs.subprocess.Popen", start)
    began = time.monotonic()
    assert not runner._call(["train.py"], search_cells(searched)[0], 0)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("name", ["my #1", "a: b", "null", "[x]"])
@pytest.mark.usefixtures("config_file")
def test_runs_lie_in_the_folder_whatever_its_name(searched, tmp_path, name):
    _, config = searched.cell_config(search_cells(searched)[0], tmp_path / name)
    assert config.run.dir == str(tmp_path / name)
