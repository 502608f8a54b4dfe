/* SPDX-License-Identifier: Apache-2.0 */
#include "link/dial.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/buf.h"
#include "base/mem.h"
#include "tunnel/error.h"

enum { MAX_PROXY_ANSWER = 8 * 1024, DETAIL_SIZE = 320 };

struct tnl_dial {
    tnl_loop *loop;
    char host[TNL_URL_HOST];
    uint16_t port;
    tnl_tls_client *tls;
    tnl_url proxy;
    bool by_proxy;
    tnl_connect *connect;
    tnl_conn *conn; /* plain, or being upgraded */
    tnl_timer *timer;
    tnl_buf answer; /* of the proxy */
    int error;      /* why conn is being closed by us */
    char detail[DETAIL_SIZE];
    tnl_dial_cb cb;
    void *user;
};

static void dial_free(tnl_dial *d)
{
    tnl_timer_free(d->timer);
    tnl_buf_free(&d->answer);
    if (d->tls)
        tnl_tls_client_unref(d->tls);
    tnl_wipe(&d->proxy, sizeof(d->proxy));
    tnl_free(d);
}

static void finish(tnl_dial *d, int error, const char *detail, tnl_conn *c)
{
    tnl_dial_cb cb = d->cb;
    void *user = d->user;
    char text[DETAIL_SIZE];
    snprintf(text, sizeof(text), "%s", detail ? detail : "");
    dial_free(d);
    cb(user, error, text, c);
}

/* Ends a dial that has a connection: the callback comes with closed(). */
static void fail(tnl_dial *d, int error, const char *detail)
{
    if (d->error)
        return;
    d->error = error;
    snprintf(d->detail, sizeof(d->detail), "%s", detail);
    tnl_conn_close(d->conn);
}

static size_t no_space(void *user, uint8_t **p)
{
    (void)user;
    *p = NULL;
    return 0;
}

static void on_closed(void *user, int error, const char *detail)
{
    tnl_dial *d = user;
    d->conn = NULL;
    if (d->error)
        finish(d, d->error, d->detail, NULL);
    else
        finish(d, error ? error : TUNNEL_E_EOF, detail, NULL);
}

static void on_ready(void *user)
{
    tnl_dial *d = user;
    if (d->error)
        return;
    tnl_conn *c = d->conn;
    finish(d, 0, NULL, c);
}

static const tnl_conn_events tls_events = {
    .space = no_space, .ready = on_ready, .closed = on_closed};

/* The way to the other end is open: TLS, or done. */
static void start_tls(tnl_dial *d)
{
    const char *name = d->host[0] ? d->host : "localhost";
    tnl_conn *lower = d->conn;
    if (!d->tls) {
        finish(d, 0, NULL, lower);
        return;
    }
    int rc = tnl_tls_connect(&d->conn, d->tls, lower, name, &tls_events, d);
    if (rc)
        finish(d, rc, tunnel_strerror(rc), NULL);
}

/* --- through a proxy -------------------------------------------------------------------------- */

static size_t answer_space(void *user, uint8_t **p)
{
    tnl_dial *d = user;
    size_t room = MAX_PROXY_ANSWER - tnl_buf_len(&d->answer);
    *p = room ? tnl_buf_reserve(&d->answer, room < 1024 ? room : 1024) : NULL;
    return *p ? (room < 1024 ? room : 1024) : 0;
}

/* Of "HTTP/1.1 200 ..."; 0 when it is no such line. */
static int status_of(const char *head, size_t len)
{
    int status = 0;
    if (len <= 12 || memcmp(head, "HTTP/1.", 7) != 0 || head[8] != ' ')
        return 0;
    for (const char *p = head + 9; p < head + 12; p++) {
        if (*p < '0' || *p > '9')
            return 0;
        status = status * 10 + (*p - '0');
    }
    return status;
}

static void refused_by_proxy(tnl_dial *d, int status)
{
    char text[DETAIL_SIZE];
    const char *hint = status == 407 ? ": put user:password@ into the proxy's URL" : "";
    bool gateway = status == 502 || status == 503 || status == 504;
    if (status)
        snprintf(text, sizeof(text), "proxy %s:%u answered CONNECT with status %d%s", d->proxy.host,
                 d->proxy.port, status, hint);
    else
        snprintf(text, sizeof(text), "what answers at %s:%u is not an HTTP proxy", d->proxy.host,
                 d->proxy.port);
    fail(d, gateway ? TUNNEL_E_UNREACHABLE : TUNNEL_E_PROXY, text);
}

static void answer_data(void *user, uint8_t *p, size_t n)
{
    tnl_dial *d = user;
    (void)p;
    if (d->error)
        return;
    tnl_buf_commit(&d->answer, n);
    const char *head = (const char *)tnl_buf_bytes(&d->answer);
    size_t len = tnl_buf_len(&d->answer);
    const char *end = memmem(head, len, "\r\n\r\n", 4);
    if (!end) {
        if (len >= MAX_PROXY_ANSWER)
            fail(d, TUNNEL_E_PROXY, "the proxy's answer is too long");
        return;
    }
    tnl_conn_pause(d->conn);
    int status = status_of(head, len);
    if (status < 200 || status > 299) {
        refused_by_proxy(d, status);
    } else if (end + 4 != head + len) {
        /* The other end speaks second, whatever it is. */
        fail(d, TUNNEL_E_PROXY, "the proxy sent more than an answer to CONNECT");
    } else {
        tnl_buf_free(&d->answer);
        start_tls(d);
    }
}

static void answer_eof(void *user)
{
    fail(user, TUNNEL_E_PROXY, "the proxy closed the connection");
}

static const tnl_conn_events proxy_events = {
    .space = answer_space, .data = answer_data, .eof = answer_eof, .closed = on_closed};

static int ask_proxy(tnl_dial *d)
{
    tnl_buf request;
    tnl_buf_init(&request, 8 * 1024);
    bool v6 = strchr(d->host, ':') != NULL;
    const char *open = v6 ? "[" : "", *close = v6 ? "]" : "";
    int rc = tnl_buf_addf(&request, "CONNECT %s%s%s:%u HTTP/1.1\r\nHost: %s%s%s:%u\r\n", open,
                          d->host, close, d->port, open, d->host, close, d->port);
    if (rc == 0 && d->proxy.userinfo[0]) {
        char encoded[TNL_BASE64_SIZE(TNL_URL_USERINFO)];
        tnl_base64(encoded, d->proxy.userinfo, strlen(d->proxy.userinfo));
        rc = tnl_buf_addf(&request, "Proxy-Authorization: Basic %s\r\n", encoded);
        tnl_wipe(encoded, sizeof(encoded));
    }
    if (rc == 0)
        rc = tnl_buf_adds(&request, "\r\n");
    tnl_iov v = {tnl_buf_bytes(&request), tnl_buf_len(&request)};
    if (rc == 0)
        rc = tnl_conn_write(d->conn, &v, 1);
    if (v.n)
        tnl_wipe(tnl_buf_bytes(&request), v.n);
    tnl_buf_free(&request);
    return rc;
}

static void on_connected(void *user, int error, const char *detail, tnl_conn *c)
{
    tnl_dial *d = user;
    d->connect = NULL;
    if (error) {
        char text[DETAIL_SIZE];
        snprintf(text, sizeof(text), "%s%s", d->by_proxy ? "the proxy: " : "",
                 detail ? detail : "");
        finish(d, error, text, NULL);
        return;
    }
    d->conn = c;
    if (!d->by_proxy) {
        start_tls(d);
        return;
    }
    tnl_conn_set_events(c, &proxy_events, d);
    int rc = ask_proxy(d);
    if (rc)
        fail(d, rc, tunnel_strerror(rc));
    else
        tnl_conn_resume(c);
}

static void on_timeout(void *user)
{
    tnl_dial *d = user;
    char text[DETAIL_SIZE];
    if (d->by_proxy && d->connect)
        snprintf(text, sizeof(text), "connect to the proxy %s:%u: timed out", d->proxy.host,
                 d->proxy.port);
    else
        snprintf(text, sizeof(text), "connect to %s:%u: timed out", d->host, d->port);
    if (d->conn) {
        fail(d, TUNNEL_E_TIMEOUT, text);
        return;
    }
    if (d->connect)
        tnl_connect_cancel(d->connect);
    finish(d, TUNNEL_E_TIMEOUT, text, NULL);
}

int tnl_dial_start(tnl_dial **out, tnl_loop *loop, const tnl_dial_target *target, tnl_dial_cb cb,
                   void *user)
{
    tnl_dial *d = tnl_calloc(1, sizeof(*d));
    if (!d)
        return TUNNEL_E_NOMEM;
    d->loop = loop;
    d->cb = cb;
    d->user = user;
    d->port = target->port;
    d->by_proxy = target->proxy && !target->unix_path;
    tnl_buf_init(&d->answer, MAX_PROXY_ANSWER);
    if (target->proxy)
        d->proxy = *target->proxy;
    if (target->host)
        snprintf(d->host, sizeof(d->host), "%s", target->host);
    if (target->tls) {
        tnl_tls_client_ref(target->tls);
        d->tls = target->tls;
    }
    int rc = tnl_timer_new(&d->timer, loop, on_timeout, d);
    if (rc == 0 && d->by_proxy)
        rc = tnl_connect_start(&d->connect, loop, d->proxy.host, d->proxy.port, NULL,
                               target->timeout_ms, on_connected, d);
    else if (rc == 0)
        rc = tnl_connect_start(&d->connect, loop, target->host, target->port, target->unix_path,
                               target->timeout_ms, on_connected, d);
    if (rc) {
        dial_free(d);
        return rc;
    }
    if (target->insists)
        tnl_connect_insist(d->connect);
    tnl_timer_start(d->timer, (uint64_t)target->timeout_ms + 50);
    *out = d;
    return 0;
}

void tnl_dial_cancel(tnl_dial *d)
{
    if (d->connect)
        tnl_connect_cancel(d->connect);
    if (d->conn) {
        tnl_conn_set_events(d->conn, &tnl_conn_no_events, NULL);
        tnl_conn_close(d->conn);
    }
    dial_free(d);
}
