"""One evaluation as a self-contained HTML page: tables, error budget, curves, confusion and examples."""

from collections.abc import Sequence
from html import escape

from engine.metrics.report import SUMMARY_TABLES, format_number
from engine.reporting.analysis import Analysis, Errors
from engine.reporting.figures import BUDGET_PARTS, figure_svg, lrp_figure, precision_recall_figure
from engine.reporting.html_examples import ExamplePictures, examples_section
from engine.reporting.page_style import SCRIPT, STYLE

TILES = ("AP", "AP50", "AP75", "oLRP", "oLRP_loc", "oLRP_fp", "oLRP_fn")
CSS_PARTS = ("loc", "fp", "fn")
GLOSSARY = (
    ("AP, AP50, AP75", "Average precision over the classes and IoU thresholds 0.50 to 0.95, at 0.50, at 0.75."),
    ("AR1, AR10, AR100", "Average recall with at most so many detections in an image."),
    ("s, m, l", "Objects smaller than 32×32 pixels, up to 96×96, and larger."),
    (
        "LRP, oLRP",
        "Localisation-Recall-Precision error of the detections above a score: 0 is perfect, 1 finds nothing. oLRP is "
        "its smallest value over all thresholds, reached at the LRP-optimal threshold of the class.",
    ),
    (
        "oLRP_loc, oLRP_fp, oLRP_fn",
        "At those thresholds: mean 1 - IoU of the detections that are right, share of the detections that are wrong, "
        "share of the objects that are missed. Unlike the parts of the bars they have divisors of their own.",
    ),
    ("-", "Not defined: no ground truth, or nothing detected rightly."),
)


def render_page(
    title: str,
    facts: Sequence[str],
    metrics: dict,
    analysis: Analysis,
    examples: dict[str, list[ExamplePictures]],
    config: str,
    verdict: str = "",
) -> str:
    """The page. Every number's `data-value` is that of `metrics` to the last digit, what is read has three decimals.

    Args:
        title, facts: text for the heading and the line below it.
        metrics: what `metrics_of` returns.
        analysis: of the same matches.
        examples: heading -> its images.
        config: YAML text.
        verdict: one line to put first; "" for none.
    """
    sections = [
        _section("Summary", _summary(metrics)),
        _section("Error budget", _budget(metrics, analysis)),
        _section("Curves", _curves(analysis)),
        _section("Confusion", _confusion(analysis)),
        _section("Examples", examples_section(examples)),
        f"<section><details><summary>What the numbers mean</summary><dl>{_glossary()}</dl></details></section>",
        f"<section><details><summary>Configuration</summary><pre>{escape(config)}</pre></details></section>",
    ]
    tiles = "".join(
        f'<div class="tile"><b>{format_number(metrics[name])}</b><span>{escape(name)}</span></div>' for name in TILES
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p class="muted">{" · ".join(map(escape, facts))}</p>
<div class="tiles">{tiles}</div>
{f'<p class="verdict">{escape(verdict)}</p>' if verdict else ""}
{"".join(sections)}
<p class="muted">The figures and examples are PNG files beside this page.</p>
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _section(heading: str, content: str) -> str:
    return f"<section><h2>{heading}</h2>{content}</section>" if content else ""


def _summary(metrics: dict) -> str:
    tables = []
    for names in SUMMARY_TABLES:
        head = "".join(f"<th>{name}</th>" for name in names)
        row = "".join(_cell(metrics[name], f' data-metric="{name}"') for name in names)
        tables.append(f"<table><thead><tr>{head}</tr></thead><tbody><tr>{row}</tr></tbody></table>")
    return "".join(f'<div class="scroll">{table}</div>' for table in tables)


def _budget(metrics: dict, analysis: Analysis) -> str:
    if analysis.budget is None:
        return "<p>No ground truth, so there are no errors to count.</p>"
    total = sum(analysis.budget)
    key = "".join(
        f'<li><i class="{css}"></i>{part} <b>{share:.3f}</b> ({share / total if total else 0:.0%})</li>'
        for css, part, share in zip(CSS_PARTS, BUDGET_PARTS, analysis.budget, strict=True)
    )
    rows = "".join(
        _class_row(name, count, metrics["per_class"][name], errors)
        for name, count, errors in zip(analysis.class_names, analysis.num_objects, analysis.classes, strict=True)
    )
    head = "".join(f"<th{bar}>{name}</th>" for name, bar in CLASS_COLUMNS)
    return f"""<p>oLRP {total:.3f} is the sum of three parts, each the mean over the classes: how badly right detections
are placed, wrong detections, and missed objects. What takes most of the bar is what to work on first.
{SUM_OF_PARTS}</p>
{_bar(analysis.budget, "large")}<ul class="key">{key}</ul>
<div class="scroll"><table class="sortable wide"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"""


SUM_OF_PARTS = (
    "These parts add up because all are divided by right + false + missed (localisation by 0.5 as well, the most that "
    "1 − IoU of a right detection can be); oLRP_loc, oLRP_fp and oLRP_fn above are the same errors, each divided by "
    "its own kind, right detections, all detections and all objects, and do not add up."
)
CLASS_COLUMNS = (
    ("class", ""),
    ("objects", ""),
    ("AP", ""),
    ("", ' style="width:22%"'),
    ("oLRP", ""),
    ("", ' style="width:22%"'),
    ("right", ""),
    ("false", ""),
    ("missed", ""),
    ("threshold", ""),
)


def _class_row(name: str, num_objects: int, values: dict, errors: Errors | None) -> str:
    ap, olrp, threshold = (values[key] for key in ("AP", "oLRP", "lrp_threshold"))
    counts = (None, None, None) if errors is None else (errors.tp, errors.fp, errors.fn)
    budget = None if errors is None else errors.budget
    cells = [
        f'<th scope="row" data-value="{escape(name)}" title="{escape(name)}">{escape(name)}</th>',
        _count_cell(int(num_objects)),
        _cell(ap),
        f'<td data-value="{_exact(ap)}">{_bar([] if ap is None else [ap], css=("ap",))}</td>',
        _cell(olrp),
        f'<td data-value="{_exact(olrp)}">{_bar(budget or [])}</td>',
        *map(_count_cell, counts),
        _cell(threshold),
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _curves(analysis: Analysis) -> str:
    if analysis.budget is None:
        return ""
    figures = (
        figure_svg(precision_recall_figure(analysis), "Precision over recall"),
        figure_svg(lrp_figure(analysis), "LRP over the score threshold with each class's LRP-optimal threshold"),
    )
    return f"""<p>The area under a precision line is the AP at that IoU; grey lines are the classes at IoU 0.5. The LRP
lines tell what a score threshold would give; the lowest point of a class is its oLRP, at its LRP-optimal threshold.</p>
<div class="figures">{"".join(f"<div>{figure}</div>" for figure in figures)}</div>"""


def _confusion(analysis: Analysis) -> str:
    if analysis.budget is None:
        return ""
    names, matrix = analysis.most_confused()
    tall = ' class="tall"' if len(names) > 8 else ""
    head = "".join(f'<th title="{escape(name)}"><span{tall}>{escape(name)}</span></th>' for name in names)
    head += f"<th><span{tall}>missed</span></th>"
    rows = []
    for name, counts in zip([*names, "no object"], matrix, strict=True):
        total = max(int(counts.sum()), 1)
        cells = "".join(
            f'<td style="background:rgba(var(--heat),{0.75 * count / total:.3f})">{count or ""}</td>'
            for count in counts.tolist()
        )
        rows.append(f'<tr><th scope="row" title="{escape(name)}">{escape(name)}</th>{cells}</tr>')
    return f"""<p>Objects by row, what they were detected as by column, at each class's LRP-optimal threshold. A
false positive counts for a missed object of another class that it overlaps with an IoU of at least 0.5, otherwise as no
object. Rows of classes add up to their objects, columns to their detections.</p>
<div class="scroll"><table class="confusion"><thead><tr><th></th>{head}</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div>"""


def _bar(shares: Sequence[float], size: str = "", css: Sequence[str] = CSS_PARTS) -> str:
    parts = "".join(
        f'<i class="{name}" style="width:{share:.2%}"></i>' for name, share in zip(css, shares, strict=False)
    )
    return f'<div class="bar {size}">{parts}</div>'


def _cell(value: float | None, attributes: str = "") -> str:
    return f'<td{attributes} data-value="{_exact(value)}">{format_number(value)}</td>'


def _count_cell(count: int | None) -> str:
    return f'<td data-value="{"" if count is None else count}">{"-" if count is None else count}</td>'


def _exact(value: float | None) -> str:
    return "" if value is None or format_number(value) == "-" else repr(float(value))


def _glossary() -> str:
    return "".join(f"<dt>{escape(term)}</dt><dd>{escape(meaning)}</dd>" for term, meaning in GLOSSARY)
