"""One chart as inline SVG: lines of several runs over steps, their bounds where they were thinned, evaluation points, attempts shaded.

Colours are classes (style.py), so that one drawing serves light and dark. No script: what a point is, its `title` says.
"""
from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from mltrain.report.axis import Scale, labels, log_ticks, short, ticks, unit
from mltrain.report.markup import Html, join, tag
from mltrain.report.thin import Line

WIDTH, HEIGHT = 560, 238
LEFT, RIGHT, TOP, BOTTOM = 52, 538, 22, 202          # of the plot
COLOURS = 8
COLUMNS = 50                                         # that say their values when pointed at
_OUTLIER = 3.0                                       # a chart ends at this many times the 98th percentile


@dataclass(frozen=True, slots=True)
class Series:
    """A line of one run. colour: which run it is. dots: the values are few and each is shown. area: filled from line.low up to the line.
    own: what is said of each point instead of its height (of areas that stand on each other)."""

    label: str
    line: Line
    colour: int = 0
    dots: bool = False
    area: bool = False
    own: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """kind: what the values are (axis.unit). suffix: of what. zero: the axis begins at 0. log: if the values span much. cut: outliers may
    be cut off. spans: [(first, end, attempt)], redone: [(first, end)], in steps. legend: say which line is what."""

    title: str
    series: list[Series]
    kind: str = "plain"
    suffix: str = ""
    zero: bool = False
    log: bool = False
    cut: bool = False
    spans: list[tuple[int, int, int]] = field(default_factory=list)
    redone: list[tuple[int, int]] = field(default_factory=list)
    legend: bool = False


def draw(chart: Chart) -> Html:
    """A figure with its caption."""
    x = _steps(chart.series)
    y, divisor, name, hidden = _values(chart)
    of = " ".join(filter(None, (f"× {name}" if chart.kind == "small" and name else name, chart.suffix)))
    says = [text for text in (of, "log scale" if y.log else "", f"peak {short(hidden, chart.kind)} cut off" if hidden else "") if text]
    caption = tag("figcaption", tag("b", chart.title), tag("span", ", ".join(says)) if says else None,
                  _legend(chart) if chart.legend else None)
    svg = tag("svg", _shading(chart, x), _grid(x, y), *(_series(each, x, y, divisor) for each in sorted(chart.series, key=_order)),
              _lost(chart.series, x), _columns(chart, x), viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=chart.title)
    return tag("figure", caption, svg)


def _legend(chart: Chart) -> Html:
    items = (tag("span", tag("i", class_=f"c{each.colour % COLOURS}"), each.label) for each in chart.series)
    return tag("span", *items, class_="lines")


def _order(series: Series) -> tuple[bool, bool]:
    """Areas below, dots on top."""
    return series.dots, not series.area


def _steps(series: Sequence[Series]) -> Scale:
    every = [step for each in series for step in (*each.line.steps[:1], *each.line.steps[-1:])] or [0]
    low, high = min(0, *every), max(every)
    return Scale(low, max(high, low + 1), LEFT, RIGHT)


def _values(chart: Chart) -> tuple[Scale, float, str, float]:
    """(scale in the unit, divisor, name of the unit, the peak that does not fit or 0)"""
    every = [value for each in chart.series for part in (each.line.values, each.line.low, each.line.high) for value in part] or [0.0]
    low, high, hidden = min(every), max(every), 0.0
    if chart.cut:
        ordinary = sorted(every)[(len(every) - 1) * 98 // 100]
        if high > _OUTLIER * ordinary > 0:
            high, hidden = 1.5 * ordinary, high
    divisor, name = unit(chart.kind, max(abs(low), abs(high)))
    low, high = low / divisor, high / divisor
    if chart.log and low > 0 and high / low > 30:
        return Scale(low / 1.15, high * 1.15, BOTTOM, TOP, log=True), divisor, name, 0.0
    if chart.zero:
        low = min(0.0, low)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return Scale(low if chart.zero and low == 0 else low - room, high + room, BOTTOM, TOP), divisor, name, hidden


def _grid(x: Scale, y: Scale) -> Html:
    """Lines and numbers of both axes."""
    across = log_ticks(y.low, y.high) if y.log else ticks(y.low, y.high)
    parts = [tag("path", class_="grid", d="".join(f"M{LEFT} {y(value):.1f}H{RIGHT}" for value in across))]
    parts += [tag("text", text, x=LEFT - 7, y=y(value) + 3.5, class_="y") for value, text in zip(across, labels(across), strict=True)]
    along = [value for value in ticks(x.low, x.high, 6) if value == int(value)]
    parts.append(tag("path", class_="axis", d=f"M{LEFT} {BOTTOM}H{RIGHT}" + "".join(f"M{x(value):.1f} {BOTTOM}v4" for value in along)))
    for value in along:
        text = short(value, "count") if x.high >= 100_000 else f"{value:,.0f}"
        parts.append(tag("text", text, x=x(value), y=BOTTOM + 17, class_="x"))
    parts.append(tag("text", "step", x=(LEFT + RIGHT) / 2, y=BOTTOM + 31, class_="x"))
    return join(*parts)


def _shading(chart: Chart, x: Scale) -> Html:
    """Every second attempt is shaded, what was done again is hatched."""
    parts = []
    for first, end, attempt in chart.spans:
        left, right = x(first), x(min(end, x.high))
        if attempt % 2 == 0:
            parts.append(tag("rect", x=left, y=TOP, width=max(right - left, 1.0), height=BOTTOM - TOP, class_="attempt"))
        if attempt > 1:
            parts.append(tag("path", d=f"M{left:.1f} {TOP}V{BOTTOM}", class_="restart"))
        if right - left > 22 and len(chart.spans) > 1:
            parts.append(tag("text", f"attempt {attempt}" if right - left > 60 else str(attempt), x=left + 1, y=TOP - 6, class_="attempt"))
    for first, end in chart.redone:
        parts.append(tag("rect", tag("title", f"steps {first:,} to {end:,} were made again"), x=x(first), y=TOP,
                         width=max(x(end) - x(first), 1.0), height=BOTTOM - TOP, class_="redone"))
    return join(*parts)


def _series(series: Series, x: Scale, y: Scale, divisor: float) -> Html:
    line, look = series.line, f"c{series.colour % COLOURS}" + (" dash" if series.colour >= COLOURS else "")
    places = [(x(step), _inside(y(value / divisor))) for step, value in zip(line.steps, line.values, strict=True)]
    if not places:
        return Html()
    parts = []
    if line.low:
        low, high = ([(x(step), _inside(y(value / divisor))) for step, value in zip(line.steps, values, strict=True)]
                     for values in (line.low, line.high or line.values))
        parts.append(tag("path", d=_path([*high, *reversed(low)]) + "Z", class_=f"{'area' if series.area else 'bounds'} {look}"))
    if len(places) > 1:
        parts.append(tag("path", d=_path(places), class_=f"line {look}" + (" thin" if series.dots or series.area else "")))
    if series.dots and len(places) <= 80 or len(places) == 1:
        parts += [tag("circle", cx=across, cy=up, r=2.6, class_=look) for across, up in places]
    return join(*parts)


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{across:.1f} {up:.1f}" for across, up in places)


def _inside(place: float) -> float:
    return min(max(place, TOP - 2.0), BOTTOM + 2.0)


def _lost(series: Sequence[Series], x: Scale) -> Html:
    """A cross at the top for each step whose value is no number."""
    return join(*(tag("path", tag("title", f"step {step:,}  {each.label} is no number"), class_="lost",
                      d=f"M{x(step) - 3:.1f} {TOP + 1}l6 6m0 -6l-6 6") for each in series for step in each.line.lost))


def _columns(chart: Chart, x: Scale) -> Html:
    """Invisible columns that say the values near a step."""
    width = (RIGHT - LEFT) / COLUMNS
    parts = []
    for index in range(COLUMNS):
        step = x.low + (index + 0.5) / COLUMNS * (x.high - x.low)
        said = [text for each in chart.series if (text := _near(each, step, (x.high - x.low) / COLUMNS, chart))]
        if said:
            parts.append(tag("rect", tag("title", "\n".join(said)), x=LEFT + index * width, y=TOP, width=width, height=BOTTOM - TOP))
    return tag("g", *parts, class_="columns") if parts else Html()


def _near(series: Series, step: float, width: float, chart: Chart) -> str:
    """The value nearest to a step, if there is one about there."""
    steps = series.line.steps
    right = bisect_left(steps, step)
    beside = [index for index in (right - 1, right) if 0 <= index < len(steps)]
    nearest = min(beside, key=lambda index: abs(steps[index] - step), default=-1)
    if nearest < 0 or (series.dots and abs(steps[nearest] - step) > width / 2) or abs(steps[nearest] - step) > 10 * width:
        return ""
    value = (series.own or series.line.values)[nearest]
    size = f"{value:.5g}" if chart.kind == "plain" and not math.isclose(value, 0, abs_tol=1e-4) else short(value, chart.kind)
    return f"step {steps[nearest]:,}  {series.label} {size} {chart.suffix}".rstrip()
