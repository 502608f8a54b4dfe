# SPDX-License-Identifier: Apache-2.0
"""Configuration files: what is wrong with one is named by line and key; what stands in one is done,
and changed on SIGHUP without hurting what stays."""

import re
import signal

import pytest

from harness import CLIENT_BIN, SERVER_BIN, eventually
from harness.net import dial, free_port, free_range
from harness.stack import Client, Server


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o600)
    return path


def check(start, which, path, **kw):
    return start.program(which, ["check-config", path], **kw)


def mistakes(proc, path):
    """{line: text} of a file that is not good; line 0 is the file as a whole."""
    assert proc.wait() == 2, proc.transcript()
    assert proc.out() == []
    found = {}
    for line in proc.err():
        match = re.match(re.escape(str(path)) + r":(?:(\d+):)? (.*)$", line)
        assert match, proc.transcript()
        found.setdefault(int(match[1] or 0), []).append(match[2])
    assert list(found) == sorted(found)
    return {number: " | ".join(texts) for number, texts in found.items()}


CLIENT = "server: ws://127.0.0.1:1\n"
TUNNEL = "tunnels:\n  web: {type: http, to: 3000}\n"

# what the file holds, and on which line which words are said; no other line may be named
CLIENT_MISTAKES = [
    ("", {0: ["server", "tunnels"]}),
    ("# nothing\n", {0: ["server", "tunnels"]}),
    ("just words\n", {0: [], 1: ["keys"]}),
    ("- a\n- b\n", {0: [], 1: ["keys"]}),
    (TUNNEL, {0: ["server"]}),
    (CLIENT, {0: ["tunnels"]}),
    (CLIENT + "tunnels:\n", {2: ["tunnels"]}),
    (CLIENT + "tunnels: {}\n", {2: ["tunnels"]}),
    (CLIENT + "tunnels: [a]\n", {2: ["tunnels"]}),
    ("sever: ws://x\n" + CLIENT + TUNNEL, {1: ["sever", "did you mean 'server'"]}),
    ("link_timeout: 3\n" + CLIENT + TUNNEL, {1: ["link_timeout", "'link-timeout'"]}),
    ("completely-different: 3\n" + CLIENT + TUNNEL, {1: ["completely-different", "no such key"]}),
    ("subdomain: demo\n" + CLIENT + TUNNEL, {1: ["subdomain", "tunnels"]}),
    ("config: other.yml\n" + CLIENT + TUNNEL, {1: ["config", "command line"]}),
    (CLIENT + CLIENT + TUNNEL, {2: ["server", "twice", "line 1"]}),
    (CLIENT + TUNNEL + "tunnels: {a: {type: http, to: 1}}\n", {4: ["tunnels", "twice"]}),
    ("server: nonsense\n" + TUNNEL, {1: ["server", "nonsense"]}),
    ("server:\n" + TUNNEL, {1: ["server", "no value"]}),
    ("server: ~\n" + TUNNEL, {1: ["server", "no value"]}),
    # several servers
    ("server: [ws://127.0.0.1:1, 'ws://127.0.0.1:2,wss://c.example.org']\n" + TUNNEL, {}),
    ("server: [ws://a]\n" + TUNNEL, {1: ["server", "ws://a", "--insecure"]}),
    ("server:\n- wss://a\n- ws://b\n" + TUNNEL, {3: ["server", "ws://b", "--insecure"]}),
    ("server:\n- wss://a\n- ws://[2001:db8::1]:80/\n" + TUNNEL, {3: ["server", "--insecure"]}),
    ("server:\n- wss://a\n- nonsense\n" + TUNNEL, {3: ["server", "nonsense"]}),
    ("server:\n- wss://a\n- [wss://b]\n" + TUNNEL, {3: ["server", "list"]}),
    ("server: [wss://a, 'wss://b,']\n" + TUNNEL, {1: ["server", "''"]}),
    ("server:\n- wss://a\n- wss://b\n- https://a:443\n" + TUNNEL, {4: ["server", "twice"]}),
    ("server:\n" + "".join(f"- wss://s{i}\n" for i in range(9)) + TUNNEL, {10: ["server", "8"]}),
    ("server: []\n" + TUNNEL, {1: ["server", "missing"]}),
    # pools
    (CLIENT + "tunnels:\n  a: {type: http, to: 1, subdomain: a, pool: true}\n"
     "  b: {type: tcp, to: 1, remote-port: 5, pool: yes, balance: least-loaded}\n"
     "  c: {type: tls, to: 1, subdomain: c, pool: true, balance: round-robin}\n"
     "  d: {type: files, to: ., domain: d.org, pool: true}\n"
     "  e: {type: ports, allow-ports: 1, subdomain: e, pool: true}\n"
     "  f: {type: http, to: 1, path-id: f, pool: true}\n"
     "  g: {type: http, to: 1, pool: false}\n", {}),
    (CLIENT + "tunnels:\n  a: {type: http, to: 1, pool: true}\n", {3: ["tunnels.a", "subdomain"]}),
    (CLIENT + "tunnels:\n  a: {type: tcp, to: 1, pool: true}\n", {3: ["tunnels.a", "remote-port"]}),
    (CLIENT + "tunnels:\n  a: {type: http, to: 1, pool: 2, subdomain: a}\n",
     {3: ["tunnels.a.pool", "true"]}),
    (CLIENT + "tunnels:\n  a: {type: udp, to: 1, remote-port: 5, pool: true}\n",
     {3: ["tunnels.a.pool", "udp"]}),
    (CLIENT + "tunnels:\n  a: {type: http, to: 1, subdomain: a, balance: least-loaded}\n",
     {3: ["tunnels.a", "pool: true"]}),
    (CLIENT + "tunnels:\n  a:\n    type: http\n    to: 1\n    subdomain: a\n    pool: true\n"
     "    balance: most\n", {8: ["tunnels.a.balance", "round-robin"]}),
    (CLIENT + "tunnels:\n  a:\n    type: http\n    to: 1\n    subdomain: a\n    pool: true\n"
     "    balance: ''\n", {8: ["tunnels.a.balance", "round-robin"]}),
    ("server: {a: b}\n" + TUNNEL, {1: ["server", "value"]}),
    ("server: ws://192.0.2.1\n" + TUNNEL, {1: ["server", "insecure"]}),
    ("? [a, b]\n: c\n" + CLIENT + TUNNEL, {1: ["key"]}),
    ('"ser\\0ver": x\n' + CLIENT + TUNNEL, {1: ["key"]}),
    ('token: "a\\0b"\n' + CLIENT + TUNNEL, {1: ["token", "NUL"]}),
    ("token: two words\n" + CLIENT + TUNNEL, {1: ["token"]}),
    ("quiet: maybe\n" + CLIENT + TUNNEL, {1: ["quiet", "true or false"]}),
    ("quiet: 1\n" + CLIENT + TUNNEL, {1: ["quiet", "true or false"]}),
    ("quiet: [true]\n" + CLIENT + TUNNEL, {1: ["quiet"]}),
    ("link-timeout: soon\n" + CLIENT + TUNNEL, {1: ["link-timeout", "seconds"]}),
    ("link-timeout: 0\n" + CLIENT + TUNNEL, {1: ["link-timeout", "seconds"]}),
    ("log-format: xml\n" + CLIENT + TUNNEL, {1: ["log-format", "json"]}),
    ("proxy: socks5://a\n" + CLIENT + TUNNEL, {1: ["proxy", "http://"]}),
    ("instance: xyz\n" + CLIENT + TUNNEL, {1: ["instance", "xyz"]}),
    ("ca: nowhere.pem\n" + CLIENT.replace("ws:", "wss:") + TUNNEL, {1: ["ca", "nowhere.pem"]}),
    ("ca: nowhere.pem\nserver: nonsense\n" + TUNNEL, {1: ["ca", "nowhere.pem"], 2: ["nonsense"]}),
    ("ca: nowhere.pem\n" + TUNNEL, {0: ["server"], 1: ["ca", "nowhere.pem"]}),
    ("token-file: nowhere\n" + CLIENT + TUNNEL, {1: ["token-file", "nowhere"]}),
    ("token: a\ntoken-file: b\n" + CLIENT + TUNNEL, {2: ["token"]}),
    # tunnels
    (CLIENT + "tunnels:\n  web:\n    to: 3000\n", {3: ["tunnels.web", "type"]}),
    (CLIENT + "tunnels:\n  web:\n    type: http\n", {3: ["tunnels.web", "'to'"]}),
    (CLIENT + "tunnels:\n  web: {type: files}\n", {3: ["tunnels.web", "'to'", "folder"]}),
    (CLIENT + "tunnels:\n  web: {type: ports}\n", {3: ["tunnels.web", "allow-ports"]}),
    (CLIENT + "tunnels:\n  web: 3000\n", {3: ["tunnels.web"]}),
    (CLIENT + "drain-timeout: 0\n" + TUNNEL, {}),
    (CLIENT + "drain-timeout: 2.5\n" + TUNNEL, {}),
    (CLIENT + "drain-timeout: 1h\n" + TUNNEL, {2: ["drain-timeout", "86400"]}),
    (CLIENT + "tunnels:\n  a:\n    type: http\n    to: 1\n    drain-timeout: 1\n",
     {6: ["tunnels.a.drain-timeout", "top level"]}),
    (CLIENT + "tunnels:\n  web: [http]\n", {3: ["tunnels.web"]}),
    (CLIENT + "tunnels:\n  a b: {type: http, to: 1}\n", {3: ["a b"]}),
    (CLIENT + "tunnels:\n  ? [x]\n  : {type: http, to: 1}\n", {3: ["name"]}),
    (CLIENT + TUNNEL + "  web: {type: http, to: 1}\n", {4: ["tunnels.web", "twice"]}),
    (CLIENT + "tunnels:\n  web:\n    type: htp\n    to: 1\n", {4: ["tunnels.web.type", "'http'"]}),
    (CLIENT + "tunnels:\n  web:\n    type: [http]\n    to: 1\n", {4: ["tunnels.web.type"]}),
    (CLIENT + "tunnels:\n  web:\n    type: http\n    to: 99999\n", {5: ["tunnels.web.to", "99999"]}),
    (CLIENT + "tunnels:\n  web:\n    type: http\n    to: [1]\n", {5: ["tunnels.web.to", "list"]}),
    (CLIENT + "tunnels:\n  web:\n    type: http\n    too: 1\n", {4 + 1: ["tunnels.web.too", "'to'"]}),
    (CLIENT + "tunnels:\n  web:\n    type: http\n    server: 1\n    to: 1\n",
     {5: ["tunnels.web.server", "top level"]}),
    (CLIENT + "tunnels:\n  web:\n    type: http\n    to: 1\n    remote-port: 5\n",
     {6: ["tunnels.web.remote-port", "http"]}),
    (CLIENT + "tunnels:\n  web:\n    type: http\n    to: 1\n    to: 2\n",
     {6: ["tunnels.web.to", "twice", "line 5"]}),
    (CLIENT + "tunnels:\n  web:\n    type: http\n    to: 1\n    subdomain: Bad\n",
     {6: ["tunnels.web.subdomain", "Bad"]}),
    (CLIENT + "tunnels:\n  web:\n    type: http\n    to: 1\n    subdomain:\n    - good\n    - Bad\n",
     {8: ["tunnels.web.subdomain", "Bad"]}),
    (CLIENT + "tunnels:\n  web:\n    type: http\n    to: 1\n    subdomain: [a, b, a]\n",
     {6: ["tunnels.web.subdomain", "twice"]}),
    (CLIENT + "tunnels:\n  web:\n    type: http\n    to: 1\n    domain: nodot\n",
     {6: ["tunnels.web.domain", "nodot"]}),
    (CLIENT + "tunnels:\n  web:\n    type: http\n    to: 1\n    path-id: a/b\n",
     {6: ["tunnels.web.path-id"]}),
    (CLIENT + "tunnels:\n  web:\n    type: http\n    to: 1\n    path-id: x\n    subdomain: [a, b]\n",
     {3: ["tunnels.web", "path-id"]}),
    (CLIENT + "tunnels:\n  web:\n    type: http\n    to: 1\n    host-header: two words\n",
     {6: ["tunnels.web.host-header"]}),
    (CLIENT + "tunnels:\n  web:\n    type: http\n    to: https://localhost:1\n    upstream-ca: nowhere\n",
     {6: ["tunnels.web.upstream-ca", "nowhere"]}),
    (CLIENT + "tunnels:\n  ssh:\n    type: tcp\n    to: 22\n    remote-port: 70000\n",
     {6: ["tunnels.ssh.remote-port", "70000"]}),
    (CLIENT + "tunnels:\n  ssh:\n    type: tcp\n    to: 22\n    proxy-protocol: 1\n",
     {6: ["tunnels.ssh.proxy-protocol", "v1"]}),
    (CLIENT + "tunnels:\n  dns:\n    type: udp\n    to: 53\n    idle-timeout: 0\n",
     {6: ["tunnels.dns.idle-timeout", "3600"]}),
    (CLIENT + "tunnels:\n  s:\n    type: tls\n    to: 1\n    tls-cert: a.pem\n",
     {3: ["tunnels.s", "tls-key"]}),
    (CLIENT + "tunnels:\n  s:\n    type: tls\n    to: 1\n    tls-cert: a.pem\n    tls-key: b.pem\n",
     {6: ["tunnels.s.tls-cert", "a.pem"]}),
    (CLIENT + "tunnels:\n  f:\n    type: files\n    to: nowhere\n", {5: ["tunnels.f.to", "nowhere"]}),
    (CLIENT + "tunnels:\n  p:\n    type: ports\n    allow-ports: 1-x\n",
     {5: ["tunnels.p.allow-ports", "1-x"]}),
    (CLIENT + "tunnels:\n  p:\n    type: ports\n    allow-ports: 22\n    to: 22\n",
     {6: ["tunnels.p.to", "allow-ports"]}),
    (CLIENT + "tunnels:\n" + "".join(f"  t{i}: {{type: http, to: 1}}\n" for i in range(65)),
     {67: ["64"]}),
    (CLIENT + "tunnels:\n  a:\n    type: http\n    to: 1\n    subdomain: ["
     + ", ".join(f"n{i}" for i in range(65)) + "]\n", {6: ["64"]}),
    # no YAML
    (CLIENT + "tunnels:\n\tweb: 1\n", {3: ["YAML", "spaces"]}),
    (CLIENT + "tunnels:\n  a: {type: http, to: 1, subdomain: @}\n", {3: ["YAML", "quotes"]}),
    (CLIENT + "tunnels:\n  a: {type: http, to: 1, subdomain: *.demo}\n", {3: ["YAML", "quotes"]}),
    (CLIENT + "tunnels: {a: *b}\n", {2: ["YAML", "alias"]}),
    (CLIENT + 'token: "never ends\n', {3: ["YAML"]}),
    (CLIENT + "a: b: c\n", {2: ["YAML"]}),
    (CLIENT + " token: x\n", {2: ["YAML"]}),
    (CLIENT + TUNNEL + "---\nserver: ws://b\n", {5: ["second document"]}),
    (CLIENT + TUNNEL + "--- [\n", {5: ["YAML"]}),
    (CLIENT.encode() + b"token: \xff\xfe\n", {2: ["UTF-8"]}),
    (CLIENT.encode() + b"token: a\0b\n", {2: ["UTF-8"]}),
    (CLIENT.encode("utf-16"), {1: ["UTF-8"]}),
    (b"# \xed\xa0\x80\n", {1: ["UTF-8"]}),
    (b"# " + b"x" * (1 << 20), {0: ["large"]}),
    # what could be endless
    ("server: &a [*a]\n" + TUNNEL, {1: ["server", "list"]}),
    ("&a ? *a\n: b\n" + CLIENT + TUNNEL, None),
    (CLIENT + "tunnels: &t\n  a: *t\n", {3: ["tunnels.a"]}),
    (CLIENT + "tunnels:\n  a: {type: http, to: 1, subdomain: &s [*s]}\n", {3: ["subdomain", "list"]}),
    ("[" * 5000, {2: ["YAML"]}),
    ("a: " + "{b: " * 5000, {2: ["YAML"]}),
    ("[" * 1000000, {1: ["too many"]}),
    ("# " + "]" * 500000 + "\n" + "[ # ]\n" * 50000, {10002: ["too many"]}),
    ("".join(f"- &a{i} x\n" for i in range(60000)), {10001: ["too many"]}),
    ("".join(f"%TAG !a{i}! b\n" for i in range(50000)), {3334: ["too many"]}),
    (CLIENT + "quiet: &b true\nverbose: *b\nforce: *b\n" + TUNNEL, {}),
]


@pytest.mark.parametrize("text, expected", CLIENT_MISTAKES,
                         ids=[f"file{i}" for i in range(len(CLIENT_MISTAKES))])
def test_mistakes_of_the_client(start, folder, text, expected):
    path = write(folder, "tunnel.yml", text)
    proc = check(start, CLIENT_BIN, path)
    if expected == {}:
        assert proc.wait() == 0 and proc.out() == [f"{path}: no mistakes"], proc.transcript()
        assert proc.err() == []
        return
    found = mistakes(proc, path)
    if expected is None:
        return
    assert set(found) == set(expected), found
    for line, words in expected.items():
        for word in words:
            assert word.lower() in found[line].lower(), found


def test_all_mistakes_in_one_run(start, folder):
    path = write(folder, "tunnel.yml", """
server: nonsense
tokn: x
quiet: maybe
tunnels:
  web:
    type: http
    to: 99999
    subdomain: [good, Bad]
    domain: nodot
  ssh: {type: tcp, to: 22, remote-port: x}
  dns: {type: dup, to: 53}
  web: {type: http, to: 1}
""")
    found = mistakes(check(start, CLIENT_BIN, path), path)
    assert set(found) == {2, 3, 4, 8, 9, 10, 11, 12, 13}, found


def test_a_file_of_mistakes_is_cut_short(start, folder):
    path = write(folder, "tunnel.yml", CLIENT + "tunnels:\n  a: {type: http, to: 1, subdomain: ["
                 + ", ".join(["X"] * 4000) + "]}\n")
    proc = check(start, CLIENT_BIN, path)
    assert proc.wait() == 2
    assert len(proc.err()) == 101 and "and 3900 more" in proc.err()[-1]


def test_a_map_with_too_many_keys(start, folder):
    path = write(folder, "tunnel.yml", "".join(f"k{i}: 1\n" for i in range(5000)))
    proc = check(start, CLIENT_BIN, path)
    assert proc.wait() == 2
    assert len(proc.err()) == 101 and "more" in proc.err()[-1]


def test_start_refuses_a_file_with_mistakes(start, folder):
    path = write(folder, "tunnel.yml", CLIENT + TUNNEL + "bogus: 1\n")
    found = mistakes(start.program(CLIENT_BIN, ["start", "--config", path]), path)
    assert set(found) == {4} and "bogus" in found[4]


SERVER = "listen: 127.0.0.1:0\n"
SERVER_MISTAKES = [
    ("domain: x.test\n", {0: ["--listen"]}),
    ("lissten: 127.0.0.1:0\n" + SERVER, {1: ["lissten", "'listen'"]}),
    ("listen: [127.0.0.1:0, nonsense]\n", {1: ["listen", "nonsense"]}),
    ("listen:\n- 127.0.0.1:0\n- nonsense\n", {3: ["listen", "nonsense"]}),
    ("listen: {a: b}\n", {1: ["listen"]}),
    (SERVER + "domain: -bad\n", {2: ["domain", "-bad"]}),
    (SERVER + "domain: [a.test, b.test]\n", {2: ["domain", "list"]}),
    (SERVER + "tokens: abc\n", {2: ["tokens", "list"]}),
    (SERVER + "tokens:\n- abc\n- two words\n", {4: ["tokens"]}),
    (SERVER + "tokens:\n- {token: abc, domain: x.test}\n", {3: ["tokens.domain", "domains"]}),
    (SERVER + "tokens:\n- {domains: x.test}\n", {3: ["tokens", "'token'"]}),
    (SERVER + "tokens:\n- {token: abc, domains: [x.test, nodot]}\n", {3: ["tokens.domains", "nodot"]}),
    (SERVER + "tokens:\n- [abc]\n", {3: ["tokens"]}),
    (SERVER + "tokens:\n- {token: a, token: b}\n", {3: ["token", "twice"]}),
    (SERVER + "tokens: [abc]\ntoken: def\n", {3: ["token", "tokens"]}),
    (SERVER + "certificates: a.pem\n", {2: ["certificates", "list"]}),
    (SERVER + "certificates:\n- a.pem\n", {3: ["certificates", "cert"]}),
    (SERVER + "certificates:\n- {cert: a.pem}\n", {3: ["certificates", "key"]}),
    (SERVER + "certificates:\n- {cert: a.pem, kye: b.pem}\n", {3: ["kye", "'key'", "no 'key'"]}),
    ("tls-listen: 127.0.0.1:0\ncertificates:\n- {cert: a.pem, key: b.pem}\n", {3: ["a.pem"]}),
    ("tls-listen: 127.0.0.1:0\ntls-cert: a.pem\n", {2: ["pairs"]}),
    ("tls-listen: 127.0.0.1:0\ntls-cert: a.pem\ntls-key: b.pem\n", {2: ["a.pem"]}),
    (SERVER + "public-url: ftp://x\n", {2: ["public-url", "ftp"]}),
    (SERVER + "tcp-ports: 5-1\nudp-ports: x\n", {2: ["tcp-ports", "5-1"], 3: ["udp-ports"]}),
    (SERVER + "tcp-ports: [1, 2]\n", {2: ["tcp-ports", "list"]}),
    (SERVER + "udp-flows: 0\nudp-flows-per-source: x\n", {2: ["udp-flows"], 3: ["source"]}),
    (SERVER + "path-routing: perhaps\n", {2: ["path-routing", "true"]}),
    (SERVER + "allow-domain: nodot\n", {2: ["allow-domain", "nodot"]}),
    (SERVER + "answer-timeout: 0\nlink-timeout: 9999\n", {2: ["answer-timeout"], 3: ["600"]}),
    (SERVER + "grace: x\nhold: 86401\n", {2: ["grace", "3600"], 3: ["hold", "86400"]}),
    (SERVER + "drain-delay: 3601\ndrain-timeout: -1\n",
     {2: ["drain-delay", "3600"], 3: ["drain-timeout", "86400"]}),
    (SERVER + "drain-delya: 1\nstate: [a]\n", {2: ["'drain-delay'"], 3: ["state", "list"]}),
    (SERVER + f"state: {'x' * 600}\n", {2: ["state"]}),
    (SERVER + "state: nowhere/state\n", {2: ["state", "nowhere", "folder"]}),
    (SERVER + "state: .\n", {2: ["state", "not a file"]}),
    (SERVER + "state: ''\n", {}),
    (SERVER + "grace: 0\nhold: 0\nstate: s\ndrain-delay: 0.5\ndrain-timeout: 0\n", {}),
    (SERVER + "config: x\ntunnels: {}\n", {2: ["command line"], 3: ["tunnels", "no such key"]}),
    (SERVER + "log-format: xml\nverbose: 3\n", {2: ["json"], 3: ["verbose", "true"]}),
    (SERVER + "access-log: [a]\n", {2: ["access-log", "list"]}),
    (SERVER + "domain: @\n", {2: ["YAML"]}),
    (SERVER + "tokens: &t [*t]\n", {2: ["tokens"]}),
    (SERVER + 'tcp-ports: none\nudp-ports: "30000-30009"\nudp-flows: 3\npath-routing: yes\n'
     'allow-domain: ["*.example.org"]\ntokens: [a, {token: b, domains: "*"}]\n', {}),
]


@pytest.mark.parametrize("text, expected", SERVER_MISTAKES,
                         ids=[f"file{i}" for i in range(len(SERVER_MISTAKES))])
def test_mistakes_of_the_server(start, folder, text, expected):
    path = write(folder, "server.yml", text)
    proc = check(start, SERVER_BIN, path)
    if expected == {}:
        assert proc.wait() == 0 and proc.out() == [f"{path}: no mistakes"], proc.transcript()
        return
    found = mistakes(proc, path)
    assert set(found) == set(expected), found
    for line, words in expected.items():
        for word in words:
            assert word.lower() in found[line].lower(), found


@pytest.mark.parametrize("which", [CLIENT_BIN, SERVER_BIN])
def test_files_that_cannot_be_read(start, folder, which):
    for path in (folder / "missing.yml", folder):
        found = mistakes(check(start, which, path), path)
        assert set(found) == {0} and "read" in found[0]


@pytest.mark.parametrize("which, text", [(CLIENT_BIN, CLIENT + TUNNEL), (SERVER_BIN, SERVER)])
def test_a_secret_that_others_can_read_is_told(start, folder, which, text):
    path = write(folder, "file.yml", text + "token: abc\n")
    path.chmod(0o644)
    proc = check(start, which, path)
    assert proc.wait() == 0
    assert len(proc.err()) == 1 and "chmod 600" in proc.err()[0] and "abc" not in proc.text()
    for mode, content in ((0o640, text + "token: abc\n"), (0o644, text)):
        path.write_text(content)
        path.chmod(mode)
        proc = check(start, which, path)
        assert proc.wait() == 0 and proc.err() == [], proc.transcript()


# -- where the file is looked for -----------------------------------------------------------------

def run_start(start, *args, server=None, wait=1, **kw):
    """tunnel-client start; wait: how many public lines are awaited."""
    given = ["--server", server.link, "--token", server.token] if server else []
    client = Client(start.program(CLIENT_BIN, ["start", *given, *args], **kw))
    if wait:
        client.proc.wait_line(r"^public: \S+", kind="out", count=wait)
    return client


def one_tunnel(app, label, kind="http"):
    return f"tunnels:\n  {label}: {{type: {kind}, to: {app.where}, subdomain: {label}}}\n"


@pytest.mark.parametrize("which, variable, text", [
    (CLIENT_BIN, "TUNNEL_CLIENT_CONFIG", CLIENT + TUNNEL),
    (SERVER_BIN, "TUNNEL_SERVER_CONFIG", "listen: 127.0.0.1:0\n")])
def test_a_check_takes_the_file_that_is_named_by_any_means(start, folder, which, variable, text):
    path = write(folder, "named.yml", text)
    for args, env in ((["--config", path], {}), ([], {variable: path}),
                      ([path], {variable: "/nowhere.yml"})):
        proc = start.program(which, ["check-config", *args], env=env, cwd=folder)
        assert proc.wait() == 0, proc.transcript()
        assert proc.out() == [f"{path}: no mistakes"]


def test_search_path(start, edge, app, folder):
    here = folder / "here"
    home = folder / "home"
    xdg = folder / "xdg"
    here.mkdir()
    env = {"HOME": home, "XDG_CONFIG_HOME": None}
    proc = start.program(CLIENT_BIN, ["start", "--server", edge.link], env=env, cwd=here)
    assert proc.wait() == 2 and "--config" in proc.err()[0] and len(proc.err()) == 1
    write(home, ".config/libtunnel/tunnel.yml", one_tunnel(app, "from-home"))
    assert run_start(start, server=edge, env={**env, "XDG_CONFIG_HOME": ""},
                     cwd=here).label() == "from-home"
    write(xdg, "libtunnel/tunnel.yml", one_tunnel(app, "from-xdg"))
    env["XDG_CONFIG_HOME"] = xdg
    assert run_start(start, server=edge, env=env, cwd=here).label() == "from-xdg"
    proc = start.program(CLIENT_BIN, ["check-config"], env={**env, "TUNNEL_SERVER": edge.link},
                         cwd=here)
    assert proc.wait() == 0 and str(xdg) in proc.out()[0]
    write(here, "tunnel.yml", one_tunnel(app, "from-here"))
    assert run_start(start, server=edge, env=env, cwd=here).label() == "from-here"
    path = write(folder, "named.yml", one_tunnel(app, "from-flag"))
    assert run_start(start, "--config", path, server=edge, env=env,
                     cwd=here).label() == "from-flag"
    path = write(folder, "named.yml", one_tunnel(app, "from-variable"))
    assert run_start(start, server=edge, env={**env, "TUNNEL_CLIENT_CONFIG": path},
                     cwd=here).label() == "from-variable"


def test_single_commands_take_the_users_file_but_never_one_from_the_folder(start, edge, app,
                                                                          folder):
    """Whoever puts a file into a repository must not learn the token of those who work in it."""
    port = free_port()
    here, xdg = folder / "here", folder / "xdg"
    write(here, "tunnel.yml", f"server: ws://127.0.0.1:{port}\nbogus: 1\n")
    write(xdg, "libtunnel/tunnel.yml",
          f"server: {edge.link}\ntoken: {edge.token}\nquiet: true\ntunnels: {{web: not looked at}}\n")
    client = Client(start.program(CLIENT_BIN, ["http", app.where, "--subdomain", "of-user"],
                                  env={"XDG_CONFIG_HOME": xdg}, cwd=here))
    assert client.label() == "of-user"
    assert edge.status("/hello", "of-user") == 200
    assert client.proc.stop() == 0
    assert len(client.proc.out()) == 1  # quiet
    # Named by hand it counts, and its mistakes too.
    proc = start.program(CLIENT_BIN, ["http", app.where, "--config", "tunnel.yml"],
                         env={"XDG_CONFIG_HOME": xdg}, cwd=here)
    assert set(mistakes(proc, "tunnel.yml")) == {2}


# -- what wins ------------------------------------------------------------------------------------

def test_flags_beat_the_environment_and_that_the_file(start, app, folder):
    path = write(folder, "tunnel.yml", "server: ws://127.0.0.1:1\ntoken: of-the-file\n"
                 + one_tunnel(app, "demo"))
    server = start.server(token="right")
    client = run_start(start, "--config", path, "--server", server.link,
                       env={"TUNNEL_SERVER": "ws://127.0.0.1:2", "TUNNEL_TOKEN": "right"})
    assert client.label() == "demo"


def test_a_switch_of_the_file_can_be_turned_off(start, edge, app, folder):
    path = write(folder, "tunnel.yml", "quiet: true\n" + one_tunnel(app, "loud"))
    client = run_start(start, "--config", path, server=edge, env={"TUNNEL_QUIET": "0"})
    assert edge.status("/hello", "loud") == 200
    client.proc.wait_line("GET /hello 200", kind="out")


def test_a_token_file_of_a_flag_beats_the_token_of_the_environment(start, edge, app, folder):
    secret = write(folder, "secret", f"# mine\n\n  {edge.token}  \n")
    client = Client(start.program(CLIENT_BIN, [
        "http", app.where, "--server", edge.link, "--token-file", secret], env={
            "TUNNEL_TOKEN": "wrong"}))
    assert edge.status("/hello", client.label()) == 200


def test_repeatable_options_are_overridden_as_a_whole(start, folder):
    ports = [free_port() for _ in range(3)]
    path = write(folder, "server.yml", f"listen: ['127.0.0.1:{ports[0]}', '127.0.0.1:{ports[1]}']\n"
                 "tokens: [of-the-file]\n")
    proc = start.program(SERVER_BIN, ["--config", path])
    proc.wait_line("^listening: ", count=2)
    assert proc.stop() == 0
    proc = start.program(SERVER_BIN, ["--config", path, "--listen", f"127.0.0.1:{ports[2]}"],
                         env={"TUNNEL_TOKEN": "of-the-environment"})
    proc.wait_line("^listening: ")
    server = Server(proc, "localhost", "of-the-environment", ports[2])
    client = start.client(server, 9, subdomain="a")
    assert "of-the-file" not in client.proc.text()
    refused = start.client(server, 9, subdomain="b", token="of-the-file", wait=False)
    assert refused.proc.wait() == 1
    assert proc.stop() == 0
    assert proc.out() == [f"listening: http://127.0.0.1:{ports[2]}"]


def test_paths_are_relative_to_the_file(start, app, authority, local_pair, folder):
    inner = folder / "inner"
    inner.mkdir()
    (inner / "cert.pem").write_bytes(local_pair.cert.read_bytes())
    (inner / "key.pem").write_bytes(local_pair.key.read_bytes())
    (inner / "ca.pem").write_bytes(authority.cert.read_bytes())
    (inner / "www").mkdir()
    (inner / "www" / "a.txt").write_text("from the folder\n")
    write(inner, "secret", "the-secret\n")
    port, tls_port = free_port(), free_port()
    path = write(inner, "server.yml", f"""
listen: 127.0.0.1:{port}
tls-listen: 127.0.0.1:{tls_port}
certificates:
  - cert: cert.pem
    key: key.pem
token-file: secret
access-log: access.log
""")
    proc = start.program(SERVER_BIN, ["--config", path], cwd="/")
    proc.wait_line("^listening: ", count=2)
    server = Server(proc, "localhost", "the-secret", port, tls_port)
    path = write(inner, "tunnel.yml", f"""
server: wss://localhost:{tls_port}
ca: ca.pem
token-file: secret
tunnels:
  web: {{type: http, to: {app.where}, subdomain: web}}
  sock: {{type: http, to: "unix:app.sock", subdomain: sock}}
  www: {{type: files, to: www, subdomain: www}}
""")
    start.node("--unix", inner / "app.sock")
    run_start(start, "--config", path, cwd="/", wait=3)
    assert server.status("/hello", "web") == 200
    assert server.status("/hello", "sock") == 200
    assert server.get("/a.txt", "www").body == b"from the folder\n"
    eventually(lambda: "/a.txt" in (inner / "access.log").read_text(), "a line in the log")


# -- many tunnels -----------------------------------------------------------------------------------

def test_many_tunnels_of_many_kinds(start, port_edge, app, folder):
    path = write(folder, "tunnel.yml", f"""
server: {port_edge.link}
token: {port_edge.token}
tunnels:
  web:
    type: http
    to: {app.where}
    subdomain: [many-one, many-two]
    host-header: rewritten.example
  ssh: {{type: tcp, to: {app.where}}}
  dns: {{type: udp, to: 5353}}
""")
    client = run_start(start, "--config", path, wait=4)
    lines = client.proc.out()
    assert f"public: http://many-one.localhost:{port_edge.port} -> {app.where}" in lines
    assert f"public: http://many-two.localhost:{port_edge.port} -> {app.where}" in lines
    tcp = client.proc.wait_line(r"^public: tcp://[^ ]*:(\d+) -> ", kind="out")
    assert client.proc.wait_line(r"^public: udp://[^ ]*:(\d+) -> 5353$", kind="out")
    for label in ("many-one", "many-two"):
        assert port_edge.status("/hello", label) == 200
    client.proc.wait_line(r"^\d\d:\d\d:\d\d web GET /hello 200 ", kind="out", count=2)
    with dial("127.0.0.1", int(tcp[1])) as conn:
        assert conn.fetch("GET", "/hello", "x").status == 200
    client.proc.wait_line(r"^\d\d:\d\d:\d\d ssh tcp 127\.0\.0\.1 \d+ in \d+ out ", kind="out")


def test_only_the_tunnels_that_are_named(start, edge, app, folder):
    path = write(folder, "tunnel.yml", "tunnels:\n" + "".join(
        f"  {n}: {{type: http, to: {app.where}, subdomain: only-{n}}}\n" for n in "abc"))
    run_start(start, "a", "c", "--config", path, server=edge, wait=2)
    assert [edge.status("/hello", f"only-{n}") for n in "abc"] == [200, 404, 200]
    proc = start.program(CLIENT_BIN, ["start", "a", "x", "--config", path, "--server", edge.link])
    assert "'x'" in mistakes(proc, path)[0]


def test_one_that_fails_leaves_the_others(start, app, folder):
    server = start.server("--token", "second-credential", "--hold", "0")
    holder = start.client(server, app, subdomain="taken", token="second-credential")
    path = write(folder, "tunnel.yml", "tunnels:\n" + "".join(
        f"  {n}: {{type: http, to: {app.where}, subdomain: {n}}}\n" for n in ("taken", "free")))
    client = run_start(start, "--config", path, server=server)
    said = client.proc.wait_line("NAME_TAKEN", kind="err").string
    assert "taken" in said and "others" not in client.label()
    assert server.status("/hello", "free") == 200
    assert client.proc.alive()
    # What failed is tried again when the file is read again.
    assert holder.proc.stop() == 0
    client.proc.deliver(signal.SIGHUP)
    client.proc.wait_line("^public: http://taken", kind="out")
    # And when nothing is left, it ends.
    last = start.client(server, app, subdomain="last", token="second-credential")
    path.write_text(one_tunnel(app, "last"))
    client.proc.deliver(signal.SIGHUP)
    assert client.proc.wait() == 1
    assert last.proc.alive()


# -- SIGHUP at the client -----------------------------------------------------------------------------

def tunnels(**kinds):
    return "tunnels:\n" + "".join(f"  {label}: {{{keys}}}\n" for label, keys in kinds.items())


def test_sighup_changes_what_has_changed_alone(start, app, folder):
    server = start.server()
    other = start.node()

    def http(to, label):
        return f"type: http, to: {to.where}, subdomain: {label}"
    path = write(folder, "tunnel.yml", tunnels(
        stays=http(app, "stays"), moves=http(app, "moves"), goes=http(app, "goes")))
    client = run_start(start, "--config", path, server=server, wait=3)
    with server.dial() as visitor:
        visitor.request("GET", "/stall?id=sighup", server.name("stays"))
        assert visitor.read_head().status == 200
        assert visitor.read_exactly(4) == b"some"
        path.write_text(tunnels(
            comes=http(app, "comes"), moves=http(other, "moves"),
            stays=f"subdomain: stays, to: {app.where}, type: http"))  # in another order
        client.proc.deliver(signal.SIGHUP)
        assert "2 new, 2 gone, 1 as before" in client.proc.wait_line("read again", kind="err").string
        eventually(lambda: server.status("/hello", "comes") == 200, "the new one")
        eventually(lambda: server.status("/hello", "goes") == 404, "the removed one is gone")
        before = other.stats()["requests"]
        eventually(lambda: server.status("/hello", "moves") == 200, "the changed one")
        assert other.stats()["requests"] > before
        assert visitor.is_quiet()  # its stream has lived through all that
    assert sum("public: http://stays" in line for line in client.proc.out()) == 1
    assert client.proc.alive()


def test_sighup_changes_what_stands_behind_a_port(start, app, folder):
    first = free_range(2)
    server = start.server("--tcp-ports", f"{first}-{first + 1}")
    other = start.node()
    text = "tunnels:\n  a: {{type: tcp, to: {}, remote-port: {}}}\n  b: {{type: tcp, to: {}}}\n"
    path = write(folder, "tunnel.yml", text.format(app.where, first, app.where))
    client = run_start(start, "--config", path, server=server, wait=2)
    with dial("127.0.0.1", first + 1) as kept:
        assert kept.fetch("GET", "/hello", "x").status == 200
        for to in (other, app, other):
            before = to.stats()["requests"]
            path.write_text(text.format(to.where, first, app.where))
            client.proc.deliver(signal.SIGHUP)

            def moved(to=to, before=before):
                with dial("127.0.0.1", first) as conn:
                    conn.fetch("GET", "/hello", "x")
                return to.stats()["requests"] > before
            eventually(moved, "the port leads elsewhere")
        assert kept.fetch("GET", "/hello", "x").status == 200
    assert client.proc.alive()


def test_sighup_with_mistakes_changes_nothing(start, app, folder):
    server = start.server()
    path = write(folder, "tunnel.yml", one_tunnel(app, "demo"))
    client = run_start(start, "--config", path, server=server)
    for bad in ("tunnels: [\n", "tunnels: {demo: {type: http, to: 1, bogus: 2}}\n", "", None):
        said = len(client.proc.err())
        if bad is None:
            path.unlink()
        else:
            path.write_text(bad)
        client.proc.deliver(signal.SIGHUP)
        eventually(lambda n=said: any("stays as it was" in line for line in client.proc.err()[n:]),
                   "a word about it")
        assert any(line.startswith(str(path)) for line in client.proc.err()[said:])
        assert server.status("/hello") == 200
    write(folder, "tunnel.yml", one_tunnel(app, "again"))
    client.proc.deliver(signal.SIGHUP)
    eventually(lambda: server.status("/hello", "again") == 200, "the good file")


def test_sighup_with_another_server_connects_anew(start, app, folder):
    first, second = start.server(), start.server()

    def text(server):
        return f"server: {server.link}\ntoken: {server.token}\n" + one_tunnel(app, "demo")
    path = write(folder, "tunnel.yml", text(first))
    client = run_start(start, "--config", path)
    assert first.status("/hello") == 200
    for server, old in ((second, first), (first, second)):
        path.write_text(text(server))
        client.proc.deliver(signal.SIGHUP)
        client.proc.wait_line("connecting anew", kind="err")
        eventually(lambda s=server: s.status("/hello") == 200, "the tunnel at the other server")
        eventually(lambda s=old: s.status("/hello") in (404, 503), "it has left the first")
    assert client.proc.alive()


def test_sighup_with_another_list_of_servers_connects_anew(start, app, folder):
    token = "of-both-servers"
    first, second = start.server(token=token), start.server(token=token)

    def text(*servers):
        links = ", ".join(server.link for server in servers)
        return f"server: [{links}]\ntoken: {token}\n" + one_tunnel(app, "demo")
    path = write(folder, "tunnel.yml", text(first))
    client = run_start(start, "--config", path)
    assert first.status("/hello") == 200
    path.write_text(text(second, first))
    client.proc.deliver(signal.SIGHUP)
    client.proc.wait_line("connecting anew", kind="err")
    client.proc.wait_line(f"^connected to {second.link}$", kind="err")
    eventually(lambda: second.status("/hello") == 200, "the new one")
    eventually(lambda: first.status("/hello") == 404, "the old one is left")
    # The same servers in another notation are the same.
    path.write_text(text(second, first).replace("[", "'").replace("]", "'"))
    client.proc.deliver(signal.SIGHUP)
    client.proc.wait_line("0 new, 0 gone, 1 as before", kind="err")


def test_many_sighups_in_a_row(start, app, folder):
    servers = [start.server(), start.server()]
    path = folder / "tunnel.yml"

    def put(i):
        server = servers[i % 2]
        write(folder, "tunnel.yml", f"server: {server.link}\ntoken: {server.token}\n"
              + one_tunnel(app, f"n{i}"))
    put(0)
    client = run_start(start, "--config", path)
    for i in range(1, 30):
        put(i)
        client.proc.deliver(signal.SIGHUP)
    eventually(lambda: servers[1].status("/hello", "n29") == 200, "the last one counts")
    assert client.proc.stop() == 0


def test_sighup_takes_a_changed_certificate_file(start, authority, folder, app):
    """The names of the files are the same: what is in them counts."""
    server = start.server()
    upstream_ca = folder / "ca.pem"
    upstream_ca.write_bytes(authority.cert.read_bytes())
    path = write(folder, "tunnel.yml", tunnels(
        a="type: http, to: 'https://localhost:1', subdomain: a, upstream-ca: ca.pem",
        b=f"type: http, to: {app.where}, subdomain: b"))
    client = run_start(start, "--config", path, server=server, wait=2)
    client.proc.deliver(signal.SIGHUP)
    client.proc.wait_line("0 new, 0 gone, 2 as before", kind="err")
    upstream_ca.write_bytes(authority.cert.read_bytes() + b"\n")
    client.proc.deliver(signal.SIGHUP)
    client.proc.wait_line("1 new, 1 gone, 1 as before", kind="err")


# -- SIGHUP at the server -----------------------------------------------------------------------------

def test_sighup_at_the_server(start, app, folder):
    port = free_port()
    first = free_range(4)

    def put(tokens, ports, extra=""):
        write(folder, "server.yml", f"listen: 127.0.0.1:{port}\ntokens: {tokens}\n"
              f"tcp-ports: {ports}\naccess-log: {folder}/access.log\n{extra}")
    put("[one, two]", f"{first}-{first}")
    proc = start.program(SERVER_BIN, ["--config", folder / "server.yml"])
    proc.wait_line("^listening: ")
    server = Server(proc, "localhost", "one", port)
    start.client(server, app, subdomain="one")
    two = start.client(server, app, subdomain="two", token="two")
    with server.dial() as visitor:
        visitor.request("GET", "/stall?id=reload", server.name("one"))
        assert visitor.read_head().status == 200
        assert visitor.read_exactly(4) == b"some"
        # Something wrong: all stays, and the access log is turned over all the same.
        put("[one, [two]]", "none")
        (folder / "access.log").rename(folder / "access.old")
        proc.deliver(signal.SIGHUP)
        proc.wait_line("everything stays as it was", kind="err")
        assert server.status("/hello", "two") == 200
        eventually(lambda: "/hello" in (folder / "access.log").read_text(), "a new access log")
        # A token less, other ports.
        put("[one, three]", f"{first + 1}-{first + 3}")
        proc.deliver(signal.SIGHUP)
        assert two.proc.wait() == 1  # its token is gone
        three = start.client(server, app, subdomain="three", token="three")
        assert server.status("/hello", "three") == 200
        assert start.tcp(server, app.where, token="three").port in range(first + 1, first + 4)
        # What needs a restart is named; the rest is taken.
        put("[one, four]", "none", "domain: other.test\npath-routing: true\n")
        proc.deliver(signal.SIGHUP)
        proc.wait_line("domain, routing by path .*restart", kind="err")
        assert three.proc.wait() == 1
        start.client(server, app, subdomain="four", token="four")
        assert visitor.is_quiet()
    assert server.status("/hello", "one") == 200


def test_a_made_token_outlives_sighup(start, app):
    port = free_port()
    proc = start.program(SERVER_BIN, ["--listen", f"127.0.0.1:{port}"])
    token = proc.wait_line("^token: (.*)$")[1]
    server = Server(proc, "localhost", token, port)
    client = start.client(server, app)
    proc.deliver(signal.SIGHUP)
    proc.wait_line("read again", kind="err")
    assert server.status("/hello") == 200 and client.proc.alive()
    start.client(server, app, subdomain="another")
    assert len([line for line in proc.out() if line.startswith("token: ")]) == 1


# -- the examples -------------------------------------------------------------------------------------

def test_the_examples_are_good(start, folder, local_pair):
    from harness import ROOT
    examples = ROOT / "examples"
    text = (examples / "tunnel.yml").read_text()
    (folder / "public").mkdir()
    write(folder, "token", "abc\n")
    for name, source in (("cert.pem", local_pair.cert), ("key.pem", local_pair.key)):
        (folder / name).write_bytes(source.read_bytes())
    proc = check(start, CLIENT_BIN, write(folder, "tunnel.yml", text))
    assert proc.wait() == 0, proc.transcript()
    proc = check(start, SERVER_BIN,
                 write(folder, "server.yml", (examples / "server.yml").read_text()))
    assert proc.wait() == 0, proc.transcript()
