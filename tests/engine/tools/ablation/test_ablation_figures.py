"""Colours of an ablation's variants: those of their losses, in every grid."""

from pathlib import Path

import pytest

from engine.tools.ablation.figures import variant_colors
from engine.tools.ablation.grid import Variant, load_grid

GRIDS = Path(__file__).resolve().parents[4] / "configs/ablations"


def test_the_same_loss_has_the_same_colour_in_all_grids():
    shapes, bccd, coco = (
        variant_colors(load_grid(GRIDS / f"{name}.yaml").variants) for name in ("shapes", "bccd", "coco")
    )
    shared = shapes.keys() & bccd.keys() & coco.keys()
    assert len(shared) == 7
    for name in shared:
        assert shapes[name] == bccd[name] == coco[name]


@pytest.mark.parametrize("name", ["bccd", "coco", "shapes", "table1_bccd"])
def test_variants_have_colours_of_their_own(name):
    colors = variant_colors(load_grid(GRIDS / f"{name}.yaml").variants)
    assert len(set(colors.values())) == len(colors)


def test_the_width_of_the_step_changes_no_colour_and_a_repeated_loss_gets_another():
    rank_sort, wide = Variant(overrides=["loss.name=rs"]), Variant(overrides=["loss.name=rs", "loss.delta=0.5"])
    ap = Variant(overrides=["loss.name=ap"])
    colors = variant_colors({"a": wide, "b": rank_sort, "c": ap})
    assert colors["a"] == variant_colors({"x": rank_sort})["x"]
    assert colors["c"] == variant_colors({"x": ap})["x"]
    assert len(set(colors.values())) == 3
