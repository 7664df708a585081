"""Downloads COCO 2017 into the layout that the configurations expect; says first what disk it needs.

An interrupted download continues when the command is run again. Archives are checked against their published MD5,
unpacked and deleted; what has its final name is complete.

python scripts/download_coco.py --output datasets/coco
python scripts/download_coco.py --output datasets/coco --splits val      # 1.3 GB: enough to evaluate
"""

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.run.cli import ArgumentParser, user_errors
from engine.tools.download import COCO_2017, COCO_SERVER, disk_need, fetch_archives


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="data.root, such as datasets/coco")
    parser.add_argument("--splits", nargs="+", choices=("train", "val"), default=["train", "val"], help="default: both")
    parser.add_argument("--server", default=COCO_SERVER, metavar="URL", help=f"a mirror of {COCO_SERVER}")
    args = parser.parse_args()
    archives = [COCO_2017[name] for name in COCO_2017 if name == "annotations" or name in args.splits]
    with user_errors():
        todo = [archive for archive in archives if not archive.is_unpacked(args.output)]
        args.output.mkdir(parents=True, exist_ok=True)
        print(
            f"{args.output}: {sum(archive.size for archive in todo) / 1e9:.1f} GB to download in all; needs "
            f"{disk_need(todo, args.output) / 1e9:.1f} GB of disk meanwhile and "
            f"{sum(archive.unpacked for archive in todo) / 1e9:.1f} GB in the end; "
            f"{shutil.disk_usage(args.output).free / 1e9:.1f} GB are free",
            flush=True,
        )
        fetch_archives(archives, args.output, args.server)
        print(f"{args.output}: complete")


if __name__ == "__main__":
    main()
