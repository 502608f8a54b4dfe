# SPDX-License-Identifier: Apache-2.0
"""The programs under test and the web apps behind them, started and stopped as a user would."""

import hashlib
import json
import re
import secrets
import shutil
import signal
import subprocess
import urllib.request

from . import CLIENT_BIN, HANG, SERVER_BIN, UPSTREAMS, eventually
from .net import dial, free_port, tls_trusting
from .proc import Proc, clean_env, run


def need(program):
    """Where a program of the set-up is. Its absence is a failure: nothing is skipped."""
    found = shutil.which(program)
    assert found, f"{program} is not installed: run the set-up (make test does)"
    return found


def curl(*args, timeout=None, **kw):
    """curl as a user calls it, HTTP/1.1, no configuration file, no proxy."""
    return run([need("curl"), "-q", "-sS", "--http1.1", "--noproxy", "*",
                "--max-time", str(timeout or HANG), *args], timeout=(timeout or HANG) + 10, **kw)


class Server:
    """A running tunnel-server."""

    def __init__(self, proc, domain, token, port=None, tls_port=None):
        self.proc = proc
        self.domain = domain
        self.token = token
        self.port = port
        self.tls_port = tls_port

    @property
    def link(self):
        return f"ws://127.0.0.1:{self.port}"

    def name(self, label, tls=False):
        host = self.domain if label == "@" else f"{label}.{self.domain}"
        return f"{host}:{self.tls_port if tls else self.port}"

    def dial(self, *, tls=None, sni=None, **kw):
        port = self.tls_port if tls else self.port
        return dial("127.0.0.1", port, tls=tls, sni=sni, **kw)

    def get(self, target, label="demo", *, method="GET", headers=(), body=None, host=None):
        """One request on a connection of its own, over plain HTTP."""
        with self.dial() as conn:
            return conn.fetch(method, target, host or self.name(label), headers, body)

    def status(self, target, label="demo", **kw):
        return self.get(target, label, **kw).status

    def url(self, target, label="demo", tls=False):
        return f"http{'s' if tls else ''}://{self.name(label, tls)}{target}"

    def curl(self, target, *args, label="demo", tls=False, **kw):
        """curl to a tunnel's URL; the name goes to 127.0.0.1 without any DNS."""
        port = self.tls_port if tls else self.port
        return curl("--connect-to", f"::127.0.0.1:{port}", *args,
                    self.url(target, label, tls), **kw)


class Client:
    """A running tunnel-client."""

    def __init__(self, proc):
        self.proc = proc

    def public(self, timeout=None):
        return self.proc.wait_line(r"^public: (\S+)", kind="out", timeout=timeout)[1]

    @property
    def port(self):
        """The public port of a TCP or UDP tunnel."""
        return int(re.fullmatch(r"(?:tcp|udp)://[^/]+:(\d+)", self.public())[1])

    def gets_nowhere(self):
        """For one that must not get through: it said why, and waits or ended with 1. The words."""
        eventually(self.proc.err, "a word about the failure")
        assert not any("public:" in line for line in self.proc.out())
        try:
            assert self.proc.popen.wait(0.5) == 1, self.proc.transcript()
        except subprocess.TimeoutExpired:
            self.proc.kill()
        return self.proc.text("err")

    def label(self):
        return re.match(r"https?://([^.:/]+)", self.public())[1]


class App:
    """The Node app, or whatever else listens; control() asks it what it saw."""

    def __init__(self, proc, port, control=None, where=None):
        self.proc = proc
        self.port = port
        self.where = where or str(port)
        self._control = control

    def control(self, path, **query):
        pairs = "&".join(f"{k}={urllib.request.quote(str(v))}" for k, v in query.items())
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self._control}/{path}?{pairs}", timeout=HANG) as got:
            return json.load(got)

    def stats(self):
        return self.control("stats")

    def visit(self, name):
        return self.control("visit", id=name)

    def await_visit(self, name, field, least=1):
        """Waits until this field of the visit reached at least least."""
        return eventually(lambda: (v := self.visit(name))[field] >= least and v,
                          f"{name}.{field} >= {least}")


class Starter:
    """Starts processes and ends all of them; ending reports what nobody asked for."""

    def __init__(self, folder):
        self.folder = folder
        self.procs = []
        self.closers = []
        self._count = 0

    def spawn(self, argv, **kw):
        proc = Proc(argv, **kw)
        self.procs.append(proc)
        return proc

    def keep(self, closer):
        """Something with close() that ends with the test."""
        self.closers.append(closer)
        return closer

    def close(self):
        problems = []
        # The programs under test are asked first: leaving must work with visitors on them.
        ours = [p for p in self.procs if p.name in ("tunnel-server", "tunnel-client")]
        for proc in reversed(ours):
            if proc.alive():
                try:
                    proc.deliver(signal.SIGCONT)
                    code = proc.stop(patience=1)  # no waiting for what tests left under way
                    if code != 0:
                        problems.append(f"{proc.name}: exit {code} on SIGTERM\n{proc.transcript()}")
                except (AssertionError, ProcessLookupError) as error:
                    problems.append(str(error))
        for closer in reversed(self.closers):
            closer.close()
        for proc in self.procs:
            proc.kill()
            verdict = proc.verdict()
            if verdict:
                problems.append(verdict)
        self.procs, self.closers = [], []
        assert not problems, "\n\n".join(problems)

    def folder_for(self, kind):
        self._count += 1
        path = self.folder / f"{kind}{self._count}"
        path.mkdir()
        return path

    def env(self, **extra):
        """An environment with a home of its own, so that no state is shared by accident."""
        home = self.folder_for("home")
        base = {"HOME": home, "XDG_STATE_HOME": home / "state", "XDG_CONFIG_HOME": home / "config",
                "XDG_RUNTIME_DIR": home, "XDG_CACHE_HOME": home / "cache"}
        return clean_env(**{**base, **extra})

    # -- the programs under test --------------------------------------------------------------

    def program(self, which, args, env=None, **kw):
        assert which.exists(), f"{which} is not built (make, or TUNNEL_BIN_DIR)"
        return self.spawn([which, *args], env=self.env(**(env or {})), **kw)

    def server(self, *args, domain="localhost", token=None, port=None, tls=None, plain=True,
               env=None, wait=True, **kw):
        """tunnel-server; tls is a list of tls.Pair, plain=False leaves the http listener out."""
        token = token or "e2e-" + secrets.token_hex(12)
        argv = ["--domain", domain, "--token", token, *args]
        tls_port = None
        if plain:
            port = port or free_port()
            argv += ["--listen", f"127.0.0.1:{port}"]
        if tls:
            tls_port = free_port()
            argv += ["--tls-listen", f"127.0.0.1:{tls_port}"]
            for pair in tls:
                argv += ["--tls-cert", pair.cert, "--tls-key", pair.key]
        proc = self.program(SERVER_BIN, argv, env, **kw)
        server = Server(proc, domain, token, port, tls_port)
        if wait:
            proc.wait_line(r"^listening: https?://\S+$", kind="out",
                           count=bool(plain) + bool(tls))
        return server

    def client(self, server, upstream, *args, subdomain="demo", token=None, link=None, env=None,
               wait=True, **kw):
        """tunnel-client http; upstream is an App or what the user would write."""
        where = getattr(upstream, "where", None) or str(upstream)
        argv = ["http", where, "--server", link or server.link,
                "--token", token or server.token, *args]
        if subdomain:
            argv += ["--subdomain", subdomain]
        client = Client(self.program(CLIENT_BIN, argv, env, **kw))
        if wait:
            client.public()
        return client

    def program_client(self, server, argv, *, subdomain=None, token=None, env=None, wait=True,
                       **kw):
        """tunnel-client with a command of any kind: the words before the connection's."""
        argv = [*argv, "--server", server.link, "--token", token or server.token]
        if subdomain:
            argv += ["--subdomain", subdomain]
        client = Client(self.program(CLIENT_BIN, argv, env, **kw))
        if wait:
            client.public()
        return client

    def port_client(self, kind, server, upstream, *args, token=None, link=None, env=None,
                    wait=True, **kw):
        """tunnel-client tcp or udp; upstream is what the user would write."""
        argv = [kind, getattr(upstream, "where", None) or str(upstream),
                "--server", link or server.link, "--token", token or server.token, *args]
        client = Client(self.program(CLIENT_BIN, argv, env, **kw))
        if wait:
            client.public()
        return client

    def tcp(self, server, upstream, *args, **kw):
        return self.port_client("tcp", server, upstream, *args, **kw)

    def udp(self, server, upstream, *args, **kw):
        return self.port_client("udp", server, upstream, *args, **kw)

    # -- what stands behind and in front ------------------------------------------------------

    def node(self, *args):
        """The Node app; args as app.js takes them."""
        proc = self.spawn([need("node"), UPSTREAMS / "app.js", *args], name="node app")
        ready = proc.wait_line(r"^ready (\d+) (\d+)$")
        return App(proc, int(ready[1]), int(ready[2]))

    def python(self, root, *args):
        proc = self.spawn(["/usr/bin/python3", UPSTREAMS / "app.py", "--root", root, *args],
                          name="python app")
        return App(proc, int(proc.wait_line(r"^ready (\d+)$")[1]))

    def nginx(self, http_block, wait_port):
        """nginx in the foreground with this http block, everything else in a folder of its own."""
        base = self.folder_for("nginx")
        temp = "\n".join(f"  {kind}_temp_path {base}/{kind};" for kind in
                         ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (base / "nginx.conf").write_text(f"""
daemon off; master_process off; worker_processes 1; worker_rlimit_nofile 8192;
pid {base}/nginx.pid; error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
  include /etc/nginx/mime.types; access_log off; client_max_body_size 0; sendfile on;
  server_tokens off; {temp}
{http_block}
}}
""")
        proc = self.spawn([need("nginx"), "-p", base, "-c", base / "nginx.conf", "-e", "stderr"],
                          name="nginx")

        def up():
            assert proc.alive(), proc.transcript()
            dial("127.0.0.1", wait_port).close()
            return True
        eventually(up, "nginx listens")
        return App(proc, wait_port)

    def nginx_files(self, root, puts=None):
        """nginx over a folder of files; what is PUT goes below puts."""
        port = free_port()
        puts = puts or self.folder_for("puts")
        return self.nginx(f"""
  gzip on; gzip_types text/plain; gzip_min_length 100;
  server {{
    listen 127.0.0.1:{port} backlog=2048; root {root};
    location / {{ add_header X-Server nginx always; }}
    location /dav/ {{ root {puts}; dav_methods PUT DELETE; create_full_put_path on; }}
  }}""", port)


def app_bytes(size):
    """The body of the app's /bytes, /chunked and /close."""
    pattern = bytes((i * 31 + 7) & 255 for i in range(65536))
    out = bytearray()
    index = 0
    while len(out) < size:
        block = bytearray(pattern[:min(65536, size - len(out))])
        if len(block) >= 8:
            block[:8] = index.to_bytes(8, "big")
        out += block
        index += 1
    return bytes(out)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def header_pairs(raw):
    """Node's flat rawHeaders as [(name, value)]."""
    return list(zip(raw[::2], raw[1::2]))


def values_of(raw, name):
    return [v for n, v in header_pairs(raw) if n.lower() == name.lower()]


def trust(authority=None):
    return tls_trusting(authority.cert if authority else None)
