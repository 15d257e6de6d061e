"""Where viewers find the program: the flags of train.py and visualize.py, and the server they ask for."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from mmlphuman.streaming.access import listen
from mmlphuman.streaming.messages import DEFAULT_HOST, DEFAULT_PORT, Welcome
from mmlphuman.streaming.server import ViewerServer


@dataclass(frozen=True)
class Address:
    host: str
    port: int  # 0: any that is free
    token: str | None
    asked_for: bool  # by the user, not a default that may be given up

    def check(self) -> None:
        """Before long work: ValueError, one line, if nobody can listen there now."""
        listen(self.host, self.port).close()

    def serve(self, welcome: Welcome) -> ViewerServer:
        """Serves from now on, and says where. ValueError, one line, if it cannot."""
        server = ViewerServer(welcome, self.host, self.port, self.token).start()
        print(f"watch: {server.url} or viewer/net_viewer.py", flush=True)
        return server


def add_viewer_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ip",
        help=f"address to serve viewers at (default {DEFAULT_HOST}: this machine only; others need a token)",
    )
    parser.add_argument(
        "--port", type=int, help=f"port to serve viewers at (default {DEFAULT_PORT}; 0: any that is free)"
    )
    parser.add_argument("--token", help="word that viewers must give (made and printed where one is needed)")


def viewer_address(args: argparse.Namespace) -> Address:
    given = (args.ip, args.port, args.token)
    return Address(
        host=DEFAULT_HOST if args.ip is None else args.ip,
        port=DEFAULT_PORT if args.port is None else args.port,
        token=args.token,
        asked_for=any(value is not None for value in given),
    )
