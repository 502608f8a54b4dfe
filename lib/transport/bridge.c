/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/bridge.h"

#include <stdio.h>
#include <unistd.h>

#include "base/mem.h"
#include "tunnel/error.h"

struct tnl_bridge {
    tnl_conn *outer;
    tnl_conn *inner;
    uint8_t *buffer;
    const tnl_bridge_events *events;
    void *user;
    bool inspecting;
    bool finishing; /* the outer end only closes now */
    int error;
    char detail[96];
};

static void gone(tnl_bridge *b)
{
    if (b->outer || b->inner)
        return;
    b->events->closed(b->user, b->error, b->detail);
    tnl_free(b);
}

static size_t room(tnl_bridge *b, tnl_conn *to, uint8_t **p)
{
    if (!to || tnl_conn_pending(to))
        return 0;
    *p = b->buffer;
    return TNL_BRIDGE_CHUNK;
}

static void pass(tnl_conn *to, const uint8_t *p, size_t n)
{
    tnl_iov v = {p, n};
    if (to)
        (void)tnl_conn_write(to, &v, 1); /* a failure is told by closed() */
}

static void finish_outer(tnl_bridge *b)
{
    if (!b->outer || b->finishing)
        return;
    b->finishing = true;
    tnl_conn_finish(b->outer);
}

/* --- the connection --------------------------------------------------------------------------- */

static size_t outer_space(void *user, uint8_t **p)
{
    tnl_bridge *b = user;
    return room(b, b->inner, p);
}

static void outer_data(void *user, uint8_t *p, size_t n)
{
    tnl_bridge *b = user;
    if (b->inspecting)
        b->events->inspect(b->user, p, n);
    else
        pass(b->inner, p, n);
}

static void stop_inspecting(tnl_bridge *b)
{
    if (!b->inspecting)
        return;
    b->inspecting = false;
    if (b->events->inspect_end)
        b->events->inspect_end(b->user);
}

static void outer_eof(void *user)
{
    tnl_bridge *b = user;
    stop_inspecting(b);
    if (b->inner)
        tnl_conn_shutdown(b->inner);
}

static void outer_drained(void *user)
{
    tnl_bridge *b = user;
    if (b->inner)
        tnl_conn_resume(b->inner);
}

static void outer_closed(void *user, int error, const char *detail)
{
    tnl_bridge *b = user;
    b->outer = NULL;
    b->error = error;
    snprintf(b->detail, sizeof(b->detail), "%s", detail ? detail : "");
    stop_inspecting(b);
    if (b->inner)
        tnl_conn_close(b->inner);
    gone(b);
}

static const tnl_conn_events outer_events = {
    .space = outer_space,
    .data = outer_data,
    .eof = outer_eof,
    .drained = outer_drained,
    .closed = outer_closed,
};

/* --- the local end ---------------------------------------------------------------------------- */

static size_t inner_space(void *user, uint8_t **p)
{
    tnl_bridge *b = user;
    return room(b, b->outer, p);
}

static void inner_data(void *user, uint8_t *p, size_t n)
{
    tnl_bridge *b = user;
    pass(b->finishing ? NULL : b->outer, p, n);
}

static void inner_eof(void *user)
{
    tnl_bridge *b = user;
    finish_outer(b);
    tnl_conn_close(b->inner);
}

static void inner_drained(void *user)
{
    tnl_bridge *b = user;
    if (b->outer && !b->finishing)
        tnl_conn_resume(b->outer);
}

static void inner_closed(void *user, int error, const char *detail)
{
    tnl_bridge *b = user;
    (void)error;
    (void)detail;
    b->inner = NULL;
    finish_outer(b);
    gone(b);
}

static const tnl_conn_events inner_events = {
    .space = inner_space,
    .data = inner_data,
    .eof = inner_eof,
    .drained = inner_drained,
    .closed = inner_closed,
};

/* --- the whole -------------------------------------------------------------------------------- */

void tnl_bridge_discard(tnl_conn *c)
{
    tnl_conn_set_events(c, &tnl_conn_no_events, NULL);
    tnl_conn_close(c);
}

void tnl_bridge_dismiss(tnl_conn *c)
{
    tnl_conn_set_events(c, &tnl_conn_no_events, NULL);
    tnl_conn_finish(c);
}

int tnl_bridge_new(tnl_bridge **out, tnl_conn *outer, uint8_t *buffer, const tnl_bridge_events *ev,
                   void *user)
{
    *out = NULL;
    tnl_bridge *b = tnl_calloc(1, sizeof(*b));
    if (!b) {
        tnl_bridge_discard(outer);
        return TUNNEL_E_NOMEM;
    }
    b->outer = outer;
    b->buffer = buffer;
    b->events = ev;
    b->user = user;
    b->inspecting = ev->inspect != NULL;
    tnl_conn_set_events(outer, &outer_events, b);
    *out = b;
    return 0;
}

int tnl_bridge_attach(tnl_bridge *b, int fd)
{
    if (!b->outer || b->inner || b->finishing) {
        close(fd);
        return TUNNEL_E_STATE;
    }
    return tnl_conn_from_fd(&b->inner, b->outer->loop, fd, &inner_events, b);
}

void tnl_bridge_start(tnl_bridge *b)
{
    if (b->inner)
        tnl_conn_resume(b->inner);
    if (b->outer && !b->finishing)
        tnl_conn_resume(b->outer);
}

int tnl_bridge_inject(tnl_bridge *b, const void *p, size_t n)
{
    tnl_iov v = {p, n};
    return b->inner ? tnl_conn_write(b->inner, &v, 1) : TUNNEL_E_STATE;
}

static void close_both(tnl_bridge *b, void (*close_outer)(tnl_conn *c))
{
    b->finishing = true;
    b->inspecting = false;
    if (b->inner)
        tnl_conn_close(b->inner);
    if (b->outer)
        close_outer(b->outer);
}

void tnl_bridge_close(tnl_bridge *b)
{
    close_both(b, tnl_conn_close);
}

void tnl_bridge_reset(tnl_bridge *b)
{
    close_both(b, tnl_conn_reset);
}
