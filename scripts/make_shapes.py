"""Generate the synthetic shapes data set, in COCO format; `train.py` does it by itself for configs/quickstart.yaml.

python scripts/make_shapes.py --output datasets/shapes
python scripts/make_shapes.py --output datasets/small --train 200 --val 50 --test 0 --samples samples.png
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.run.cli import ArgumentParser, user_errors


def main() -> None:
    from data.synthetic.shapes import IMAGE_SIZE, NUM_IMAGES, generate_shapes  # without PyTorch

    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--output", metavar="DIR", required=True, help="folder of the data set")
    for split, count in NUM_IMAGES.items():
        parser.add_argument(f"--{split}", type=int, metavar="N", default=count, help=f"images, 0 for none ({count})")
    parser.add_argument("--size", type=int, metavar="S", default=IMAGE_SIZE, help=f"side in pixels ({IMAGE_SIZE})")
    parser.add_argument("--seed", type=int, metavar="K", default=0, help="another seed is other data (0)")
    parser.add_argument("--samples", metavar="FILE.png", help="draw sixteen images with their ground truth there too")
    args = parser.parse_args()
    splits = {split: getattr(args, split) for split in NUM_IMAGES if getattr(args, split) != 0}
    if not splits:
        parser.error("nothing to generate: --train, --val and --test are all 0")

    from data.counts import counted
    from data.output_folder import refuse_inputs
    from engine.tools.sample_sheet import draw_samples

    with user_errors():
        files = generate_shapes(args.output, splits, image_size=args.size, seed=args.seed)
        for split, file in files.items():
            print(f"{split}: {counted(splits[split], 'image')}, {file}")
        if args.samples:
            refuse_inputs([args.samples], [*files.values(), *Path(args.output).glob("*/*.jpg")])
            draw_samples(next(iter(files.values())), Path(args.samples))


if __name__ == "__main__":
    main()
