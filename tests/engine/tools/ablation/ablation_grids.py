"""A grid, and results of its cells."""

from engine.tools.ablation.grid import Result
from engine.tools.ablation.tables import METRICS

GRID = """
config: tiny.yaml
learning_rates: [0.01, 0.02]
seeds: [0, 1, 2]
reference: aLRP
variants: {aLRP: [], "Focal + GIoU": [loss.name=focal, loss.box_loss=giou]}
"""


def result(cell, val_ap, test_ap=None):
    test = None if test_ap is None else dict.fromkeys(METRICS, 0.5) | {"AP": test_ap}
    return cell, Result(cell, [{"epoch": 1, "AP": val_ap}], test, 100.0)
