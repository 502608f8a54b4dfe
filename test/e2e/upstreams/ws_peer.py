# SPDX-License-Identifier: Apache-2.0
"""A WebSocket server, and a client that tries everything with one, on `websockets`. ws_peer.js is
the same in JavaScript: both say the same words and report in the same form.

  ws_peer.py serve                  prints "ready PORT", then a line for each closed connection
  ws_peer.py talk URL PORT [CA]     connects to 127.0.0.1:PORT; prints one line of JSON
"""

import asyncio
import json
import os
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

SIZES = [0, 1, 125, 126, 127, 65535, 65536, 1 << 20, 8 << 20]


def report(path, ws):
    code = ws.close_code if ws.close_code is not None else 1006
    print(f"closed {path} {code} {ws.close_reason or ''}", flush=True)


async def welcome(ws):
    path = ws.request.path
    try:
        if path == "/say":
            for text in ("one", "two", "three"):
                await ws.send(text)
            await ws.close(1000, "said")
        async for message in ws:
            if path == "/close":
                await ws.close(4001, "grüße ☃")
            elif path == "/die":
                ws.transport.abort()
            elif path == "/fragments":
                await ws.send(["a", "bc", "", "d"])
            else:
                await ws.send(message)
    except ConnectionClosed:
        pass
    await ws.wait_closed()
    report(path, ws)


def refuse(ws, request):
    return ws.respond(403, "no\n") if request.path == "/refuse" else None


def choose(_ws, offered):
    return next((p for p in ("three", "two") if p in offered), None)


async def run_server():
    async with serve(welcome, "127.0.0.1", 0, select_subprotocol=choose, max_size=None,
                     process_request=refuse, ping_interval=None) as server:
        print("ready", server.sockets[0].getsockname()[1], flush=True)
        await server.wait_closed()


class Visit:
    """Connections to 127.0.0.1 whatever the URL's name."""

    def __init__(self, base, port, ca=None):
        self.base = base
        self.how = {"host": "127.0.0.1", "port": int(port), "proxy": None, "max_size": None,
                    "ping_interval": None}
        if ca:
            self.how["ssl"] = ssl.create_default_context(cafile=ca)

    def dial(self, path, compression=None, **how):
        return connect(self.base + path, compression=compression, **self.how, **how)

    async def echo(self, filler, **how):
        ws = await self.dial("/echo", **how)
        good = []
        for size in SIZES:
            for message in ("ü" * (size // 2), filler(size)):
                await ws.send(message)
                good.append(await ws.recv() == message)
        await ws.close(3001, "done")
        extension = ws.response.headers.get("Sec-WebSocket-Extensions", "").split(";")[0]
        return [len(good), all(good), extension, ws.close_code, ws.close_reason]

    async def plain(self):
        return await self.echo(os.urandom)

    async def deflate(self):
        return await self.echo(lambda n: (b"abcd" * (n // 4 + 1))[:n], compression="deflate")

    async def bounded_deflate(self):
        return await self.echo(lambda n: (b"abcd" * (n // 4 + 1))[:n], extensions=[
            ClientPerMessageDeflateFactory(server_no_context_takeover=True,
                                           client_no_context_takeover=True)])

    async def subprotocol(self):
        ws = await self.dial("/echo", subprotocols=["one", "two"])
        await ws.close()
        return [ws.subprotocol, ws.close_code, ws.close_reason]

    async def said_at_once(self):
        ws = await self.dial("/say")
        words = [await ws.recv() for _ in range(3)]
        await ws.wait_closed()
        return [*words, ws.close_code, ws.close_reason]

    async def fragments(self):
        ws = await self.dial("/fragments")
        await ws.send("please")
        got = await ws.recv()
        await ws.send(["in", "", "pieces"])
        again = await ws.recv()
        await ws.close()
        return [got, again, ws.close_code, ws.close_reason]

    async def closed_by_the_server(self):
        ws = await self.dial("/close")
        await ws.send("close")
        await ws.wait_closed()
        return [ws.close_code, ws.close_reason]

    async def server_dies(self):
        ws = await self.dial("/die")
        await ws.send("die")
        await ws.wait_closed()
        return [ws.close_code, ws.close_reason or ""]

    async def client_dies(self):
        ws = await self.dial("/echo")
        await ws.send("alive")
        await ws.recv()
        ws.transport.abort()
        await ws.wait_closed()
        return [True]

    async def ping(self):
        ws = await self.dial("/echo")
        await (await ws.ping(b"are you there"))
        await ws.close()
        return ["are you there", ws.close_code, ws.close_reason]

    async def refused(self):
        try:
            await self.dial("/refuse")
        except InvalidStatus as refusal:
            return [refusal.response.status_code, refusal.response.body.decode()]
        return []

    async def many(self):
        async def one(n):
            ws = await self.dial("/echo")
            good = []
            for i in range(20):
                message = f"{n} {i} {'x' * (n * i)}"
                await ws.send(message)
                good.append(await ws.recv() == message)
            await ws.close()
            return all(good) and ws.close_code == 1000
        done = await asyncio.gather(*(one(n) for n in range(50)))
        return [len(done), all(done)]


TRIES = ["plain", "deflate", "bounded_deflate", "subprotocol", "said_at_once", "fragments",
         "closed_by_the_server", "server_dies", "client_dies", "ping", "refused", "many"]


async def talk(*where):
    visit = Visit(*where)
    print(json.dumps({name: await getattr(visit, name)() for name in TRIES}), flush=True)


if __name__ == "__main__":
    asyncio.run(run_server() if sys.argv[1] == "serve" else talk(*sys.argv[2:]))
