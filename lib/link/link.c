/* SPDX-License-Identifier: Apache-2.0 */
#include "link/link.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "tunnel/error.h"
#include "wire/text.h"

enum {
    MAX_OUT = 48 * 1024, /* link-scope frames that wait: two greatest ones and then some */
    MAX_CLOSE_TEXT = 200,
    DETAIL_SIZE = 512,
    MEASURE_SIZE = 64,
    LAST_LOOK_MS = 100, /* before a link is given up: what lies in the socket is read first */
};

struct tnl_link {
    tnl_loop *loop;
    tnl_link_config config;
    const tnl_link_events *events;
    void *user;
    tnl_transport *transport;
    tnl_decoder decoder;
    tnl_buf out;
    tnl_session *session;
    tnl_session_link binding;
    tnl_timer *timer;
    uint64_t born;
    uint64_t heard;
    uint64_t ping_sent; /* loop time of the ping that is under way; 0: none */
    uint64_t ping_us;   /* the same by the finer clock */
    uint64_t patient_until; /* nothing was heard since a doubt came up; 0: there is none */
    uint32_t retry_after;   /* seconds */
    uint64_t pong;      /* opaque of the newest ping to answer */
    uint32_t rtt;
    bool pong_due;
    bool measure; /* the round trip, with a PING of its own */
    bool last_look;
    bool closing;
    int error;  /* why it ends, where the transport does not know: the peer's CLOSE, silence, a
                   violation */
    char *text; /* in words, allocated; NULL: those of the code */
};

static int on_frame(void *user, const tnl_frame *f);

/* --- keepalive -------------------------------------------------------------------------------- */

static void ends_with(tnl_link *l, int error, const char *text)
{
    l->error = error;
    tnl_free(l->text);
    l->text = tnl_strdup(text);
}

/* When the peer must have been heard again. A ping always has half of the silence for its answer,
 * also when this process was asleep and sent it late. */
static uint64_t dead_at(const tnl_link *l)
{
    uint64_t by_silence = l->heard + l->config.silence_ms;
    uint64_t by_ping = l->ping_sent + l->config.silence_ms / 2;
    uint64_t at = by_silence > by_ping ? by_silence : by_ping;
    return l->patient_until && l->patient_until < at ? l->patient_until : at;
}

static void arm(tnl_link *l)
{
    uint64_t now = tnl_loop_now(l->loop);
    uint64_t due = l->born + l->config.handshake_ms;
    if (l->session)
        due = l->ping_sent ? dead_at(l) : l->heard + l->config.silence_ms / 2;
    l->last_look = false;
    tnl_timer_start(l->timer, due > now ? due - now : 1);
}

void tnl_link_give_up(tnl_link *l)
{
    if (l->closing)
        return;
    l->closing = true;
    tnl_timer_stop(l->timer);
    if (l->transport)
        tnl_transport_abort(l->transport);
}

static void on_timer(void *user)
{
    tnl_link *l = user;
    char text[64];
    uint64_t now = tnl_loop_now(l->loop);
    if (l->closing)
        return;
    if (!l->session && now - l->born >= l->config.handshake_ms) {
        snprintf(text, sizeof(text), "no handshake within %.9g s", l->config.handshake_ms / 1000.0);
        ends_with(l, TUNNEL_E_TIMEOUT, text);
        tnl_link_close(l, TUNNEL_E_TIMEOUT, "no handshake in time");
        return;
    }
    if (l->session && l->ping_sent && now >= dead_at(l)) {
        if (!l->last_look) {
            l->last_look = true;
            tnl_timer_start(l->timer, LAST_LOOK_MS);
            return;
        }
        snprintf(text, sizeof(text), "nothing heard for %.9g s",
                 (l->patient_until ? (double)(now - l->heard) : l->config.silence_ms) / 1000.0);
        ends_with(l, TUNNEL_E_TIMEOUT, text);
        tnl_link_give_up(l);
        return;
    }
    if (l->session && now - l->heard >= l->config.silence_ms / 2)
        tnl_link_ping(l);
    arm(l);
}

static void note_ping(tnl_link *l)
{
    l->ping_sent = tnl_loop_now(l->loop) + 1;
    l->ping_us = tnl_loop_clock_us();
}

void tnl_link_ping(tnl_link *l)
{
    if (l->ping_sent || l->closing)
        return;
    note_ping(l);
    tnl_frame f = {.type = TNL_FRAME_PING, .offset = l->ping_sent};
    tnl_link_send(l, &f);
    if (l->session)
        arm(l);
}

void tnl_link_check(tnl_link *l, uint32_t patience_ms)
{
    if (l->closing || !l->session)
        return;
    l->patient_until = tnl_loop_now(l->loop) + patience_ms;
    tnl_link_ping(l);
    arm(l);
}

uint32_t tnl_link_retry_after(const tnl_link *l)
{
    return l->retry_after;
}

uint64_t tnl_link_last_heard(const tnl_link *l)
{
    return l->heard;
}

uint32_t tnl_link_rtt(const tnl_link *l)
{
    return l->rtt;
}

/* --- life ------------------------------------------------------------------------------------- */

int tnl_link_new(tnl_link **out, tnl_loop *loop, const tnl_link_config *config,
                 const tnl_link_events *ev, void *user)
{
    tnl_link *l = tnl_calloc(1, sizeof(*l));
    if (!l)
        return TUNNEL_E_NOMEM;
    if (tnl_timer_new(&l->timer, loop, on_timer, l)) {
        tnl_free(l);
        return TUNNEL_E_NOMEM;
    }
    l->loop = loop;
    l->config = *config;
    l->events = ev;
    l->user = user;
    l->rtt = UINT32_MAX;
    l->born = l->heard = tnl_loop_now(loop);
    tnl_decoder_init(&l->decoder, config->max_data);
    tnl_buf_init(&l->out, MAX_OUT);
    tnl_list_init(&l->binding.node);
    arm(l);
    *out = l;
    return 0;
}

void tnl_link_set_transport(tnl_link *l, tnl_transport *t)
{
    l->transport = t;
    if (l->closing)
        tnl_transport_close(t);
    else if (tnl_buf_len(&l->out))
        tnl_transport_wake(t);
}

void tnl_link_discard(tnl_link *l)
{
    tnl_timer_free(l->timer);
    tnl_decoder_free(&l->decoder);
    tnl_buf_free(&l->out);
    tnl_free(l->text);
    tnl_free(l);
}

void tnl_link_set_events(tnl_link *l, const tnl_link_events *ev, void *user)
{
    l->events = ev;
    l->user = user;
}

int tnl_link_bind(tnl_link *l, tnl_session *s)
{
    int rc = tnl_session_attach(s, &l->binding, l, l->config.inflight, l->config.fallback,
                                l->config.unproven);
    if (rc)
        return rc;
    l->session = s;
    arm(l);
    l->measure = true;
    tnl_link_wake(l);
    return 0;
}

void tnl_link_unbind(tnl_link *l)
{
    l->session = NULL;
    if (!l->closing)
        tnl_link_close(l, 0, NULL);
}

void tnl_link_wake(tnl_link *l)
{
    if (l->transport)
        tnl_transport_wake(l->transport);
}

int tnl_link_send(tnl_link *l, const tnl_frame *f)
{
    size_t size = tnl_frame_size(f);
    uint8_t *p = tnl_buf_reserve(&l->out, size);
    if (!p || !tnl_frame_encode(p, size, f))
        return TUNNEL_E_LIMIT;
    tnl_buf_commit(&l->out, size);
    tnl_link_wake(l);
    return 0;
}

void tnl_link_close(tnl_link *l, int code, const char *text)
{
    if (l->closing)
        return;
    if (code) {
        tnl_frame f = {
            .type = TNL_FRAME_CLOSE, .code = (uint32_t)-code, .rest = (const uint8_t *)text};
        f.rest_len = text ? strnlen(text, MAX_CLOSE_TEXT) : 0;
        tnl_link_send(l, &f);
    }
    l->closing = true;
    tnl_timer_stop(l->timer);
    if (l->transport)
        tnl_transport_close(l->transport);
}

/* --- frames ----------------------------------------------------------------------------------- */

static int on_pong(tnl_link *l, const tnl_frame *f)
{
    if (l->ping_sent && f->offset == l->ping_sent) {
        uint64_t us = tnl_loop_clock_us() - l->ping_us;
        l->rtt = (uint32_t)(tnl_loop_now(l->loop) + 1 - l->ping_sent);
        l->ping_sent = 0;
        arm(l);
        if (l->events->round_trip)
            l->events->round_trip(l->user, l, us);
        if (l->closing)
            return 0;
        if (l->session)
            tnl_session_rtt(l->session, &l->binding, l->rtt);
        if (l->session && l->config.unproven)
            tnl_session_proven(l->session, &l->binding);
        l->config.unproven = false;
    }
    return 0;
}

static int on_close(tnl_link *l, const tnl_frame *f)
{
    char text[DETAIL_SIZE];
    tnl_text_clean(text, sizeof(text), f->rest, f->rest_len);
    ends_with(l, f->code && f->code < 1000 ? -(int)f->code : TUNNEL_E_EOF, text);
    if (l->session)
        tnl_session_peer_closed(l->session, l->error, text);
    else
        tnl_link_close(l, 0, NULL);
    return 0;
}

static int on_frame(void *user, const tnl_frame *f)
{
    tnl_link *l = user;
    if (l->closing)
        return 0;
    switch (f->type) {
    case TNL_FRAME_PING:
        l->pong = f->offset;
        l->pong_due = true;
        tnl_link_wake(l);
        return 0;
    case TNL_FRAME_PONG:
        return on_pong(l, f);
    case TNL_FRAME_CLOSE:
        return on_close(l, f);
    case TNL_FRAME_HELLO:
    case TNL_FRAME_WELCOME:
    case TNL_FRAME_ATTACH:
    case TNL_FRAME_ATTACHED:
        return l->session ? TUNNEL_E_PROTOCOL : l->events->handshake(l->user, l, f);
    default:
        if (!l->session)
            return TUNNEL_E_PROTOCOL;
        tnl_session_frame(l->session, &l->binding, f);
        return 0;
    }
}

/* --- transport -------------------------------------------------------------------------------- */

static void transport_opened(void *user)
{
    tnl_link *l = user;
    if (l->events->opened && !l->closing)
        l->events->opened(l->user, l);
}

static void transport_data(void *user, const uint8_t *p, size_t n)
{
    tnl_link *l = user;
    if (l->closing)
        return;
    l->heard = tnl_loop_now(l->loop);
    l->patient_until = 0;
    int rc = tnl_decoder_feed(&l->decoder, p, n, on_frame, l);
    if (rc && !l->closing) {
        ends_with(l, rc, tunnel_strerror(rc));
        if (l->session)
            tnl_session_broken(l->session, rc);
        tnl_link_close(l, rc, tunnel_strerror(rc));
    }
}

static size_t transport_pull(void *user, uint8_t *out, size_t cap)
{
    tnl_link *l = user;
    size_t done = 0;
    if (l->pong_due) {
        tnl_frame f = {.type = TNL_FRAME_PONG, .offset = l->pong};
        size_t n = tnl_frame_encode(out, cap, &f);
        l->pong_due = n == 0;
        done += n;
    }
    size_t queued = tnl_buf_len(&l->out);
    if (queued) {
        size_t n = queued < cap - done ? queued : cap - done;
        memcpy(out + done, tnl_buf_bytes(&l->out), n);
        tnl_buf_consume(&l->out, n);
        done += n;
        if (n == queued)
            tnl_buf_free(&l->out);
    }
    if (l->measure && l->session && tnl_buf_len(&l->out) == 0 && cap - done >= MEASURE_SIZE) {
        /* Behind the handshake, and before there is traffic. */
        l->measure = false;
        note_ping(l);
        tnl_frame f = {.type = TNL_FRAME_PING, .offset = l->ping_sent};
        done += tnl_frame_encode(out + done, cap - done, &f);
        arm(l);
    }
    enum { WORTH = 2048 };
    if (l->session && !l->closing && tnl_buf_len(&l->out) == 0 && cap - done >= WORTH)
        done += tnl_session_pull(l->session, &l->binding, out + done, cap - done);
    return done;
}

static void transport_retry_after(void *user, uint32_t seconds)
{
    ((tnl_link *)user)->retry_after = seconds;
}

static void transport_closed(void *user, int error, int http_status, const char *detail)
{
    tnl_link *l = user;
    char text[DETAIL_SIZE];
    if (l->error) {
        error = l->error;
        detail = l->text ? l->text : tunnel_strerror(error);
    } else {
        /* A server's answer may be quoted in it. */
        tnl_text_clean(text, sizeof(text), detail ? detail : "", detail ? strlen(detail) : 0);
        detail = text;
    }
    l->closing = true;
    l->transport = NULL;
    if (l->session)
        tnl_session_detach(l->session, &l->binding, error, detail);
    l->session = NULL;
    if (l->events->closed)
        l->events->closed(l->user, l, error, http_status, detail);
    tnl_link_discard(l);
}

static const tnl_transport_events transport_events = {.opened = transport_opened,
                                                      .data = transport_data,
                                                      .pull = transport_pull,
                                                      .retry_after = transport_retry_after,
                                                      .closed = transport_closed};

const tnl_transport_events *tnl_link_transport_events(void)
{
    return &transport_events;
}
