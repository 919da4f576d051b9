"""Sends and measures traffic; runs alone in namespaces and in guests (standard library only).

    traffic.py receive ADDRESS SECONDS [udp] [streams=N]    prints "ready", then bits a second
    traffic.py send ADDRESS SECONDS [udp] [streams=N] [rate=BITS] [to=ADDRESS,…] [dev=INTERFACE,…]

    traffic.py frames INTERFACE SECONDS                     sends Ethernet frames with a VLAN tag to nobody

The first second is not measured: queues fill. UDP is measured in frames (14 bytes of Ethernet, then IP and UDP). TCP is
measured in payload: with segmentation offload, as it is between guests and dom0, the kernel counts the headers of up to
64 KiB once; without it, those of each frame (``FRAMES_OF_TCP`` times the payload).
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time

PORT = 5201
PAYLOAD = 1400  #: bytes of a UDP datagram: fits a frame with either IP
WARM_UP = 1.0
ETHERNET, IP, UDP = 14, {socket.AF_INET: 20, socket.AF_INET6: 40}, 8
FRAMES_OF_TCP = 1514 / 1428  #: with IPv6, the larger header, and timestamps
TAGGED = b"\xff" * 12 + b"\x81\x00\x00\x05\x88\xb5"  #: to all, VLAN 5, an experimental protocol


def overhead(family: socket.AddressFamily, *, udp: bool) -> float:
    """Bytes that count for each byte of payload."""
    return (PAYLOAD + ETHERNET + IP[family] + UDP) / PAYLOAD if udp else 1.0


def receive(address: str, seconds: float, *, udp: bool, streams: int) -> None:
    """Measure for ``seconds`` after the first second, and print it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    counted = [0] * streams
    kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
    listening = []
    for number in range(streams):
        opened = socket.socket(family, kind)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((address, PORT + number))
        if not udp:
            opened.listen(1)
        listening.append(opened)
    print("ready", flush=True)

    def count(number: int) -> None:
        source = listening[number] if udp else listening[number].accept()[0]
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                counted[number] += len(data)

    for number in range(streams):
        threading.Thread(target=count, args=(number,), daemon=True).start()
    while not sum(counted):
        time.sleep(0.01)
    time.sleep(WARM_UP)
    before, began = sum(counted), time.monotonic()
    time.sleep(seconds)
    after, ended = sum(counted), time.monotonic()
    print((after - before) * 8 * overhead(family, udp=udp) / (ended - began), flush=True)


def send(seconds: float, to: list[str], devices: list[str], *, udp: bool, streams: int, rate: float) -> None:
    """Send as much as goes (UDP: ``rate`` bits a second in all) until the time is over, each stream to its address
    and through its interface."""
    family = socket.AF_INET6 if ":" in to[0] else socket.AF_INET
    end = time.monotonic() + seconds + WARM_UP

    def stream(number: int) -> None:
        with socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as opened:
            if devices:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, devices[number % len(devices)].encode())
            opened.connect((to[number % len(to)], PORT + number))
            data, due = bytes(PAYLOAD if udp else 65536), time.monotonic()
            with contextlib.suppress(OSError):
                while time.monotonic() < end:
                    try:
                        opened.send(data)
                    except BlockingIOError:
                        continue
                    if udp:
                        due += PAYLOAD * 8 * streams / rate
                        time.sleep(max(0.0, due - time.monotonic()))

    threads = [threading.Thread(target=stream, args=(number,)) for number in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def frames(interface: str, seconds: float, rate: float) -> None:
    """Send tagged frames until the time is over."""
    end = due = time.monotonic()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as opened:
        opened.bind((interface, 0))
        while time.monotonic() < end + seconds:
            opened.send(TAGGED + bytes(PAYLOAD))
            due += PAYLOAD * 8 / rate
            time.sleep(max(0.0, due - time.monotonic()))


def main(arguments: list[str]) -> None:
    """See the module."""
    verb, address, seconds, *options = arguments
    udp = "udp" in options
    values = dict(option.split("=") for option in options if "=" in option)
    streams, rate = int(values.get("streams", 1)), float(values.get("rate", 40e6))
    if verb == "receive":
        receive(address, float(seconds), udp=udp, streams=streams)
    elif verb == "frames":
        frames(address, float(seconds), rate)
    else:
        to, devices = values.get("to", address).split(","), values.get("dev", "").split(",")
        send(float(seconds), to, list(filter(None, devices)), udp=udp, streams=streams, rate=rate)


if __name__ == "__main__":
    main(sys.argv[1:])
