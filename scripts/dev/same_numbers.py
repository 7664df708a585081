"""Shows that a change leaves the numbers alone: seeded CPU trainings, their losses and final weights bit for bit.

python scripts/dev/same_numbers.py --tree ../before --record before.json
python scripts/dev/same_numbers.py --against before.json

Trains the quickstart's detector for 30 steps with each of four losses, in one process and in two, from a checkout.
Losses are those of every step, weights the network's after the last one. Exit status: 0 no difference, 1 a difference.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.run.cli import ArgumentParser

ROOT = Path(__file__).resolve().parents[2]
STEPS = 30
LOSSES = {
    "alrp": ["loss.name=alrp"],
    "ap": ["loss.name=ap", "loss.delta=1.0"],
    "rs": ["loss.name=rs", "loss.delta=0.5"],
    "focal": ["loss.name=focal"],
}
CURVES = ("train/loss", "train/loss_cls", "train/loss_loc", "train/grad_norm")
NETWORK = ("backbone.", "fpn.", "head.")


def train(tree: Path, overrides: list[str], processes: int, data: Path, folder: Path) -> dict[str, Any]:
    """Numbers of one run: name of a curve -> its values as hexadecimal floats, and a digest of the weights."""
    import torch
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    settings = [f"schedule.max_steps={STEPS}", "run.log_every=1", "run.precision=float32", "run.device=cpu"]
    settings += [f"data.root={data}", f"run.dir={folder}", "run.name=run", "data.workers=0"]
    line = [*launcher, "train.py", "--config", "configs/quickstart.yaml", "--overwrite", *settings, *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # sums depend on the number of threads
    ended = subprocess.run(line, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"error: {' '.join(line)} ended with status {ended.returncode}: {ended.stderr[-2000:]}")
    run = folder / "run"
    events = EventAccumulator(str(run)).Reload()
    curves = {name: [float(point.value).hex() for point in events.Scalars(name)] for name in CURVES}
    if any(len(values) != STEPS for values in curves.values()):
        raise SystemExit(f"error: {run} does not hold {STEPS} points of each of {', '.join(CURVES)}")
    weights = torch.load(run / "checkpoints" / "last.pt", weights_only=True)["model"]
    digest = hashlib.sha256()
    for name in sorted(name for name in weights if name.startswith(NETWORK)):
        digest.update(name.encode() + weights[name].numpy().tobytes())
    return curves | {"weights": [digest.hexdigest()]}


def first_difference(before: dict[str, list[str]], now: dict[str, list[str]]) -> str | None:
    """The curve and step in which two runs first part; None where they are the same."""
    for name, values in before.items():
        for step, (old, new) in enumerate(zip(values, now[name], strict=True), start=1):
            if old != new:
                shown = "" if name == "weights" else f" in step {step}: {float.fromhex(old)!r}, {float.fromhex(new)!r}"
                return f"{name} differ{shown}"
    return None


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--tree", type=Path, default=ROOT, metavar="DIR", help="checkout to train (default: this one)")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--record", type=Path, metavar="FILE", help="write the numbers")
    mode.add_argument("--against", type=Path, metavar="FILE", help="compare with the numbers that --record wrote")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the quickstart's data (default: generated anew)")
    args = parser.parse_args()
    before = json.loads(args.against.read_text()) if args.against else None
    numbers, different = {}, 0
    with tempfile.TemporaryDirectory() as temporary:
        data = args.data.resolve() if args.data else Path(temporary) / "shapes"
        for name, overrides in LOSSES.items():
            for processes in (1, 2):
                run = f"{name}, {processes} process{'es' * (processes > 1)}"
                numbers[run] = train(args.tree.resolve(), overrides, processes, data, Path(temporary) / "runs")
                verdict = "recorded"
                if before is not None:
                    difference = first_difference(before[run], numbers[run])
                    different += difference is not None
                    verdict = difference or f"same: {STEPS} steps, weights"
                print(f"{run}: {verdict}", flush=True)
    if args.record:
        args.record.write_text(json.dumps(numbers, indent=1) + "\n")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
