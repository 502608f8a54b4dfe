# SPDX-License-Identifier: Apache-2.0
"""The commands of tunnel-client and what they show: to people, to machines, on a terminal."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import termios
import threading

import pytest

from harness import CLIENT_BIN, ROOT, SERVER_BIN, eventually
from harness.net import dial, free_port
from harness.proc import run
from harness.stack import Client, need

COMMANDS = {"http": ["3000"], "tcp": ["22"], "udp": ["53"], "tls": ["8443"], "files": ["."],
            "ports": ["--allow-ports", "8000"], "start": [], "check-config": []}
NAMED = {"http", "tls", "files", "ports"}
GOES_WITH = {
    ("--subdomain", "demo"): NAMED,
    ("--domain", "app.example.org"): NAMED,
    ("--path-id", "demo"): {"http", "files"},
    ("--remote-port", "20022"): {"tcp", "udp"},
    ("--pool",): NAMED | {"tcp"},
    ("--balance", "least-loaded"): NAMED | {"tcp"},
    ("--host-header", "localhost"): {"http", "ports"},
    ("--upstream-ca", "ca.pem"): {"http", "tcp"},
    ("--proxy-protocol", "v2"): {"http", "tcp", "tls", "ports"},
    ("--tls-cert", "cert.pem"): {"tls", "ports"},
    ("--tls-key", "key.pem"): {"tls", "ports"},
    ("--idle-timeout", "30"): {"udp"},
    ("--allow-ports", "22"): {"ports"},
    ("--tls",): {"ports"},
}


def one_line(proc, code, *words):
    assert proc.wait() == code, proc.transcript()
    assert proc.out() == [], proc.transcript()
    err = proc.err()
    assert len(err) == 1, proc.transcript()
    for word in words:
        assert word.lower() in err[0].lower(), err[0]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", GOES_WITH, ids=lambda option: option[0])
def test_options_that_do_not_go_with_a_command(start, command, option):
    if command in GOES_WITH[option]:
        shown = start.program(CLIENT_BIN, [command, "--help"])
        assert shown.wait() == 0 and f"  {option[0]} " in shown.text("out")
        return
    proc = start.program(CLIENT_BIN, [command, *COMMANDS[command], "--server", "ws://127.0.0.1:1",
                                      *option])
    one_line(proc, 2, option[0], f"'{command}'")
    shown = start.program(CLIENT_BIN, [command, "--help"])
    assert shown.wait() == 0 and f"  {option[0]} " not in shown.text("out")


@pytest.mark.parametrize("args, words", [
    (["tcp"], ["tcp", "address"]),
    (["udp"], ["udp", "address"]),
    (["tls"], ["tls", "address"]),
    (["files"], ["folder"]),
    (["ports"], ["--allow-ports"]),
    (["ports", "22"], ["22"]),
    (["tcp", "22", "23"], ["23", "one"]),
    (["tcp", "99999"], ["99999"]),
    (["udp", "x"], ["x"]),
    (["tcp", "22", "--remote-port", "0"], ["--remote-port", "'0'"]),
    (["tcp", "22", "--remote-port", "65536"], ["--remote-port"]),
    (["tcp", "22", "--remote-port", "80-90"], ["--remote-port"]),
    (["tcp", "22", "--remote-port", ""], ["--remote-port"]),
    (["tcp", "22", "--proxy-protocol", "1"], ["--proxy-protocol", "v1"]),
    (["tcp", "22", "--remote-port", "1", "--remote-port", "2"], ["--remote-port", "twice"]),
    (["udp", "53", "--idle-timeout", "0"], ["--idle-timeout", "3600"]),
    (["udp", "53", "--idle-timeout", "-1"], ["--idle-timeout"]),
    (["udp", "53", "--idle-timeout", "1e3"], ["--idle-timeout"]),
    (["udp", "53", "--idle-timeout", "nan"], ["--idle-timeout"]),
    (["tls", "8443", "--tls-cert", "x.pem"], ["--tls-key"]),
    (["tls", "8443", "--tls-key", "x.pem"], ["--tls-cert"]),
    (["tls", "8443", "--tls-cert", "", "--tls-key", "x"], ["--tls-cert"]),
    (["ports", "--allow-ports", ""], ["--allow-ports"]),
    (["ports", "--allow-ports", "22-"], ["--allow-ports", "22-"]),
    (["ports", "--allow-ports", "70000"], ["--allow-ports", "70000"]),
    (["ports", "--allow-ports", "90-80"], ["--allow-ports", "90-80"]),
    (["http", "1", "--subdomain", "a", "--subdomain", "a"], ["--subdomain", "twice"]),
    (["http", "1", "--subdomain", "a", "--subdomain", "B"], ["--subdomain", "'B'"]),
    (["http", "1", "--subdomain", "*."], ["--subdomain"]),
    (["http", "1", "--subdomain", "*.*.a"], ["--subdomain"]),
    (["http", "1", "--domain", "nodot"], ["--domain", "nodot", "subdomain"]),
    (["http", "1", "--domain", "a..b"], ["--domain"]),
    (["http", "1", "--domain", ".a"], ["--domain"]),
    (["http", "1", "--domain", "a."], ["--domain"]),
    (["http", "1", "--domain", "a_b.org"], ["--domain"]),
    (["http", "1", "--domain", ".".join(["abcdefgh"] * 40)], ["--domain"]),
    (["http", "1", "--path-id", ".."], ["--path-id"]),
    (["http", "1", "--path-id", "a/b"], ["--path-id"]),
    (["http", "1", "--path-id", "x", "--subdomain", "a", "--subdomain", "b"], ["--path-id"]),
    (["http", "1", "--path-id", "x", "--domain", "a.org"], ["--path-id", "--domain"]),
    (["ports", "--allow-ports", "22", "--qr"], ["--qr", "ports"]),
    (["http", "1", "--pool"], ["--pool", "--subdomain"]),
    (["tcp", "22", "--pool"], ["--pool", "--remote-port"]),
    (["http", "1", "--subdomain", "a", "--balance", "least-loaded"], ["--balance", "--pool"]),
    (["http", "1", "--subdomain", "a", "--pool", "--balance", "any"], ["--balance", "round-robin"]),
    (["http", "1", "--subdomain", "a", "--pool", "--balance", ""], ["--balance", "round-robin"]),
    (["http", "1", "--pool=yes"], ["--pool"]),
    (["http", "1", "--log-format", "xml"], ["--log-format", "json"]),
    (["http", "1", "--config", ""], ["--config"]),
    (["http", "1", "--token-file", "/nowhere"], ["--token-file", "/nowhere"]),
    (["http", "1", "--token", "a", "--token-file", "/nowhere"], ["token"]),
    (["http", "1", "--qr=yes"], ["--qr"]),
    (["http", "1", "--config", "/nowhere.yml"], ["/nowhere.yml"]),
    (["start", "--config", "/nowhere.yml"], ["/nowhere.yml"]),
    (["start"], ["--config"]),
    (["check-config"], ["configuration file"]),
    (["check-config", "a", "b"], ["'b'"]),
    (["htp", "3000"], ["htp", "http"]),
    (["http", "3000", "--subdomian", "x"], ["--subdomian", "did you mean '--subdomain'"]),
    (["http", "3000", "--remote_port=1"], ["--remote_port", "did you mean '--remote-port'"]),
    (["http", "3000", "--tokne", "x"], ["--tokne", "did you mean '--token'"]),
    (["http", "3000", "--" + "x" * 5000], ["xxx"]),
    (["ports", "3000"], ["'3000'", "ports --help"]),
])
def test_usage(start, folder, args, words):
    proc = start.program(CLIENT_BIN, [*args, "--server", "ws://127.0.0.1:1"], cwd=folder)
    one_line(proc, 2, *words)


@pytest.mark.parametrize("args, words", [
    (["check-config"], ["file"]),
    (["check-config", "a", "b"], ["'b'"]),
    (["--listen", "127.0.0.1:0", "--udp-flows", "0"], ["--udp-flows", "65536"]),
    (["--listen", "127.0.0.1:0", "--udp-flows", "65537"], ["--udp-flows", "65536"]),
    (["--listen", "127.0.0.1:0", "--udp-flows-per-source", "x"], ["--udp-flows-per-source"]),
    (["--listen", "127.0.0.1:0", "--allow-domain", "nodot"], ["--allow-domain", "nodot"]),
    (["--listen", "127.0.0.1:0", "--allow-domain", "*.*.org"], ["--allow-domain"]),
    (["--listen", "127.0.0.1:0", "--tcp-ports", "1-x"], ["--tcp-ports", "1-x"]),
    (["--listen", "127.0.0.1:0", "--log-format", "xml"], ["--log-format"]),
    (["--listen", "127.0.0.1:0", "--config", "/nowhere.yml"], ["/nowhere.yml"]),
    (["--listen", "127.0.0.1:0", "--token-file", "/nowhere"], ["--token-file", "/nowhere"]),
    (["--listen", "127.0.0.1:0", "--token-file", "/dev/null"], ["--token-file", "no token"]),
    (["--listen", "127.0.0.1:0", "--path-routing=yes"], ["--path-routing"]),
])
def test_server_usage(start, args, words):
    one_line(start.program(SERVER_BIN, args), 2, *words)


def test_a_folder_that_is_not_there(start, edge):
    proc = start.program(CLIENT_BIN, ["files", "/nowhere/at/all", "--server", edge.link])
    one_line(proc, 1, "/nowhere/at/all")


def test_a_certificate_that_is_not_there(start, edge):
    proc = start.program(CLIENT_BIN, ["tls", "1", "--server", edge.link, "--tls-cert", "/nowhere.pem",
                                      "--tls-key", "/nowhere.key"])
    one_line(proc, 1, "--tls-cert", "/nowhere.pem")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_commands(start, command):
    for args in ([command, "--help"], [command, "-h"], ["--server", "x", command, "--help"]):
        proc = start.program(CLIENT_BIN, args)
        assert proc.wait() == 0 and proc.err() == []
        assert proc.out()[0].startswith(f"Usage: tunnel-client {command}")
        assert "--server" in proc.text("out")
    everything = start.program(CLIENT_BIN, ["--help"])
    assert everything.wait() == 0 and f"\n  {command} " in everything.text("out")
    assert all(len(line) <= 100 for line in everything.out())


# -- names ------------------------------------------------------------------------------------------

def test_several_names_of_one_service(start, edge, app):
    client = start.client(edge, app, "--subdomain", "several-a", "--subdomain", "several-b",
                          subdomain=None, wait=False)
    for label in ("several-a", "several-b"):
        line = rf"^public: https?://{label}\.localhost:\d+ -> {app.where}$"
        client.proc.wait_line(line, kind="out")
        assert edge.status("/hello", label) == 200
    client.proc.wait_line(r"^\d\d:\d\d:\d\d GET /hello 200 ", kind="out", count=2)


def test_names_from_the_environment(start, edge, app):
    client = start.client(edge, app, subdomain=None, wait=False,
                          env={"TUNNEL_SUBDOMAIN": "of-env-a,of-env-b"})
    client.proc.wait_line("^public: ", kind="out", count=2)
    assert edge.status("/hello", "of-env-a") == edge.status("/hello", "of-env-b") == 200
    # What does not go with a command is not looked at.
    proc = start.program(CLIENT_BIN, ["tcp", app.where, "--server", edge.link, "--token",
                                      edge.token, "--verbose"], env={"TUNNEL_SUBDOMAIN": "Bad One"})
    proc.wait_line("^connected", kind="err")


def test_one_name_that_is_taken_leaves_the_other(start, app):
    server = start.server("--token", "second-credential")
    start.client(server, app, subdomain="taken", token="second-credential")
    client = start.client(server, app, "--subdomain", "taken", "--subdomain", "free",
                          subdomain=None, wait=False)
    client.proc.wait_line("^public: http://free", kind="out")
    said = client.proc.wait_line("NAME_TAKEN", kind="err").string
    assert "http://taken" in said and "--subdomain" in said
    assert server.status("/hello", "free") == 200 and client.proc.alive()


# -- JSON -------------------------------------------------------------------------------------------

def objects(proc):
    out = []
    for line in proc.out():
        value = json.loads(line)
        assert isinstance(value, dict) and isinstance(value["event"], str)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", value["time"])
        out.append(value)
    return out


def await_object(proc, event, **members):
    def found():
        for value in objects(proc):
            if value["event"] == event and all(value.get(k) == v for k, v in members.items()):
                return value
        return None
    return eventually(found, f"{event} {members}")


def test_json_of_the_client(start, app):
    server = start.server()
    client = start.client(server, app, "--log-format", "json", "--qr", wait=False)
    await_object(client.proc, "connecting")
    await_object(client.proc, "connected")
    await_object(client.proc, "published", tunnel=1, what="http://demo", to=app.where,
                 url=f"http://demo.localhost:{server.port}")
    assert server.status("/hello?a=%22%5C%00") == 200
    got = await_object(client.proc, "request", tunnel=1, method="GET", status=200)
    assert got["visitor"] == "127.0.0.1" and got["path"].startswith("/hello")
    assert isinstance(got["duration_ms"], float) and got["bytes_out"] == 6
    port = server.port
    assert server.proc.stop() == 0
    got = await_object(client.proc, "retrying")
    assert got["error"] and got["text"] and got["delay_ms"] >= 0 and got["server"] == server.link
    start.server(port=port, token="another-credential")
    got = await_object(client.proc, "failed", error="AUTH_FAILED")
    assert client.proc.wait() == 1
    assert len(client.proc.err()) == 1 and "AUTH_FAILED" in client.proc.err()[0]


def test_json_of_connections(start, port_edge, app):
    proc = start.program(CLIENT_BIN, ["tcp", app.where, "--server", port_edge.link, "--token",
                                      port_edge.token, "--log-format", "json"])
    url = await_object(proc, "published")["url"]
    with dial("127.0.0.1", int(url.rsplit(":", 1)[1])) as conn:
        assert conn.fetch("GET", "/hello", "x").status == 200
    got = await_object(proc, "connection", visitor="127.0.0.1", tunnel=1)
    assert got["bytes_in"] > 20 and got["bytes_out"] > 20 and got["duration_ms"] >= 0


def test_json_holds_whatever_there_is(start, edge, app, folder):
    """Keys of a file are shown as they are, and cut in the middle of a character."""
    path = folder / "tunnel.yml"
    good = f"tunnels:\n  web: {{type: http, to: {app.where}, subdomain: json-web}}\n"
    path.write_text(good)
    proc = start.program(CLIENT_BIN, ["start", "--config", path, "--server", edge.link, "--token",
                                      edge.token, "--log-format", "json"])
    await_object(proc, "published", name="web")
    keys = ["x" + "\u00e9" * 60, 'quote"back\\slash', "\U0001f600" * 30, "a\tb"]
    path.write_text("".join(json.dumps(key, ensure_ascii=False) + ": 1\n" for key in keys) + good,
                    encoding="utf-8")
    proc.deliver(signal.SIGHUP)
    await_object(proc, "not_reloaded")
    texts = [value["text"] for value in objects(proc) if value["event"] == "mistake"]
    assert len(texts) == len(keys)
    assert keys[1] in texts[1] and "\ufffd" in texts[0] and "\u00e9" * 30 in texts[0]
    path.write_text(good)
    proc.deliver(signal.SIGHUP)
    await_object(proc, "reloaded")
    assert edge.status("/hello", "json-web") == 200
    assert proc.err() == []


def test_json_of_the_server(start, app, folder):
    log = folder / "access.log"
    port = free_port()
    proc = start.program(SERVER_BIN, ["--listen", f"127.0.0.1:{port}", "--log-format", "json",
                                      "--access-log", log, "--verbose"])
    token = await_object(proc, "token")["token"]
    await_object(proc, "listening", url=f"http://127.0.0.1:{port}")
    client = Client(start.program(CLIENT_BIN, ["http", app.where, "--server", f"ws://127.0.0.1:{port}",
                                               "--token", token, "--subdomain", "demo"]))
    assert client.public()
    account = await_object(proc, "client_joined")["account"]
    await_object(proc, "name_published", account=account, url=f"http://demo.localhost:{port}")
    with dial("127.0.0.1", port) as conn:
        assert conn.fetch("GET", '/hello?"', f"demo.localhost:{port}").status in (200, 400)
    entry = json.loads(eventually(log.read_text, "a line in the log").splitlines()[0])
    assert entry["event"] == "access" and entry["method"] == "GET"
    assert entry["status"] in (200, 400) and entry["visitor"] == "127.0.0.1"
    assert client.proc.stop() == 0
    await_object(proc, "name_gone")
    await_object(proc, "client_left", account=account)
    assert proc.stop() == 0
    assert objects(proc)[-1]["event"] == "counters" or await_object(proc, "counters")["requests"]
    assert proc.err() == []


# -- QR codes -----------------------------------------------------------------------------------------

def scan(rows, folder):
    """What a camera sees in the lines of a QR code: light where a block is."""
    pixels = []
    for row in rows:
        pixels.append([255 if c in "\u2588\u2580" else 0 for c in row])
        pixels.append([255 if c in "\u2588\u2584" else 0 for c in row])
    assert len({len(row) for row in pixels}) == 1
    scale = 4
    path = folder / "qr.pgm"
    path.write_bytes(b"P5 %d %d 255\n" % (len(pixels[0]) * scale, len(pixels) * scale) + b"".join(
        bytes(v for v in row for _ in range(scale)) * scale for row in pixels))
    done = run([need("zbarimg"), "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable", path])
    return done.stdout.decode().strip()


def qr_rows(lines):
    return [line for line in lines if line and set(line) <= set(" \u2588\u2580\u2584")]


@pytest.mark.parametrize("name", ["q", "x" * 63])
def test_qr_code(start, edge, app, folder, name):
    client = start.client(edge, app, "--qr", subdomain=name)
    url = client.public()
    assert edge.status("/hello", name) == 200
    client.proc.wait_line("GET /hello", kind="out")
    lines = client.proc.out()
    assert lines[0] == f"public: {url}"
    assert scan(qr_rows(lines), folder) == url


def test_qr_code_only_for_what_a_browser_opens(start, port_edge, app, folder):
    path = folder / "tunnel.yml"
    path.write_text(f"qr: true\ntunnels:\n  a: {{type: tcp, to: {app.where}}}\n"
                    f"  c: {{type: http, to: {app.where}, subdomain: '*.qr'}}\n"
                    f"  d: {{type: ports, allow-ports: 22, subdomain: qr-d}}\n"
                    f"  b: {{type: http, to: {app.where}, subdomain: qr-b}}\n")
    proc = start.program(CLIENT_BIN, ["start", "--config", path, "--server", port_edge.link,
                                      "--token", port_edge.token])
    proc.wait_line("^public: ", kind="out", count=4)
    rows = eventually(lambda: qr_rows(proc.out()), "a QR code")
    eventually(lambda: scan(qr_rows(proc.out()), folder), "a whole QR code")
    assert re.fullmatch(r"http://qr-b\.localhost:\d+", scan(qr_rows(proc.out()), folder)) and rows


# -- terminals ----------------------------------------------------------------------------------------

class Terminal:
    """A program whose standard output, and whose controlling terminal, is a terminal."""

    def __init__(self, argv, env, nohup=False):
        self.master, slave = pty.openpty()
        self.text = ""

        def adopt():
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            if nohup:
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.popen = subprocess.Popen([str(a) for a in argv], stdin=slave, stdout=slave,
                                      stderr=slave, env=env, preexec_fn=adopt)
        os.close(slave)
        self._stop = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        try:
            while not self._stop:
                if select.select([self.master], [], [], 0.05)[0]:
                    self.text += os.read(self.master, 4096).decode("utf-8", "replace")
        except OSError:
            pass

    def hang_up(self):
        """The window is closed."""
        self._stop = True
        self._reader.join()
        os.close(self.master)
        self.master = -1

    def close(self):
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        if self.master >= 0:
            self.hang_up()


@pytest.fixture(name="terminal")
def _terminal(start):
    def make(args, nohup=False, **env):
        env = {"TERM": "xterm", "NO_COLOR": None, **env}
        return start.keep(Terminal([CLIENT_BIN, *args], start.env(**env), nohup))
    return make


@pytest.mark.parametrize("env, coloured", [
    ({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"TERM": ""}, False),
    ({"NO_COLOR": ""}, True)])
def test_colours(terminal, edge, app, env, coloured):
    label = "col-" + "-".join(f"{k}-{v}" for k, v in env.items()).lower().replace("_", "-") + "-x"
    shown = terminal(["http", app.where, "--server", edge.link, "--token", edge.token,
                      "--subdomain", label, "--qr"], **env)
    eventually(lambda: "public: " in shown.text, "the URL")
    assert edge.status("/hello", label) == 200 and edge.status("/nothing-here", label) == 404
    eventually(lambda: "GET /nothing-here" in shown.text and "ms\r\n" in
               shown.text.split("GET /nothing-here")[1], "the request")
    assert ("\033[" in shown.text) == coloured
    if coloured:
        assert "GET /hello \033[32m200\033[0m " in shown.text
        assert "GET /nothing-here \033[33m404\033[0m " in shown.text
    else:
        assert re.search(r"GET /hello 200 [0-9.]+ms\r\n", shown.text)


def test_no_colours_in_a_pipe(start, edge, app):
    client = start.client(edge, app, "--qr", subdomain="piped", env={"TERM": "xterm"})
    assert edge.status("/nothing-here", "piped") == 404
    client.proc.wait_line("GET /nothing-here 404", kind="out")
    assert "\033" not in client.proc.text()


def test_a_qr_code_in_colours_has_its_own_background(terminal, edge, app, folder):
    shown = terminal(["http", app.where, "--server", edge.link, "--token", edge.token, "--qr",
                      "--subdomain", "qr-tty"])
    eventually(lambda: edge.status("/hello", "qr-tty") == 200 and "GET /hello" in shown.text, "all")
    rows = re.findall(r"\033\[40;97m([^\033]*)\033\[0m", shown.text)
    assert scan(rows, folder) == f"https://qr-tty.localhost:{edge.tls_port}"


def test_a_closed_terminal_takes_its_tunnels_along(terminal, edge, app, folder):
    """start takes SIGHUP for something else, but a closed window must not leave anything open."""
    path = folder / "tunnel.yml"
    path.write_text(f"tunnels:\n  a: {{type: http, to: {app.where}, subdomain: window}}\n")
    shown = terminal(["start", "--config", path, "--server", edge.link, "--token", edge.token])
    eventually(lambda: "public: " in shown.text, "the URL")
    os.kill(shown.popen.pid, signal.SIGHUP)
    eventually(lambda: "read again" in shown.text, "the file is read again")
    assert edge.status("/hello", "window") == 200
    shown.hang_up()
    assert shown.popen.wait(40) == 0
    eventually(lambda: edge.status("/hello", "window") in (404, 503), "nothing is left")


def test_nohup_outlives_its_terminal(terminal, edge, app, folder):
    path = folder / "tunnel.yml"
    text = "tunnels:\n  a: {{type: http, to: {}, subdomain: {}}}\n"
    path.write_text(text.format(app.where, "nohup-one"))
    shown = terminal(["start", "--config", path, "--server", edge.link, "--token", edge.token],
                     nohup=True)
    eventually(lambda: "public: " in shown.text, "the URL")
    shown.hang_up()
    path.write_text(text.format(app.where, "nohup-two"))
    os.kill(shown.popen.pid, signal.SIGHUP)
    eventually(lambda: edge.status("/hello", "nohup-two") == 200, "it lives, and reads its file")


# -- trouble ------------------------------------------------------------------------------------------

def test_a_line_says_what_is_being_done(start, app):
    server = start.server()
    client = start.client(server, app)
    server.proc.stop()
    said = client.proc.wait_line("no tunnel through", kind="err").string
    assert server.link in said and re.search(r"\(trying again (in \d+\.\d s|at once)\)$", said)
    start.server(port=server.port, token=server.token)
    client.proc.wait_line("^connected again$", kind="err")


def test_connections_that_fail_are_shown(start, port_edge):
    port = free_port()
    client = start.tcp(port_edge, port)
    with dial("127.0.0.1", client.port) as conn:
        try:
            assert conn.read_all() == b""
        except OSError:
            pass
    client.proc.wait_line(rf"^\d\d:\d\d:\d\d tcp 127\.0\.0\.1 .*refused", kind="out")
    assert client.proc.alive()


# -- what is written about it -------------------------------------------------------------------------

@pytest.mark.parametrize("program", [CLIENT_BIN, SERVER_BIN])
def test_pages_name_every_option_and_variable(start, program):
    shown = start.program(program, ["--help"])
    assert shown.wait() == 0
    text = shown.text("out")
    options = set(re.findall(r"^  --([a-z-]+)", text, re.M)) - {"help", "version"}
    variables = set(re.findall(r"\[(TUNNEL_[A-Z_]+)\]", text))
    assert len(options) == len(variables) > 15
    page = (ROOT / "man" / f"{program.name}.1").read_text()
    assert set(re.findall(r"Fl Fl ([a-z-]+)", page)) - {"help", "version"} >= options
    assert set(re.findall(r"Ev (TUNNEL_[A-Z_]+)", page)) == variables
    guide = (ROOT / "docs" / "configuration.md").read_text()
    for option in options - {"config"}:
        assert f"`{option}`" in guide, option


# -- several servers, round trips ---------------------------------------------------------------------

def two_servers(start):
    first = start.server()
    return first, start.server(token=first.token)


def test_which_of_several_servers_is_told(start, app):
    first, second = two_servers(start)
    client = start.client(first, app, link=f"{first.link},{second.link}")
    client.proc.wait_line(f"^connected to {first.link}$", kind="err")
    first.proc.kill()
    client.proc.wait_line(f"^no tunnel through {first.link}: ", kind="err")
    client.proc.wait_line(f"^connected to {second.link}$", kind="err")
    eventually(lambda: second.status("/hello") == 200, "the tunnel is there")


def test_json_of_several_servers(start, app):
    first, second = two_servers(start)
    client = start.client(first, app, "--server", second.link, "--log-format", "json", wait=False)
    await_object(client.proc, "published", url=f"http://demo.localhost:{first.port}")
    first.proc.kill()
    assert await_object(client.proc, "retrying", server=first.link)["text"]
    await_object(client.proc, "published", url=f"http://demo.localhost:{second.port}")


def test_one_server_is_told_to_those_who_want_to_know(start, edge, app):
    quiet = start.client(edge, app, subdomain="told-not")
    told = start.client(edge, app, "--verbose", "--link-timeout", "1", subdomain="told")
    told.proc.wait_line(f"^connected to {edge.link}$", kind="err")
    told.proc.wait_line(r"^round trip \d+\.\d ms$", kind="err")
    assert quiet.proc.err() == []


def test_json_of_round_trips(start, edge, app):
    client = start.client(edge, app, "--link-timeout", "1", "--log-format", "json",
                          subdomain="round-json", wait=False)
    told = await_object(client.proc, "round_trip", server=edge.link)
    assert 0 < told["duration_ms"] < 60000
    silent = start.client(edge, app, "--link-timeout", "1", "--log-format", "json", "--quiet",
                          subdomain="round-quiet", wait=False)
    await_object(silent.proc, "published")
    number = len([v for v in objects(client.proc) if v["event"] == "round_trip"])
    eventually(lambda: len([v for v in objects(client.proc) if v["event"] == "round_trip"])
               > number + 1, "two more")
    assert not [v for v in objects(silent.proc) if v["event"] == "round_trip"]
