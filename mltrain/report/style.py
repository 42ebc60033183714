"""How the page looks: one style sheet, light and dark."""
from __future__ import annotations

_LIGHT = ("#2563eb", "#d97706", "#059669", "#c026d3", "#dc2626", "#0891b2", "#7c3aed", "#65a30d")
_DARK = ("#6ea8fe", "#fbbf24", "#34d399", "#e879f9", "#f87171", "#22d3ee", "#a78bfa", "#a3e635")

_RULES = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --text: #1b1f27; --quiet: #667085; --rule: #e4e7ec; --grid: #eceef2;
  --shade: #2563eb12; --bad: #c8322b; --good: #0b7a4b; --warn: #a15c07; COLOURS_LIGHT }
@media (prefers-color-scheme: dark) { :root { --page: #0f1217; --card: #171b22; --text: #e6e9ef; --quiet: #98a2b3; --rule: #2a303a;
  --grid: #232934; --shade: #6ea8fe1c; --bad: #ff8078; --good: #4ad395; --warn: #f5b849; COLOURS_DARK } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--text); font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans",
  "Liberation Sans", "DejaVu Sans", sans-serif; font-variant-numeric: tabular-nums }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 48px }
h1 { font-size: 22px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere }
h2 { font-size: 15px; margin: 32px 0 10px }
p { margin: 0 0 10px } .quiet, figcaption span, dt, th, footer { color: var(--quiet) }
code, .code { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere }
.state { display: inline-block; font-size: 12px; font-weight: 600; padding: 1px 9px; border-radius: 9px; border: 1px solid;
  margin-left: 8px; vertical-align: 3px; color: var(--quiet) }
.state.done { color: var(--good) } .state.failed, .state.lost { color: var(--bad) } .state.stopped, .state.cancelled { color: var(--warn) }
.state.running { color: var(--c0) }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(45%, 200px), 1fr)); gap: 10px; margin: 18px 0 0 }
.tiles div, figure, .card { background: var(--card); border: 1px solid var(--rule); border-radius: 8px }
.tiles div { padding: 9px 12px } .tiles dt { font-size: 12px } .tiles dd { margin: 0; font-size: 18px; font-weight: 600; line-height: 1.3 }
.tiles dd small { display: block; font-size: 12px; font-weight: 400; color: var(--quiet) }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 12px }
figure { margin: 0; padding: 10px 12px 4px } figcaption { font-size: 13px } figcaption > span { font-size: 12px; margin-left: 6px }
figcaption .lines { float: right }
figcaption .lines span { margin-left: 12px; white-space: nowrap } .lines i { margin-right: 5px; width: 9px; height: 9px }
svg { display: block; width: 100%; height: auto } svg text { font-size: 11px; fill: var(--quiet) }
svg .y { text-anchor: end } svg .x { text-anchor: middle } svg text.attempt { font-size: 10px }
.grid { stroke: var(--grid); fill: none } .axis { stroke: var(--quiet); fill: none } rect.attempt { fill: var(--shade) }
.restart { stroke: var(--quiet); stroke-dasharray: 3 3; fill: none } .redone { fill: var(--bad); fill-opacity: .16 }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round } .line.thin { stroke-width: 1; stroke-opacity: .55 }
.dash { stroke-dasharray: 5 3 }
path.bounds { stroke: none; fill-opacity: .22 } path.area { stroke: none; fill-opacity: .3 }
circle { stroke: var(--card); stroke-width: .8 }
.lost { stroke: var(--bad); stroke-width: 1.5; fill: none }
.columns rect { fill: transparent } .columns rect:hover { fill: var(--quiet); fill-opacity: .16 }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0 0 10px; padding: 0; list-style: none }
i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 7px; vertical-align: -1px }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: 13px }
th { text-align: left; font-weight: 500; white-space: nowrap }
th, td { padding: 5px 12px; border-bottom: 1px solid var(--rule); vertical-align: top }
tbody tr:last-child > * { border-bottom: 0 }
.n { text-align: right; white-space: nowrap } .nowrap { white-space: nowrap } td.bad { color: var(--bad) }
td.wide { overflow-wrap: anywhere; width: 100% } h1 + .card { margin-top: 14px } .card .legend { margin: 0 }
.bar { display: flex; height: 22px; border-radius: 6px; overflow: hidden; gap: 1px; margin-bottom: 10px } .bar div { min-width: 2px }
.kept { background: var(--c2) } .redone-time { background: var(--c4) } .starting { background: var(--c1) }
.waiting { background: var(--c6) }
details { margin-top: 10px } summary { cursor: pointer; color: var(--quiet) } details .card { margin-top: 8px }
.pad { padding: 12px 14px } footer { margin-top: 36px; font-size: 12px }
@media print { body { background: #fff } figure { break-inside: avoid } }
"""


def sheet() -> str:
    rules = "".join(f"path.c{number} {{ stroke: var(--c{number}) }} .area.c{number}, .bounds.c{number}, circle.c{number} "
                    f"{{ fill: var(--c{number}) }} i.c{number} {{ background: var(--c{number}) }}\n" for number in range(len(_LIGHT)))
    light, dark = (" ".join(f"--c{number}: {colour};" for number, colour in enumerate(colours)) for colours in (_LIGHT, _DARK))
    return rules + _RULES.replace("COLOURS_LIGHT", light).replace("COLOURS_DARK", dark)
