"""Imported first by the process that loads torch for a rehearsal's: Ctrl-C ends it, and those, without a traceback.

The one that began the rehearsal says what there is to say.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
