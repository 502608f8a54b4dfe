# SPDX-License-Identifier: Apache-2.0
"""OpenSSH, PostgreSQL and Redis, used as people use them: directly, and through TCP tunnels."""

import concurrent.futures
import os
import select
import subprocess
import threading

import pytest

from harness import MIB, SANITIZED, eventually
from harness.net import dial, free_port
from harness.proc import Proc, run
from harness.services import Postgres, Reach, Redis, Sshd
from harness.stack import need, sha256

BIG = (8 if SANITIZED else 52) * MIB


@pytest.fixture(name="sshd", scope="module")
def _sshd(session_start):
    return Sshd(session_start)


@pytest.fixture(name="postgres", scope="module")
def _postgres(session_start):
    return Postgres(session_start)


@pytest.fixture(name="redis", scope="module")
def _redis(session_start):
    return Redis(session_start)


@pytest.fixture(name="big", scope="module")
def _big(session_folder):
    """A file without a pattern, larger than every window and queue on the way."""
    path = session_folder / "big"
    path.write_bytes(os.urandom(BIG))
    return path


# -- OpenSSH --------------------------------------------------------------------------------------

def test_ssh_runs_a_command(sshd, reach):
    where = reach.tcp(sshd.port)
    got = sshd.ssh(where, "echo out; echo err >&2; exit 7")
    assert (got.stdout, got.stderr, got.returncode) == (b"out\n", b"err\n", 7)


def test_ssh_passes_bytes_and_their_end(sshd, reach):
    """What goes in comes out, and the end of the input ends the command."""
    data = os.urandom(3 * MIB)
    got = sshd.ssh(reach.tcp(sshd.port), "cat", input=data)
    assert got.returncode == 0 and got.stdout == data


def test_ssh_interactive_session(sshd, reach):
    """A shell on a terminal: a line at a time, each answer awaited before the next."""
    where = reach.tcp(sshd.port)
    argv = [need("ssh"), "-tt", *sshd.options(where), where[0], "sh"]
    with subprocess.Popen([str(a) for a in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as shell:
        seen = bytearray()

        def say(text, expected):
            shell.stdin.write(text)
            shell.stdin.flush()

            def came():
                if select.select([shell.stdout], [], [], 0.1)[0]:
                    seen.extend(os.read(shell.stdout.fileno(), 65536))
                return expected in seen
            eventually(came, f"{expected} in {bytes(seen)!r}")
            seen.clear()

        try:
            say(b"tty\n", b"/dev/pts/")
            say(b"PS1='ready> '\n", b"\r\nready> ")
            for i in range(30):
                # The prompt too: what is typed before it is echoed before it.
                say(b"echo $((%d * 7))x\n" % i, b"%dx\r\nready> " % (i * 7))
            say(b"cat\n", b"cat\r\n")
            say(b"ping\n", b"ping\r\nping\r\n")  # the terminal's echo, then cat's
            # What is typed before the shell is back is dropped with cat's input.
            say(b"\x03", b"^C\r\nready> ")
            say(b"echo interrupted$?\n", b"interrupted130\r\n")
            shell.stdin.write(b"exit 3\n")
            shell.stdin.flush()
            assert shell.wait(30) == 3
        finally:
            shell.kill()


@pytest.mark.parametrize("old", [[], ["-O"]], ids=["sftp", "scp"])
def test_scp_both_ways(sshd, reach, big, folder, old):
    where = reach.tcp(sshd.port)
    options = [*old, "-q", *sshd.options(where)]
    run([need("scp"), *options, big, f"{where[0]}:{folder}/up"], check=True)
    assert sha256((folder / "up").read_bytes()) == sha256(big.read_bytes())
    run([need("scp"), *options, f"{where[0]}:{folder}/up", folder / "down"], check=True)
    assert sha256((folder / "down").read_bytes()) == sha256(big.read_bytes())


def test_sftp_batch(sshd, reach, big, folder):
    where = reach.tcp(sshd.port)
    (folder / "batch").write_text(f"""
put {big} {folder}/up
get {folder}/up {folder}/down
rename {folder}/up {folder}/renamed
mkdir {folder}/made
ls -l {folder}
""")
    got = run([need("sftp"), "-q", *sshd.options(where), "-b", folder / "batch", where[0]],
              check=True)
    assert b"renamed" in got.stdout and (folder / "made").is_dir()
    assert sha256((folder / "down").read_bytes()) == sha256(big.read_bytes())


def test_ssh_forwards_a_port(sshd, redis, reach, start):
    """ssh -L and -R inside the tunnelled connection, with many connections at once."""
    where = reach.tcp(sshd.port)
    local, remote = free_port(), free_port()
    ssh = start.spawn([need("ssh"), *sshd.options(where), "-N", "-o", "ExitOnForwardFailure=yes",
                       "-L", f"127.0.0.1:{local}:127.0.0.1:{redis.port}",
                       "-R", f"127.0.0.1:{remote}:127.0.0.1:{redis.port}", where[0]])

    def up(port):
        assert ssh.alive(), ssh.transcript()
        dial("127.0.0.1", port).close()
        return True
    for port in (local, remote):
        eventually(lambda port=port: up(port), "the forwarding listens")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            keys = [f"fwd-{port}-{i}" for i in range(16)]
            answers = list(pool.map(lambda k, p=port: redis.cli(("127.0.0.1", p), "SET", k, "v"),
                                    keys))
        assert answers == [b"OK\n"] * 16
        assert redis.cli(("127.0.0.1", redis.port), "EXISTS", *keys) == b"16\n"


def test_ssh_ten_sessions_at_once(sshd, reach):
    """Ten connections, each moving its own bytes both ways."""
    where = reach.tcp(sshd.port)
    blobs = [os.urandom(MIB + i) for i in range(10)]
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        got = list(pool.map(lambda blob: sshd.ssh(where, "cat", input=blob), blobs))
    assert [g.stdout == blob for g, blob in zip(got, blobs)] == [True] * 10


def test_ssh_session_dies_with_its_visitor(sshd, reach, start, folder):
    """A visitor that is killed: the command at the far end is told."""
    where = reach.tcp(sshd.port)
    mark = folder / "hup"
    ssh = start.spawn([need("ssh"), "-tt", *sshd.options(where), where[0],
                       f"trap 'echo gone >{mark}; exit' HUP; echo ready; while :; do sleep .1; done"])
    ssh.wait_line("ready")
    ssh.kill()
    eventually(mark.exists, "the far end noticed")


# -- PostgreSQL -----------------------------------------------------------------------------------

def test_psql(postgres, reach):
    where = reach.tcp(postgres.port)
    assert postgres.psql(where, "SELECT 6 * 7") == "42\n"
    assert postgres.psql(where, "SELECT repeat('x', 1000000)") == "x" * 1000000 + "\n"


def test_pgbench(postgres, reach):
    where = reach.tcp(postgres.port)
    env = postgres.env(where)
    pgbench = postgres.bin / "pgbench"
    count = 20 if SANITIZED else 200
    run([pgbench, "-i", "-q", "-s", "2"], env=env, check=True)
    for mode in ("simple", "extended", "prepared"):
        done = run([pgbench, "-n", "-c", "8", "-j", "2", "-t", str(count), "-M", mode], env=env,
                   check=True)
        assert f"{8 * count}/{8 * count}".encode() in done.stdout, done.stdout
        assert b"aborted" not in done.stderr
    # -C: a connection for each transaction.
    done = run([pgbench, "-n", "-C", "-S", "-c", "4", "-t", "25"], env=env, check=True)
    assert b"100/100" in done.stdout, done.stdout
    total = postgres.psql(where, "SELECT count(*) FROM pgbench_history")
    assert total == f"{3 * 8 * count}\n"
    # Money is neither made nor lost.
    assert postgres.psql(where, "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = "
                                "(SELECT sum(delta) FROM pgbench_history)") == "t\n"


def test_copy_of_a_big_table(postgres, reach, folder):
    where = reach.tcp(postgres.port)
    rows = 20000 if SANITIZED else 200000
    direct = ("127.0.0.1", postgres.port)
    postgres.psql(direct, "DROP TABLE IF EXISTS big; DROP TABLE IF EXISTS copied; "
                          "CREATE TABLE copied (n bigint, t text); CREATE TABLE big AS "
                          "SELECT n, md5(n::text) || repeat(md5((n*7)::text), 4) AS t "
                          f"FROM generate_series(1::bigint, {rows}) n")
    dump = folder / "dump"
    with open(dump, "wb") as out:
        run([postgres.bin / "psql", "-X", "-c", "COPY big TO STDOUT"], env=postgres.env(where),
            stdout=out, check=True)
    assert dump.stat().st_size > rows * 160
    run([postgres.bin / "psql", "-X", "-v", "ON_ERROR_STOP=1",
         "-c", f"\\copy copied FROM '{dump}'"], env=postgres.env(where), check=True)
    summary = "SELECT count(*), md5(string_agg(n || t, '' ORDER BY n)) FROM "
    assert postgres.psql(direct, summary + "copied") == postgres.psql(direct, summary + "big")


def test_listen_and_notify(postgres, reach):
    """A session that waits for what others say: idle in between, told in order."""
    where = reach.tcp(postgres.port)
    fifo = os.pipe()
    waiting = subprocess.Popen([postgres.bin / "psql", "-X", "-q", "-A", "-t"],
                               env=postgres.env(where), stdin=fifo[0], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
    os.close(fifo[0])
    try:
        os.write(fifo[1], b"LISTEN news; SELECT 'listening';\n")
        assert waiting.stdout.readline() == b"listening\n"
        for i in range(20):
            postgres.psql(where, f"NOTIFY news, 'item {i}'")
        os.write(fifo[1], b"SELECT 'asked';\n")
        lines = []
        while sum(b"Asynchronous" in line for line in lines) < 20:
            lines.append(waiting.stdout.readline())
            assert lines[-1], lines
            if lines[-1] == b"asked\n":
                os.write(fifo[1], b"SELECT 'asked';\n")
        told = [line.split(b'"')[3] for line in lines if b"Asynchronous" in line]
        assert told == [b"item %d" % i for i in range(20)]
    finally:
        os.close(fifo[1])
        waiting.kill()
        waiting.communicate()


def test_cancelled_query(postgres, reach):
    """The cancel request is a connection of its own: it must arrive at the same server."""
    where = reach.tcp(postgres.port)
    asking = Proc([postgres.bin / "psql", "-X", "-c", "SELECT pg_sleep(3600) /* cancel me */"],
                  env=postgres.env(where))
    try:
        running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%cancel me%' " \
                  "AND state = 'active' AND pid <> pg_backend_pid()"
        direct = ("127.0.0.1", postgres.port)
        eventually(lambda: postgres.psql(direct, running) == "1\n", "the query runs")
        asking.deliver(2)
        assert asking.wait() == 1 and "canceling statement" in asking.text("err")
    finally:
        asking.kill()


# -- Redis ----------------------------------------------------------------------------------------

def test_redis_cli(redis, reach):
    where = reach.tcp(redis.port)
    value = os.urandom(MIB).hex()
    assert redis.cli(where, "SET", "plain", "value") == b"OK\n"
    assert redis.cli(where, "GET", "plain") == b"value\n"
    assert redis.cli(where, "-x", "SET", "large", input=value.encode()) == b"OK\n"
    assert redis.cli(where, "GET", "large") == value.encode() + b"\n"


def test_redis_subscribers(redis, reach, start):
    """Publishers and subscribers on connections of their own; each message once and in order."""
    where = reach.tcp(redis.port)
    channel = f"news-{where[1]}"
    readers = [start.spawn([need("redis-cli"), "-h", where[0], "-p", str(where[1]),
                            "SUBSCRIBE", channel], name=f"subscriber {i}") for i in range(5)]
    for reader in readers:
        reader.wait_line("^1$")
    for i in range(50):
        assert redis.cli(where, "PUBLISH", channel, f"message {i}") == b"5\n"
    for reader in readers:
        reader.wait_line("^message 49$")
        assert [line for line in reader.out() if line.startswith("message ")] == \
            [f"message {i}" for i in range(50)]


def test_redis_mass_insert(redis, reach):
    """redis-cli --pipe: everything is sent without waiting for answers, then they are counted."""
    where = reach.tcp(redis.port)
    count = 20000 if SANITIZED else 200000
    commands = b"".join(
        b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(k), k, len(v), v)
        for k, v in ((b"mass-%d-%d" % (where[1], i), b"value %d" % i * 5) for i in range(count)))
    said = redis.cli(where, "--pipe", input=commands)
    assert b"errors: 0, replies: %d" % count in said, said
    last = redis.cli(where, "GET", f"mass-{where[1]}-{count - 1}")
    assert last == b"value %d" % (count - 1) * 5 + b"\n"


def test_redis_benchmark(redis, reach):
    where = reach.tcp(redis.port)
    count = "2000" if SANITIZED else "20000"
    for pipeline in ("1", "32"):
        done = run([need("redis-benchmark"), "-h", where[0], "-p", str(where[1]), "-n", count,
                    "-c", "50", "-P", pipeline, "-t", "set,get,lpush,lrange_100", "--csv"],
                   check=True)
        names = [line.split(b",")[0] for line in done.stdout.splitlines()[1:]]
        assert {b'"SET"', b'"GET"', b'"LPUSH"'} <= set(names), done.stdout


# -- together -------------------------------------------------------------------------------------

def test_all_at_once(sshd, postgres, redis, start, port_edge, big):
    """Three clients, one server, one visitor of each kind at a time: nobody waits for another."""
    through = Reach(start, port_edge)
    ssh, sql, kv = (through.tcp(service.port) for service in (sshd, postgres, redis))
    assert len({ssh, sql, kv}) == 3
    stop = threading.Event()

    def repeat(work):
        done = 0
        while not stop.is_set() or not done:
            work()
            done += 1
        return done

    def counts():
        assert postgres.psql(sql, "SELECT sum(n) FROM generate_series(1, 10000) n") == "50005000\n"

    def stores():
        assert redis.cli(kv, "SET", "together", "now") == b"OK\n"

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        queries, sets = pool.submit(repeat, counts), pool.submit(repeat, stores)
        try:
            with open(big, "rb") as data:
                got = run([need("ssh"), *sshd.options(ssh), ssh[0], "sha256sum"],
                          input=data.read(), check=True)
        finally:
            stop.set()
        assert got.stdout.split()[0].decode() == sha256(big.read_bytes())
        assert queries.result() and sets.result()
