"""The choice of a learning rate for each variant of a grid, by AP on val, and the cells that are compared at it."""

from collections.abc import Collection
from statistics import mean

from engine.tools.ablation.grid import Cell, Grid, Results, search_cells

TIE = 0.01  # AP on val within which two rates are told apart by a second seed


def ready_cells(grid: Grid, results: Results, failed: Collection[Cell] = ()) -> list[tuple[Cell, bool]]:
    """Cells that may run by now, in the order to run them, and whether to evaluate them on the test split.

    The search is ready at once, a variant's further seeds of it when its rates are known, and its comparison when its
    rate is chosen; other variants need not be so far. The comparison goes seed by seed, so that pairs end together.
    """

    def whose(cell: Cell) -> tuple[str, int | None]:
        return cell.variant, cell.epochs

    ended = results.keys() | failed
    search = search_cells(grid)
    undecided = {whose(cell) for cell in search if cell not in ended}
    ties = [cell for cell in tie_cells(grid, results) if whose(cell) not in undecided]
    undecided |= {whose(cell) for cell in ties if cell not in ended}
    chosen = [cell for cell in chosen_cells(grid, results) if whose(cell) not in undecided]
    chosen.sort(key=lambda cell: grid.seeds.index(cell.seed))
    return [(cell, False) for cell in search + ties] + [(cell, not grid.lengths) for cell in chosen]


def tie_cells(grid: Grid, results: Results) -> list[Cell]:
    """The further seeds of the search, for the rates within `TIE` of a variant's best where there are several."""
    if grid.search is None:
        return []
    cells = []
    for variant in grid.variants:
        contenders = _contenders(grid, variant, results)
        if len(contenders) > 1:
            cells += [Cell(variant, rate, seed, True) for rate in contenders for seed in grid.search.seeds[1:]]
    return cells


def chosen_rate(grid: Grid, variant: str, results: Results, epochs: int | None = None) -> float | None:
    """The rate of best AP on val, at one of several lengths; among those within `TIE` of it, by the mean over the seeds
    that all of them have. None where no run of the search ended."""
    contenders = _contenders(grid, variant, results, epochs)
    if not contenders:
        return None
    if grid.search is None:
        return contenders[0]
    cells = {rate: [Cell(variant, rate, seed, True) for seed in grid.search.seeds] for rate in contenders}
    shared = [seed for seed in zip(*cells.values(), strict=True) if all(cell in results for cell in seed)]
    means = [mean(results[cell].val_ap for cell in of_rate) for of_rate in zip(*shared, strict=True)]
    return contenders[means.index(max(means))]


def _contenders(grid: Grid, variant: str, results: Results, epochs: int | None = None) -> list[float]:
    """Rates of the variant that may be the best, best first; without `search` the best alone."""
    found = {
        cell.learning_rate: results[cell].val_ap
        for cell in search_cells(grid)
        if cell.variant == variant and cell.epochs == epochs and cell in results
    }
    rates = sorted(found, key=lambda rate: -found[rate])
    return [rate for rate in rates if found[rate] > found[rates[0]] - TIE] if grid.search else rates[:1]


def chosen_cells(grid: Grid, results: Results) -> list[Cell]:
    """Every variant and length with every seed at its best learning rate on val; left out if none of its runs ended."""
    return [
        Cell(variant, rate, seed, epochs=epochs)
        for variant in grid.variants
        for epochs in grid.epochs
        if (rate := chosen_rate(grid, variant, results, epochs)) is not None
        for seed in grid.seeds
    ]


def rates_at_the_edge(grid: Grid, results: Results) -> dict[str, float]:
    """Variants whose chosen rate, at some length, is the lowest or the highest that was tried, with that rate."""
    found = {}
    for variant in grid.variants:
        tried = grid.rates(variant)
        for epochs in grid.epochs:
            rate = chosen_rate(grid, variant, results, epochs)
            if rate in (min(tried), max(tried)) and len(tried) > 1:
                found[variant] = rate
    return found
