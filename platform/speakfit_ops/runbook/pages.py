"""Serves the runbooks of this checkout as pages, so that a local page's link can be followed."""

from __future__ import annotations

import html
import re
from pathlib import Path

from speakfit_ops.runbook.shelf import FOLDER, subjects

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>{title}</title><style>
body{{font:16px/1.6 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;
color:#1d2430;background:#fff}}h1{{font-size:1.7rem}}h2{{margin-top:2rem;font-size:1.2rem}}
pre{{background:#f3f5f8;padding:.8rem 1rem;overflow:auto;border-radius:6px;font-size:14px}}
code{{background:#f3f5f8;border-radius:3px;padding:0 .2em}}pre code{{padding:0}}a{{color:#0b57d0}}
table{{border-collapse:collapse}}td,th{{border:1px solid #d5dbe3;padding:.3rem .6rem;
text-align:left;vertical-align:top}}
@media(prefers-color-scheme:dark){{body{{background:#14181f;color:#dfe5ee}}
pre,code{{background:#1f2630}}a{{color:#8ab4f8}}td,th{{border-color:#3a4453}}}}
</style></head><body>{body}</body></html>"""


def page(subject: str, folder: Path = FOLDER) -> str | None:
    """One runbook as an HTML page, or None when there is none of that subject."""
    if subject not in subjects(folder):
        return None
    from markdown_it import MarkdownIt

    text = (folder / f"{subject}.md").read_text(encoding="utf-8")
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(without_markers(text))
    return _PAGE.format(title=html.escape(f"Runbook: {subject}"), body=body)


def without_markers(text: str) -> str:
    """Markdown without the comments that fence generated parts."""
    return re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)


def index(folder: Path = FOLDER) -> str:
    """A page that lists all runbooks."""
    links = "".join(f'<li><a href="/{name}">{name}</a></li>' for name in subjects(folder))
    return _PAGE.format(title="Runbooks", body=f"<h1>Runbooks</h1><ul>{links}</ul>")


def serve(port: int) -> None:
    """Answer at http://127.0.0.1:PORT/SUBJECT until told to stop."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, PlainTextResponse, Response
    from starlette.routing import Route

    def show(request: Request) -> Response:
        found = page(request.path_params["subject"].removesuffix(".md"))
        if found is None:
            return PlainTextResponse("No such runbook. See / for all of them.", status_code=404)
        return HTMLResponse(found)

    uvicorn.run(
        Starlette(
            routes=[
                Route("/", lambda _: HTMLResponse(index())),
                Route("/readyz", lambda _: PlainTextResponse("ok")),
                Route("/{subject}", show),
            ]
        ),
        host="127.0.0.1",
        port=port,
        log_level="warning",
        http="h11",
        loop="asyncio",
    )
