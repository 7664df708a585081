"""Prints the table of the COCO models in docs/models.md: parameters, GFLOPs, and the AP that others published.

python scripts/dev/model_table.py
python scripts/dev/model_table.py configs/r50_alrp.yaml configs/r50_focal.yaml

GFLOPs count a multiply-add of a convolution or linear layer once, as detection papers do, on one image of the largest
test size, padded to multiples of 32. The AP is read from each config's head comment.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.run.cli import ArgumentParser, user_errors

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="*", metavar="CONFIG", type=Path, help="default: all with a published AP")
    args = parser.parse_args()

    from engine.run.config import load_config
    from engine.tools.model_table import largest_size, published_line, table_row

    with user_errors():
        paths = args.configs or CONFIGS.glob("*.yaml")
        rows = [(path, load_config(path), published_line(path)) for path in paths]
    print("| config | loss | backbone | test size | parameters | GFLOPs | minival AP | test-dev AP |")
    print("|---|---|---|---|---|---|---|---|")
    for path, config, published in sorted(rows, key=lambda row: (largest_size(row[1]), row[0].stem)):
        if args.configs or published:
            print(table_row(path.stem, config, published))


if __name__ == "__main__":
    main()
