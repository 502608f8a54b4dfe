"""An upstream that takes the request and says nothing: 504, and the tunnel goes on."""

import pytest

from conftest import PATIENCE


@pytest.mark.last
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_silent_upstream_is_504(silent_visits, method):
    server, threads, answers = silent_visits
    for thread in threads:
        thread.join(PATIENCE)
    got = answers.get(method)
    assert not isinstance(got, Exception) and got is not None, got
    assert got.status == 504
    if method != "HEAD":
        assert b"504" in got.body or b"answer" in got.body or b"respon" in got.body
    assert server.status("/hello", "lively") == 200
