"""A run followed in the browser, from its run folder alone, while it goes on anywhere.

* `follow`   what is known of the run: how far its trials are, looked up often; its report, made anew beside that
* `server`   both of them for one browser on this machine, by watch.html, watch.css and watch.js
"""

from raysweep.report.live.follow import Follower
from raysweep.report.live.server import Server

__all__ = ["Follower", "Server"]
