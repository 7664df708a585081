"""Imports a released checkpoint: the authors' (MMDetection v2) or torchvision's.

python scripts/convert_checkpoint.py --from alrp alrp_loss_retinanet_r50_fpn_100e_coco500.pth r50_alrp.pt
python eval.py --ckpt r50_alrp.pt data.root=datasets/coco
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.run.cli import ArgumentParser, user_errors

WEIGHTS_KEYS = {"alrp": "state_dict", "torchvision": "model"}  # by who released the file: where it keeps the tensors


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="origin", required=True, choices=WEIGHTS_KEYS, help="who released it")
    parser.add_argument("input", metavar="IN", help="the released file")
    parser.add_argument("output", metavar="OUT", help="checkpoint for eval.py, or for model.init_from")
    args = parser.parse_args()

    from data.output_folder import refuse_inputs, require_writable
    from engine.run.checkpoint import save_checkpoint
    from engine.tools.released import convert, read_released

    with user_errors():
        refuse_inputs([args.output], [args.input])
        require_writable([args.output])
        checkpoint = convert(args.origin, read_released(args.input, WEIGHTS_KEYS[args.origin]), args.input)
        save_checkpoint(Path(args.output), checkpoint)
    print(
        f"{args.output}: the model of configs/{checkpoint['config']['run']['name']}.yaml, {len(checkpoint['classes'])} "
        f"classes; evaluate it with: python eval.py --ckpt {args.output} data.root=datasets/coco"
    )


if __name__ == "__main__":
    main()
