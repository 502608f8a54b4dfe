# SPDX-License-Identifier: Apache-2.0
"""A folder published as it is: ranges, conditions, a listing, no way out; curl and Chromium."""

import concurrent.futures
import hashlib
import json
import os
import re
import shutil

import pytest

from harness import HANG, MIB, SANITIZED, eventually
from harness.net import Truncated
from harness.stack import need, sha256
from test_browser import FLAGS

BIG = 8 * MIB if SANITIZED else 64 * MIB


def fill(folder):
    """The folder that is served, with things beside it that must not be."""
    root = folder / "site"
    root.mkdir()
    (folder / "outside.txt").write_text("SECRET")
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "home").mkdir()
    (root / "home" / "index.html").write_text("<!doctype html><title>home</title>at home\n")
    (root / "a.txt").write_text("0123456789" * 100)
    (root / "sub" / "deep" / "ü & <b>.txt").write_text("odd")
    (root / "sub" / "page.html").write_text("<!doctype html><title>page</title>\n")
    (root / ".env").write_text("SECRET")
    (root / ".well-known").mkdir()
    (root / ".well-known" / "security.txt").write_text("Contact: x\n")
    (root / "out").symlink_to("../outside.txt")
    (root / "in").symlink_to("sub/page.html")
    os.mkfifo(root / "fifo")
    block = bytearray(hashlib.shake_256(b"files").digest(MIB))
    with open(root / "big.bin", "wb") as out:
        for n in range(BIG // MIB):
            block[:8] = n.to_bytes(8, "big")
            out.write(block)
    return root


@pytest.fixture(name="site", scope="session")
def _site(session_start):
    folder = session_start.folder_for("published")
    return fill(folder)


@pytest.fixture(name="served", scope="session")
def _served(session_start, edge, site):
    session_start.program_client(edge, ["files", site, "--quiet"], subdomain="files")
    return edge


def status(served, target, *args, **kw):
    got = served.curl(target, "--path-as-is", "-o", os.devnull, "-w", "%{http_code}", *args,
                      label="files", **kw)
    return int(got.stdout)


def test_files_by_curl(served, site):
    for name in ("a.txt", "sub/page.html", "in", "home/", ".well-known/security.txt"):
        got = served.curl(f"/{name}", label="files")
        path = site / name
        assert got.stdout == (path / "index.html" if path.is_dir() else path).read_bytes(), name
    head = served.curl("/a.txt", "-I", label="files").stdout.decode()
    assert " 200 " in head and "Content-Length: 1000" in head
    assert "Content-Type: text/plain; charset=utf-8" in head
    assert served.curl("/sub/deep/%C3%BC%20%26%20%3Cb%3E.txt", label="files").stdout == b"odd"
    assert served.curl("/home", "-L", label="files").stdout.endswith(b"at home\n")
    assert status(served, "/nothing") == 404
    assert status(served, "/a.txt", "-X", "DELETE") == 405
    assert status(served, "/a.txt", "-d", "body") == 405
    assert status(served, "/a.txt", "-T", str(site / "big.bin")) == 405


@pytest.mark.parametrize("target", [
    "/../outside.txt", "/sub/../../outside.txt", "/%2e%2e/outside.txt", "/..%2foutside.txt",
    "/.%2e/outside.txt", "/..\\outside.txt", "/%252e%252e/outside.txt", "//../outside.txt", "/out",
    "/.env", "/%2eenv", "/.well-known/../.env", "/fifo", "/etc/passwd", "//etc/passwd",
    "/%c0%ae%c0%ae/outside.txt", "/..;/outside.txt", "/a.txt/../../outside.txt"])
def test_no_way_out(served, target):
    got = served.curl(target, "--path-as-is", "-w", "%{http_code}", label="files")
    assert b"SECRET" not in got.stdout and b"root:" not in got.stdout
    assert got.stdout[-3:] in (b"404", b"403", b"400"), got.stdout


def test_ranges_by_curl(served, site, folder):
    whole = (site / "big.bin").read_bytes()
    got = served.curl("/big.bin", "-r", "1000-1999", "-w", "%{http_code}", label="files")
    assert got.stdout == whole[1000:2000] + b"206"
    assert served.curl("/big.bin", "-r", "-500", label="files").stdout == whole[-500:]
    got = served.curl("/big.bin", "-r", "0-9,100-109", "-i", label="files").stdout
    assert b"multipart/byteranges" in got and whole[100:110] in got
    assert status(served, "/big.bin", "-r", f"{BIG}-") == 416
    # A download that was cut goes on where it was.
    part = folder / "part"
    part.write_bytes(whole[:5_000_000])
    got = served.curl("/big.bin", "-C", "-", "-o", part, label="files")
    assert got.returncode == 0 and part.read_bytes() == whole


def test_conditions_by_curl(served, site, folder):
    tag, out = folder / "etag", folder / "out"
    served.curl("/a.txt", "--etag-save", tag, "-o", out, label="files")
    assert out.read_bytes() == (site / "a.txt").read_bytes()
    assert status(served, "/a.txt", "--etag-compare", tag) == 304
    os.utime(out, (0, (site / "a.txt").stat().st_mtime))
    assert status(served, "/a.txt", "-z", out) == 304
    assert status(served, "/a.txt", "-z", "Sun, 06 Nov 1994 08:49:37 GMT") == 200
    assert status(served, "/a.txt", "-H", 'If-Match: "other"') == 412
    assert status(served, "/a.txt", "-H", 'If-Range: "other"', "-r", "0-1") == 200
    assert status(served, "/a.txt", "-H", f"If-Range: {tag.read_text().strip()}", "-r", "0-1") == 206


def links(page):
    return re.findall(rb'href="([^"]*)"', page)


def test_listing(served):
    page = served.curl("/", label="files").stdout
    assert links(page) == [b"home/", b"sub/", b"a.txt", b"big.bin", b"in"]
    page = served.curl("/sub/", label="files").stdout
    assert links(page) == [b"../", b"deep/", b"page.html"]
    page = served.curl("/sub/deep/", label="files").stdout
    assert links(page) == [b"../", b"%C3%BC%20%26%20%3Cb%3E.txt"]
    assert "ü &#38; &#60;b&#62;.txt".encode() in page
    head = served.curl("/sub/", "-I", label="files").stdout.decode().lower()
    assert "content-security-policy: default-src 'none'" in head


def test_behind_a_prefix(start, site):
    """Redirects and links are relative: they hold whatever stands in front of the path."""
    server = start.server("--path-routing")
    start.program_client(server, ["files", site, "--quiet"], subdomain="demo")
    base = f"http://localhost:{server.port}/demo"
    args = ["--connect-to", f"::127.0.0.1:{server.port}", "-w", "\n%{url_effective} %{http_code}"]
    got = server.curl("/demo/sub", "-L", *args[2:], label="@").stdout
    assert got.endswith(f"{base}/sub/ 200".encode()), got
    for link in links(got):
        assert b":" not in link and not link.startswith(b"/"), link
        done = server.curl(f"/demo/sub/{link.decode()}", "-o", os.devnull, *args[2:], label="@")
        assert done.stdout.endswith(b" 200"), done.stdout


def test_many_at_once(served, site):
    expected = sha256((site / "big.bin").read_bytes())
    count = 4 if SANITIZED else 8

    def load(_):
        with served.dial() as conn:
            return sha256(conn.fetch("GET", "/big.bin", served.name("files")).body)
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        assert set(pool.map(load, range(count))) == {expected}


def test_slow_readers_cost_little(start, edge, site):
    client = start.program_client(edge, ["files", site, "--quiet"], subdomain="slow")
    count, conns = 50, []
    assert edge.status("/a.txt", "slow") == 200
    before = client.proc.rss()
    client.proc.reset_peak()
    try:
        for _ in range(count):
            conn = edge.dial()
            conns.append(conn)
            conn.send(f"GET /big.bin HTTP/1.1\r\nHost: {edge.name('slow')}\r\n\r\n")
        for conn in conns:
            assert conn.read_head().status == 200
        # Others are not held up by them.
        assert edge.status("/a.txt", "slow") == 200
        grown = client.proc.peak_rss() - before
        # What a stream keeps until it is acknowledged, and one piece of the file.
        assert SANITIZED or grown < count * 512 * 1024, f"{grown / MIB:.1f} MiB"
    finally:
        for conn in conns:
            conn.abort()
    eventually(lambda: client.proc.descriptors() < 30, "the files are closed")


def test_too_many_visitors(start, edge, site):
    """256 are served at a time; those who wait for nothing make room."""
    start.program_client(edge, ["files", site, "--quiet"], subdomain="crowd")
    conns = []
    try:
        for _ in range(256):
            conn = edge.dial()
            conns.append(conn)
            conn.send(f"GET /big.bin HTTP/1.1\r\nHost: {edge.name('crowd')}\r\n\r\n")
            assert conn.read_head().status == 200
        assert edge.status("/a.txt", "crowd") == 503
        conns.pop().abort()
        eventually(lambda: edge.status("/a.txt", "crowd") == 200, "room for another")
    finally:
        for conn in conns:
            conn.abort()


def test_file_that_becomes_shorter(start, edge, folder):
    """The answer ends early, visibly; nothing is made up for what is missing."""
    root = folder / "root"
    root.mkdir()
    path = root / "log"
    with open(path, "wb") as out:
        out.truncate(256 * MIB)
    start.program_client(edge, ["files", root, "--quiet"], subdomain="shorter")
    with edge.dial() as conn:
        conn.send(f"GET /log HTTP/1.1\r\nHost: {edge.name('shorter')}\r\n\r\n")
        head = conn.read_head()
        assert head.get("Content-Length") == str(256 * MIB)
        os.truncate(path, 100)
        with pytest.raises((Truncated, ConnectionError)):
            conn.read_exactly(256 * MIB)
    assert edge.get("/log", "shorter").body == bytes(100)


def test_folder_made_anew(start, edge, folder):
    """As builds do it: away with the old one, the new one in its place."""
    root = folder / "dist"
    root.mkdir()
    (root / "a").write_text("old")
    start.program_client(edge, ["files", root, "--quiet"], subdomain="anew")
    assert edge.get("/a", "anew").body == b"old"
    shutil.rmtree(root)
    assert edge.status("/a", "anew") == 404
    root.mkdir()
    (root / "a").write_text("new")
    assert edge.get("/a", "anew").body == b"new"


def test_no_such_folder(start, edge, folder):
    (folder / "file").write_text("x")
    for name, code, words in (("nothing", 1, "there is no folder"),
                              ("file", 2, "is not a folder")):
        client = start.program_client(edge, ["files", folder / name], wait=False)
        assert client.proc.wait() == code
        assert words in client.proc.text("err") and len(client.proc.err()) == 1
        assert not client.proc.out()


PAGE = """<!doctype html><title>check</title><script>
(async () => {
    const text = await (await fetch("./")).text();
    const listing = new DOMParser().parseFromString(text, "text/html");
    const names = [...listing.querySelectorAll("td a")].map(a => a.textContent);
    await fetch("seen/" + encodeURIComponent(JSON.stringify(names)));
    const link = listing.querySelector('a[href="big.bin"]');
    link.download = "";
    document.body.append(link);
    link.click();
})();
</script><body>"""


@pytest.mark.heavy
def test_chromium_lists_and_downloads(start, edge, folder, site):
    program = shutil.which("chromium") or need("chromium-browser")
    root, profile, into = folder / "root", start.folder_for("profile"), start.folder_for("down")
    root.mkdir()
    (root / "a folder").mkdir()
    (root / "<b>&amp;.txt").write_text("x")
    (root / "check.html").write_text(PAGE)
    shutil.copy(site / "big.bin", root / "big.bin")
    (profile / "Default").mkdir()
    (profile / "Default" / "Preferences").write_text(json.dumps(
        {"download": {"default_directory": str(into), "prompt_for_download": False}}))
    client = start.program_client(edge, ["files", root], subdomain="browsed")
    flags = ["--headless=new", *FLAGS[1:], f"--user-data-dir={profile}"]
    proc = start.spawn([program, *flags, edge.url("/check.html", "browsed")], name="chromium",
                       env=start.env())
    try:
        seen = client.proc.wait_line(r"GET /seen/(\S+) 404", timeout=3 * HANG)[1]
        names = ["a folder/", "<b>&amp;.txt", "big.bin", "check.html"]
        # Percent-encoded in the address, as the page wrote it.
        got = re.sub("%([0-9A-F]{2})", lambda m: chr(int(m[1], 16)), seen)
        assert json.loads(got) == names
        client.proc.wait_line(r"GET /big\.bin 200", timeout=3 * HANG)
        expected = sha256((site / "big.bin").read_bytes())
        eventually(lambda: (into / "big.bin").exists()
                   and sha256((into / "big.bin").read_bytes()) == expected, "the download is whole",
                   timeout=3 * HANG, pause=0.3)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{proc.transcript()[-2000:]}\n"
                             f"{client.proc.transcript()[-4000:]}") from None
    finally:
        proc.kill()
