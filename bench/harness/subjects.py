# SPDX-License-Identifier: Apache-2.0
"""What is measured: the origin alone, and the same origin behind nginx, HAProxy and the tunnel."""

import http.client
import os
import shutil
import signal

from harness.proc import BenchError, Process, free_ports

TOKEN = "bench-token-that-is-long-enough"
READY_TIMEOUT = 20
SMALL_SIZE = 200

NGINX_COMMON = """
{user}
worker_processes 1;
{master}
pid {dir}/nginx.pid;
error_log {dir}/error.log;
worker_rlimit_nofile 4096;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    server_tokens off;
    default_type application/octet-stream;
    keepalive_requests 100000000;
    client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;
    uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
    {body}
}}
"""

NGINX_ORIGIN = """
    sendfile on;
    tcp_nopush on;
    server {{ listen 127.0.0.1:{port}; root {root}; }}
"""

NGINX_PROXY = """
    upstream origin {{
        server 127.0.0.1:{origin};
        keepalive 128;
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 0;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
        }}
    }}
"""

HAPROXY = """
global
    nbthread 1
    maxconn 2048
defaults
    mode http
    option forwardfor
    http-reuse always
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend visitors
    bind 127.0.0.1:{port}
    default_backend origin
backend origin
    server origin 127.0.0.1:{origin}
"""


def find_program(name):
    """A program's path, looked for in the sbin folders too."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    return shutil.which(name, path=path)


def need_program(name):
    path = find_program(name)
    if path is None:
        raise BenchError(f"{name} is not installed: run scripts/setup test")
    return path


class Subject:
    """A way to the origin: a port, the Host that visitors send, and the processes it consists of."""

    def __init__(self, name, port, host, processes):
        self.name = name
        self.port = port
        self.host = host
        self.processes = processes


class Stack:
    """An origin and the subjects in front of it; a context manager that ends them all.

    wrap(role, argv) -> (argv, environment) lets the caller start a process under a tool.
    """

    def __init__(self, directory, tools, upload=False, root=None, wrap=None, single_process=False):
        self.directory = directory
        self.tools = tools
        self.upload = upload
        self.root = root
        self.wrap = wrap or (lambda role, argv: (argv, {}))
        self.master = "master_process off;" if single_process else ""
        self.processes = []
        self.subjects = []

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Ends all processes, newest first; impatience does not leave any behind."""
        ignored = [(s, signal.signal(s, signal.SIG_IGN)) for s in (signal.SIGINT, signal.SIGTERM)]
        try:
            while self.processes:
                self.processes.pop().stop()
        finally:
            for number, handler in ignored:
                signal.signal(number, handler)

    def _spawn(self, role, argv, name=None):
        argv, env = self.wrap(role, argv)
        process = Process(name or role, argv, self.directory, env)
        self.processes.append(process)
        return process

    def _nginx(self, role, body):
        """Starts an nginx whose files are all in a folder of its own."""
        folder = os.path.join(self.directory, role.replace(" ", "-"))
        os.makedirs(folder, exist_ok=True)
        conf = os.path.join(folder, "nginx.conf")
        user = "user root;" if os.geteuid() == 0 else ""
        with open(conf, "w", encoding="utf-8") as file:
            file.write(NGINX_COMMON.format(dir=folder, user=user, master=self.master, body=body))
        argv = [self.tools["nginx"], "-p", folder, "-e", folder + "/error.log"]
        return self._spawn(role, argv + ["-c", conf, "-g", "daemon off;"])

    def _start(self):
        ports = free_ports(5)
        origin_port = self._start_origin(ports[0])
        self._start_nginx(ports[1], origin_port)
        self._start_haproxy(ports[2], origin_port)
        self._start_tunnel(ports[3], origin_port)
        for subject in self.subjects:
            self.check(subject)

    def _start_origin(self, port):
        if self.upload:
            process = self._spawn("origin", [self.tools["sink"], "0"])
            match = process.wait_output(r"^listening: 127\.0\.0\.1:(\d+)$", READY_TIMEOUT)
            port = int(match.group(1))
        else:
            process = self._nginx("origin", NGINX_ORIGIN.format(port=port, root=self.root))
            process.wait_port(port, READY_TIMEOUT)
        self.subjects.append(Subject("origin", port, f"127.0.0.1:{port}", {"origin": process}))
        return port

    def _start_nginx(self, port, origin):
        process = self._nginx("nginx", NGINX_PROXY.format(port=port, origin=origin))
        process.wait_port(port, READY_TIMEOUT)
        self.subjects.append(Subject("nginx", port, f"127.0.0.1:{port}", {"nginx": process}))

    def _start_haproxy(self, port, origin):
        if not self.tools.get("haproxy"):
            return
        conf = os.path.join(self.directory, "haproxy.cfg")
        with open(conf, "w", encoding="utf-8") as file:
            file.write(HAPROXY.format(port=port, origin=origin))
        process = self._spawn("haproxy", [self.tools["haproxy"], "-db", "-q", "-f", conf])
        process.wait_port(port, READY_TIMEOUT)
        self.subjects.append(Subject("haproxy", port, f"127.0.0.1:{port}", {"haproxy": process}))

    def _start_tunnel(self, port, origin):
        if not self.tools.get("tunnel-server"):
            return
        listen = ["--listen", f"127.0.0.1:{port}", "--domain", "localhost"]
        server = self._spawn(
            "server", [self.tools["tunnel-server"], *listen, "--token", TOKEN], "tunnel-server"
        )
        server.wait_output(r"^listening: http://", READY_TIMEOUT)
        dial = ["http", str(origin), "--server", f"ws://127.0.0.1:{port}", "--subdomain", "bench"]
        client = self._spawn(
            "client",
            [self.tools["tunnel-client"], *dial, "--token", TOKEN, "--quiet"],
            "tunnel-client",
        )
        client.wait_output(r"^public: http://", READY_TIMEOUT)
        processes = {"server": server, "client": client}
        self.subjects.append(Subject("tunnel", port, "bench.localhost", processes))

    def check(self, subject):
        """A subject that answers with something else must not be measured."""
        connection = http.client.HTTPConnection("127.0.0.1", subject.port, timeout=READY_TIMEOUT)
        try:
            if self.upload:
                body = os.urandom(300000)
                connection.request("PUT", "/sink", body, {"Host": subject.host})
                expected = b"300000\n"
            else:
                connection.request("GET", "/check", headers={"Host": subject.host})
                with open(os.path.join(self.root, "check"), "rb") as file:
                    expected = file.read()
            response = connection.getresponse()
            answer = response.read()
            if response.status != 200 or answer != expected:
                raise BenchError(
                    f"{subject.name} does not pass the origin's answer on: status "
                    f"{response.status}, {len(answer)} bytes instead of {len(expected)}"
                )
        except (OSError, http.client.HTTPException) as error:
            raise BenchError(f"{subject.name} does not answer: {error!r}") from error
        finally:
            connection.close()


def make_root(directory, big_size):
    """The origin's files: small (about 200 bytes), check (1 MiB) and big."""
    root = os.path.join(directory, "root")
    os.makedirs(root, exist_ok=True)
    block = os.urandom(1 << 20)
    with open(os.path.join(root, "small"), "wb") as file:
        file.write(block[:SMALL_SIZE].hex()[:SMALL_SIZE].encode())
    with open(os.path.join(root, "check"), "wb") as file:
        file.write(block)
    with open(os.path.join(root, "big"), "wb") as file:
        left = big_size
        while left > 0:
            left -= file.write(block[: min(left, len(block))])
    return root
