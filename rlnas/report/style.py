"""How the report looks, in light and in dark."""

from __future__ import annotations

STYLE = """\
:root {
  --bg: #ffffff; --fg: #1b2430; --muted: #5d6978; --line: #dbe1e8; --grid: #eef1f5; --card: #f6f8fa;
  --chosen: #1f6feb; --front: #0a8f6c; --full: #c2570c; --dot: #8d9bab; --rest: #e3e8ee;
}
@media (prefers-color-scheme: dark) {
  :root {
    --bg: #10151b; --fg: #e4e9ef; --muted: #97a3b1; --line: #2d3742; --grid: #1d252e; --card: #171e26;
    --chosen: #5b9dff; --front: #35c796; --full: #f2994a; --dot: #6f7f90; --rest: #27313b;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--bg); color: var(--fg);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 924px; margin: 0 auto; padding: 40px 32px 64px; }
h1 { margin: 2px 0 14px; font-size: 28px; line-height: 1.25; font-weight: 650; overflow-wrap: anywhere; }
h2 { margin: 0 0 14px; font-size: 18px; font-weight: 620; }
section { margin-top: 34px; padding-top: 26px; border-top: 1px solid var(--line); }
p { margin: 0 0 10px; max-width: 76ch; }
.eyebrow { margin: 0; color: var(--muted); font-size: 13px; }
.result { font-size: 17px; line-height: 1.5; }
.note { max-width: 96ch; color: var(--muted); font-size: 13.5px; }
figure { margin: 0 0 12px; overflow-x: auto; }
figure svg { display: block; width: 100%; min-width: 620px; height: auto; }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 12px; margin: 22px 0 0; }
.tiles div {
  padding: 14px 16px; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
}
.tiles dt { color: var(--muted); font-size: 13px; }
.tiles dd { margin: 2px 0; font-size: 24px; line-height: 1.3; font-weight: 620; }
.tiles p { margin: 0; color: var(--muted); font-size: 13px; }
@media (max-width: 680px) {
  main { padding: 24px 18px 40px; }
  .tiles { grid-template-columns: repeat(2, 1fr); }
}
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 0 0 16px; padding: 0; list-style: none; }
.legend li { display: flex; align-items: center; gap: 7px; font-size: 13.5px; }
.legend svg { flex: none; overflow: visible; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th { font-weight: 400; text-align: left; }
.scroll { overflow-x: auto; margin-bottom: 12px; }
.scroll table { width: 100%; }
.scroll th, .scroll td { padding: 6px 0 6px 14px; text-align: right; white-space: nowrap; }
.scroll th:first-child { padding-left: 0; text-align: left; }
.figures td:nth-child(5), .figures th:nth-child(5) { text-align: left; }
.scroll thead th { color: var(--muted); font-size: 13px; border-bottom: 1px solid var(--line); }
.scroll tbody tr + tr > * { border-top: 1px solid var(--grid); }
.scroll tr.chosen > * { font-weight: 620; border-bottom: 1px solid var(--line); }
.bars { width: 100%; max-width: 640px; margin: 4px 0 10px; }
.bars th { width: 160px; padding: 3px 14px 3px 0; white-space: nowrap; }
.bars td:last-child { width: 90px; padding-left: 14px; text-align: right; white-space: nowrap; }
.bars i { display: block; height: 12px; min-width: 2px; border-radius: 2px; background: var(--chosen); }
.facts th { padding: 3px 28px 3px 0; color: var(--muted); vertical-align: top; white-space: nowrap; }
.facts td { padding: 3px 0; overflow-wrap: anywhere; }
svg text { fill: var(--fg); font-size: 13px; font-family: inherit; font-variant-numeric: tabular-nums; }
svg text.tick { font-size: 12.5px; fill: var(--muted); }
svg text.off { opacity: 0.75; }
svg .grid { stroke: var(--grid); fill: none; }
svg .axis { stroke: var(--line); fill: none; }
.dot { fill: var(--dot); fill-opacity: 0.55; }
.dot:hover { fill: var(--fg); fill-opacity: 1; }
.dots { stroke: var(--dot); stroke-opacity: 0.55; stroke-width: 6; stroke-linecap: round; fill: none; }
.front { stroke: var(--front); stroke-width: 1.8; fill: none; }
.fdot { fill: var(--front); stroke: var(--bg); stroke-width: 1; }
.ring { fill: var(--chosen); fill-opacity: 0; stroke: var(--chosen); stroke-width: 2.2; }
.tie { stroke: var(--chosen); stroke-width: 1.4; stroke-dasharray: 2 3; fill: none; }
.target { stroke: var(--fg); stroke-width: 1.2; stroke-dasharray: 6 4; fill: none; opacity: 0.7; }
.mark { stroke: var(--bg); stroke-width: 1.4; }
.mark.full { fill: var(--full); }
.mark.chosen { fill: var(--chosen); }
.ci { stroke-width: 1.6; fill: none; }
.ci.full { stroke: var(--full); }
.ci.chosen { stroke: var(--chosen); }
.mean { stroke: var(--front); stroke-width: 2; stroke-linejoin: round; fill: none; }
.best { stroke: var(--chosen); stroke-width: 1.6; fill: none; }
.kept { fill: var(--chosen); }
.rest { fill: var(--rest); }
.gone { fill: none; stroke: var(--dot); stroke-dasharray: 3 3; }
@media print { main { padding: 0; max-width: none; } section { break-inside: avoid; } }
"""
"""The style sheet of the page."""
