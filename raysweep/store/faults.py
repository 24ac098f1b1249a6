"""Turns the faults of a storage, which are OSErrors, into another try or a StorageError that says what to do.

pyarrow gives an object store's answer only in the text of an OSError, without an errno.
"""

from __future__ import annotations

import errno
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

from raysweep.errors import StorageError

T = TypeVar("T")

PATIENCE_S = 300.0
"""How long to wait for an object store with a passing fault, if it has answered before."""
FIRST_PATIENCE_S = 20.0
"""How long to wait for a store that has never answered: more likely, its address is wrong."""
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 10.0
"""Seconds between tries. pyarrow itself tries three times, for some six seconds, before it raises."""

OF_STORES = (
    (r"NO_SUCH_BUCKET|NoSuchBucket", "there is no such bucket; make it, or name another one"),
    (r"REQUEST_TIME_TOO_SKEWED|RequestTimeTooSkewed", "this machine's clock is wrong; set it"),
    (r"ExpiredToken|TokenRefreshRequired", "the credentials have expired; get new ones"),
    (
        r"INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN_ID|UNRECOGNIZED_CLIENT|INVALID_SIGNATURE"
        r"|MISSING_AUTHENTICATION_TOKEN|HTTP status 401|UNAUTHENTICATED|Unauthenticated",
        "the store does not know these credentials; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE "
        "(gs://: GOOGLE_APPLICATION_CREDENTIALS), on all nodes",
    ),
    (
        r"ACCESS_DENIED|HTTP status 403|PERMISSION_DENIED|Permission denied",
        "access is denied; check the credentials in the environment, and their rights in this bucket",
    ),
    (
        r"HTTP status 301|HTTP status 307|PermanentRedirect|AuthorizationHeaderMalformed|HTTP status 400",
        "the store refuses the request; most often the region (AWS_REGION) or the endpoint (AWS_ENDPOINT_URL) is wrong",
    ),
    (r"HTTP status 507|EntityTooLarge|QuotaExceeded", "the store has no room left"),
    (r"HTTP status 4(?!08|29)\d\d|VALIDATION|INVALID_PARAMETER", "the store refuses the request"),
)
"""Faults that do not pass: a pattern in pyarrow's text, and what to tell the user."""

OF_DISKS = {
    errno.ENOSPC: "the disk is full; make room",
    errno.EDQUOT: "the disk quota is spent; make room",
    errno.EFBIG: "the file is larger than may be written here (ulimit -f)",
    errno.EROFS: "is on a read-only file system; mount it for writing, or choose another place with --storage",
    errno.EACCES: "no permission; change it, or choose another place with --storage",
    errno.EPERM: "no permission; change it, or choose another place with --storage",
    errno.ENAMETOOLONG: "the name is too long for this file system; shorten the sweep's or the trial's",
    errno.ENOTDIR: "a file is where a folder must be; move it away",
    errno.EEXIST: "a file is where a folder must be; move it away",
    errno.EISDIR: "a folder is where a file must be; move it away",
    errno.ELOOP: "is a link, and none is followed in a run folder; put what it points to in its place, or delete it",
    **dict.fromkeys(
        (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP),
        "this file system has no locks; mount it with them (Lustre: -o flock), or choose another place with --storage",
    ),
}


def on_disk(error: OSError, where: str) -> StorageError:
    """The error that tells the user of a local file system's fault."""
    reason = OF_DISKS.get(error.errno or 0) or error.strerror or str(error)
    return StorageError(f"{where}: {reason}, then run the same command again")


def in_store(error: OSError, where: str) -> StorageError | None:
    """The error that tells the user of an object store's fault; None if the fault may pass."""
    text = str(error)
    reason = next((words for pattern, words in OF_STORES if re.search(pattern, text)), None)
    return StorageError(f"{where}: {reason}, then run the same command again ({_short(text)})") if reason else None


def patiently(action: Callable[[], T], where: str, patience_s: float) -> T:
    """Return what `action` returns; after a passing fault of the object store, try again until patience ends.

    A FileNotFoundError is an answer, and is not caught.
    """
    began, end, delay = time.monotonic(), None, FIRST_DELAY_S
    while True:
        try:
            return action()
        except FileNotFoundError:
            raise
        except OSError as error:
            if said := in_store(error, where):
                raise said from error
            now = time.monotonic()
            end = end or now + patience_s
            if now + delay >= end:
                raise StorageError(
                    f"{where}: the store does not answer properly, for {now - began:.0f} s now; what "
                    f"is committed is safe: run the same command again once it does ({_short(str(error))})"
                ) from error
        time.sleep(delay * random.uniform(0.7, 1.0))
        delay = min(2 * delay, LONGEST_DELAY_S)


def _short(text: str) -> str:
    """The store's own words without the number of the request."""
    text = re.sub(r" \(Request ID: [^)]*\)", "", " ".join(text.split()))
    return text if len(text) <= 240 else f"{text[:237]}..."
