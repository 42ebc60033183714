"""HTML and SVG elements whose text is escaped unless it is an element already: nothing a run is called can become markup."""
from __future__ import annotations

from html import escape

_EMPTY = {"meta", "rect", "path", "circle"}      # closed at once when they have no content


class Html(str):
    """Markup, as opposed to text."""

    __slots__ = ()


def tag(name: str, /, *children: str | Html | None, **attributes: str | float | None) -> Html:
    """tag("td", "a < b", class_="n") -> <td class="n">a &lt; b</td>. An attribute's trailing _ is dropped, other _ become -; None leaves
    an attribute or a child out."""
    said = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
                   for key, value in attributes.items() if value is not None)
    if name in _EMPTY and not children:
        return Html(f"<{name}{said}/>")
    return Html(f"<{name}{said}>{join(*children)}</{name}>")


def join(*children: str | Html | None) -> Html:
    return Html("".join(child if isinstance(child, Html) else escape(child, quote=False) for child in children if child is not None))


def _text(value: str | float) -> str:
    """Coordinates need no more than a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
