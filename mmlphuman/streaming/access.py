"""Who may watch, and what a browser gets to watch with: addresses, tokens, headers, the page, the first message.

Data path: host, port -> listening socket; HTTP request -> a file of the page, a reason, or on to the websocket;
Hello -> allowed or a reason.

A server for this machine needs no token, so it must not be reachable through somebody else's web page: a browser
sends where a page came from (Origin), which must be this server; and a page whose own name was made to point at this
machine (DNS rebinding) shows by the name it asks for (Host), which without a token must be this machine's.
"""

from __future__ import annotations

import errno
import hmac
import ipaddress
import os
import re
import secrets
import socket
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote, urlsplit

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from mmlphuman.streaming.messages import MAX_NAME, MAX_REQUEST_BYTES, PROTOCOL_VERSION, Hello
from mmlphuman.streaming.protocol import ProtocolError, decode_client, parse_object

TOKEN_BYTES = 16  # of randomness: cannot be guessed
BACKLOG = 64  # connections that the system keeps until we take them
MAX_PORT = 65535
ANY_ADDRESS = ("", "0.0.0.0", "::")
SCHEME_PORTS = {"http": 80, "https": 443}
HOST_HEADER = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
PAGE_FOLDER = Path(__file__).parent / "page"
PLAYER_FOLDER = (
    Path(__file__).parent / "player"
)  # the page that draws by itself; it shares modules with the other
INDEX, PLAYER_PATH = "index.html", "/player/"
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".json": "application/json",
    ".npz": "application/octet-stream",
    ".safetensors": "application/octet-stream",
}
PLAIN_TEXT = "text/plain; charset=utf-8"


# --- address and token -----------------------------------------------------------------------------------


def is_this_machine(host: str) -> bool:
    """Whether `host` names an address that only this machine reaches. Other names are not looked up."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def choose_token(host: str, given: str | None) -> str:
    """What viewers must know: what was given, or one made here if others can reach `host`; else empty."""
    if given is not None and not 0 < len(given) <= MAX_NAME:
        raise ValueError(f"token: {len(given)} characters; 1 to {MAX_NAME} are possible")
    if given is None and not is_this_machine(host):
        return secrets.token_urlsafe(TOKEN_BYTES)
    return given or ""


def page_address(host: str, port: int, token: str) -> str:
    """What a person opens in a browser. The token stands behind the #, which browsers keep to themselves."""
    name = socket.gethostname() if host in ANY_ADDRESS else host
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + (f"#token={quote(token, safe='')}" if token else "")


def player_path(token: str) -> str:
    """Where the page that draws by itself lies. Its files are the avatar, and a browser asks for them without a token:
    where one is needed, nobody can guess the path either."""
    return f"/player-{secrets.token_urlsafe(TOKEN_BYTES)}/" if token else PLAYER_PATH


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any that is free. ValueError, one line, if it cannot be had."""
    if not 0 <= port <= MAX_PORT:
        raise ValueError(f"port {port}: 1 to {MAX_PORT} are possible, or 0 for any that is free")
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ValueError(
            f"host {host!r} is unknown here; use 127.0.0.1, or 0.0.0.0 for all addresses of this machine"
        ) from error
    # "localhost" may be both; viewers are told 127.0.0.1
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    try:
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:
        raise ValueError(_why_not(error, host, port)) from error


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host or 'all addresses'} is in use; end what uses it, or choose another port"
    if error.errno == errno.EACCES:
        return f"port {port} on {host} is reserved for the system; choose one from 1024 to {MAX_PORT}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"host {host} is no address of this machine; use 127.0.0.1, or 0.0.0.0 for all its addresses"
    return f"port {port} on {host} cannot be listened at ({os.strerror(error.errno or 0)}); choose another"


# --- a browser's headers ---------------------------------------------------------------------------------


def refuse_headers(hosts: list[str], origins: list[str], has_token: bool) -> str | None:
    """Why a request with these Host and Origin headers is not answered; None if it is."""
    if len(hosts) != 1 or not HOST_HEADER.fullmatch(hosts[0]):
        return "a request needs one Host header"
    host = urlsplit(f"//{hosts[0]}")
    if not has_token and not is_this_machine(host.hostname or ""):
        return (
            f"without a token this server answers to localhost and 127.0.0.1 only, not to {hosts[0]}; use an SSH"
            " tunnel, or start it with a token"
        )
    if not origins:
        return None  # no browser
    if len(origins) == 1:
        try:
            origin = urlsplit(origins[0])
            port = SCHEME_PORTS[origin.scheme]
            if (origin.hostname, origin.port or port) == (host.hostname, host.port or port):
                return None
        except (ValueError, KeyError):  # no address, or of no web page
            pass
    return f"pages from {origins[0]} may not watch; open http://{hosts[0]}/ itself"


# --- the page --------------------------------------------------------------------------------------------


class WebPage:
    """The files of `folder` that a browser may ask for; those in folders below it, or of other kinds, it may not. And
    other files by name, below the path `under`.

    Read once; paths are looked up in a table, never on the disk.
    """

    def __init__(
        self, folder: Path = PAGE_FOLDER, others: Mapping[str, bytes] | None = None, under: str = PLAYER_PATH
    ):
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        self._files = {  # path in the address -> type, content
            f"/{file.name}": (CONTENT_TYPES[file.suffix], file.read_bytes())
            for file in files
            if file.suffix in CONTENT_TYPES and file.is_file()
        }
        for name, content in (others or {}).items():
            self._files[under + name] = (CONTENT_TYPES[Path(name).suffix], content)
        for place in ("/", under):
            if place + INDEX in self._files:
                self._files[place] = self._files[place + INDEX]

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


# --- first message ---------------------------------------------------------------------------------------


def check_hello(message: str | bytes, token: str) -> Hello:
    """The first message of a connection that may watch. Raises ProtocolError with the reason for all others."""
    if not isinstance(message, str):
        raise ProtocolError("the first message must be a hello, in a text frame")
    check_version(message)
    hello = decode_client(message)
    if not isinstance(hello, Hello):
        raise ProtocolError("the first message must be a hello")
    if token and not hmac.compare_digest(_bytes(hello.token), _bytes(token)):
        raise WrongToken(
            "the token is wrong; the server printed it when it started"
            if hello.token
            else "this server asks for a token; it printed it when it started"
        )
    return hello


class WrongToken(ProtocolError):
    """A guess, perhaps: answered late."""


def check_version(message: str) -> None:
    """Refuses another version's hello, whatever else that version writes into it."""
    version = parse_object(message, MAX_REQUEST_BYTES).get("protocol")
    if type(version) is int and version != PROTOCOL_VERSION:
        older = "server" if version > PROTOCOL_VERSION else "viewer"
        raise ProtocolError(
            f"the server speaks version {PROTOCOL_VERSION} of the protocol, the viewer {version}; update the {older}"
        )


def _bytes(text: str) -> bytes:
    """JSON can hold half a character, which plain UTF-8 refuses."""
    return text.encode("utf-8", "surrogatepass")
