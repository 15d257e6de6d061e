"""The browser's page, served over plain HTTP at the port of the websocket.

Data path: a folder's files, read once -> WebPage -> answers to GET. Paths are looked up in a table, never on the disk.
"""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from mmlphuman.streaming.access import refuse_headers

PAGE_FOLDER = Path(__file__).parent / "page"
INDEX = "index.html"
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
}
PLAIN_TEXT = "text/plain; charset=utf-8"


class WebPage:
    """The files of `folder` that a browser may ask for; those in folders below it, or of other kinds, it may not."""

    def __init__(self, folder: Path = PAGE_FOLDER):
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        self._files = {  # path in the address -> type, content
            f"/{file.name}": (CONTENT_TYPES[file.suffix], file.read_bytes())
            for file in files
            if file.suffix in CONTENT_TYPES and file.is_file()
        }
        if f"/{INDEX}" in self._files:
            self._files["/"] = self._files[f"/{INDEX}"]

    def answer(self, request: Request, has_token: bool) -> Response | None:
        """What a request gets; None: it asks for a websocket, and may have it."""
        hosts, origins = request.headers.get_all("Host"), request.headers.get_all("Origin")
        refused = refuse_headers(hosts, origins, has_token)
        if refused is not None:
            return _response(HTTPStatus.FORBIDDEN, PLAIN_TEXT, f"{refused}\n".encode("ascii", "replace"))
        if request.method != "GET":
            body = b"" if request.method == "HEAD" else b"only GET is answered\n"
            response = _response(HTTPStatus.METHOD_NOT_ALLOWED, PLAIN_TEXT, body)
            response.headers["Allow"] = "GET"
            return response
        if "Upgrade" in request.headers:
            return None
        kind, content = self._files.get(request.path.partition("?")[0], (PLAIN_TEXT, None))
        if content is None:
            return _response(HTTPStatus.NOT_FOUND, PLAIN_TEXT, b"there is no such page\n")
        return _response(HTTPStatus.OK, kind, content, hosts[0])


def _response(status: HTTPStatus, kind: str, body: bytes, host: str = "") -> Response:
    """`host`, checked already, is where the page's script may open a websocket."""
    policy = [
        "default-src 'self'",
        f"connect-src 'self' ws://{host} wss://{host}" if host else "connect-src 'self'",
        "img-src 'self' blob: data:",  # pictures come as bytes
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    headers = Headers(
        {
            "Connection": "close",
            "Content-Length": str(len(body)),
            "Content-Type": kind,
            "Content-Security-Policy": "; ".join(policy),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }
    )
    return Response(status.value, status.phrase, headers, body)
