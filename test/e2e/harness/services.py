# SPDX-License-Identifier: Apache-2.0
"""The real TCP and UDP services: each with its own settings, on loopback, in a temporary folder."""

import glob
import os
import pathlib
import pwd
import shutil
import signal
import tempfile

from . import eventually
from .net import dial, free_port
from .proc import clean_env, run
from .stack import need


class Reach:
    """Where a visitor finds a local port: there itself, or behind a tunnel made for it."""

    def __init__(self, start=None, server=None):
        self._start = start
        self._server = server
        self._known = {}

    @property
    def tunnelled(self):
        return self._server is not None

    def _find(self, kind, port):
        if not self._server:
            return "127.0.0.1", port
        if (kind, port) not in self._known:
            client = self._start.port_client(kind, self._server, port, "--quiet")
            self._known[kind, port] = client.port
        return "127.0.0.1", self._known[kind, port]

    def tcp(self, port):
        return self._find("tcp", port)

    def udp(self, port):
        return self._find("udp", port)


def listens(proc, port):
    """Waits until a service accepts connections; fails when it has ended."""
    def up():
        assert proc.alive(), proc.transcript()
        dial("127.0.0.1", port).close()
        return True
    eventually(up, f"{proc.name} listens on {port}")


def sbin(program):
    """A program that may be in a folder for administrators."""
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    assert found, f"{program} is not installed: run the set-up (make test does)"
    return found


class Sshd:
    """OpenSSH's server, which lets the user of the tests in by a key made for it."""

    def __init__(self, start):
        self.folder = start.folder_for("sshd")
        self.port = free_port()
        self.user = pwd.getpwuid(os.getuid()).pw_name
        for name in ("host", "user"):
            run([need("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name],
                check=True)
        if os.getuid() == 0:
            pathlib.Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # it insists on this one
        (self.folder / "config").write_text(f"""
Port {self.port}
ListenAddress 127.0.0.1
HostKey {self.folder}/host
AuthorizedKeysFile {self.folder}/user.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PrintMotd no
PrintLastLog no
MaxStartups 100
MaxSessions 100
LoginGraceTime 60
Subsystem sftp internal-sftp
""")
        self.proc = start.spawn([sbin("sshd"), "-D", "-e", "-f", self.folder / "config"])
        listens(self.proc, self.port)

    def options(self, where):
        """Options that let ssh, scp and sftp reach it at (host, port), knowing its key."""
        known = self.folder / "known_hosts"
        key = (self.folder / "host.pub").read_text().split()
        known.write_text(f"tested {key[0]} {key[1]}\n")
        settings = {"IdentityFile": self.folder / "user", "IdentitiesOnly": "yes",
                    "UserKnownHostsFile": known, "GlobalKnownHostsFile": "/dev/null",
                    "HostKeyAlias": "tested", "StrictHostKeyChecking": "yes", "BatchMode": "yes",
                    "Port": where[1], "User": self.user, "LogLevel": "ERROR"}
        found = ["-F", "none"]
        for name, value in settings.items():
            found += ["-o", f"{name}={value}"]
        return found

    def ssh(self, where, *args, **kw):
        """Runs ssh with these arguments after the host."""
        return run([need("ssh"), *self.options(where), where[0], *args], **kw)


class Postgres:
    """A PostgreSQL cluster of its own; run by another user when the tests are root's."""

    def __init__(self, start):
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"),
                       key=lambda path: float(path.split("/")[4]))
        assert found, "postgresql is not installed: run the set-up (make test does)"
        self.bin = pathlib.Path(found[-1]).parent
        self.port = free_port()
        # Outside the tests' folder, which only its owner may enter.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="e2e-pg-"))
        start.keep(self)
        self._as_user = []
        if os.getuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}",
                             "--clear-groups", "--pdeathsig", "KILL"]
        self.proc = None
        run([*self._as_user, self.bin / "initdb", "-D", self.folder / "data", "-U", "tester",
             "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"], cwd=self.folder, check=True)
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "fsync": "off",
                    "unix_socket_directories": self.folder, "shared_buffers": "32MB",
                    "max_connections": 60, "jit": "off", "log_min_messages": "fatal"}
        argv = [*self._as_user, self.bin / "postgres", "-D", self.folder / "data"]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        self.proc = start.spawn(argv, name="postgres", cwd=self.folder)
        ready = [self.bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]

        def up():
            assert self.proc.alive(), self.proc.transcript()
            return run(ready).returncode == 0
        eventually(up, "PostgreSQL is ready")

    def close(self):
        if self.proc and self.proc.alive():
            self.proc.stop(signal.SIGINT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def env(self, where):
        """What leads PostgreSQL's own clients there."""
        return clean_env(PGHOST=where[0], PGPORT=where[1], PGUSER="tester",
                         PGDATABASE="postgres", PGSSLMODE="disable", PGCONNECT_TIMEOUT=30)

    def psql(self, where, sql, *args, **kw):
        """The output of these commands, unaligned and without heads."""
        argv = [self.bin / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *args]
        return run([*argv, "-c", sql] if sql else argv, env=self.env(where), check=True,
                   **kw).stdout.decode()


class Redis:
    """A Redis server that keeps nothing on disk."""

    def __init__(self, start):
        self.port = free_port()
        folder = start.folder_for("redis")
        self.proc = start.spawn(
            [need("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
             "--appendonly", "no", "--daemonize", "no", "--dir", folder, "--databases", "1"])
        listens(self.proc, self.port)

    @staticmethod
    def cli(where, *args, **kw):
        """What redis-cli prints, as bytes."""
        return run([need("redis-cli"), "-h", where[0], "-p", str(where[1]), *args], check=True,
                   **kw).stdout


class Dnsmasq:
    """A DNS server, over UDP and TCP, that answers for these records and no others."""

    def __init__(self, start, *records):
        self.port = free_port()
        self.proc = start.spawn(
            [sbin("dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=",
             f"--port={self.port}", "--listen-address=127.0.0.1", "--bind-interfaces",
             "--no-resolv", "--no-hosts", "--log-facility=-", "--edns-packet-max=4096",
             "--local=/test/", "--dns-forward-max=1000",
             f"--user={pwd.getpwuid(os.getuid()).pw_name}", *records])
        listens(self.proc, self.port)

    @staticmethod
    def dig(where, *query, **kw):
        """dig, asking there, with three tries as anybody would have."""
        return run([need("dig"), "-r", f"@{where[0]}", "-p", str(where[1]), "+tries=3", "+time=5",
                    *query], **kw)


class Iperf:
    """iperf3's server."""

    def __init__(self, start):
        self.port = free_port()
        self.proc = start.spawn([need("iperf3"), "-s", "--forceflush", "-B", "127.0.0.1", "-p", str(self.port)])
        self.proc.wait_line("listening on")
