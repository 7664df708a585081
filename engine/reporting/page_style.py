"""Style sheet and script of the evaluation report: light and dark, for wide windows and phones, nothing fetched."""

STYLE = """
:root { color-scheme: light dark; --bg: #f7f7f5; --card: #ffffff; --ink: #24292f; --muted: #68717b; --grid: #d8dee3;
  --loc: #0b84d8; --fp: #e4682a; --fn: #7a5cbe; --ap: #1a9e77; --heat: 11, 132, 216; }
@media (prefers-color-scheme: dark) { :root { --bg: #15181b; --card: #1d2125; --ink: #dde2e7; --muted: #97a1ab;
  --grid: #363d44; --loc: #3d9fe6; --fp: #e87f49; --fn: #a395d1; --ap: #35b48d; --heat: 61, 159, 230; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 28px 16px 48px; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 4px; }
h3 { font-size: .95rem; margin: 18px 0 8px; }
p { margin: 0 0 12px; max-width: 78ch; overflow-wrap: anywhere; }
.muted { color: var(--muted); }
section { background: var(--card); border: 1px solid var(--grid); border-radius: 10px; padding: 18px; margin: 16px 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(86px, 1fr)); gap: 10px; margin: 16px 0; }
.tile { background: var(--card); border: 1px solid var(--grid); border-radius: 10px; padding: 9px 12px; }
.tile b { display: block; font-size: 1.45rem; line-height: 1.2; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { color: var(--muted); font-size: .85rem; }
.scroll { overflow-x: auto; margin: 0 -4px 12px; padding: 0 4px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: 4px 10px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--grid); }
th { font-weight: 600; color: var(--muted); }
th[scope=row] { font-weight: 400; color: var(--ink); text-align: left; max-width: 18ch; overflow: hidden;
  text-overflow: ellipsis; position: sticky; left: -4px; background: var(--card); }
.sortable thead th:first-child { text-align: left; }
.wide { width: 100%; }
.sortable thead th { cursor: pointer; user-select: none; }
.sortable thead th[aria-sort]::after { content: " ▾"; }
.sortable thead th[aria-sort=ascending]::after { content: " ▴"; }
.bar { display: flex; height: 11px; min-width: 130px; width: 100%; background: var(--bg); border-radius: 3px;
  overflow: hidden; }
.bar.large { height: 26px; border-radius: 6px; margin: 8px 0; }
.bar i { display: block; }
.ap { background: var(--ap); } .loc { background: var(--loc); } .fp { background: var(--fp); }
.fn { background: var(--fn); }
.key { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0 0 14px; padding: 0; list-style: none;
  font-size: .9rem; }
.key i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 6px; }
.right { background: rgb(26, 158, 119); } .false { background: rgb(228, 104, 42); } /* as in the pictures */
.missed { background: rgb(122, 92, 190); }
.verdict { border-left: 4px solid var(--fp); padding: 2px 0 2px 12px; max-width: 92ch; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 18px; }
.figures svg { width: 100%; height: auto; max-width: 560px; display: block; margin: 0 auto; }
.figures svg text { font-family: inherit !important; }
.confusion td { text-align: center; min-width: 36px; padding: 4px 6px; border: 1px solid var(--card); }
.confusion thead th { padding: 4px 6px; vertical-align: bottom; text-align: center; }
.confusion .tall { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 11em; overflow: hidden; }
.examples { display: grid; gap: 22px; }
figure { margin: 0; }
figcaption { font-size: .88rem; margin-bottom: 6px; overflow-wrap: anywhere; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 8px; }
.pair img { width: 100%; height: auto; display: block; border-radius: 4px; }
.enlarge { display: block; width: 100%; padding: 0; border: 0; background: none; cursor: zoom-in; }
dialog { width: 100vw; height: 100vh; max-width: none; max-height: none; padding: 0; border: 0; cursor: zoom-out;
  background: rgba(0, 0, 0, .88); }
dialog img { width: 100%; height: 100%; object-fit: contain; }
.pair span { font-size: .8rem; color: var(--muted); }
summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; font-size: .82rem; line-height: 1.45; margin: 10px 0 0; }
dt { font-weight: 600; margin-top: 8px; } dd { margin: 0; max-width: 78ch; }
@media (max-width: 540px) { .pair { grid-template-columns: 1fr; } section { padding: 14px; }
  table { font-size: .82rem; } th, td { padding: 4px 6px; } .bar { min-width: 84px; } }
"""

# A click on a picture shows it as large as the window, until another click or Escape. A click on a heading sorts the
# table by that column; another click turns the order round. Dashes stay last.
SCRIPT = """
const dialog = document.querySelector("dialog");
for (const button of document.querySelectorAll("button.enlarge")) {
  const picture = button.firstElementChild;
  button.addEventListener("click", () => {
    [dialog.firstElementChild.src, dialog.firstElementChild.alt] = [picture.src, picture.alt];
    dialog.showModal();
  });
}
dialog?.addEventListener("click", () => dialog.close());
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const up = head.ariaSort === "descending" || (!head.ariaSort && column === 0);
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.value;
    const order = (a, b) => column === 0 ? key(a).localeCompare(key(b)) : Number(key(a)) - Number(key(b));
    const rows = [...body.rows], known = rows.filter((row) => key(row) !== "");
    known.sort((a, b) => up ? order(a, b) : order(b, a));
    body.append(...known, ...rows.filter((row) => key(row) === ""));
  }));
}
"""
