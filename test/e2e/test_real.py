# SPDX-License-Identifier: Apache-2.0
"""Real programs on both sides: curl to nginx, Node and Python through the tunnel."""

import concurrent.futures
import json
import os

import pytest

from harness import eventually
from harness.stack import sha256


@pytest.fixture(name="sites", scope="session")
def _sites(session_start, files):
    """One server; nginx, Python's http.server in both versions and Node behind it."""
    server = session_start.server()
    session_start.client(server, session_start.nginx_files(files), "--quiet", subdomain="nginx")
    session_start.client(server, session_start.python(files), "--quiet", subdomain="python")
    session_start.client(server, session_start.python(files, "--http10"), "--quiet",
                         subdomain="python10")
    session_start.client(server, session_start.node(), "--quiet", subdomain="node")
    return server


FILE_SITES = ["nginx", "python", "python10"]


@pytest.mark.parametrize("label", FILE_SITES)
def test_static_files(sites, files, label):
    for name in ("index.html", "text.txt", "empty", "small.bin"):
        got = sites.curl(f"/{name}", label=label)
        assert got.stdout == (files / name).read_bytes(), (name, got.stderr)
    got = sites.curl("/nothing", "-o", os.devnull, "-w", "%{http_code}", label=label)
    assert got.stdout == b"404"


@pytest.mark.parametrize("label", FILE_SITES)
def test_head_by_curl(sites, label):
    got = sites.curl("/small.bin", "-I", label=label)
    assert b" 200 " in got.stdout and b"Content-Length: 1048576" in got.stdout, got.stderr


def test_ranges(sites, files):
    whole = (files / "small.bin").read_bytes()
    got = sites.curl("/small.bin", "-r", "1000-1999", "-w", "%{http_code}", label="nginx")
    assert got.stdout == whole[1000:2000] + b"206"
    assert sites.curl("/small.bin", "-r", "-500", label="nginx").stdout == whole[-500:]
    got = sites.curl("/small.bin", "-r", "0-9,100-109", "-i", label="nginx").stdout
    assert b"multipart/byteranges" in got and whole[100:110] in got
    got = sites.curl("/small.bin", "-r", "9999999-", "-w", "%{http_code}", "-o", os.devnull,
                     label="nginx")
    assert got.stdout == b"416"


def test_resumed_download(sites, files, folder):
    part = folder / "part"
    whole = (files / "small.bin").read_bytes()
    part.write_bytes(whole[:500000])
    got = sites.curl("/small.bin", "-C", "-", "-o", part, label="nginx")
    assert got.returncode == 0 and part.read_bytes() == whole


def test_compressed(sites, files):
    got = sites.curl("/text.txt", "--compressed", "-D", "-", "-o", os.devnull, label="nginx")
    assert b"content-encoding: gzip" in got.stdout.lower()
    assert sites.curl("/text.txt", "--compressed",
                      label="nginx").stdout == (files / "text.txt").read_bytes()


def test_conditional_requests(sites):
    head = sites.curl("/small.bin", "-I", label="nginx").stdout.decode()
    etag = next(line.split(": ")[1] for line in head.splitlines()
                if line.lower().startswith("etag"))
    got = sites.curl("/small.bin", "-H", f"If-None-Match: {etag}", "-w", "%{http_code}",
                     label="nginx")
    assert got.stdout == b"304"


@pytest.mark.parametrize("label", ["python", "python10", "node"])
@pytest.mark.parametrize("chunked, size", [  # curl 7.88 itself hangs on an empty chunked file
    (False, 0), (False, 5), (True, 5), (False, 3_000_000), (True, 3_000_000)])
def test_uploads(sites, folder, label, chunked, size):
    body = os.urandom(size)
    (folder / "up").write_bytes(body)
    args = ["-H", "Transfer-Encoding: chunked"] if chunked else []
    got = sites.curl("/echo", "-T", folder / "up", *args, label=label)
    sent = json.loads(got.stdout)
    assert (sent["bytes"], sent["sha256"]) == (size, sha256(body)), got.stderr


def test_upload_from_a_pipe(sites):
    body = os.urandom(500_000)
    got = sites.curl("/echo", "-T", "-", label="node", input=body)
    assert json.loads(got.stdout)["sha256"] == sha256(body)


def test_form_and_multipart(sites, folder):
    (folder / "photo").write_bytes(b"\x89PNG" + os.urandom(100_000))
    got = json.loads(sites.curl("/echo", "-F", f"photo=@{folder / 'photo'}", "-F", "a=b",
                                label="node").stdout)
    assert got["bytes"] > 100_000
    got = json.loads(sites.curl("/echo", "-d", "a=b&c=d", label="node").stdout)
    assert got["sha256"] == sha256(b"a=b&c=d")


def test_put_into_nginx(sites, files):
    body = (files / "small.bin").read_bytes()
    args = ["-o", os.devnull, "-w", "%{http_code}"]
    assert sites.curl("/dav/new.bin", "-T", files / "small.bin", *args,
                      label="nginx").stdout == b"201"
    assert sites.curl("/dav/new.bin", label="nginx").stdout == body
    assert sites.curl("/dav/new.bin", "-X", "DELETE", *args, label="nginx").stdout == b"204"


def test_expect_by_curl(sites, folder):
    (folder / "up").write_bytes(os.urandom(2_000_000))
    got = sites.curl("/echo", "-T", folder / "up", "-H", "Expect: 100-continue", "-v",
                     "--expect100-timeout", "100", label="node")
    assert json.loads(got.stdout)["bytes"] == 2_000_000
    assert b"< HTTP/1.1 100" in got.stderr
    got = sites.curl("/expect/refuse", "-T", folder / "up", "-H", "Expect: 100-continue",
                     "--expect100-timeout", "100", "-w", "%{http_code}", label="node")
    assert got.stdout == b"refused417"


@pytest.mark.parametrize("label", FILE_SITES)
def test_kept_alive_curl(sites, files, label):
    """One curl, twenty downloads: one connection, whatever the upstream does with its own."""
    urls = []
    for _ in range(20):
        urls += ["-o", os.devnull, sites.url("/text.txt", label)]
    got = sites.curl("/text.txt", "-o", os.devnull, "-w", "%{http_code} %{num_connects}\n",
                     *urls, label=label)
    lines = got.stdout.decode().splitlines()
    assert len(lines) == 21 and all(line.startswith("200 ") for line in lines)
    assert sum(int(line.split()[1]) for line in lines) == 1, lines
    assert files.exists()


def test_http_1_0_by_curl(sites, files):
    for label in FILE_SITES:
        assert sites.curl("/small.bin", "--http1.0",
                          label=label).stdout == (files / "small.bin").read_bytes()


def test_redirect_and_cookies(sites):
    got = sites.curl("/hopheaders", "-c", "-", "-o", os.devnull, label="node").stdout.decode()
    assert "\ta\t1" in got and "\tb\t2" in got


def test_curl_over_tls_follows_the_same_paths(edge, tunnel, authority, files):
    assert tunnel.public() and files.exists()
    got = edge.curl("/bytes?n=2000000", "--cacert", authority.cert, "-w", "%{num_connects}",
                    "-o", os.devnull, edge.url("/hello", tls=True), "-o", os.devnull, tls=True)
    assert got.stdout == b"10", got.stderr


def test_many_curls_at_once(sites, files):
    whole = (files / "small.bin").read_bytes()

    def one(n):
        return sites.curl("/small.bin", label=FILE_SITES[n % 3]).stdout == whole
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        assert all(pool.map(one, range(36)))


def test_events_by_curl(sites, start):
    """curl -N prints each event when it is sent."""
    app = start.node()
    start.client(sites, app, subdomain="events")
    proc = start.spawn(["curl", "-q", "-sN", "--http1.1", "--noproxy", "*", "--connect-to",
                        f"::127.0.0.1:{sites.port}", sites.url("/sse?id=curl", "events")])
    app.await_visit("curl", "seen")
    for n in range(5):
        app.control("emit", id="curl", data=f"tick{n}")
        proc.wait_line(f"^data: tick{n}$")
    proc.kill()
    app.await_visit("curl", "closed")
    eventually(lambda: sites.status("/hello", "events") == 200, "goes on")
