"""Side-by-side benchmarks: medians of interleaved runs, and ratios, which hold across machines.

python scripts/benchmark.py loss --json loss.json
python scripts/benchmark.py loss --device cuda
python scripts/benchmark.py train --size 512 512 --batch-size 2
"""

import argparse
import os
import platform
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from engine.run.cli import ArgumentParser, user_errors

FORMATS = {"ratio": "{:.2f}×", "ratio to copy": "{:.2f}×", "memory": "{:.1f}×", "KiB received by each": "{:.0f}"}


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    helps = {
        "loss": "losses alone, forward + backward",
        "ranking": "exact ranking against the published loop, P × N and Bucketed losses, 3 and 30 million logits",
        "train": "a training step against torchvision's RetinaNet R-50",
        "infer": "inference with post-processing against torchvision's RetinaNet R-50",
        "data": "the SSD training pipeline against torchvision's",
        "metrics": "AP and oLRP of a results file of COCO's size against others' AP alone",
    }
    for name, text in helps.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("--json", type=Path, metavar="OUT", help="also write the tables to this file")
        if name in ("train", "infer"):
            default, batch_size = ((512, 512), 2) if name == "train" else ((500, 833), 1)
            command.add_argument(
                "--size", type=int, nargs=2, metavar=("H", "W"), default=default, help=f"pixels {default}"
            )
            command.add_argument("--batch-size", type=int, metavar="B", default=batch_size, help=f"({batch_size})")
        if name in ("loss", "ranking", "train", "infer"):
            command.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(cpu)")
    args = parser.parse_args()

    import torch
    import torchvision
    from benchmarks.loss import THREADS

    from engine.metrics.report import write_json

    if getattr(args, "device", "cpu") == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no CUDA device")
    with user_errors():
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
    if args.command == "loss" and args.device == "cuda":
        from benchmarks.loss_cuda import NUM_LOGITS, benchmark_loss_cuda

        title = f"Forward + backward of {NUM_LOGITS:,} logits; ratio to torchvision's focal loss, memory to logits"
        return {title: benchmark_loss_cuda()}
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
    return run_models(args)


def run_models(args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """`run` of the commands that compare whole detectors."""
    import torch
    from benchmarks.infer import benchmark_infer
    from benchmarks.train import benchmark_train

    size, device = tuple(args.size), torch.device(args.device)
    shape = f"RetinaNet R-50, {size[0]}×{size[1]}, batch {args.batch_size}"
    if args.command == "train":
        return {f"Training step, {shape}": benchmark_train(size, args.batch_size, device)}
    return {f"Inference, {shape}, float32": benchmark_infer(size, args.batch_size, device)}


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
