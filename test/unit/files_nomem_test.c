/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/check.h"
#include "support/files_rig.h"
#include "support/nomem.h"
#include "tunnel/error.h"

/* A served folder's life with each allocation failing once: answers, or an end; no leak, no hang,
 * nothing that looks whole and is not. */

static const char *const requests[] = {
    "GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\nGET /b/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /a.txt HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1,5-6\r\n\r\n",
    "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /b?x HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\nConnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: \r\nBad\r\n\r\n",
};

static unsigned descriptors(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* Whatever came is made of whole answers, or is cut by the end. */
static void check_answers(const files_guest *g)
{
    const char *at = (const char *)g->bytes, *end = at + g->n;
    while (at < end) {
        assert_true(end - at < 9 || memcmp(at, "HTTP/1.1 ", 9) == 0);
        const char *body = memmem(at, (size_t)(end - at), "\r\n\r\n", 4);
        if (!body)
            return;
        const char *length = memmem(at, (size_t)(body - at), "Content-Length: ", 16);
        size_t n = length ? strtoul(length + 16, NULL, 10) : 0;
        if (n > (size_t)(end - body - 4))
            return;
        at = body + 4 + n;
    }
}

static void ask(files_rig *r, const char *request)
{
    files_guest g = {.rig = r};
    int fd[2];
    tnl_conn *c;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
    g.fd = fd[0];
    if (tnl_conn_from_fd(&c, r->l.loop, fd[1], &tnl_conn_no_events, NULL) == 0 &&
        tnl_files_serve(r->files, c))
        tnl_conn_close(c);
    (void)send(g.fd, request, strlen(request), MSG_NOSIGNAL);
    shutdown(g.fd, SHUT_WR);
    files_guest_end(&g);
    check_answers(&g);
    files_guest_close(&g);
}

/* How many allocations there were. */
static unsigned live(files_rig *r, unsigned nth)
{
    tnl_files *before = r->files;
    char detail[256];
    size_t live_before = test_nomem_live();
    unsigned fds = descriptors();

    test_nomem_fail(nth, 0);
    int rc = tnl_files_new(&r->files, r->l.loop, r->dir, detail, sizeof(detail));
    assert_true(rc == 0 || rc == TUNNEL_E_NOMEM);
    if (rc == 0) {
        for (size_t i = 0; i < sizeof(requests) / sizeof(*requests); i++)
            ask(r, requests[i]);
        UNTIL(&r->l, tnl_files_count(r->files) == 0);
        tnl_files_free(r->files, NULL, NULL);
    }
    unsigned n = test_nomem_count();
    test_nomem_fail(0, 0);
    r->files = before;
    UNTIL(&r->l, test_nomem_live() == live_before);
    assert_int_equal(descriptors(), fds);
    return n;
}

static void each_allocation_fails_once(void **state)
{
    (void)state;
    files_rig r;
    files_rig_open(&r);
    files_rig_put(&r, "a.txt", "0123456789");
    files_rig_put(&r, "b/1", "");
    files_rig_put(&r, "b/2", "");
    files_rig_link(&r, "1", "b/3");
    ask(&r, requests[0]); /* the loop opens what it needs for good */
    UNTIL(&r.l, tnl_files_count(r.files) == 0);
    for (int i = 0; i < 5; i++)
        test_turn(&r.l);
    unsigned n = live(&r, 0);
    assert_true(n > 50);
    for (unsigned i = 1; i <= n; i++)
        live(&r, i);
    files_rig_close(&r);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as hosts of a loop do */
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_allocation_fails_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
