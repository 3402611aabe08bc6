"""The answers of a search as one HTML file that holds its pictures, readable in light and in dark."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from saccade.metric.embedder import read_image

STYLE = """
:root { color-scheme: light dark; --ink: #1d2129; --soft: #5d6470; --paper: #ffffff; --panel: #f4f5f7; --line: #dfe2e7;
  --bar: #3b7dd8; --well: #e4e7ec; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e9ee; --soft: #a2a9b5; --paper: #14171c; --panel: #1d2128;
  --line: #333943; --bar: #6aa5f2; --well: #2b313a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 2.2rem 1.25rem 4rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .2rem; }
p { margin: .2rem 0; } .soft { color: var(--soft); font-size: .88rem; overflow-wrap: anywhere; }
section { display: grid; grid-template-columns: 12rem 1fr; gap: 1.4rem; margin-top: 1.4rem; padding: 1.1rem;
  background: var(--panel); border-radius: .7rem; }
@media (max-width: 44rem) { section { grid-template-columns: 1fr; } .query .frame { max-width: 12rem; } }
.answers { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.6rem, 1fr)); gap: .9rem .8rem;
  align-content: start; }
figure { margin: 0; min-width: 0; }
.frame { display: grid; place-items: center; aspect-ratio: 1; background: var(--well); border-radius: .45rem;
  overflow: hidden; }
.frame img { width: 100%; height: 100%; object-fit: contain; } .frame img.small { image-rendering: pixelated; }
.query .frame { outline: 2px solid var(--bar); outline-offset: 2px; }
.missing { color: var(--soft); font-size: .8rem; padding: .5rem; text-align: center; }
figcaption { font-size: .78rem; line-height: 1.35; margin-top: .4rem; }
.name { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; direction: rtl; text-align: left;
  color: var(--soft); }
.query .name { direction: ltr; white-space: normal; overflow-wrap: anywhere; color: var(--ink); font-size: .88rem; }
.figure { display: flex; justify-content: space-between; font-variant-numeric: tabular-nums; }
.rank { font-weight: 650; }
.bar { height: .28rem; border-radius: 1rem; background: var(--well); margin: .2rem 0 .25rem; }
.bar i { display: block; height: 100%; border-radius: 1rem; background: var(--bar); }
footer { margin-top: 2rem; border-top: 1px solid var(--line); padding-top: .8rem; }
"""
SIDE = 224
"""Longer side of a thumbnail, in pixels."""


class Tile(NamedTuple):
    """A picture of the sheet.

    Args:
        path: The file.
        name: What to call it.
        figure: Its number in words; empty for a query.
        share: Length of the bar, 0 to 1.
    """

    path: Path
    name: str
    figure: str = ""
    share: float = 0.0


def contact_sheet(
    title: str, about: Sequence[str], rows: Sequence[tuple[Tile, Sequence[Tile]]], footer: Sequence[str] = ()
) -> str:
    """A page with one section a query.

    Args:
        title: Heading.
        about: Lines below it.
        rows: Each query with its answers, the best first.
        footer: Lines at the end, such as what was skipped.

    Returns:
        HTML that needs no other file and no network.
    """
    sections = "".join(
        f'<section><div class="query">{_figure(query, None)}</div><div class="answers">'
        + "".join(_figure(answer, rank) for rank, answer in enumerate(answers, start=1))
        + "</div></section>\n"
        for query, answers in rows
    )
    lines = "".join(f'<p class="soft">{escape(line)}</p>' for line in about)
    end = "".join(f'<p class="soft">{escape(line)}</p>' for line in footer)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main><h1>{escape(title)}</h1>{lines}\n"
        f"{sections}{f'<footer>{end}</footer>' if end else ''}</main></body></html>\n"
    )


def thumbnail(path: Path, read: Callable[[Path], Image.Image] = read_image) -> tuple[str, bool]:
    """A picture as a data URI, and whether it is so small that it has to be enlarged.

    Args:
        path: The file.
        read: How to decode it.

    Returns:
        JPEG; PNG for pictures of at most 64 pixels, so that every pixel stays what it is.
    """
    image = read(path)
    small = max(image.size) <= 64
    image.thumbnail((SIDE, SIDE))
    kind, buffer = ("png" if small else "jpeg"), io.BytesIO()
    image.save(buffer, kind, **({"optimize": True} if small else {"quality": 85}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", small


def _figure(tile: Tile, rank: int | None) -> str:
    try:
        data, small = thumbnail(tile.path)
        picture = f'<img alt="" src="{data}"{" class=small" if small else ""}>'
    except (FileNotFoundError, ValueError):  # it was there when the index was made
        picture = '<span class="missing">the file is gone, or cannot be read</span>'
    name = f'<div class="name" title="{escape(str(tile.path))}"><bdi>{escape(tile.name)}</bdi></div>'
    figures = ""
    if rank is not None:
        share = min(max(tile.share, 0.0), 1.0)
        figures = (
            f'<div class="figure"><span class="rank">{rank}</span><span>{escape(tile.figure)}</span></div>'
            f'<div class="bar"><i style="width:{100 * share:.0f}%"></i></div>'
        )
    return f'<figure><div class="frame">{picture}</div><figcaption>{figures}{name}</figcaption></figure>'
