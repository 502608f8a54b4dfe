# SPDX-License-Identifier: Apache-2.0
"""An upstream for tests of faults: patterned streams over HTTP, WebSocket, TCP and UDP, whose bytes
both ends check. Prints "ready HTTP TCP UDP", its ports (those of the command line, if there are any),
and "wrong ..." for whatever was not as it should be.

HTTP: /small?key=K answers with a body made of K; /down?key=K&rate=R sends the pattern, in chunks and
R KiB a second, until /stop?key=K, which tells what was sent; POST /up?key=K checks the pattern;
/count?key=K tells what came so far; an upgrade becomes an echo.
TCP: 8 bytes say what: "pattern " with a key and a rate of 4 bytes is the pattern both ways, until the
visitor's end; anything else is echoed.
"""

import asyncio
import json
import pathlib
import struct
import sys
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from harness import pattern  # noqa: E402  pylint: disable=wrong-import-position

sent, received, stopped = {}, {}, set()


async def pace(due, size, rate):
    """Waits until so much more may be sent; rate in KiB/s."""
    now = asyncio.get_running_loop().time()
    due = max(due, now - 0.05) + size / (rate * 1024)
    if due > now:
        await asyncio.sleep(due - now)
    return due


async def read_chunks(reader):
    while True:
        line = await reader.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        size = int(line.split(b";")[0], 16)
        data = await reader.readexactly(size + 2)
        if not size:
            return
        yield data[:-2]


async def down(writer, key, rate):
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    number, due = 0, 0
    sent[key] = 0
    while key not in stopped:
        data = pattern.block(key, number)
        writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await writer.drain()
        number += 1
        sent[key] = number * pattern.BLOCK
        due = await pace(due, len(data), rate)
    writer.write(b"0\r\n\r\n")


async def up(reader, key):
    checker = pattern.Checker(key)
    async for data in read_chunks(reader):
        checker.feed(data)
        received[key] = checker.count
    checker.finish()
    return {"bytes": checker.count}


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def both_ways(reader, writer):
    head = await reader.readexactly(pattern.KEY + 4)
    key, rate = head[:pattern.KEY], struct.unpack("!I", head[pattern.KEY:])[0]
    over = asyncio.Event()

    async def send():
        number, due = 0, 0
        while not over.is_set():
            writer.write(pattern.block(pattern.other_way(key), number))
            await writer.drain()
            number += 1
            due = await pace(due, pattern.BLOCK, rate)
    sending = asyncio.create_task(send())
    checker = pattern.Checker(key)
    try:
        while data := await reader.read(65536):
            checker.feed(data)
            received[key] = checker.count
        checker.finish()
    except BaseException:
        sending.cancel()
        raise
    over.set()
    await sending
    writer.write(pattern.END + struct.pack("!Q", checker.count))
    await writer.drain()
    writer.write_eof()


def answer(writer, value):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


async def request(reader, writer):
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    target = urllib.parse.urlsplit(head.split(" ", 2)[1])
    query = dict(urllib.parse.parse_qsl(target.query))
    key = query.get("key", "").encode()
    if "\r\nupgrade:" in head.lower():
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                     b"Connection: Upgrade\r\n\r\n")
        await echo(reader, writer)
        return False
    if target.path == "/down":
        await down(writer, key, int(query["rate"]))
    elif target.path == "/up":
        answer(writer, await up(reader, key))
    elif target.path == "/stop":
        stopped.add(key)
        answer(writer, {"bytes": sent.get(key, 0)})
    elif target.path == "/count":
        answer(writer, {"bytes": received.get(key, 0)})
    else:
        answer(writer, key * 100)
    await writer.drain()
    return True


def guarded(serve):
    async def run(reader, writer):
        try:
            await serve(reader, writer)
        except (OSError, EOFError):
            writer.transport.abort()
        except ValueError as error:
            print("wrong", error, flush=True)
            writer.transport.abort()
        finally:
            writer.close()
    return run


async def serve_http(reader, writer):
    while await request(reader, writer):
        pass


async def serve_tcp(reader, writer):
    what = await reader.readexactly(8)
    if what == b"pattern ":
        await both_ways(reader, writer)
    else:
        writer.write(what)
        await echo(reader, writer)


class Flows(asyncio.DatagramProtocol):
    """Sends back what comes; a key that comes from a second address is a flow that did not go on."""

    def __init__(self):
        self.transport, self.sources = None, {}

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        known = self.sources.setdefault(data[:pattern.KEY], addr)
        received[data[:pattern.KEY]] = 1 if known == addr else 2
        self.transport.sendto(data, addr)


async def main():
    host = "127.0.0.1"
    ports = [int(port) for port in sys.argv[1:]] or [0, 0, 0]
    how = {"backlog": 512, "limit": 1 << 18}
    http = await asyncio.start_server(guarded(serve_http), host, ports[0], **how)
    tcp = await asyncio.start_server(guarded(serve_tcp), host, ports[1], **how)
    udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(Flows, (host, ports[2]))
    ports = [http.sockets[0].getsockname()[1], tcp.sockets[0].getsockname()[1],
             udp.get_extra_info("sockname")[1]]
    print("ready", *ports, flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
