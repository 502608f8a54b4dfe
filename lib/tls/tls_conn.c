/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "tls/tls_internal.h"
#include "tunnel/error.h"

enum {
    RECORD = 16 * 1024,                /* the most plaintext in one record, RFC 8446 section 5.1 */
    FLUSH_AT = TNL_TLS_CHUNK + RECORD, /* so that a chunk of 64 KiB still leaves in one write */
};

typedef struct tls_conn {
    tnl_conn base;
    mbedtls_ssl_context ssl;
    tnl_tls_ctx *ctx;
    tnl_conn *lower;      /* NULL once it is gone or was left to finish by itself */
    uint8_t *own_rx;      /* for TLS inside TLS, where the context's buffer is in use */
    const uint8_t *fresh; /* what the lower connection has just given, not yet decrypted */
    size_t fresh_n;
    tnl_buf held; /* what was not decrypted because the user had no room; the lower one is paused
                     then */
    tnl_buf out;  /* records of the current call */
    tnl_timer *limit;
    tnl_task work; /* starts the handshake, decrypts `held` */
    tnl_task end;  /* closed() after a failure */
    char *name;    /* SNI, server side */
    tnl_tls_verdict verdict;
    tnl_tls_lent lent; /* ssl's buffers */
    int error;
    const char *text; /* static, or the verdict's */
    bool ready;
    bool wanted;
    bool running; /* inside pump() */
    bool lower_ended;
    bool owed; /* a drained() is */
    bool shut;
    bool closing;
} tls_conn;

static tls_conn *of(tnl_conn *c)
{
    return TNL_CONTAINER(c, tls_conn, base);
}

/* --- the end ---------------------------------------------------------------------------------- */

static void give_back(tls_conn *t)
{
    tnl_tls_ctx *ctx = t->ctx;
    tnl_buf_clear(&t->out);
    if (!t->out.data)
        return;
    if (ctx->tx.data) {
        tnl_buf_free(&t->out);
    } else {
        ctx->tx = t->out;
        t->out = (tnl_buf){.max = ctx->tx.max};
    }
}

static void destroy(tls_conn *t)
{
    tnl_timer_free(t->limit);
    tnl_task_cancel(&t->work);
    tnl_task_cancel(&t->end);
    mbedtls_ssl_free(&t->ssl);
    tnl_buf_free(&t->held);
    tnl_buf_free(&t->out);
    tnl_free(t->own_rx);
    tnl_free(t->name);
    tnl_tls_verdict_free(&t->verdict);
    tnl_tls_ctx_unref(t->ctx);
    tnl_free(t);
}

static void on_end(void *user)
{
    tls_conn *t = user;
    if (t->base.events->closed)
        t->base.events->closed(t->base.user, t->error, t->text);
    destroy(t);
}

/* text must live as long as t. */
static void set_error(tls_conn *t, int error, const char *text)
{
    t->closing = true;
    t->error = error;
    t->text = text;
    tnl_timer_free(t->limit);
    t->limit = NULL;
    tnl_task_cancel(&t->work);
}

/* Sends the collected records in one write; returns what that said. */
static int flush(tls_conn *t)
{
    int rc = 0;
    if (tnl_buf_len(&t->out) && t->lower) {
        tnl_iov v = {tnl_buf_bytes(&t->out), tnl_buf_len(&t->out)};
        rc = tnl_conn_write(t->lower, &v, 1);
        if (t->ready && rc == 0 && tnl_conn_pending(t->lower))
            t->owed = true;
    }
    give_back(t);
    return rc;
}

/* The lower connection still delivers our alert; the user learns of the failure at the end of the
 * turn. */
static void fail(tls_conn *t, int error, const char *text)
{
    if (t->closing)
        return;
    set_error(t, error, text);
    flush(t);
    if (t->lower) {
        tnl_conn_set_events(t->lower, &tnl_conn_no_events, NULL);
        tnl_conn_finish(t->lower);
        t->lower = NULL;
    }
    tnl_loop_defer(t->base.loop, &t->end);
}

static void fail_tls(tls_conn *t, int rc)
{
    const char *text;
    if (rc == MBEDTLS_ERR_SSL_CONN_EOF) {
        fail(t, TUNNEL_E_EOF, "the other end closed the connection during the TLS handshake");
        return;
    }
    int error = tnl_tls_error(rc, !t->ready, &text);
    fail(t, error, t->verdict.detail ? t->verdict.detail : text);
}

static void tls_close(tnl_conn *c, bool reset)
{
    tls_conn *t = of(c);
    if (t->closing)
        return;
    set_error(t, 0, "");
    if (!t->lower)
        tnl_loop_defer(c->loop, &t->end);
    else if (reset)
        tnl_conn_reset(t->lower);
    else
        tnl_conn_close(t->lower);
}

static void on_limit(void *user)
{
    fail(user, TUNNEL_E_TIMEOUT, "the TLS handshake took too long");
}

/* --- mbedTLS's reading and writing ------------------------------------------------------------ */

static int bio_send(void *user, const unsigned char *p, size_t n)
{
    tls_conn *t = user;
    if (!t->out.data && t->ctx->tx.data) {
        t->out = t->ctx->tx;
        t->ctx->tx = (tnl_buf){.max = t->out.max};
    }
    return tnl_buf_add(&t->out, p, n) ? MBEDTLS_ERR_SSL_ALLOC_FAILED : (int)n;
}

static int bio_recv(void *user, unsigned char *p, size_t n)
{
    tls_conn *t = user;
    size_t held = tnl_buf_len(&t->held);
    if (held) {
        n = n < held ? n : held;
        memcpy(p, tnl_buf_bytes(&t->held), n);
        tnl_buf_consume(&t->held, n);
        if (n == held)
            tnl_buf_free(&t->held);
        return (int)n;
    }
    n = n < t->fresh_n ? n : t->fresh_n;
    if (n == 0)
        return t->lower_ended ? 0 : MBEDTLS_ERR_SSL_WANT_READ;
    memcpy(p, t->fresh, n);
    t->fresh += n;
    t->fresh_n -= n;
    return (int)n;
}

static bool has_input(const tls_conn *t)
{
    return tnl_buf_len(&t->held) || t->fresh_n || mbedtls_ssl_get_bytes_avail(&t->ssl);
}

/* For each call of mbedTLS that reads or writes. */
static int regain(tls_conn *t)
{
    int rc = tnl_tls_regain(&t->lent, &t->ssl, &t->ctx->spares, &t->ctx->conf);
    if (rc)
        fail(t, rc, tunnel_strerror(rc));
    return rc;
}

static void lend(tls_conn *t)
{
    if (t->ready && !t->closing && !t->running)
        tnl_tls_lend(&t->lent, &t->ssl, &t->ctx->spares);
}

/* --- moving on -------------------------------------------------------------------------------- */

static void handshake(tls_conn *t)
{
    int rc = mbedtls_ssl_handshake(&t->ssl);
    if (rc == MBEDTLS_ERR_SSL_WANT_READ)
        return;
    if (rc) {
        fail_tls(t, rc);
        return;
    }
    flush(t);
    t->ready = true;
    tnl_timer_free(t->limit);
    t->limit = NULL;
    if (t->base.events->ready)
        t->base.events->ready(t->base.user);
}

/* What mbedtls_ssl_read() said, other than a number of bytes. Whether to go on. */
static bool no_data(tls_conn *t, int rc)
{
    switch (rc) {
    case MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET:
        return true;
    case MBEDTLS_ERR_SSL_WANT_READ:
        /* Also after an alert that is to be ignored, with more behind it. */
        return has_input(t);
    case MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY:
        t->base.ended = true;
        if (t->base.events->eof)
            t->base.events->eof(t->base.user);
        return false;
    case 0:
    case MBEDTLS_ERR_SSL_CONN_EOF:
        return false;
    default:
        fail_tls(t, rc);
        return false;
    }
}

static void read_records(tls_conn *t)
{
    while (t->wanted && !t->closing && !t->base.ended && has_input(t)) {
        uint8_t *p = NULL;
        size_t n = t->base.events->space(t->base.user, &p);
        if (t->closing || !t->wanted)
            return;
        if (n == 0) {
            t->wanted = false;
            return;
        }
        if (regain(t))
            return;
        int rc = mbedtls_ssl_read(&t->ssl, p, n < INT32_MAX ? n : INT32_MAX);
        if (rc > 0)
            t->base.events->data(t->base.user, p, (size_t)rc);
        else if (!no_data(t, rc))
            break;
    }
    if (t->wanted && !t->closing && !t->base.ended && t->lower_ended)
        fail(t, TUNNEL_E_RESET, "the connection ended without TLS's close_notify");
}

static void steer_lower(tls_conn *t)
{
    if (!t->lower || t->lower_ended)
        return;
    if (!t->closing && !tnl_buf_len(&t->held) && (!t->ready || (t->wanted && !t->base.ended)))
        tnl_conn_resume(t->lower);
    else
        tnl_conn_pause(t->lower);
}

/* Everything that input, the start and resuming set off; callbacks may come back here. */
static void pump(tls_conn *t)
{
    if (t->running || t->closing)
        return;
    t->running = true;
    if (!t->ready)
        handshake(t);
    if (t->ready && !t->closing)
        read_records(t);
    if (t->fresh_n && !t->closing && !t->base.ended && tnl_buf_add(&t->held, t->fresh, t->fresh_n))
        fail(t, TUNNEL_E_NOMEM, tunnel_strerror(TUNNEL_E_NOMEM));
    t->fresh_n = 0;
    if (!t->closing)
        flush(t);
    t->running = false;
    lend(t);
    steer_lower(t);
}

static void on_work(void *user)
{
    pump(user);
}

/* --- the lower connection's events ------------------------------------------------------------ */

static size_t lower_space(void *user, uint8_t **p)
{
    tls_conn *t = user;
    tnl_tls_ctx *ctx = t->ctx;
    uint8_t **rx = ctx->rx_busy ? &t->own_rx : &ctx->rx;
    if (!*rx)
        *rx = tnl_malloc(TNL_TLS_CHUNK);
    if (!*rx) {
        fail(t, TUNNEL_E_NOMEM, tunnel_strerror(TUNNEL_E_NOMEM));
        return 0;
    }
    *p = *rx;
    return TNL_TLS_CHUNK;
}

static void lower_data(void *user, uint8_t *p, size_t n)
{
    tls_conn *t = user;
    tnl_tls_ctx *ctx = t->ctx;
    bool shared = p == ctx->rx;
    t->fresh = p;
    t->fresh_n = n;
    if (shared)
        ctx->rx_busy = true;
    pump(t);
    if (shared)
        ctx->rx_busy = false;
}

static void lower_eof(void *user)
{
    tls_conn *t = user;
    t->lower_ended = true;
    pump(t);
}

static void lower_drained(void *user)
{
    tls_conn *t = user;
    if (!t->owed || t->closing)
        return;
    t->owed = false;
    if (t->base.events->drained)
        t->base.events->drained(t->base.user);
}

static void lower_closed(void *user, int error, const char *detail)
{
    tls_conn *t = user;
    t->lower = NULL;
    if (!t->closing) {
        if (t->ready)
            set_error(t, error ? error : TUNNEL_E_RESET, detail);
        else
            set_error(t, error ? error : TUNNEL_E_EOF,
                      "the connection was lost during the TLS handshake");
    }
    on_end(t);
}

static const tnl_conn_events lower_events = {
    .space = lower_space,
    .data = lower_data,
    .eof = lower_eof,
    .drained = lower_drained,
    .closed = lower_closed,
};

/* --- the user's calls ------------------------------------------------------------------------- */

/* Makes records of p[0..n). */
static int encrypt(tls_conn *t, const uint8_t *p, size_t n)
{
    while (n) {
        int rc = mbedtls_ssl_write(&t->ssl, p, n);
        if (rc <= 0) {
            fail_tls(t, rc);
            return t->error;
        }
        p += rc;
        n -= (size_t)rc;
        rc = tnl_buf_len(&t->out) >= FLUSH_AT ? flush(t) : 0;
        if (rc)
            return rc;
    }
    return 0;
}

static int tls_write(tnl_conn *c, const tnl_iov *v, size_t n)
{
    tls_conn *t = of(c);
    if (!t->ready || t->closing || t->shut || !t->lower)
        return TUNNEL_E_STATE;
    uint8_t record[RECORD];
    int most = mbedtls_ssl_get_max_out_record_payload(&t->ssl);
    size_t full = most > 0 && most < RECORD ? (size_t)most : RECORD;
    size_t used = 0;
    int rc = regain(t);
    for (size_t i = 0; i < n && rc == 0; i++) {
        const uint8_t *p = v[i].p;
        size_t left = v[i].n;
        while (left && rc == 0) {
            /* Whole records, and what nothing follows, come from where they are. */
            if (used == 0 && (left >= full || i + 1 == n)) {
                size_t cut = i + 1 == n ? left : left / full * full;
                rc = encrypt(t, p, cut);
                p += cut;
                left -= cut;
                continue;
            }
            /* Small pieces go together into one. */
            size_t cut = left < full - used ? left : full - used;
            memcpy(record + used, p, cut);
            used += cut;
            p += cut;
            left -= cut;
            if (used == full) {
                rc = encrypt(t, record, used);
                used = 0;
            }
        }
    }
    if (used && rc == 0)
        rc = encrypt(t, record, used);
    if (rc == 0)
        rc = flush(t);
    lend(t);
    return rc;
}

static size_t tls_pending(const tnl_conn *c)
{
    const tls_conn *t = TNL_CONTAINER(c, const tls_conn, base);
    return t->lower ? tnl_conn_pending(t->lower) : 0;
}

static void tls_resume(tnl_conn *c)
{
    tls_conn *t = of(c);
    if (t->closing || c->ended)
        return;
    t->wanted = true;
    if (t->running)
        return;
    if (t->ready && (has_input(t) || t->lower_ended))
        tnl_loop_defer(c->loop, &t->work);
    else
        steer_lower(t);
}

static void tls_pause(tnl_conn *c)
{
    tls_conn *t = of(c);
    t->wanted = false;
    if (!t->running)
        steer_lower(t);
}

static void tls_shutdown(tnl_conn *c)
{
    tls_conn *t = of(c);
    if (t->closing || t->shut)
        return;
    if (!t->ready) {
        tls_close(c, false);
        return;
    }
    t->shut = true;
    if (regain(t))
        return;
    int rc = mbedtls_ssl_close_notify(&t->ssl);
    if (rc) {
        fail_tls(t, rc);
        return;
    }
    if (flush(t) == 0 && t->lower)
        tnl_conn_shutdown(t->lower);
}

static tnl_address tls_peer(const tnl_conn *c)
{
    const tls_conn *t = TNL_CONTAINER(c, const tls_conn, base);
    return t->lower ? tnl_conn_peer(t->lower) : (tnl_address){.host = ""};
}

static tnl_address tls_local(const tnl_conn *c)
{
    const tls_conn *t = TNL_CONTAINER(c, const tls_conn, base);
    return t->lower ? tnl_conn_local(t->lower) : (tnl_address){.host = ""};
}

static void tls_keep_little(tnl_conn *c)
{
    tls_conn *t = TNL_CONTAINER(c, tls_conn, base);
    if (t->lower)
        tnl_conn_keep_little(t->lower);
}

static const tnl_conn_ops tls_ops = {
    .write = tls_write,
    .pending = tls_pending,
    .resume = tls_resume,
    .pause = tls_pause,
    .shutdown = tls_shutdown,
    .close = tls_close,
    .peer = tls_peer,
    .local = tls_local,
    .keep_little = tls_keep_little,
};

/* --- birth ------------------------------------------------------------------------------------ */

int tnl_tls_conn_set_server_name(void *conn, const char *name)
{
    tls_conn *t = conn;
    tnl_free(t->name);
    t->name = tnl_strdup(name);
    return t->name ? 0 : TUNNEL_E_NOMEM;
}

const char *tnl_tls_server_name(const tnl_conn *c)
{
    if (c->ops != &tls_ops)
        return "";
    const tls_conn *t = TNL_CONTAINER(c, const tls_conn, base);
    return t->name ? t->name : "";
}

static void discard(tnl_conn *lower)
{
    tnl_conn_set_events(lower, &tnl_conn_no_events, NULL);
    tnl_conn_close(lower);
}

/* Everything but the start; on failure nothing is left but lower, as it was. */
static int prepare(tls_conn **out, tnl_tls_ctx *ctx, tnl_conn *lower, const tnl_conn_events *ev,
                   void *user)
{
    tls_conn *t = tnl_calloc(1, sizeof(*t));
    if (!t)
        return TUNNEL_E_NOMEM;
    t->base.ops = &tls_ops;
    t->base.loop = lower->loop;
    tnl_conn_set_events(&t->base, ev, user);
    t->ctx = ctx;
    ctx->refs++;
    tnl_buf_init(&t->held, 2 * TNL_TLS_CHUNK);
    tnl_buf_init(&t->out, ctx->tx.max);
    tnl_task_init(&t->work, on_work, t);
    tnl_task_init(&t->end, on_end, t);
    mbedtls_ssl_init(&t->ssl);
    if (mbedtls_ssl_setup(&t->ssl, &ctx->conf) ||
        tnl_timer_new(&t->limit, lower->loop, on_limit, t)) {
        destroy(t);
        return TUNNEL_E_NOMEM;
    }
    mbedtls_ssl_set_user_data_p(&t->ssl, t);
    mbedtls_ssl_set_bio(&t->ssl, t, bio_send, bio_recv, NULL);
    *out = t;
    return 0;
}

static void start(tls_conn *t, tnl_conn *lower)
{
    t->lower = lower;
    tnl_conn_set_events(lower, &lower_events, t);
    tnl_timer_start(t->limit, t->ctx->handshake_ms);
    tnl_loop_defer(t->base.loop, &t->work);
}

int tnl_tls_accept(tnl_conn **out, tnl_tls_server *s, tnl_conn *lower, const uint8_t *early,
                   size_t n, const tnl_conn_events *ev, void *user)
{
    *out = NULL;
    tls_conn *t = NULL;
    /* The context is the first member. */
    int rc = n <= TNL_TLS_MAX_EARLY ? prepare(&t, (tnl_tls_ctx *)s, lower, ev, user)
                                    : TUNNEL_E_LIMIT;
    if (rc == 0 && n)
        rc = tnl_buf_add(&t->held, early, n);
    if (rc) {
        if (t)
            destroy(t);
        discard(lower);
        return rc;
    }
    start(t, lower);
    *out = &t->base;
    return 0;
}

int tnl_tls_connect(tnl_conn **out, tnl_tls_client *c, tnl_conn *lower, const char *server_name,
                    const tnl_conn_events *ev, void *user)
{
    *out = NULL;
    tls_conn *t = NULL;
    int rc = prepare(&t, (tnl_tls_ctx *)c, lower, ev, user);
    if (rc == 0)
        rc = tnl_tls_verdict_expect(&t->verdict, &t->ssl, server_name);
    if (rc) {
        if (t)
            destroy(t);
        discard(lower);
        return rc;
    }
    start(t, lower);
    *out = &t->base;
    return 0;
}
