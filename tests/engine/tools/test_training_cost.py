"""The cost calculator against sums by hand and against what DistributedDataParallel would send."""

import json
import runpy
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from detector import build_detector
from engine.run.checkpoint import load_checkpoint, save_checkpoint
from engine.run.config import ConfigError, load_config
from engine.tools.cost_table import rate_of_run, size_of_data
from engine.tools.training_cost import Cost, Traffic, estimate_cost, estimate_traffic

ROOT = Path(__file__).resolve().parents[3]
R50 = ROOT / "configs/r50_alrp.yaml"  # 32 images a step, 100 epochs
SMALL = ("model.backbone=resnet18", "model.weights=null", "model.fpn_channels=32", "model.head_convs=0")


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "scripts/training_cost.py"))


def run_script(script: dict, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["training_cost.py", *map(str, arguments)])
    script["main"]()


def test_time_of_an_epoch_and_of_a_recipe() -> None:
    cost = estimate_cost(load_config(R50), 1000, 20.0, 4, Traffic(3e8, 1e8, 0), 1e9)
    # 1000 // 32 steps; 8 images on each of four at 20 a second; 0.4 GB at 1 GB/s
    assert cost == Cost(steps_per_epoch=31, compute=pytest.approx(0.4), communication=pytest.approx(0.4), epochs=100)
    assert cost.epoch_seconds == pytest.approx((31 * 0.4, 31 * 0.8))
    assert cost.recipe_hours == pytest.approx((31 * 0.4 * 100 / 3600, 31 * 0.8 * 100 / 3600))
    # communication longer than computation cannot hide behind it
    assert Cost(10, 0.1, 0.3, 1).epoch_seconds == pytest.approx((3.0, 4.0))


@pytest.mark.parametrize("processes, num_images", [(3, 1000), (64, 1000), (1, 31)])
def test_a_batch_that_cannot_be_split_is_refused(processes: int, num_images: int) -> None:
    with pytest.raises(ConfigError, match=r"data\.batch_size=32"):
        estimate_cost(load_config(R50), num_images, 20.0, processes, Traffic(0, 0, 0), 1e9)


def test_bytes_of_gradients_and_ranking() -> None:
    config = load_config(R50, SMALL)
    detector = build_detector(config, 5, load_weights=False)
    trained = sum(parameter.numel() for parameter in detector.parameters() if parameter.requires_grad)
    assert trained < sum(parameter.numel() for parameter in detector.parameters())  # two stages are frozen
    traffic = estimate_traffic(config, 5, 4, positives_per_image=50)
    assert traffic.gradients == 2 * 3 / 4 * 4 * trained
    # 1600 positives: a count from each of 3 others, 400 × (score, value), and 2 × 3201 sums, all of 8 bytes
    assert traffic.ranking == 3 * 8 + 3 * 400 * 2 * 8 + 2 * 3 / 4 * 2 * 3201 * 8
    assert traffic.norm == 0
    assert traffic.total == traffic.gradients + traffic.ranking
    assert estimate_traffic(config, 5, 1, 50) == Traffic(0, 0, 0)


def test_micro_batches_rank_apart_and_share_one_gradient() -> None:
    whole, split = (
        estimate_traffic(load_config(R50, (*SMALL, f"data.accumulate={n}")), 5, 2, positives_per_image=50)
        for n in (1, 2)
    )
    assert split.gradients == whole.gradients
    assert split.ranking - whole.ranking == 8 + 16  # once more a count, and the last of 2 · 2P + 1 sums twice


@pytest.mark.parametrize("override", ["loss.ranking=local", "loss.name=focal"])
def test_losses_that_do_not_rank_together_send_nothing_for_it(override: str) -> None:
    assert estimate_traffic(load_config(R50, (*SMALL, override)), 5, 2, 50).ranking == 0


def test_bytes_of_batch_norm() -> None:
    def traffic(norm: str) -> float:
        more = (f"model.norm={norm}", "model.frozen_stages=0")
        return estimate_traffic(load_config(R50, (*SMALL, *more)), 5, 2, 50).norm

    # ResNet-18: 5 layers of 64 channels, 5 each of 128, 256 and 512, down-sampling included
    channels = 5 * (64 + 128 + 256 + 512)
    detector = build_detector(load_config(R50, (*SMALL, "model.norm=batch")), 5, load_weights=False)
    others = sum(
        b.numel() * b.element_size() for name, b in detector.named_buffers() if not name.startswith("backbone")
    )
    assert traffic("batch") == 2 * 4 * channels + 20 * 8 + others
    assert traffic("sync_batch") == 4 * (2 * channels + 20) + 4 * 2 * channels
    assert traffic("frozen_batch") == traffic("group") == 0


def test_the_table(script, monkeypatch, capsys, tmp_path) -> None:
    benchmark = {
        "tables": {
            "Training step": [
                {"precision": "bfloat16", "step": "torchvision, focal", "images/s": 1.0},
                {"precision": "float32", "step": "ours, aLRP", "images/s": 2.0},
                {"precision": "bfloat16", "step": "ours, aLRP", "images/s": 40.0},
            ]
        }
    }
    (tmp_path / "train.json").write_text(json.dumps(benchmark))
    options = ("--benchmark", tmp_path / "train.json", "--gpus", 4, "--bandwidth", 10, "--images", 64000, "--price", 3)
    run_script(script, monkeypatch, R50, ROOT / "configs/r101_alrp_atss.yaml", *options)
    title, names, _, r50, r101 = capsys.readouterr().out.splitlines()
    assert title == "4 GPUs, 40 images/s on one with r50_alrp, 10 GB/s, 100 positives an image"
    cells, larger = (
        dict(zip(names.split(" | "), line.strip("| ").split(" | "), strict=False))
        for line in (r50.strip("| "), r101.strip("| "))
    )
    assert (cells["images"], cells["steps per epoch"], cells["ms per step: compute"]) == ("64000", "2000", "200")
    low, high = map(float, cells["minutes per epoch"].split("–"))
    assert low == pytest.approx(2000 * 0.2 / 60, rel=0.01)
    assert high == pytest.approx(2000 * (0.2 + float(cells["communication"]) / 1e3) / 60, rel=0.01)
    assert float(larger["ms per step: compute"]) > 200  # more multiply-adds at the same speed


def test_the_rate_of_a_run_is_that_of_one_process_without_its_start(write_checkpoint, tmp_path) -> None:
    (tmp_path / "checkpoints").mkdir()
    write_checkpoint(tmp_path / "checkpoints", ["a"], world_size=2).rename(tmp_path / "checkpoints/last.pt")
    with SummaryWriter(tmp_path) as events:
        for step, value in enumerate((1.0, 40.0, 20.0, 30.0)):
            events.add_scalar("perf/images_per_second", value, step)
    assert rate_of_run(tmp_path) == 15
    state = load_checkpoint(tmp_path / "checkpoints/last.pt")
    del state["world_size"]  # as in files of early versions
    save_checkpoint(tmp_path / "checkpoints/last.pt", state)
    with pytest.raises(ConfigError, match=r"last\.pt: does not say how many processes .*give --rate"):
        rate_of_run(tmp_path)
    with pytest.raises(ConfigError, match=r"--run .*typo: no points"):
        rate_of_run(tmp_path / "typo")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rate", "-1"), "--rate"),
        (("--rate", "5", "--gpus", "2"), "--gpus above 1 needs --bandwidth"),
        (("--benchmark", "missing.json"), "--benchmark missing.json: no bfloat16 row"),
        (("--run", "/"), "--run /: no points"),
    ],
)
def test_mistakes_are_one_error_line(script, monkeypatch, capsys, options: tuple, message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_script(script, monkeypatch, R50, *options)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error


def test_data_that_is_there_is_counted(shapes) -> None:
    config = load_config(R50, [f"data.root={shapes}", "data.train_split=train"])
    assert size_of_data(config) == (12, 6)
    assert size_of_data(load_config(R50, ["data.root=nowhere"])) == (118287, 80)
    assert size_of_data(load_config(ROOT / "configs/quickstart.yaml", ["data.root=nowhere"])) == (1600, 6)
