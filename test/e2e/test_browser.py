# SPDX-License-Identifier: Apache-2.0
"""Headless Chromium as the visitor: a page with a hundred subresources and an EventSource."""

import shutil

import pytest

from harness import HANG, eventually
from harness.stack import need

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-default-apps", "--disable-extensions", "--disable-dev-shm-usage",
         "--no-proxy-server", "--ignore-certificate-errors"]


@pytest.mark.heavy
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_page_with_subresources_and_events(start, local_pair, scheme):
    program = shutil.which("chromium") or need("chromium-browser")
    app = start.node()
    server = start.server(tls=[local_pair])
    client = start.client(server, app)
    url = server.url(f"/browse?id={scheme}", tls=scheme == "https")
    profile = start.folder_for("profile")
    proc = start.spawn([program, *FLAGS, f"--user-data-dir={profile}", url],
                       name="chromium", env=start.env())
    try:
        report = eventually(lambda: app.control("reports", id=scheme), "the page's report",
                            timeout=3 * HANG, pause=0.2)[0]
    except AssertionError as error:
        raise AssertionError(f"{error}\n{proc.transcript()[-2000:]}\n"
                             f"{client.proc.transcript()[-4000:]}") from None
    finally:
        proc.kill()
    assert report["failed"] == []
    assert report["count"] == {"img": 40, "js": 35, "css": 25}
    assert report["events"] == [f"event {n}" for n in range(1, 6)]
    assert report["width"] == "99px"  # the last sheet's rule: they came whole and in order
    assert report["origin"] == url.split("/browse")[0]
    # The page's EventSource was closed by the page; the app noticed.
    app.await_visit(scheme, "closed")
    client.proc.wait_line(r"POST /report\S* 200 ")
