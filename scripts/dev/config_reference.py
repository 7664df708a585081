"""Writes docs/config.md: every key of a configuration with its default, type, range and meaning.

python scripts/dev/config_reference.py
python scripts/dev/config_reference.py --output keys.md
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.run.cli import ArgumentParser

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/config.md"


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=DOCUMENT, metavar="FILE", help="default: docs/config.md")
    args = parser.parse_args()

    from data.files import write_atomically
    from engine.tools.config_reference import config_reference

    text = config_reference()
    write_atomically(args.output, lambda file: file.write(text.encode()))


if __name__ == "__main__":
    main()
