# SPDX-License-Identifier: Apache-2.0
"""Who holds a name: instances, live and dead holders, --force, other credentials."""

import secrets
import signal

import pytest

from harness import eventually


def instance():
    return secrets.token_hex(16)


def apps(start):
    """Two apps, and a way to tell which one answers."""
    return start.node(), start.node()


def answers(server, app):
    """Whether this app, and no other, serves the name."""
    before = app.stats()["requests"]
    return server.status("/hello") == 200 and app.stats()["requests"] == before + 1


def displaced(client):
    """The end of a client that was replaced: told, final, not coming back."""
    assert client.proc.wait() == 1, client.proc.transcript()
    assert len(client.proc.err()) == 1 and "replaced" in client.proc.err()[0].lower()


def test_same_instance_newer_wins_at_once(start):
    server = start.server()
    old_app, new_app = apps(start)
    ident = instance()
    old = start.client(server, old_app, "--instance", ident)
    assert answers(server, old_app)
    start.client(server, new_app, "--instance", ident)
    assert answers(server, new_app)
    displaced(old)
    for _ in range(3):
        assert answers(server, new_app)


def test_same_instance_streams_of_the_old_are_reset(start):
    server = start.server()
    old_app, new_app = apps(start)
    ident = instance()
    start.client(server, old_app, "--instance", ident)
    with server.dial() as visitor:
        visitor.request("GET", "/stall?id=old", server.name("demo"))
        assert visitor.read_head().status == 200
        start.client(server, new_app, "--instance", ident)
        assert visitor.read_all() in (b"", b"some")
    old_app.await_visit("old", "closed")
    assert answers(server, new_app)


def test_live_holder_keeps_the_name(start):
    server = start.server()
    old_app, new_app = apps(start)
    old = start.client(server, old_app, "--instance", instance())
    late = start.client(server, new_app, "--instance", instance(), wait=False)
    assert late.proc.wait() == 1
    assert len(late.proc.err()) == 1 and "demo" in late.proc.err()[0]
    assert "--force" in late.proc.err()[0]  # how to mend it
    assert answers(server, old_app) and old.proc.alive()


def test_live_holder_keeps_the_name_from_clients_without_ids(start):
    server = start.server()
    old_app, new_app = apps(start)
    old = start.client(server, old_app)
    late = start.client(server, new_app, wait=False)
    assert late.proc.wait() == 1
    assert answers(server, old_app) and old.proc.alive()


def test_force_takes_the_name(start):
    server = start.server()
    old_app, new_app = apps(start)
    old = start.client(server, old_app, "--instance", instance())
    start.client(server, new_app, "--instance", instance(), "--force")
    assert answers(server, new_app)
    displaced(old)


def test_force_does_not_ping_pong(start):
    """Both forced: the first is told and leaves, it does not fight back."""
    server = start.server()
    old_app, new_app = apps(start)
    old = start.client(server, old_app, "--force")
    new = start.client(server, new_app, "--force")
    displaced(old)
    assert new.proc.alive() and answers(server, new_app)


def test_dead_holder_loses_the_name(start):
    server = start.server()
    old_app, new_app = apps(start)
    old = start.client(server, old_app, "--instance", instance())
    assert answers(server, old_app)
    old.proc.kill()
    start.client(server, new_app, "--instance", instance())
    assert answers(server, new_app)


def test_silent_holder_loses_the_name(start):
    """The holder's process hangs: it misses the probe, the other one wins, and once awake the
    old one is told and leaves."""
    server = start.server()
    old_app, new_app = apps(start)
    old = start.client(server, old_app, "--instance", instance())
    assert answers(server, old_app)
    old.proc.deliver(signal.SIGSTOP)
    start.client(server, new_app, "--instance", instance())
    assert answers(server, new_app)
    old.proc.deliver(signal.SIGCONT)
    displaced(old)
    assert answers(server, new_app)


@pytest.mark.parametrize("extra", [
    [], ["--force"], ["same-instance"], ["same-instance", "--force"]])
def test_another_credential_never_takes_the_name(start, extra):
    server = start.server("--token", "second-credential")
    old_app, new_app = apps(start)
    ident = instance()
    old = start.client(server, old_app, "--instance", ident)
    args = ["--instance", ident] if "same-instance" in extra else ["--instance", instance()]
    args += [a for a in extra if a.startswith("--")]
    thief = start.client(server, new_app, *args, token="second-credential", wait=False)
    assert thief.proc.wait() == 1
    assert len(thief.proc.err()) == 1 and "demo" in thief.proc.err()[0]
    assert old.proc.alive() and answers(server, old_app)


def test_one_client_taking_over_leaves_other_names_alone(start):
    server = start.server()
    old_app, new_app = apps(start)
    start.client(server, old_app, "--instance", instance())
    other = start.client(server, new_app, "--instance", instance(), subdomain="other")
    forced = start.client(server, new_app, "--instance", instance(), "--force")
    assert forced.proc.alive() and other.proc.alive()
    assert server.status("/hello", "other") == 200


def test_force_from_the_environment(start):
    server = start.server()
    old_app, new_app = apps(start)
    old = start.client(server, old_app, env={"TUNNEL_INSTANCE": instance()})
    start.client(server, new_app, env={"TUNNEL_INSTANCE": instance(), "TUNNEL_FORCE": "1"})
    displaced(old)
    eventually(lambda: answers(server, new_app), "the new one")
