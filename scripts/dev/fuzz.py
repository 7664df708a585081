"""Feeds hostile files to everything that reads files: each must end in success or in one clean error within 10 s,
and the converters must touch nothing outside of their output folder.

python scripts/dev/fuzz.py
python scripts/dev/fuzz.py --examples 2000 --seed 1 annotations voc yolo

Exit status: 0 nothing found; 1 an input that escapes as another exception, which hypothesis has made small and prints.
Needs requirements-dev.txt.
"""

import logging
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.run.cli import ArgumentParser


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=2000, metavar="N", help="inputs per target (2000)")
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="another seed is other inputs (0)")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="what reads the files (all)")
    args = parser.parse_args()

    from fuzz_targets import TARGETS, fuzz

    if unknown := sorted(set(args.targets) - set(TARGETS)):
        parser.error(f"unknown target {unknown[0]}; there are {', '.join(TARGETS)}")
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")  # Pillow's, of damaged files
    for target in args.targets or TARGETS:
        fuzz(target, args.examples, args.seed)
        print(f"{target}: {args.examples} inputs, each a success or one clean error", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
