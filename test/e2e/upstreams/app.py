# SPDX-License-Identifier: Apache-2.0
"""A Python web app as people have them: http.server, threads, a folder of files.

POST and PUT answer with the size and the SHA-256 of what came. With --http10 it is the plain
stdlib server: HTTP/1.0, one request a connection.
"""

import argparse
import hashlib
import http.server
import json
import os


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_POST(self):
        left = int(self.headers.get("Content-Length") or 0)
        total, digest = 0, hashlib.sha256()
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                digest.update(self.rfile.read(size))
                total += size
                self.rfile.readline()
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
        while left:
            data = self.rfile.read(min(left, 1 << 16))
            if not data:
                return
            digest.update(data)
            total += len(data)
            left -= len(data)
        body = json.dumps({"bytes": total, "sha256": digest.hexdigest()}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_POST

    def log_message(self, format, *args):  # pylint: disable=redefined-builtin
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", required=True)
    parser.add_argument("--http10", action="store_true")
    options = parser.parse_args()
    os.chdir(options.root)
    Handler.protocol_version = "HTTP/1.0" if options.http10 else "HTTP/1.1"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(f"ready {server.server_address[1]}", flush=True)
    server.serve_forever()


main()
