"""Writes a short configuration for a data set: splits, image size, anchors and epochs, each with its reason.

python scripts/new_config.py --root datasets/mine --output configs/mine.yaml
python scripts/new_config.py --root datasets/mine --output configs/mine.yaml --from-scratch

It starts from torchvision's detector trained on COCO, which is fetched once; --init-from names another start, a
detector's name or a checkpoint of train.py, and --from-scratch none.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.run.cli import ArgumentParser, log_to_console, user_errors


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, metavar="DIR", help="folder of the data set")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="configuration to write")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--init-from", metavar="NAME|FILE", help="the detector to start from, as in model.init_from")
    start.add_argument("--from-scratch", action="store_true", help="a smaller network that starts from nothing")
    args = parser.parse_args()

    import torch

    from data.files import write_atomically
    from data.output_folder import require_writable
    from data.yaml_files import parse_yaml
    from engine.run.config import ConfigError, parse_config
    from engine.tools.new_config import DEFAULT_START, new_config, next_commands, require_name

    log_to_console(is_main=True)
    with user_errors():
        if args.output.exists():
            raise ConfigError(f"{args.output}: exists, and is not overwritten; choose another --output, or remove it")
        require_name(args.output)
        require_writable([args.output])
        text = new_config(args.root, None if args.from_scratch else args.init_from or DEFAULT_START)
        parse_config(parse_yaml(text), str(args.output), name=args.output.stem)  # no file that train.py refuses
        write_atomically(args.output, lambda file: file.write(text.encode()))
        print(text)
        if not (args.from_scratch or args.init_from or torch.cuda.is_available()):
            print("there is no GPU here, and this detector is slow without: --from-scratch writes a smaller one")
        print(f"{args.output} is written. Next:")
        for command in next_commands(args.output):
            print(f"  {command}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
