/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <libwebsockets.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/mem.h"
#include "transport/head.h"
#include "transport/transport.h"
#include "transport/ws.h"
#include "tunnel/error.h"

enum { HEAD_MAX = 1024, FIELD_MAX = 16 * 1024 };

void tnl_ws_free_hello(tnl_ws_transport *t)
{
    tnl_ws_hello *h = t->hello;
    t->hello = NULL;
    if (!h)
        return;
    tnl_answer_free(&h->answer);
    if (h->authorization)
        tnl_wipe(h->authorization, strlen(h->authorization));
    tnl_free(h->authorization);
    tnl_free(h->host);
    tnl_free(h->path);
    tnl_free(h);
}

static int need_bridge_buffer(tnl_ws *w)
{
    if (!w->bridge_buffer)
        w->bridge_buffer = tnl_malloc(TNL_BRIDGE_CHUNK);
    return w->bridge_buffer ? 0 : TUNNEL_E_NOMEM;
}

/* --- client ----------------------------------------------------------------------------------- */

static void refused(tnl_ws_transport *t)
{
    const tnl_answer *a = &t->hello->answer;
    const tnl_transport_events *events = t->base.events;
    t->status = a->status;
    if (a->retry_after && events->retry_after)
        events->retry_after(t->base.user, a->retry_after);
    tnl_ws_fail(t, a->error, a->detail);
    tnl_ws_kill(t);
}

static bool cut_ready(void *user)
{
    tnl_ws_transport *t = user;
    return t->state == TNL_WS_OPEN;
}

static bool cut_payload(void *user, const uint8_t *p, size_t n)
{
    tnl_ws_transport *t = user;
    if (t->state == TNL_WS_OPEN) /* else it is closing: what still comes is dropped */
        t->base.events->data(t->base.user, p, n);
    return true;
}

static bool cut_pass(void *user, const uint8_t *p, size_t n)
{
    tnl_ws_transport *t = user;
    return t->bridge && tnl_bridge_inject(t->bridge, p, n) == 0;
}

static const tnl_cutter_events cutter_events = {
    .ready = cut_ready, .payload = cut_payload, .pass = cut_pass};

static void cut(tnl_ws_transport *t, const uint8_t *p, size_t n)
{
    tnl_cutter_feed(&t->cutter, p, n, TNL_TRANSPORT_BATCH, &cutter_events, t);
}

/* A good answer goes on to libwebsockets, and what follows it to the cutter. */
static void upgraded(tnl_ws_transport *t)
{
    tnl_buf head;
    const tnl_answer *a = &t->hello->answer;
    tnl_str rest = tnl_answer_rest(a);
    tnl_buf_init(&head, HEAD_MAX);
    int rc = tnl_answer_head(a, &head);
    if (!rc)
        rc = tnl_bridge_inject(t->bridge, tnl_buf_bytes(&head), tnl_buf_len(&head));
    tnl_buf_free(&head);
    t->answered = true;
    if (!rc)
        cut(t, (const uint8_t *)rest.p, rest.n);
    if (rc) {
        tnl_ws_fail(t, rc, tunnel_strerror(rc));
        tnl_ws_kill(t);
    }
}

/* Bytes of the server: its answer, of which only a good one is passed on, then frames. */
static void inspect(void *user, const uint8_t *p, size_t n)
{
    tnl_ws_transport *t = user;
    if (t->answered) {
        cut(t, p, n);
        return;
    }
    if (!t->hello || t->state != TNL_WS_OPENING)
        return;
    switch (tnl_answer_feed(&t->hello->answer, p, n)) {
    case TNL_ANSWER_MORE:
        break;
    case TNL_ANSWER_REFUSED:
        refused(t);
        break;
    case TNL_ANSWER_UPGRADE:
        upgraded(t);
        break;
    }
}

static void inspect_end(void *user)
{
    tnl_ws_transport *t = user;
    if (t->answered || !t->hello || t->state != TNL_WS_OPENING)
        return;
    tnl_answer_end(&t->hello->answer, TUNNEL_E_EOF,
                   "the server closed the connection without an answer");
    refused(t);
}

static const tnl_bridge_events client_bridge = {
    .inspect = inspect,
    .inspect_end = inspect_end,
    .closed = tnl_ws_on_bridge_closed,
};

static char *checked_copy(const char *s, int *rc)
{
    if (*rc || !s)
        return NULL;
    if (strlen(s) > FIELD_MAX || !tnl_head_clean(s)) {
        *rc = TUNNEL_E_INVALID;
        return NULL;
    }
    char *copy = tnl_strdup(s);
    if (!copy)
        *rc = TUNNEL_E_NOMEM;
    return copy;
}

int tnl_ws_connect(tnl_transport **out, tnl_ws *w, tnl_conn *c, const char *host, const char *path,
                   const char *authorization, const tnl_transport_events *ev, void *user)
{
    tnl_ws_transport *t = NULL;
    *out = NULL;
    int rc = tnl_ws_side_open(&w->client);
    if (!rc)
        rc = need_bridge_buffer(w);
    if (!rc)
        rc = tnl_ws_create(&t, &w->client, ev, user);
    if (!rc) {
        t->hello->host = checked_copy(host, &rc);
        t->hello->path = checked_copy(path, &rc);
        t->hello->authorization = checked_copy(authorization, &rc);
    }
    tnl_conn_keep_little(c);
    if (rc)
        tnl_bridge_discard(c);
    else
        rc = tnl_bridge_new(&t->bridge, c, w->bridge_buffer, &client_bridge, t);
    if (rc) {
        if (t)
            tnl_ws_destroy(t);
        return rc;
    }
    *out = &t->base;
    return 0;
}

/* A listening socket in the abstract namespace, with a name the kernel picks; the name goes to
 * `name`, "+@...". */
static int private_listener(char *name, size_t size)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    socklen_t n = sizeof(sa);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (bind(fd, (struct sockaddr *)&sa, sizeof(sa.sun_family)) || listen(fd, 16) ||
        getsockname(fd, (struct sockaddr *)&sa, &n) ||
        n <= offsetof(struct sockaddr_un, sun_path) + 1) {
        close(fd);
        return -1;
    }
    snprintf(name, size, "+@%.*s", (int)(n - offsetof(struct sockaddr_un, sun_path) - 1),
             sa.sun_path + 1);
    return fd;
}

/* The connection from this very process; others that may have come first are turned away. */
static int accept_own(int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            return -1;
        }
        struct ucred peer;
        socklen_t n = sizeof(peer);
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0 && peer.pid == getpid() &&
            peer.uid == geteuid())
            return fd;
        close(fd);
    }
}

/*
 * libwebsockets cannot be given a connected socket as a client: it insists on connecting. So it
 * connects to a socket of ours that exists only for that, and the other end of it is bridged to the
 * connection.
 */
static int start_client(tnl_ws_transport *t)
{
    tnl_ws_hello *h = t->hello;
    char name[128];
    int listener = private_listener(name, sizeof(name));
    if (listener < 0)
        return TUNNEL_E_IO;
    struct lws_client_connect_info info = {
        .context = t->side->context,
        .vhost = t->side->vhost,
        .address = name,
        .port = 80,
        .path = h->path,
        .host = h->host,
        .protocol = TNL_WS_PROTOCOL,
        .ietf_version_or_minus_one = -1,
        .opaque_user_data = (void *)(uintptr_t)t->node.id,
    };
    t->wsi = lws_client_connect_via_info(&info);
    int fd = t->wsi ? accept_own(listener) : -1;
    close(listener);
    if (fd < 0)
        return TUNNEL_E_IO;
    return t->bridge ? tnl_bridge_attach(t->bridge, fd) : (close(fd), TUNNEL_E_STATE);
}

void tnl_ws_start(tnl_ws_transport *t)
{
    int rc = start_client(t);
    if (rc) {
        tnl_ws_fail(t, rc, "no local connection for the WebSocket engine");
        tnl_ws_kill(t);
    } else {
        tnl_bridge_start(t->bridge);
    }
}
