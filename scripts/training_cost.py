"""Computes the cost of an epoch and of a whole recipe on given hardware, from the measured speed of one GPU.

python scripts/training_cost.py configs/r50_alrp.yaml --rate 250 --gpus 8 --bandwidth 12.5
python scripts/training_cost.py configs/r50_alrp.yaml configs/r101_alrp_atss.yaml --benchmark train.json --gpus 16 \\
    --bandwidth 3 --price 2.5

The rate is that of the first config; of the others it is scaled by the multiply-adds of an image. Epochs and recipes
lie between two assumptions: all communication hidden behind computation, and none of it. Not counted: evaluations,
checkpoints, waiting for data, the latency of messages.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.run.cli import ArgumentParser, user_errors


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="+", metavar="CONFIG", type=Path, help="the first is the measured one")
    speed = parser.add_mutually_exclusive_group(required=True)
    speed.add_argument("--rate", type=positive_number, metavar="R", help="images per second that one GPU trains")
    speed.add_argument("--benchmark", type=Path, metavar="FILE", help="of scripts/benchmark.py train --json FILE")
    speed.add_argument("--run", type=Path, metavar="DIR", help="run folder: median of perf/images_per_second")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16", help="of --benchmark")
    parser.add_argument("--gpus", type=int, metavar="N", default=1, help="over all hosts (1)")
    parser.add_argument(
        "--bandwidth",
        type=positive_number,
        metavar="GB/s",
        help="a GPU's, one way, through the narrowest link between GPUs",
    )
    parser.add_argument("--images", type=int, metavar="N", help="training images (those of data.root, else COCO's)")
    parser.add_argument(
        "--positives", type=positive_number, metavar="P", default=100.0, help="positive anchors an image (100)"
    )
    parser.add_argument("--price", type=positive_number, metavar="MONEY", help="of a GPU hour")
    args = parser.parse_args()
    if args.gpus < 1 or (args.images is not None and args.images < 1):
        parser.error("--gpus and --images must be positive")
    if args.gpus > 1 and args.bandwidth is None:
        parser.error("--gpus above 1 needs --bandwidth")

    from data.counts import counted
    from engine.run.config import load_config
    from engine.tools.cost_table import cost_row, rate_of_benchmark, rate_of_run

    with user_errors():
        configs = [(path.stem, load_config(path)) for path in args.configs]
        rate = args.rate or (
            rate_of_benchmark(args.benchmark, args.precision) if args.benchmark else rate_of_run(args.run)
        )
        rows = [cost_row(name, config, rate, configs[0][1], args) for name, config in configs]
    print(f"{counted(args.gpus, 'GPU')}, {rate:.4g} images/s on one with {args.configs[0].stem}", end="")
    print(f", {args.bandwidth:g} GB/s, {args.positives:g} positives an image" if args.gpus > 1 else "")
    print("| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0]), sep="\n")
    for each in rows:
        print("| " + " | ".join(each.values()) + " |")


def positive_number(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


if __name__ == "__main__":
    main()
