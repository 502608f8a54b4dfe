/* SPDX-License-Identifier: Apache-2.0 */
#include "server/arrival.h"

#include <string.h>

#include "base/mem.h"
#include "server/raw.h"
#include "tls/hello.h"
#include "tunnel/error.h"

enum {
    METHOD_MAX = 16, /* longer words are no method of HTTP */
    PAGE_MAX = 4096,
};

typedef struct arrival {
    tnl_list node;
    tnl_list waiting; /* in server->handshakes */
    tnl_server *server;
    tnl_conn *conn;
    tnl_timer *timer;
    tnl_buf held; /* while more is needed */
    tnl_tls_hello hello;
    bool tls;  /* the listener is for TLS */
    bool some; /* something has come */
    bool over; /* decided: only closed() is awaited */
} arrival;

/* --- the end ---------------------------------------------------------------------------------- */

/* The connection is somebody else's now, or gone. */
static void arrival_free(arrival *a)
{
    tnl_server *s = a->server;
    tnl_turns_leave(&a->server->handshakes, &a->waiting);
    tnl_list_remove(&a->node);
    s->visitor_count--;
    tnl_timer_free(a->timer);
    tnl_buf_free(&a->held);
    tnl_free(a);
    tnl_server_maybe_closed(s);
}

/* It will not become anything. */
static void fail(arrival *a)
{
    a->over = true;
    tnl_turns_leave(&a->server->handshakes, &a->waiting);
    tnl_timer_stop(a->timer);
    if (a->tls || a->some)
        a->server->stats.bad_handshakes++;
}

static void on_closed(void *user, int error, const char *detail)
{
    arrival *a = user;
    (void)error;
    (void)detail;
    if (!a->over)
        fail(a);
    arrival_free(a);
}

static void on_eof(void *user)
{
    arrival *a = user;
    if (a->over)
        return;
    fail(a);
    tnl_conn_close(a->conn);
}

static void on_timer(void *user)
{
    arrival *a = user;
    fail(a);
    tnl_conn_finish(a->conn);
}

static void refuse(arrival *a, uint8_t alert)
{
    uint8_t record[TNL_TLS_HELLO_ALERT];
    tnl_iov v = {record, sizeof(record)};
    fail(a);
    tnl_tls_hello_write_alert(record, alert);
    if (tnl_conn_write(a->conn, &v, 1) == 0)
        tnl_conn_finish(a->conn);
    else
        tnl_conn_close(a->conn);
}

/* --- turns of TLS ----------------------------------------------------------------------------- */

static void give_up(arrival *a)
{
    a->over = true;
    tnl_turns_leave(&a->server->handshakes, &a->waiting);
    tnl_timer_stop(a->timer);
    tnl_conn_close(a->conn);
}

static void begin_tls(arrival *a, const uint8_t *p, size_t n)
{
    if (!a->server->tls) { /* taken away while it waited */
        give_up(a);
        return;
    }
    tnl_visitor_accept(a->server, a->conn, true, p, n);
    arrival_free(a);
}

void tnl_arrival_turn(tnl_list *node)
{
    arrival *a = TNL_CONTAINER(node, arrival, waiting);
    begin_tls(a, tnl_buf_bytes(&a->held), tnl_buf_len(&a->held));
}

/* The first message has come: its answer costs milliseconds, and others want some of them too. */
static void take_turn(arrival *a, const uint8_t *p, size_t n)
{
    tnl_turns *turns = &a->server->handshakes;
    bool held = tnl_buf_len(&a->held) > 0;
    if (tnl_turns_take(turns))
        begin_tls(a, p, n);
    else if ((!held && tnl_buf_add(&a->held, p, n)) || !tnl_turns_wait(turns, &a->waiting))
        give_up(a);
}

/* --- whose it is ------------------------------------------------------------------------------ */

/* How closely a name was meant by a tunnel that was found for it. */
static size_t closeness(const tnl_name *n, uint16_t target, const char *name)
{
    if (!n)
        return 0;
    size_t close = strlen(n->host) + 1;
    if (strcmp(n->host, name) == 0)
        close += (size_t)2 * TNL_HOST_MAX;
    else if (target)
        close += TNL_HOST_MAX;
    return close;
}

/* To a tls tunnel, to the server's own TLS, or to nobody. p[0..n) begins with the hello. */
static void dispatch(arrival *a, const uint8_t *p, size_t n)
{
    tnl_server *s = a->server;
    const char *name = a->hello.name;
    tnl_http_span span = {name, strlen(name)};
    uint16_t target = 0, other = 0;
    tnl_name *tls = tnl_registry_is_front(s, name)
                        ? NULL
                        : tnl_registry_find(s, TNL_KIND_TLS, span, &target);
    tnl_name *http = tnl_registry_find(s, TNL_KIND_HTTP, span, &other);
    if (tls && closeness(tls, target, name) >= closeness(http, other, name)) {
        (void)tnl_raw_accept(tls, a->conn, p, n, target, name);
        arrival_free(a);
        return;
    }
    if (!s->tls || !(name[0] == '\0' || http || tnl_registry_is_own(s, name) ||
                     tnl_tls_server_covers(s->tls, name))) {
        refuse(a, TNL_ALERT_UNRECOGNIZED_NAME);
        return;
    }
    take_turn(a, p, n);
}

/* Whether it begins with a method and a space. 0: not known yet; -1: no. */
static int looks_like_http(const uint8_t *p, size_t n)
{
    size_t i = 0;
    while (i < n && p[i] >= 'A' && p[i] <= 'Z')
        i++;
    if (i > METHOD_MAX)
        return -1;
    if (i == n)
        return 0;
    return i && p[i] == ' ' ? 1 : -1;
}

/* What came to a listener for TLS is no TLS. */
static void answer_plain(arrival *a)
{
    static const char text[] = "This port speaks https: use https:// in place of http://.";
    tnl_buf out;
    tnl_http_reply reply = {.status = 400, .minor = 1, .close = true};
    fail(a);
    tnl_buf_init(&out, PAGE_MAX);
    int rc = tnl_http_write_page(&out, &reply, text);
    tnl_iov v = {tnl_buf_bytes(&out), tnl_buf_len(&out)};
    if (rc == 0)
        rc = tnl_conn_write(a->conn, &v, 1);
    tnl_buf_free(&out);
    if (rc)
        tnl_conn_close(a->conn);
    else
        tnl_conn_finish(a->conn);
}

/* Whether it was decided; if not, more is needed. */
static bool decide(arrival *a, const uint8_t *p, size_t n)
{
    tnl_tls_hello_state state = tnl_tls_hello_look(&a->hello, p, n);
    int http = state == TNL_TLS_HELLO_OTHER && a->tls ? looks_like_http(p, n) : -1;
    if (state == TNL_TLS_HELLO_MORE || http == 0)
        return false;
    tnl_conn_pause(a->conn);
    if (state == TNL_TLS_HELLO_DONE) {
        dispatch(a, p, n);
    } else if (state == TNL_TLS_HELLO_BAD) {
        refuse(a, a->hello.alert);
    } else if (!a->tls) {
        tnl_visitor_accept(a->server, a->conn, false, p, n);
        arrival_free(a);
    } else if (http == 1) {
        answer_plain(a);
    } else {
        fail(a);
        tnl_conn_finish(a->conn);
    }
    return true;
}

/* --- connection ------------------------------------------------------------------------------- */

static size_t on_space(void *user, uint8_t **p)
{
    arrival *a = user;
    *p = tnl_loop_scratch(a->server->loop);
    return TNL_TLS_HELLO_MAX - tnl_buf_len(&a->held);
}

static void on_data(void *user, uint8_t *p, size_t n)
{
    arrival *a = user;
    if (a->over)
        return;
    a->some = true;
    if (tnl_buf_len(&a->held) == 0 && decide(a, p, n))
        return;
    bool first = tnl_buf_len(&a->held) == 0;
    if (tnl_buf_add(&a->held, p, n)) {
        fail(a);
        tnl_conn_close(a->conn);
    } else if (!first) {
        decide(a, tnl_buf_bytes(&a->held), tnl_buf_len(&a->held));
    }
}

static const tnl_conn_events conn_events = {
    .space = on_space, .data = on_data, .eof = on_eof, .closed = on_closed};

void tnl_arrival_accept(tnl_server *s, tnl_conn *c, bool tls)
{
    s->stats.visitors++;
    arrival *a = NULL;
    if (s->closing || s->visitor_count >= TNL_MAX_VISITORS)
        goto fail;
    a = tnl_calloc(1, sizeof(*a));
    if (!a || tnl_timer_new(&a->timer, s->loop, on_timer, a))
        goto fail;
    a->server = s;
    a->conn = c;
    tnl_list_init(&a->waiting);
    a->tls = tls;
    tnl_buf_init(&a->held, TNL_TLS_HELLO_MAX);
    tnl_list_add_tail(&s->arrivals, &a->node);
    s->visitor_count++;
    tnl_conn_set_events(c, &conn_events, a);
    tnl_timer_start(a->timer, TNL_HEAD_TIMEOUT_MS);
    tnl_conn_resume(c);
    return;
fail:
    tnl_free(a);
    tnl_conn_close(c);
}

void tnl_arrival_close_silent(tnl_server *s)
{
    for (tnl_list *n = s->arrivals.next; n != &s->arrivals; n = n->next) {
        arrival *a = TNL_CONTAINER(n, arrival, node);
        if (!a->some && !a->over)
            give_up(a);
    }
}

void tnl_arrival_close_all(tnl_server *s)
{
    for (tnl_list *n = s->arrivals.next; n != &s->arrivals; n = n->next) {
        arrival *a = TNL_CONTAINER(n, arrival, node);
        give_up(a);
    }
}
