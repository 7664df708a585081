"""Side-by-side benchmarks: medians of interleaved runs, and ratios, which hold across machines.

python scripts/benchmark.py loss --json loss.json
python scripts/benchmark.py loss --device cuda
python scripts/benchmark.py profile --device cuda --size 800 1344 --batch-size 16
python scripts/benchmark.py train --size 512 512 --batch-size 2
"""

import argparse
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from engine.run.cli import ArgumentParser, user_errors

FORMATS = {
    "ratio": "{:.2f}×",
    "ratio to copy": "{:.2f}×",
    "ratio with first use": "{:.2f}×",
    "memory": "{:.1f}×",
    "KiB received by each": "{:.0f}",
}


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    helps = {
        "loss": "losses alone, forward + backward",
        "ranking": "exact ranking against the published loop, P × N and Bucketed losses, 3 and 30 million logits",
        "train": "a training step against torchvision's RetinaNet R-50",
        "systems": "a training step of every system of Table 1: in small, or on a GPU as published at 512 pixels",
        "infer": "inference with post-processing against torchvision's RetinaNet R-50",
        "data": "the SSD training pipeline against torchvision's",
        "metrics": "AP and oLRP of a results file of COCO's size against others' AP alone",
        "profile": "time, launches and longest kernels of a training step with aLRP Loss",
        "trainer": "train.py on generated images of COCO's kind, beside its step alone",
        "evaluation": "eval.py on generated images of COCO's kind, from start to table",
    }
    for name, text in helps.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("--json", type=Path, metavar="OUT", help="also write the tables to this file")
        if name in ("train", "infer", "profile"):
            default, batch_size = ((500, 833), 1) if name == "infer" else ((512, 512), 2)
            command.add_argument(
                "--size", type=int, nargs=2, metavar=("H", "W"), default=default, help=f"pixels {default}"
            )
            command.add_argument("--batch-size", type=int, metavar="B", default=batch_size, help=f"({batch_size})")
        if name not in ("data", "metrics"):
            command.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(cpu)")
        if name == "infer":
            shapes = "images of the shapes of COCO's val2017, whose sides --size limits (default: one batch of --size)"
            command.add_argument("--images", type=int, metavar="N", default=0, help=shapes)
            command.add_argument(
                "--eager", action="store_true", help="leave out the compiled network, which takes minutes"
            )
        if name == "profile":
            command.add_argument("--compile", action="store_true", help="with run.compile")
        if name in ("loss", "trainer", "evaluation"):
            folder = "generated images and runs (default: a temporary folder)"
            command.add_argument("--folder", type=Path, metavar="DIR", help=folder)
            command.add_argument("--small", action="store_true", help="a small network: tries the command out")
        if name == "loss":
            command.add_argument("--logits", type=int, metavar="M", help="of a batch; on a CPU, to run as on a GPU")
        if name in ("loss", "trainer"):
            steps = 200 if name == "loss" else 320
            command.add_argument("--steps", type=int, metavar="N", default=steps, help=f"of training ({steps})")
        if name in ("trainer", "evaluation"):
            command.add_argument("--images", type=int, metavar="N", default=5000, help="(5000)")
    args = parser.parse_args()

    import torch
    import torchvision
    from benchmarks.loss import THREADS

    from data.output_folder import require_writable
    from engine.metrics.report import write_json

    if getattr(args, "device", "cpu") == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no CUDA device")
    with user_errors():
        require_writable([args.json])
        torch.set_num_threads(THREADS)
        tables = run(args)
        device = torch.cuda.get_device_name() if getattr(args, "device", "cpu") == "cuda" else processor_name()
        threads = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
        machine = f"{device}, {threads}, torch {torch.__version__}, torchvision {torchvision.__version__}"
        for title, rows in tables.items():
            print(f"{title}; {machine}\n\n{format_table(rows)}\n")
        if args.json:
            write_json(args.json, {"machine": machine, "tables": tables})


def run(args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Tables by title."""
    if args.command in ("trainer", "evaluation") or (args.command == "loss" and (args.device == "cuda" or args.logits)):
        with tempfile.TemporaryDirectory() as temporary:
            return run_in_folder(args, (args.folder or Path(temporary)).resolve())
    if args.command == "loss":
        from benchmarks.loss import NUM_LOGITS, benchmark_loss
        from benchmarks.traffic import benchmark_traffic

        title = (
            f"Forward + backward of {NUM_LOGITS:,} float32 logits; ratio to torchvision's focal loss, memory to logits"
        )
        return {title: benchmark_loss(), "aLRP over processes, 1000 positives in all": benchmark_traffic()}
    if args.command == "ranking":
        from benchmarks.ranking import benchmark_ranking

        return {"Gradient of a ranking loss, mid-training": benchmark_ranking(args.device)}
    if args.command == "data":
        from benchmarks.data import benchmark_data

        return {"SSD training pipeline, 640×480 JPEG to 512×512": benchmark_data(512)}
    if args.command == "metrics":
        from benchmarks.metrics import benchmark_metrics

        return {"Metrics of 5000 images × 100 detections, 80 classes, files included": benchmark_metrics()}
    if args.command == "systems":
        from benchmarks.systems import AS_PUBLISHED, IN_SMALL, benchmark_systems

        suite = AS_PUBLISHED if args.device == "cuda" else IN_SMALL
        return {"Training step of the systems of Table 1": benchmark_systems(suite, args.device)}
    return run_models(args)


def run_in_folder(args: argparse.Namespace, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """`run` of the commands that generate images."""
    import torch

    if args.command == "loss":
        from benchmarks.loss_device import NUM_LOGITS, benchmark_loss_device

        num_logits = args.logits or NUM_LOGITS
        rows = benchmark_loss_device(torch.device(args.device), num_logits, folder, args.steps, args.small)
        return {
            f"Forward + backward of {num_logits:,} logits, and of a network's; ratio to torchvision's focal loss": rows
        }
    from benchmarks.whole_runs import benchmark_evaluation, benchmark_training

    if args.command == "trainer":
        rows = benchmark_training(folder, args.device, args.images, args.steps, args.small)
        return {f"train.py, r50_alrp.yaml, {args.images} images": rows}
    return {"eval.py, from start to table": benchmark_evaluation(folder, args.device, args.images, args.small)}


def run_models(args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """`run` of the commands that compare whole detectors."""
    import torch
    from benchmarks.infer import benchmark_infer
    from benchmarks.train import benchmark_train

    size, device = tuple(args.size), torch.device(args.device)
    shape = f"RetinaNet R-50, {size[0]}×{size[1]}, batch {args.batch_size}"
    if args.command == "profile":
        from benchmarks.step_profile import profile_step

        tables = profile_step(size, args.batch_size, device, args.compile)
        return {f"{title}, {shape}, bfloat16": rows for title, rows in tables.items()}
    if args.command == "train":
        return {f"Training step, {shape}": benchmark_train(size, args.batch_size, device)}
    title = f"Inference, {shape}" + (f", {args.images} images of the shapes of COCO" if args.images else "")
    return {title: benchmark_infer(size, args.batch_size, args.images, device, args.eager)}


def format_table(rows: list[dict[str, Any]]) -> str:
    """Markdown; the columns are the keys of the first row."""
    lines = [f"| {' | '.join(rows[0])} |", "|" + "---|" * len(rows[0])]
    return "\n".join([*lines, *(f"| {' | '.join(_format(*item) for item in row.items())} |" for row in rows)])


def _format(name: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return FORMATS.get(name, "{:.3g}" if value < 100 else "{:.0f}").format(value)


def processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


if __name__ == "__main__":
    main()
