"""A run followed in the browser, from its run folder alone, while it goes on anywhere.

* `progress`   how far its trials are, from three small files
* `follow`     looks that up often, and makes the report anew beside that, on threads
* `server`     both of them for one browser on this machine

The page is that of the report, whose assets live.* and takeover.js ask for what is new.
"""

from raysweep.report.live.follow import Follower
from raysweep.report.live.server import Server

__all__ = ["Follower", "Server"]
