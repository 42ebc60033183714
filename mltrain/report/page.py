"""The report as one HTML file: no script, no network (its own policy forbids both), readable in light and dark."""
from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from mltrain.report import table
from mltrain.report.charts import Chart, Series, draw
from mltrain.report.markup import Html, join, tag
from mltrain.report.read import Report, Run
from mltrain.report.style import sheet
from mltrain.report.thin import Line

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(report: Report) -> str:
    """The whole file."""
    title = " · ".join(str(run.status["id"]) for run in report.runs)
    head = tag("head", tag("meta", charset="utf-8"), tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
               tag("meta", name="viewport", content="width=device-width, initial-scale=1"), tag("title", f"{title} – mltrain"),
               tag("style", Html(sheet())))
    body = _one(report.runs[0]) if len(report.runs) == 1 else _several(report)
    foot = tag("footer", f"made by mltrain report, {time.strftime('%Y-%m-%d %H:%M:%S')}; the same numbers: mltrain report --json")
    return "<!doctype html>\n" + tag("html", head, tag("body", tag("main", body, foot)), lang="en") + "\n"


def _one(run: Run) -> Html:
    status = run.status
    note = f"Recipe {status['recipe']}. " if status["recipe"] else ""
    reason = f" {status['reason']}." if status["reason"] and status["reason"] != status["state"] else ""
    begun = f"Started {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(status['started']))}." if status["started"] else ""
    settings = [(key, table.plain(value)) for key, value in run.config.items()]
    changed = tag("p", "Set for this run: ", tag("code", " ".join(run.overrides))) if run.overrides else None
    return join(
        tag("h1", str(status["id"]), _state(run)),
        tag("p", note + begun + reason, class_="quiet"), table.tiles(run),
        tag("h2", "Curves"), _attempts_legend(run), _charts([run]),
        tag("h2", "Where the time went"), table.spent(run), tag("h2", "What happened"), table.event_rows(run), _notes(run),
        tag("h2", "Where it came from"), table.provenance(run),
        tag("h2", "Configuration"), changed, tag("details", tag("summary", f"all {len(settings)} keys"), table.pairs(settings)))


def _several(report: Report) -> Html:
    legend = tag("ul", *(tag("li", table.swatch(index), str(run.status["id"])) for index, run in enumerate(report.runs)), class_="legend")
    parts = [tag("h1", f"{len(report.runs)} runs"), table.overview(report), tag("h2", "What differs"), table.differing(report),
             tag("h2", "Curves"), legend, _charts(report.runs)]
    for index, run in enumerate(report.runs):
        parts += [tag("h2", table.swatch(index), str(run.status["id"]), _state(run)), table.tiles(run),
                  tag("h2", "Where the time went"), table.spent(run),
                  tag("details", tag("summary", "What happened"), table.event_rows(run), _notes(run)),
                  tag("details", tag("summary", "Where it came from"), table.provenance(run))]
    return join(*parts)


def _state(run: Run) -> Html:
    return tag("span", str(run.status["state"]), class_=f"state {run.status['state']}")


def _notes(run: Run) -> Html | None:
    if not run.notes:
        return None
    rows = (tag("tr", tag("td", f"{note['step']:,}", class_="n"), tag("td", note["text"], class_="wide")) for note in run.notes)
    return tag("details", tag("summary", f"{len(run.notes)} notes"), table.table(("step", "note"), rows, (0,)))


def _attempts_legend(run: Run) -> Html | None:
    if len(run.attempts) < 2:
        return None
    return tag("p", "Every second attempt is shaded; a dashed line is where the next one began; red: steps that were made again.",
               class_="quiet")


def _charts(runs: list[Run]) -> Html:
    spans, redone = _attempts(runs[0]) if len(runs) == 1 else ([], [])
    shown = (chart for chart in _all(runs) if chart.series)
    drawn = (draw(replace(chart, spans=spans, redone=redone, legend=len(runs) == 1 < len(chart.series))) for chart in shown)
    return tag("div", *drawn, class_="charts")


def _all(runs: list[Run]) -> Iterator[Chart]:
    """In the order to read them; one that has nothing to show has no series."""
    def lines(name: str, label: str = "") -> list[Series]:
        return [Series(_label(runs, run, label), run.curves[name], index) for index, run in enumerate(runs) if name in run.curves]

    def results(name: str, label: str) -> list[Series]:
        beside = 1 if len(runs) == 1 and name == "loss" else 0                # another colour than the training loss in the same chart
        return [Series(_label(runs, run, label), run.evaluations[name], index + beside, dots=True)
                for index, run in enumerate(runs) if name in run.evaluations]

    yield Chart("Loss", lines("loss", "training") + results("loss", "validation"), log=True)
    for name in sorted({name for run in runs for name in run.evaluations} - {"loss"}):
        yield Chart(name.replace("_", " ").capitalize(), results(name, "validation"))
    yield Chart("Learning rate", lines("lr"), "small", zero=True)
    yield Chart("Gradient norm", lines("norm"), log=True)
    rate = "tokens" if any(run.status["tokens"] != run.status["samples"] for run in runs) else "samples"
    yield Chart("Throughput", lines(f"{rate}_per_second"), "count", f"{rate}/s", zero=True, cut=True)
    yield Chart("Step time", _phases(runs[0]) if len(runs) == 1 else lines("step_seconds"), "seconds", zero=True, cut=True)
    if len(runs) > 1:
        yield Chart("Waiting for data", lines("data_seconds"), "seconds", "a step", zero=True, cut=True)
    yield Chart("Memory", lines("memory_bytes"), "bytes", zero=True)


def _label(runs: list[Run], run: Run, label: str) -> str:
    return label if len(runs) == 1 else f"{run.status['id']} {label}".rstrip()


_PHASES = (("data", "data wait", 1), ("compute", "compute", 0), ("collective", "collective", 3), ("optimizer", "optimizer", 2))


def _phases(run: Run) -> list[Series]:
    """Where the time of a step goes, as areas on top of each other; the topmost is all that was not measured apart."""
    if "step_seconds" not in run.curves:
        return []
    whole, height, stacked = run.curves["step_seconds"], [0.0] * len(run.curves["step_seconds"].steps), []
    for name, label, colour in _PHASES:
        line = run.curves.get(f"{name}_seconds")
        if line and line.steps == whole.steps:
            top = [below + own for below, own in zip(height, line.values, strict=True)]
            stacked.append(Series(label, Line(whole.steps, top, low=height), colour, area=True, own=tuple(line.values)))
            height = top
    rest = tuple(max(0.0, all_ - below) for all_, below in zip(whole.values, height, strict=True))
    label, colour = ("compute", 0) if len(stacked) < 2 else ("rest", 6)
    return [*stacked, Series(label, Line(whole.steps, whole.values, low=height), colour, area=True, own=rest)]


def _attempts(run: Run) -> tuple[list[tuple[int, int, int]], list[tuple[int, int]]]:
    """([(first step, where the next attempt took over, number)], [(from, to) of steps that were made again])"""
    made = [attempt for attempt in run.attempts if attempt["first"] >= 0]
    spans, redone = [], []
    for attempt, following in zip(made, [*made[1:], None], strict=True):
        end = following["first"] if following else max(attempt["last"], attempt["first"])
        spans.append((attempt["first"], max(end, attempt["first"]), attempt["attempt"]))
        if following and following["first"] < attempt["last"]:
            redone.append((following["first"], attempt["last"]))
    return spans, redone
