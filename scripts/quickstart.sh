#!/usr/bin/env bash
# From a fresh clone to a trained detector: makes .venv, trains configs/quickstart.yaml on generated data, evaluates the
# best checkpoint on the held-out split. Arguments go to train.py, as in: bash scripts/quickstart.sh --resume auto
set -euo pipefail
. "$(dirname "$0")/setup_venv.sh" requirements.txt
[ "$#" -gt 0 ] || set -- --overwrite
"$PYTHON" train.py --config configs/quickstart.yaml "$@"
"$PYTHON" eval.py --ckpt runs/quickstart/checkpoints/best.pt --split test --json runs/quickstart/test.json
cat <<'END'

Where to look next:
  curves and pictures   .venv/bin/tensorboard --logdir runs     then open http://localhost:6006
  these numbers         runs/quickstart/test.json
  the checkpoint        runs/quickstart/checkpoints/best.pt
  the data              datasets/shapes
END
