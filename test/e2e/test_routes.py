# SPDX-License-Identifier: Apache-2.0
"""Where requests go: by path, by wildcard, by custom domain, by port; and who may have what."""

import http.server
import json
import re
import threading

import pytest

from harness import eventually


class Says(http.server.BaseHTTPRequestHandler):
    """Answers every request with what it saw, under the name of its server."""
    protocol_version = "HTTP/1.1"

    def do_GET(self):  # pylint: disable=invalid-name
        seen = {"who": self.server.who, "target": self.requestline.split()[1], "headers": self.headers.items()}
        body = json.dumps(seen).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_OPTIONS = do_GET

    def log_message(self, *_args):  # pylint: disable=arguments-differ
        pass


class Service(http.server.ThreadingHTTPServer):
    """A connection that ends with the test is nothing to tell."""
    daemon_threads = True
    who = None

    def handle_error(self, request, client_address):
        pass


def say(start, who, port=0):
    """A service that answers with its name and the request; its port."""
    server = Service(("127.0.0.1", port), Says)
    server.who = who
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    class Closer:  # pylint: disable=too-few-public-methods
        """Ends with the test."""
        @staticmethod
        def close():
            server.shutdown()
            server.server_close()
            thread.join()
    start.keep(Closer)
    return server.server_address[1]


def ask(server, target, host, **kw):
    """What the service that answers saw; or the status when none does."""
    got = server.get(target, host=host, **kw)
    return json.loads(got.body) if got.status == 200 else got.status


def who(server, target, host, **kw):
    seen = ask(server, target, host, **kw)
    return seen["who"] if isinstance(seen, dict) else seen


def header(seen, name):
    return [v for n, v in seen["headers"] if n.lower() == name.lower()]


# -- by path --------------------------------------------------------------------------------------

@pytest.fixture(name="paths", scope="session")
def _paths(session_start):
    server = session_start.server("--path-routing")
    names = {"demo": ["--subdomain", "demo"], "idonly": ["--path-id", "Id_~1.%2F-x"],
             "other": ["--subdomain", "other"], "root": ["--subdomain", "@"]}
    server.publics = {}
    for name, args in names.items():
        client = session_start.client(server, say(session_start, name), "--quiet", *args,
                                      subdomain=None)
        server.publics[name] = client.public()
    return server


def test_the_public_url_is_told(paths):
    base = f"http://localhost:{paths.port}"
    assert paths.publics == {"demo": f"{base}/demo/", "idonly": f"{base}/Id_~1.%2F-x/",
                             "other": f"{base}/other/", "root": base}


@pytest.mark.parametrize("target, seen", [
    ("/demo/", "/"), ("/demo", "/"), ("/demo?x=1", "/?x=1"), ("/demo/?x=1", "/?x=1"),
    ("/demo/rest?x=1", "/rest?x=1"), ("/demo/a/b/c", "/a/b/c"), ("/demo//", "//"),
    ("/demo/demo/", "/demo/"), ("/demo/%2e%2e/%41?%20=%zz", "/%2e%2e/%41?%20=%zz"),
    ("/demo/../x", "/../x"), ("/demo/./x", "/./x"), ("/demo/other?/x", "/other?/x"),
    ("/demo/a;b=c/d", "/a;b=c/d"), ("/demo/?", "/?"), ("/demo?", "/?"), ("/demo/a?b?c", "/a?b?c"),
    ("/demo/" + "x" * 4000, "/" + "x" * 4000)])
def test_the_id_is_stripped_and_nothing_else(paths, target, seen):
    got = ask(paths, target, f"localhost:{paths.port}")
    assert (got["who"], got["target"]) == ("demo", seen)
    assert header(got, "x-forwarded-prefix") == ["/demo"]


def test_an_id_of_every_allowed_character(paths):
    got = ask(paths, "/Id_~1.%2F-x/rest", "localhost")
    assert (got["who"], got["target"]) == ("idonly", "/rest")
    assert header(got, "x-forwarded-prefix") == ["/Id_~1.%2F-x"]


@pytest.mark.parametrize("target", [
    "/", "/?demo", "/nobody/x", "/Demo/", "/demo%2F", "/%64emo/", "//demo/", "/demo;x/", "/demox/",
    "/dem/", "/id_~1.%2F-x/", "/Id_~1.%2f-x/", "/./demo/", "/../demo/", "/?/demo/", "/@/", "/*/"])
def test_what_is_no_id_goes_to_the_root(paths, target):
    got = ask(paths, target, "localhost")
    assert (got["who"], got["target"]) == ("root", target)
    assert header(got, "x-forwarded-prefix") == []


def test_without_a_tunnel_at_the_root_an_unknown_id_is_404(start):
    server = start.server("--path-routing")
    start.client(server, say(start, "demo"), "--quiet")
    assert who(server, "/demo/", "localhost") == "demo"
    got = server.get("/nobody/x?y", host="localhost")
    assert got.status == 404
    assert b"localhost/nobody" in got.body
    assert server.get("/", host="localhost").status == 404
    assert server.get("/__tunnel__/demo", host="localhost").status == 404


def test_the_name_works_by_host_too(paths):
    got = ask(paths, "/demo/x", f"demo.localhost:{paths.port}")
    assert (got["who"], got["target"]) == ("demo", "/demo/x")
    assert header(got, "x-forwarded-prefix") == []
    assert who(paths, "/demo/x", "nobody.localhost") == 404
    assert who(paths, "/demo/x", "example.com") == 404


def test_the_prefix_cannot_be_forged(paths):
    for name in ("X-Forwarded-Prefix", "x_forwarded_prefix", "X-forwarded_Prefix"):
        got = ask(paths, "/demo/", "localhost", headers=[(name, "/evil")])
        assert header(got, "x-forwarded-prefix") == ["/demo"]
        assert "/evil" not in json.dumps(got)
        got = ask(paths, "/", "localhost", headers=[(name, "/evil")])
        assert "/evil" not in json.dumps(got)


def test_absolute_form_and_options(paths):
    with paths.dial() as conn:
        conn.send("GET http://localhost/demo/x?y HTTP/1.1\r\nHost: other.localhost\r\n\r\n")
        seen = json.loads(conn.read_response().body)
        assert (seen["who"], seen["target"]) == ("demo", "/x?y")
    got = ask(paths, "*", "localhost", method="OPTIONS")
    assert (got["who"], got["target"]) == ("root", "*")


def test_requests_of_one_connection_go_each_its_way(paths):
    with paths.dial() as conn:
        order = ["demo", "other", "demo", "other"]
        conn.send("".join(f"GET /{name}/p HTTP/1.1\r\nHost: localhost\r\n\r\n" for name in order))
        for name in order:
            seen = json.loads(conn.read_response().body)
            assert (seen["who"], seen["target"]) == (name, "/p")


def test_a_path_id_needs_a_server_that_routes_by_path(start, edge):
    client = start.client(edge, 1, "--path-id", "x", subdomain=None, wait=False)
    assert client.proc.wait(10) == 1
    assert "--path-routing" in client.proc.text("err")


@pytest.mark.parametrize("bad", ["", "a/b", "a b", "ä", ".", "..", "a?b", "__tunnel__", "x" * 129])
def test_bad_path_ids_are_usage_errors(start, paths, bad):
    client = start.client(paths, 1, "--path-id", bad, subdomain=None, wait=False)
    assert client.proc.wait(10) in (1, 2)
    assert len(client.proc.err()) == 1


def test_an_id_is_its_account_s_alone(start):
    server = start.server("--path-routing", "--token", "one", "--token", "two")
    start.client(server, say(start, "a"), subdomain="mine", token="one")
    start.client(server, say(start, "b"), "--path-id", "yours", subdomain=None, token="two")
    for args, subdomain, token in ((["--path-id", "mine"], None, "two"), ([], "yours", "one"),
                                   (["--path-id", "yours", "--force"], None, "one")):
        client = start.client(server, 1, *args, subdomain=subdomain, token=token, wait=False)
        assert client.proc.wait(10) == 1
        assert "NAME_TAKEN" in client.proc.text("err")
    # The same account may have both; the id that was asked for goes first.
    start.client(server, say(start, "c"), "--path-id", "mine", subdomain=None, token="one")
    assert who(server, "/mine/", "localhost") == "c"
    assert who(server, "/", "mine.localhost") == "a"


# -- wildcards ------------------------------------------------------------------------------------

def test_wildcards(start):
    server = start.server()
    start.client(server, say(start, "wild"), subdomain="*.demo")
    assert who(server, "/", "x.demo.localhost") == "wild"
    assert who(server, "/", "X.Y.Demo.LocalHost.:80") == "wild"
    assert who(server, "/", "p8080.demo.localhost") == "wild"
    for host in ("demo.localhost", "xdemo.localhost", "x.localhost", "x.demo.example.com"):
        assert who(server, "/", host) == 404, host
    start.client(server, say(start, "exact"), subdomain="demo")
    assert who(server, "/", "demo.localhost") == "exact"
    assert who(server, "/", "x.demo.localhost") == "wild"


def test_nobody_gets_names_below_another_one_s(start):
    server = start.server("--token", "one", "--token", "two")
    start.client(server, say(start, "a"), subdomain="demo", token="one")
    start.client(server, say(start, "b"), subdomain="*.wild", token="two")
    for subdomain, token in (("*.demo", "two"), ("wild", "one"), ("*.wild", "one")):
        client = start.client(server, 1, "--force", subdomain=subdomain, token=token, wait=False)
        assert client.proc.wait(10) == 1
        assert "NAME_TAKEN" in client.proc.text("err")


# -- domains --------------------------------------------------------------------------------------

def test_custom_domains(start):
    server = start.server("--allow-domain", "app.example.org", "--allow-domain", "*.example.net")
    client = start.client(server, say(start, "app"), "--domain", "App.Example.org", subdomain=None)
    assert client.public() == f"http://app.example.org:{server.port}"
    start.client(server, say(start, "net"), "--domain", "*.example.net", subdomain=None)
    start.client(server, say(start, "one"), "--domain", "one.example.net", subdomain=None)
    assert who(server, "/", "app.example.org") == "app"
    assert who(server, "/", "APP.example.org.:80") == "app"
    assert who(server, "/", "x.example.net") == "net"
    assert who(server, "/", "one.example.net") == "one"
    for host in ("example.org", "x.app.example.org", "example.net", "app.example.org.localhost"):
        assert who(server, "/", host) == 404, host


@pytest.mark.parametrize("domain, code, words", [
    ("other.example.org", 1, "--allow-domain"),
    ("x.app.example.org", 1, "--allow-domain"),
    ("*.app.example.org", 1, "--allow-domain"),
    ("demo.localhost", 1, "own domain"),
    ("*.x.localhost", 1, "own domain"), ("*.localhost", 2, "domain"),
    ("a..b", 2, "domain"), ("-a.example.org", 2, "domain"), ("a_b.example.org", 2, "domain"),
    ("192.0.2.1", 2, "domain"), ("exa mple.org", 2, "domain"), ("nodots", 2, "domain"),
    ("a.*.example.org", 2, "domain"), ("*", 2, "domain"), ("", 2, "domain"),
    ("x." * 130 + "org", 2, "domain")])
def test_refused_domains(start, domain, code, words):
    server = start.server("--allow-domain", "app.example.org")
    client = start.client(server, 1, "--domain", domain, subdomain=None, wait=False)
    assert client.proc.wait(10) == code, client.proc.transcript()
    assert len(client.proc.err()) == 1
    assert words in client.proc.text("err")


def test_a_custom_domain_is_its_account_s_alone(start):
    server = start.server("--token", "one", "--token", "two", "--allow-domain", "*")
    start.client(server, say(start, "a"), "--domain", "app.example.org", subdomain=None,
                 token="one")
    client = start.client(server, 1, "--force", "--domain", "app.example.org", subdomain=None,
                          token="two", wait=False)
    assert client.proc.wait(10) == 1
    assert "NAME_TAKEN" in client.proc.text("err")


@pytest.mark.parametrize("bad", ["", "x", "*.", "a b.c", "*.*.org", "1.2.3.4", "http://a.b"])
def test_bad_patterns_of_domains(start, bad):
    server = start.server("--allow-domain", bad, wait=False)
    assert server.proc.wait(10) == 2
    assert len(server.proc.err()) == 1 and "--allow-domain" in server.proc.text("err")


# -- several names --------------------------------------------------------------------------------

def test_several_names_of_one_client(start):
    server = start.server("--allow-domain", "*")
    client = start.client(server, say(start, "all"), "--subdomain", "one", "--subdomain", "two",
                          "--subdomain", "@", "--domain", "app.example.org", subdomain=None)
    urls = eventually(lambda: len(found := re.findall(r"^public: (\S+)", client.proc.text("out"),
                                                      re.M)) == 4 and found, "four URLs")
    assert sorted(urls) == sorted(f"http://{name}:{server.port}" for name in
                                  ("one.localhost", "two.localhost", "localhost",
                                   "app.example.org"))
    for host in ("one.localhost", "two.localhost", "localhost", "app.example.org"):
        assert who(server, "/", host) == "all"


# -- ports behind one client ----------------------------------------------------------------------

@pytest.fixture(name="behind", scope="session")
def _behind(session_start):
    """Two services behind one client that allows one of them and a port nobody listens on."""
    server = session_start.server()
    server.yes = say(session_start, "yes")
    server.no = say(session_start, "no")
    server.also = say(session_start, "also")
    client = session_start.program_client(
        server, ["ports", "--allow-ports", f"{server.yes},1,{server.also}"], subdomain="demo")
    server.told = client.public()
    return server


def test_ports_behind_a_client(behind):
    assert behind.told == f"http://pPORT.demo.localhost:{behind.port}"
    assert who(behind, "/x", f"p{behind.yes}.demo.localhost") == "yes"
    assert who(behind, "/x", f"P{behind.also}.DEMO.localhost.:80") == "also"
    # Kept connections to the service never answer for another port.
    for _ in range(3):
        assert who(behind, "/x", f"p{behind.yes}.demo.localhost") == "yes"
        assert who(behind, "/x", f"p{behind.also}.demo.localhost") == "also"


def test_ports_that_are_not_allowed(behind):
    got = behind.get("/", host=f"p{behind.no}.demo.localhost")
    assert got.status in (403, 502)
    assert b'"who"' not in got.body and b"--allow-ports" in got.body
    assert behind.get("/", host="p1.demo.localhost").status == 502


@pytest.mark.parametrize("host", [
    "demo.localhost", "p.demo.localhost", "p0.demo.localhost", "p65536.demo.localhost",
    "p99999999999999999999.demo.localhost", "p01.demo.localhost", "p1x.demo.localhost",
    "x.p1.demo.localhost", "p1.localhost", "p-1.demo.localhost",
    "p1.p1.demo.localhost"])
def test_names_that_are_no_ports(behind, host):
    assert behind.get("/", host=host).status == 404


@pytest.mark.parametrize("bad", ["", "none", "0", "65536", "9-8", "1,", ",1", "a", "1-", "-1",
                                 "1 2", "80-90-100", "1,,2"])
def test_bad_lists_of_ports(start, edge, bad):
    client = start.program_client(edge, ["ports", "--allow-ports", bad], wait=False)
    assert client.proc.wait(10) == 2
    assert len(client.proc.err()) == 1 and "ports" in client.proc.text("err")


def test_ports_need_a_list(start, edge):
    client = start.program_client(edge, ["ports"], wait=False)
    assert client.proc.wait(10) == 2
    assert "--allow-ports" in client.proc.text("err")


# -- a tunnel to itself ---------------------------------------------------------------------------

def test_a_loop_is_detected(start):
    server = start.server()
    # By another name of the same address, so that only the request itself can show it.
    client = start.client(server, f"127.0.0.1:{server.port}", "--subdomain", "loop",
                          subdomain=None)
    got = server.get("/", "loop")
    assert got.status == 508
    eventually(lambda: "the tunnel itself" in client.proc.text("err"), "the client's warning")
    assert server.get("/", "loop").status == 508
    assert client.proc.text("err").count("the tunnel itself") == 1


def test_a_loop_through_two_tunnels_is_detected(start):
    server = start.server()
    url = f"127.0.0.1:{server.port}"
    start.client(server, url, "--host-header", "b.localhost", subdomain="a")
    start.client(server, url, "--host-header", "a.localhost", subdomain="b")
    assert server.get("/", "a").status == 508


def test_a_service_that_is_another_tunnel_is_none(start):
    server = start.server()
    start.client(server, say(start, "end"), subdomain="b")
    start.client(server, f"127.0.0.1:{server.port}", "--host-header", "b.localhost", subdomain="a")
    assert who(server, "/", "a.localhost") == "end"
