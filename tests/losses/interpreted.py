"""How Triton's interpreter runs the losses' kernels in reasonable time."""

# What an interpreted program takes at a time: enough that its operators are few, so little that inputs of a few hundred
# entries and positives have several programs, several parts of a scan, and several edges in a cell.
SIZES = {
    "ranking.triton_passes": {"BLOCK": 256},
    "ranking.triton_histogram": {"BINS": 128},
    "focal_triton": {"BLOCK": 256},
    "ranking.triton_order": {"ROWS": 256, "COLUMNS": 256, "SCANNED": 256},
    "ranking.triton_bins": {"ENTRIES": 256},
    "ranking.triton_cells": {"ENTRIES": 1024, "CELLS_PER_EDGE": 1, "MIN_CELLS": 16},
    "ranking.triton_sums": {"ENTRIES": 256, "SCANNED": 256},
    "alrp_triton": {"SCANNED": 256},
    "ap_triton": {"SCANNED": 256},
    "rank_sort_triton": {"ROWS": 256, "COLUMNS": 256, "SCANNED": 256},
}


def shrink_programs(patch):
    """Sets those sizes with a `pytest.MonkeyPatch`."""
    for module, sizes in SIZES.items():
        for name, size in sizes.items():
            patch.setattr(f"losses.{module}.{name}", size)
