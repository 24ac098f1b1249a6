"""Runs a command where one network interface leads outside, to nobody, and prints whom the command addressed there.

    unshare --net python uplink.py COMMAND ...

The last line of the output has the addresses as JSON: `192.0.2.7:443`, and `DNS name` for what was to be looked up.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time

TCP, UDP = 6, 17
SETUP = (
    "ip link set lo up",
    "ip link add uplink type veth peer name nobody",
    "ip addr add 192.0.2.1/24 dev uplink",
    "ip link set uplink arp off up",
    "ip link set nobody up",
    "ip route add default via 192.0.2.2 dev uplink",
)


def addressed(packet: bytes) -> str | None:
    """Whom an IPv4 packet is for; None for what is none, such as the kernel's own of IPv6."""
    if packet[0] >> 4 != 4:
        return None
    address, protocol, after = socket.inet_ntoa(packet[16:20]), packet[9], (packet[0] & 15) * 4
    if protocol not in (TCP, UDP):
        return address
    port = int.from_bytes(packet[after + 2 : after + 4], "big")
    if (protocol, port) != (UDP, 53):
        return f"{address}:{port}"
    labels, at = [], after + 8 + 12
    while size := packet[at]:
        labels.append(packet[at + 1 : at + 1 + size].decode())
        at += 1 + size
    return f"DNS {'.'.join(labels)}"


def main(command: list[str]) -> int:
    """Run the command, then print the addresses; return its exit code."""
    for step in SETUP:
        subprocess.run(step.split(), check=True)
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)) as sniffer:  # 3: every protocol
        sniffer.bind(("uplink", 0))
        sniffer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        code = subprocess.run(command, check=False).returncode
        time.sleep(0.5)
        sniffer.setblocking(False)
        seen = set()
        with contextlib.suppress(BlockingIOError):
            while True:
                seen.add(addressed(sniffer.recv(65_536)))
    print(json.dumps(sorted(seen - {None})))  # type: ignore[type-var]
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
