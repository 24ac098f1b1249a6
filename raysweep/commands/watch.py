"""`raysweep watch`: a run in the browser while it goes on, from its run folder alone."""

from __future__ import annotations

import argparse
import json
import os
import socket
import webbrowser

from raysweep.commands.context import Context, add_sweep_flags
from raysweep.errors import UserError
from raysweep.terminal import say

SUMMARY = "show a run in the browser while it goes on, from its run folder alone"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_sweep_flags(parser)
    parser.add_argument("--port", type=int, default=0, metavar="N", help="of 127.0.0.1; default: a free one")
    parser.add_argument("--no-open", action="store_true", help="print the address only, open no browser")


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C, which is how it ends; return the exit code."""
    from raysweep.report.live import Follower, Server

    if not 0 <= arguments.port <= 65535:
        raise UserError(f"--port {arguments.port}: must be from 1 to 65535, or 0 for a free one")
    context = Context.of(arguments)
    context.folder.files.check_bucket()
    follower = Follower(context.folder, None if context.is_run_folder else context.named)
    try:
        server = Server(follower, arguments.port)
    except OSError as error:
        raise UserError(f"--port {arguments.port}: {error.strerror or error}; name another one, or none") from error
    try:
        with follower, server:
            _tell(server.address, server.server_port, arguments)
            server.serve_forever()
    except KeyboardInterrupt:
        say("no longer watching; the run itself is not touched", stderr=True)
    return 0


def _tell(address: str, port: int, arguments: argparse.Namespace) -> None:
    """Print the address, and how it is reached through ssh; open a browser where there is a screen."""
    from_afar = "SSH_CONNECTION" in os.environ
    if arguments.json:
        print(json.dumps({"address": address, "port": port}), flush=True)
        return
    print(address, flush=True)
    say("Ctrl-C ends the page, not the run", stderr=True)
    if from_afar or not os.environ.get("DISPLAY"):
        say(f"from another machine: ssh -L {port}:127.0.0.1:{port} {socket.gethostname()}, then open the address there")
    elif not arguments.no_open:
        webbrowser.open(address)
