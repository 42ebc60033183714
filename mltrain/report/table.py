"""The parts of the page that are words and numbers: tiles, events, where the time went, provenance, configuration."""
from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

from mltrain.report.axis import duration, short
from mltrain.report.charts import COLOURS
from mltrain.report.markup import Html, join, tag
from mltrain.report.read import Report, Run
from mltrain.runs.goodput import APART, CLASSES

_LOOKS = {"kept": "kept", "redone": "redone-time", "detection": "redone-time", "restart": "redone-time", "backoff": "waiting",
          "nodes": "waiting", "queued": "waiting", "idle": "waiting", "unknown": "waiting"}      # the others: starting


def swatch(index: int) -> Html:
    return tag("i", class_=f"c{index % COLOURS}")


def table(head: Sequence[str], rows: Iterable[Html], numbers: Sequence[int] = ()) -> Html:
    """rows: of td. numbers: columns whose heads stand on the right."""
    top = tag("tr", *(tag("th", text, class_="n" if index in numbers else None) for index, text in enumerate(head)))
    return tag("div", tag("div", tag("table", tag("thead", top), tag("tbody", *rows)), class_="scroll"), class_="card")


def tiles(run: Run) -> Html:
    """The headline numbers of one run."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value, tag("small", more) if more else None))
                       for name, value, more in _headlines(run)), class_="tiles")


def _headlines(run: Run) -> Iterable[tuple[str, str, str]]:
    status, figures = run.status, run.figures
    yield "step", f"{status['step']:,}", f"of {status['steps']:,}" if status["steps"] else ""
    if status["loss"] is not None:
        yield "loss", f"{status['loss']:.4g}", "of the last step"
    if "validation_loss" in figures:
        best = f"best {figures['best_validation_loss']:.4g} at step {figures['best_step']:,.0f}"
        yield "validation loss", f"{figures['validation_loss']:.4g}", best
    if status["tokens"] and status["tokens"] != status["samples"]:
        yield "tokens", short(status["tokens"], "count"), f"{short(figures.get('tokens_per_second', 0), 'count')} a second"
    else:
        yield "samples", short(status["samples"], "count"), f"{short(figures.get('samples_per_second', 0), 'count')} a second"
    if "step_seconds_median" in figures:
        slow = f"99th percentile {short(figures['step_seconds_p99'], 'seconds')}"
        yield "step time", short(figures["step_seconds_median"], "seconds"), slow
    if figures.get("data_wait_share") is not None:
        yield "waiting for data", f"{100 * figures['data_wait_share']:.1f} %", "of the step time"
    if "goodput" in figures:
        counted = sum(seconds for name, seconds in run.seconds.items() if name not in APART)
        yield "goodput", f"{100 * figures['goodput']:.1f} %", f"of {duration(counted)}"
    yield "attempts", str(status["attempts"]), f"on {status['host']}"
    if "memory_bytes" in figures:
        yield "peak memory", short(figures["memory_bytes"], "bytes"), "of rank 0"
    if "parameters" in figures:
        yield "parameters", short(figures["parameters"], "count"), ""


def overview(report: Report) -> Html:
    """Several runs, a row each."""
    head = ("run", "state", "step", "loss", "validation loss", "throughput", "step time", "goodput", "attempts")
    rows = []
    for index, run in enumerate(report.runs):
        figures, loss = run.figures, run.status["loss"]
        rate = "tokens" if run.status["tokens"] != run.status["samples"] else "samples"
        cells = (f"{run.status['step']:,}", "–" if loss is None else f"{loss:.4g}",
                 f"{figures['validation_loss']:.4g}" if "validation_loss" in figures else "–",
                 f"{short(figures[f'{rate}_per_second'], 'count')} {rate}/s" if f"{rate}_per_second" in figures else "–",
                 short(figures["step_seconds_median"], "seconds") if "step_seconds_median" in figures else "–",
                 f"{100 * figures['goodput']:.1f} %" if "goodput" in figures else "–", str(run.status["attempts"]))
        rows.append(tag("tr", tag("td", swatch(index), str(run.status["id"]), class_="wide"), tag("td", str(run.status["state"])),
                        *(tag("td", cell, class_="n") for cell in cells)))
    return table(head, rows, range(2, len(head)))


def spent(run: Run) -> Html:
    """Where the time went, as a bar and in words."""
    total = sum(run.seconds.values())
    if total <= 0:
        return tag("p", "No attempt has ended its first step.", class_="quiet")
    shown = {name: seconds for name, seconds in run.seconds.items() if seconds > 0}
    bar = tag("div", *(tag("div", class_=_LOOKS.get(name, "starting"), style=f"flex: {seconds / total:.4f}",
                           title=f"{CLASSES[name]}: {duration(seconds)}")
                       for name, seconds in shown.items()), class_="bar")
    words = tag("ul", *(tag("li", tag("i", class_=_LOOKS.get(name, "starting")), f"{CLASSES[name]} {duration(seconds)}",
                            tag("span", f" {100 * seconds / total:.1f} %", class_="quiet")) for name, seconds in shown.items()),
                class_="legend")
    return tag("div", bar, words, class_="card pad")


def event_rows(run: Run) -> Html:
    """The ledger. Times count from the first row."""
    begin = run.events[0]["time"] if run.events else 0.0
    rows = []
    for index, event in enumerate(run.events):
        if run.events_left_out and event is run.events[-min(len(run.events), 240)] and index:
            rows.append(tag("tr", tag("td", f"… {run.events_left_out:,} events are left out here", colspan="4", class_="quiet")))
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["time"]))
        rows.append(tag("tr", tag("td", _clock(event["time"] - begin), class_="n", title=moment),
                        tag("td", str(event["attempt"] or ""), class_="n"),
                        tag("td", event["event"], class_="nowrap bad" if event["bad"] else "nowrap"),
                        tag("td", event["text"], class_="wide")))
    return table(("after", "attempt", "event", "what"), rows, (0, 1))


def _clock(seconds: float) -> str:
    whole = max(0, int(seconds))
    days, rest = divmod(whole, 86400)
    return (f"{days} d " if days else "") + f"{rest // 3600:d}:{rest // 60 % 60:02d}:{rest % 60:02d}"


def differing(report: Report) -> Html:
    """The keys in which the runs' configurations differ."""
    if not report.differences:
        return tag("p", "All keys are the same.", class_="quiet")
    head = ("key", *(str(run.status["id"]) for run in report.runs))
    rows = (tag("tr", tag("td", row["key"], class_="code nowrap"),
                *(tag("td", plain(value), class_="code wide") for value in row["values"])) for row in report.differences)
    return table(head, rows)


def pairs(rows: Iterable[tuple[str, str]]) -> Html:
    """Names and values, a line each."""
    body = (tag("tr", tag("th", name), tag("td", value, class_="code wide")) for name, value in rows)
    return tag("div", tag("div", tag("table", tag("tbody", *body)), class_="scroll"), class_="card")


def provenance(run: Run) -> Html:
    found, code, hardware = run.provenance, run.provenance.get("code") or {}, run.provenance.get("hardware") or {}
    patch = " + patch.diff" if code.get("dirty") else ""
    machine = (hardware.get("processor"), f"{hardware['cores']} cores" if hardware.get("cores") else "", hardware.get("capability"),
               short(hardware["memory"], "bytes") if hardware.get("memory") else "")
    rows = {
        "command": " ".join(map(str, found.get("command", []))), "directory": found.get("directory"),
        "run directory": run.status["directory"],
        "commit": f"{code['commit']}{patch} ({code.get('branch') or 'no branch'})" if code.get("commit") else "",
        "origin": code.get("origin"), "left out of the patch": ", ".join(code.get("left_out", [])),
        "python": found.get("python"), "torch": hardware.get("torch") or _version(found, "torch"), "platform": found.get("platform"),
        "processor": ", ".join(filter(None, machine)), "accelerators": plain(hardware.get("accelerators") or ""),
        "user": found.get("user"),
        "environment": " ".join(f"{name}={value}" for name, value in (found.get("environment") or {}).items())}
    packages = " ".join(map(str, found.get("packages") or []))
    listed = tag("details", tag("summary", "installed packages"), tag("div", tag("code", packages), class_="card pad"))
    return join(pairs((name, str(value)) for name, value in rows.items() if value), listed if packages else None)


def _version(found: dict[str, Any], package: str) -> str:
    return next((str(each).partition("==")[2] for each in found.get("packages", []) if str(each).startswith(f"{package}==")), "")


def plain(value: object) -> str:
    return value if isinstance(value, str) else "–" if value is None else json.dumps(value, ensure_ascii=False)
