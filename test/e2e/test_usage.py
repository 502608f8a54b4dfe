# SPDX-License-Identifier: Apache-2.0
"""Bad command lines: one line that says what and how to mend it, exit 2; nothing started."""

import pytest

from harness import CLIENT_BIN, SERVER_BIN
from harness.net import free_port


def one_line(proc, code, *words):
    assert proc.wait() == code, proc.transcript()
    assert proc.out() == [], proc.transcript()
    err = proc.err()
    assert len(err) == 1, proc.transcript()
    assert 10 < len(err[0]) < 1000
    for word in words:
        assert word.lower() in err[0].lower(), err[0]


SERVER_OK = {"--listen": "127.0.0.1:{port}", "--domain": "localhost", "--token": "a-good-token-1"}
CLIENT_OK = {"--server": "ws://127.0.0.1:{port}", "--subdomain": "demo",
             "--token": "a-good-token-1"}


def argv(base, changes):
    """base with these changes; None leaves an option out, True gives it without a value."""
    merged = {**base, **changes}
    port = free_port()
    out = []
    for name, value in merged.items():
        if value is None:
            continue
        out.append(name)
        if value is not True:
            out.append(str(value).format(port=port))
    return out


@pytest.mark.parametrize("changes, words", [
    ({"--bogus": True}, ["--bogus"]),
    ({"--bogus": "value"}, ["--bogus"]),
    ({"-z": True}, ["-z"]),
    ({"extra": True}, ["extra"]),
    ({"--access-log": True}, ["--access-log"]),  # the last one, without its value
    ({"--listen": "nonsense"}, ["nonsense"]),
    ({"--listen": "127.0.0.1"}, ["127.0.0.1"]),
    ({"--listen": "127.0.0.1:"}, ["127.0.0.1:"]),
    ({"--listen": "127.0.0.1:99999"}, ["99999"]),
    ({"--listen": "127.0.0.1:80x"}, ["80x"]),
    ({"--listen": "127.0.0.1:-1"}, ["-1"]),
    ({"--listen": "300.0.0.1:80"}, ["300.0.0.1"]),
    ({"--listen": "[::1:80"}, ["[::1:80"]),
    ({"--listen": "::1:80:"}, ["::1"]),
    ({"--listen": ""}, ["--listen"]),
    ({"--domain": "not a domain"}, ["not a domain"]),
    ({"--domain": "-bad.example"}, ["-bad"]),
    ({"--domain": "bad-.example"}, ["bad-"]),
    ({"--domain": "under_score.example"}, ["under_score"]),
    ({"--domain": "a..b"}, ["a..b"]),
    ({"--domain": "x" * 64 + ".example"}, ["domain"]),
    ({"--domain": ".".join(["abcdefgh"] * 40)}, ["domain"]),
    ({"--domain": ""}, ["--domain"]),
    ({"--domain": "http://example.com"}, ["http://example.com"]),
    ({"--tls-listen": "127.0.0.1:{port}"}, ["--tls-cert"]),
    ({"--tls-cert": "/nowhere.pem"}, ["--tls-key"]),
    ({"--tls-key": "/nowhere.key"}, ["--tls-cert"]),
    ({"--tls-listen": "nonsense", "--tls-cert": "/x", "--tls-key": "/x"}, ["nonsense"]),
    ({"--public-url": "ftp://example.com"}, ["ftp"]),
    ({"--public-url": "nonsense"}, ["nonsense"]),
    ({"--public-url": "https://"}, ["https://"]),
    ({"--token": ""}, ["--token"]),
    ({"--grace": "-1"}, ["--grace", "3600"]),
    ({"--grace": "1e1"}, ["--grace", "3600"]),
    ({"--hold": "86401"}, ["--hold", "86400"]),
    ({"--hold": "five"}, ["--hold", "86400"]),
    ({"--hold": ""}, ["--hold", "86400"]),
    ({"--drain-delay": "3600.1"}, ["--drain-delay", "3600"]),
    ({"--drain-delay": "-1"}, ["--drain-delay", "3600"]),
    ({"--drain-timeout": "1,5"}, ["--drain-timeout", "86400"]),
    ({"--drain-timeout": "100000"}, ["--drain-timeout", "86400"]),
    ({"--drain-timeout": "nan"}, ["--drain-timeout", "86400"]),
    ({"--state": "x" * 600}, ["--state"]),
])
def test_server_usage(start, changes, words):
    one_line(start.program(SERVER_BIN, argv(SERVER_OK, changes)), 2, *words)


@pytest.mark.parametrize("args, words", [
    ([], []),
    (["http"], []),
    (["bogus", "3000"], ["bogus"]),
    (["3000"], ["3000"]),
    (["http", "3000", "4000"], ["one"]),
    (["http", "0"], ["0"]),
    (["http", "65536"], ["65536"]),
    (["http", "-1"], ["-1"]),
    (["http", "80x"], ["80x"]),
    (["http", "host:"], ["host:"]),
    (["http", "host:0"], ["host:0"]),
    (["http", ":80x"], [":80x"]),
    (["http", "unix:"], ["unix:"]),
    (["http", "unix:" + "/long" * 40], ["socket", "/long"]),
    (["http", "ftp://localhost:21"], ["ftp"]),
    (["http", "https://"], ["https://"]),
    (["http", "[::1:80"], ["[::1:80"]),
    (["http", ""], []),
])
def test_client_upstream_usage(start, args, words):
    one_line(start.program(CLIENT_BIN, args + argv(CLIENT_OK, {})), 2, *words)


@pytest.mark.parametrize("changes, words", [
    ({"--bogus": True}, ["--bogus"]),
    ({"--proxy": True}, ["--proxy"]),
    ({"--server": None}, ["--server"]),
    ({"--server": "nonsense://x"}, ["nonsense"]),
    ({"--server": "ws://"}, ["ws://"]),
    ({"--server": "ws://127.0.0.1:99999"}, ["99999"]),
    ({"--server": "ws://127.0.0.1:x"}, [":x"]),
    ({"--server": "ws://a b"}, ["a b"]),
    ({"--server": "wss://a,"}, ["--server", "''"]),
    ({"--server": "wss://a,nonsense"}, ["--server", "nonsense"]),
    ({"--server": "wss://a,wss://b, wss://a:443"}, ["--server", "wss://a:443", "twice"]),
    ({"--server": "wss://a,ws://192.0.2.1"}, ["ws://192.0.2.1", "--insecure"]),
    ({"--server": ",".join(f"wss://s{i}" for i in range(9))}, ["--server", "8"]),
    ({"--subdomain": "Not A Label"}, ["Not A Label"]),
    ({"--subdomain": "-demo"}, ["-demo"]),
    ({"--subdomain": "demo-"}, ["demo-"]),
    ({"--subdomain": "de_mo"}, ["de_mo"]),
    ({"--subdomain": "a.b"}, ["a.b"]),
    ({"--subdomain": "x" * 64}, ["63"]),
    ({"--subdomain": ""}, ["--subdomain"]),
    ({"--subdomain": "caf\u00e9"}, ["label"]),
    ({"--proxy": "socks5://127.0.0.1:1080"}, ["--proxy", "http://"]),
    ({"--proxy": "nonsense"}, ["--proxy"]),
    ({"--instance": "xyz"}, ["xyz"]),
    ({"--instance": "ab" * 40}, ["--instance"]),
    ({"--host-header": "evil\r\nX-Injected: 1"}, ["--host-header"]),
    ({"--host-header": "two words"}, ["two words"]),
    ({"--drain-timeout": "-1"}, ["--drain-timeout", "86400"]),
    ({"--drain-timeout": "86401"}, ["--drain-timeout", "86400"]),
    ({"--drain-timeout": "soon"}, ["--drain-timeout", "86400"]),
])
def test_client_usage(start, changes, words):
    one_line(start.program(CLIENT_BIN, ["http", "3000"] + argv(CLIENT_OK, changes)), 2, *words)


def test_bad_values_in_the_environment(start):
    proc = start.program(SERVER_BIN, argv({**SERVER_OK, "--listen": None}, {}),
                         env={"TUNNEL_LISTEN": "nonsense"})
    one_line(proc, 2, "nonsense")
    proc = start.program(CLIENT_BIN,
                         ["http", "3000"] + argv({**CLIENT_OK, "--subdomain": None}, {}),
                         env={"TUNNEL_SUBDOMAIN": "Not A Label"})
    one_line(proc, 2, "Not A Label")
    proc = start.program(CLIENT_BIN, ["http", "3000"] + argv({**CLIENT_OK, "--server": None}, {}),
                         env={"TUNNEL_SERVER": "wss://a,,wss://b,nonsense"})
    one_line(proc, 2, "TUNNEL_SERVER", "nonsense")


def test_a_proxy_of_the_environment_for_some_servers_only(start):
    """One way out serves all servers: which one is right must be said."""
    servers = {"--server": "wss://a.example.org,wss://b.example.org"}
    env = {"HTTPS_PROXY": "http://127.0.0.1:1", "NO_PROXY": "b.example.org"}
    proc = start.program(CLIENT_BIN, ["http", "3000"] + argv(CLIENT_OK, servers), env=env)
    one_line(proc, 2, "HTTPS_PROXY", "wss://a.example.org", "wss://b.example.org", "--proxy")
    for choice in ("http://127.0.0.1:1", ""):
        proc = start.program(CLIENT_BIN, ["http", "3000"] + argv(CLIENT_OK, {
            **servers, "--proxy": choice}), env=env)
        proc.wait_line("no tunnel through wss://[ab].example.org", kind="err")


def test_unreadable_ca_is_exit_1(start, folder):
    junk = folder / "junk.pem"
    junk.write_text("nothing")
    for path in (folder / "missing.pem", junk):
        proc = start.program(CLIENT_BIN, ["http", "3000"] + argv(
            CLIENT_OK, {"--server": "wss://127.0.0.1:{port}", "--ca": path}))
        one_line(proc, 1, str(path))


def test_unwritable_access_log_is_exit_1(start, folder):
    proc = start.program(SERVER_BIN, argv(SERVER_OK, {"--access-log": folder / "no" / "log"}))
    one_line(proc, 1, str(folder / "no" / "log"))


def test_address_of_another_machine_is_exit_1(start):
    proc = start.program(SERVER_BIN, argv(SERVER_OK, {"--listen": "192.0.2.1:8080"}))
    one_line(proc, 1, "192.0.2.1")


@pytest.mark.parametrize("program, options", [
    (SERVER_BIN, ["--listen", "--tls-listen", "--tls-cert", "--tls-key", "--domain", "--token",
                  "--public-url", "--access-log"]),
    (CLIENT_BIN, ["--server", "--token", "--subdomain", "--host-header", "--quiet", "--ca",
                  "--insecure", "--proxy", "--force", "--instance", "http"]),
])
def test_help_names_every_option(start, program, options):
    proc = start.program(program, ["--help"])
    assert proc.wait() == 0 and proc.err() == []
    for option in options:
        assert option in proc.text("out"), option


@pytest.mark.parametrize("program", [SERVER_BIN, CLIENT_BIN])
def test_version(start, program):
    proc = start.program(program, ["--version"])
    assert proc.wait() == 0 and len(proc.out()) == 1
    assert any(c.isdigit() for c in proc.out()[0])


def test_equals_form_of_options(start, app):
    port = free_port()
    server = start.program(SERVER_BIN, [f"--listen=127.0.0.1:{port}", "--domain=localhost",
                                        "--token=a-good-token-1"])
    server.wait_line("^listening: ")
    client = start.program(CLIENT_BIN, ["http", f"--server=ws://127.0.0.1:{port}", str(app.port),
                                        "--token=a-good-token-1", "--subdomain=equals"])
    assert client.wait_line("^public: (.*)$")[1] == f"http://equals.localhost:{port}"
