"""What the clouds say of a machine that they will take away: their metadata services, by plain HTTP to an address of the machine itself.

    AWS      /latest/meta-data/spot/instance-action (IMDSv2: a token first), two minutes before; a rebalance recommendation is advice only
    Google   /computeMetadata/v1/instance/preempted, thirty seconds before; the request waits until it changes
    Azure    /metadata/scheduledevents, thirty seconds before Preempt, more before Terminate, Reboot, Redeploy; it lists neighbours', too

Nothing here asks the network which cloud this is: the machine's firmware says so (DMI).
"""
from __future__ import annotations

import http.client
import json
import time
from calendar import timegm
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_ADDRESS = "http://169.254.169.254"                  # the same in all three
DMI = Path("/sys/class/dmi/id")
_AZURES_TAG = "7783-7084-3265-9085-8269-3286-77"     # of the chassis: tells Azure from any Hyper-V
_ANSWER_SECONDS, _LARGEST = 10.0, 1 << 18
_AWS_PAUSE, _AZURE_PAUSE = 5.0, 2.0
GOOGLES_SECONDS, _GOOGLES_WAIT = 30.0, 60
_TOKEN_SECONDS = 21600
_LEAVING = {"Preempt": "takes this machine", "Terminate": "ends this machine", "Reboot": "starts this machine anew",
            "Redeploy": "moves this machine, its memory lost"}


@dataclass(frozen=True, slots=True)
class Notice:
    """source: who says it. text: what. seconds: until the machine goes, None if that is not said. final: it goes; else it is advice."""

    source: str
    text: str
    seconds: float | None = None
    final: bool = True


class Unanswered(Exception):
    """The metadata service did not answer, or not as documented."""


@dataclass(slots=True)
class Cloud:
    """One cloud's service. look: the notices that hold now; may take a minute. pause: seconds between two looks."""

    name: str
    look: Callable[[], list[Notice]]
    pause: float


def which(dmi: Path = DMI) -> str:
    """aws, gcp, azure; "" for any other machine."""
    def says(name: str) -> str:
        try:
            return (dmi / name).read_text(errors="replace").strip()
        except OSError:
            return ""
    vendor = says("sys_vendor")
    if vendor == "Amazon EC2" or "amazon" in says("bios_version").lower():
        return "aws"
    if vendor == "Google" or says("product_name") == "Google Compute Engine":
        return "gcp"
    return "azure" if says("chassis_asset_tag") == _AZURES_TAG else ""


def cloud(name: str, base: str = "") -> Cloud:
    """name: aws, gcp or azure. base: the service's address, if it is not the documented one. Raises KeyError for another name."""
    kinds: dict[str, type[Aws] | type[Google] | type[Azure]] = {"aws": Aws, "gcp": Google, "azure": Azure}
    service = kinds[name](base or _ADDRESS)
    return Cloud(name, service.look, service.pause)


def clean(text: object) -> str:
    """What a service has said, fit for one line."""
    return "".join(each if each.isprintable() else " " for each in str(text))[:200]


class Aws:
    pause = _AWS_PAUSE

    def __init__(self, base: str) -> None:
        self._base, self._token, self._until = base, "", 0.0

    def look(self) -> list[Notice]:
        found = []
        if text := self._get("/latest/meta-data/spot/instance-action"):
            action = _dictionary(text)
            what, when = clean(action.get("action", "terminate")), clean(action.get("time", ""))
            found.append(Notice("AWS", f"spot interruption: {what} at {when}", _seconds_to(when)))
        if text := self._get("/latest/meta-data/events/recommendations/rebalance"):
            when = clean(_dictionary(text).get("noticeTime", ""))
            found.append(Notice("AWS", f"rebalance recommendation of {when}: an interruption is likely", final=False))
        return found

    def _get(self, path: str) -> str:
        """"" where there is nothing to say (404)."""
        if time.monotonic() > self._until:
            headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)}
            self._token = _ask(self._base, "PUT", "/latest/api/token", headers)[1]
            self._until = time.monotonic() + _TOKEN_SECONDS / 2
        status, text = _ask(self._base, "GET", path, {"X-aws-ec2-metadata-token": self._token}, allowed=(200, 401, 404))
        if status == 401:                                      # the machine has slept: the token is too old, though not by our clock
            self._until = 0.0
            raise Unanswered("its token is too old")
        return text if status == 200 else ""


class Google:
    pause = 0.0                                                # the request itself waits

    def __init__(self, base: str) -> None:
        self._base, self._etag = base, "0"

    def look(self) -> list[Notice]:
        path = f"/computeMetadata/v1/instance/preempted?wait_for_change=true&timeout_sec={_GOOGLES_WAIT}&last_etag={self._etag}"
        connection = _Connection(self._base, _GOOGLES_WAIT + _ANSWER_SECONDS)
        _, text = connection.ask("GET", path, {"Metadata-Flavor": "Google"})
        self._etag = connection.answered.get("ETag", self._etag)
        return [Notice("Google Cloud", "this machine is preempted", GOOGLES_SECONDS)] if text.strip() == "TRUE" else []


class Azure:
    pause = _AZURE_PAUSE

    def __init__(self, base: str) -> None:
        self._base, self._name = base, ""

    def look(self) -> list[Notice]:
        headers = {"Metadata": "true"}
        self._name = self._name or _ask(self._base, "GET", "/metadata/instance/compute/name?api-version=2021-02-01&format=text", headers)[1]
        # the first answer of a machine takes up to two minutes: the service is switched on by it
        _, text = _ask(self._base, "GET", "/metadata/scheduledevents?api-version=2020-07-01", headers, seconds=130)
        found, events = [], _dictionary(text).get("Events", [])
        for event in events if isinstance(events, list) else []:
            if isinstance(event, dict) and self._name in (event.get("Resources") or []):
                found.append(self._notice(event))
        return found

    def _notice(self, event: dict[str, Any]) -> Notice:
        kind, before = clean(event.get("EventType")), clean(event.get("NotBefore", ""))
        what = f"{kind}: Azure {_LEAVING.get(kind, 'pauses this machine for a moment')}, {'not before ' + before if before else 'now'}"
        return Notice("Azure", what, _seconds_to(before) if before else 0.0, final=kind in _LEAVING)


class _Connection:
    """One request. No proxy: the address is the machine's own."""

    def __init__(self, base: str, seconds: float) -> None:
        parts = urlsplit(base)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=seconds)
        self.answered: dict[str, str] = {}

    def ask(self, method: str, path: str, headers: dict[str, str], allowed: tuple[int, ...] = (200,)) -> tuple[int, str]:
        try:
            self._connection.request(method, path, headers=headers)
            response = self._connection.getresponse()
            self.answered = dict(response.getheaders())
            text = response.read(_LARGEST).decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise Unanswered(str(error) or type(error).__name__) from None
        finally:
            self._connection.close()
        if response.status not in allowed:
            raise Unanswered(f"{method} {path.partition('?')[0]}: {response.status}")
        return response.status, text


def _ask(base: str, method: str, path: str, headers: dict[str, str], *, allowed: tuple[int, ...] = (200,),
         seconds: float = _ANSWER_SECONDS) -> tuple[int, str]:
    return _Connection(base, seconds).ask(method, path, headers, allowed)


def _dictionary(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Unanswered("its answer is no JSON object")
    return found


def _seconds_to(moment: str) -> float | None:
    """From now; None if it is no moment. AWS writes 2026-11-24T12:00:00Z, Azure Tue, 24 Nov 2026 12:00:00 GMT."""
    try:
        if moment.endswith("Z"):
            return max(0.0, timegm(time.strptime(moment, "%Y-%m-%dT%H:%M:%SZ")) - time.time())
        return max(0.0, parsedate_to_datetime(moment).timestamp() - time.time())
    except (ValueError, TypeError, IndexError):
        return None
