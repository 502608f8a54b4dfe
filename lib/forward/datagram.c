/* SPDX-License-Identifier: Apache-2.0 */
#include "forward/datagram.h"

#include <stdio.h>
#include <string.h>

#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/url.h"
#include "tunnel/error.h"

enum {
    IDLE_DEFAULT_MS = 60000,
    IDLE_LEAST_MS = 1000,
    IDLE_MOST_MS = 3600000,
    SWEEP_LEAST_MS = 100,
    SWEEP_MOST_MS = 5000,
    SWEEP_COUNT = 256,       /* flows that are ended in one turn of the loop */
    LOOKUP_GOOD_MS = 60000,  /* what a name stands for is asked again then */
    LOOKUP_AGAIN_MS = 1000,  /* after one that failed */
    MAX_WAITING = 64 * 1024, /* bytes of datagrams that wait for a lookup */
    MAX_KEPT = 2048,         /* a first datagram of at most this size is tried at all addresses */
    DETAIL = 320,
};

/* A datagram that waits for the lookup. */
typedef struct waiting {
    tnl_list node;
    uint64_t flow;
    size_t n;
    uint8_t bytes[];
} waiting;

typedef struct flow {
    tnl_map_node by_id;
    tnl_list recent; /* in flows->all, the longest idle first */
    tnl_flows *owner;
    tnl_udp *udp;      /* NULL: without an upstream, or before the lookup */
    uint16_t own_port; /* of that */
    uint8_t at;        /* which of the addresses it is connected to */
    uint8_t tries;     /* how many others are left for the last datagram */
    bool answered;
    uint8_t family; /* of the visitor; 0: not known */
    uint16_t port;
    uint8_t address[16];
    int error;
    uint64_t born;
    uint64_t heard;
    uint64_t bytes_in;
    uint64_t bytes_out;
    uint8_t *kept; /* the last datagram of a flow that was not answered yet, for another address */
    size_t kept_n;
} flow;

struct tnl_flows {
    tnl_loop *loop;
    const tnl_flows_events *events;
    void *user;
    tnl_map ids;
    tnl_list all;
    size_t count;
    size_t max;
    uint32_t idle_ms;
    tnl_timer *sweep;
    bool listens;
    uint16_t port;
    char host[TNL_URL_HOST];
    tnl_udp_lookup *lookup;
    uint64_t looked_up; /* when the last one ended; 0: none did */
    tnl_udp_address list[TNL_UDP_ADDRESSES];
    uint8_t list_count;
    uint8_t preferred; /* which of them has answered */
    tnl_list waiting;
    size_t waiting_bytes;
    unsigned busy; /* calls on the stack */
    bool freed;
};

/* --- life ------------------------------------------------------------------------------------- */

static void really_free(tnl_flows *f)
{
    tnl_timer_free(f->sweep);
    tnl_map_free(&f->ids);
    tnl_free(f);
}

static void leave(tnl_flows *f)
{
    if (--f->busy == 0 && f->freed)
        really_free(f);
}

static flow *find(const tnl_flows *f, uint64_t id)
{
    tnl_map_node *n = tnl_map_get_id(&f->ids, id);
    return n ? TNL_CONTAINER(n, flow, by_id) : NULL;
}

static flow *longest_idle(const tnl_flows *f)
{
    tnl_list *n = tnl_list_first(&f->all);
    return n ? TNL_CONTAINER(n, flow, recent) : NULL;
}

static tnl_address visitor_of(const flow *w)
{
    tnl_udp_address a = {.family = w->family, .port = w->port};
    memcpy(a.address, w->address, sizeof(a.address));
    return w->family ? tnl_udp_text(&a) : (tnl_address){.host = ""};
}

static void forget_kept(flow *w)
{
    tnl_free(w->kept);
    w->kept = NULL;
    w->kept_n = 0;
}

static void end_flow(flow *w, int error, const char *text)
{
    tnl_flows *f = w->owner;
    tnl_address visitor = visitor_of(w);
    if (!error && !w->answered && w->error) {
        error = w->error;
        text = "the upstream did not take its datagrams";
    }
    tnl_flow_end end = {.flow = w->by_id.id,
                        .visitor = &visitor,
                        .duration_us = (w->heard - w->born) * 1000,
                        .bytes_in = w->bytes_in,
                        .bytes_out = w->bytes_out,
                        .error = error,
                        .text = error && text ? text : ""};
    tnl_map_remove(&f->ids, &w->by_id);
    tnl_list_remove(&w->recent);
    f->count--;
    tnl_udp_free(w->udp);
    forget_kept(w);
    tnl_free(w);
    if (f->events->over)
        f->events->over(f->user, &end);
}

static void begin_sweeping(tnl_flows *f)
{
    uint32_t ms = f->idle_ms / 8;
    ms = ms < SWEEP_LEAST_MS ? SWEEP_LEAST_MS : ms > SWEEP_MOST_MS ? SWEEP_MOST_MS : ms;
    if (!tnl_timer_active(f->sweep))
        tnl_timer_start(f->sweep, ms);
}

static void on_sweep(void *user)
{
    tnl_flows *f = user;
    uint64_t now = tnl_loop_now(f->loop);
    int ended = 0;
    f->busy++;
    for (flow *w;
         !f->freed && ended < SWEEP_COUNT && (w = longest_idle(f)) && now - w->heard >= f->idle_ms;
         ended++)
        end_flow(w, 0, NULL);
    if (!f->freed && ended == SWEEP_COUNT)
        tnl_timer_start(f->sweep, 1);
    else if (!f->freed && f->count)
        begin_sweeping(f);
    leave(f);
}

static void touch(flow *w)
{
    w->heard = tnl_loop_now(w->owner->loop);
    tnl_list_remove(&w->recent);
    tnl_list_add_tail(&w->owner->all, &w->recent);
}

/* --- the upstream ----------------------------------------------------------------------------- */

static void tell_upstream(tnl_flows *f, int error, const char *detail)
{
    if (f->events->upstream)
        f->events->upstream(f->user, error, detail);
}

static void on_answer(void *user, const tnl_udp_address *from, const uint8_t *p, size_t n)
{
    flow *w = user;
    tnl_flows *f = w->owner;
    uint64_t id = w->by_id.id;
    bool first = !w->answered;
    (void)from;
    f->busy++;
    w->answered = true;
    w->bytes_out += n;
    if (first)
        forget_kept(w);
    f->preferred = w->at;
    touch(w);
    f->events->send(f->user, id, p, n);
    if (first && !f->freed)
        tell_upstream(f, 0, "");
    leave(f);
}

static void on_refused(void *user);

static const tnl_udp_events udp_events = {.datagram = on_answer, .refused = on_refused};

static void say_unreachable(tnl_flows *f, uint8_t at, int error)
{
    char detail[DETAIL];
    tnl_address a = tnl_udp_text(&f->list[at]);
    snprintf(detail, sizeof(detail), a.ipv6 ? "[%s]:%u: %s" : "%s:%u: %s", a.host, a.port,
             error == TUNNEL_E_REFUSED ? "nobody listens there" : tunnel_strerror(error));
    tell_upstream(f, error, detail);
}

/* Opens the socket of a flow. 0 or why not. */
static int open_socket(flow *w)
{
    tnl_flows *f = w->owner;
    uint64_t id = w->by_id.id;
    const tnl_udp_address *to = &f->list[w->at];
    if (f->events->allowed && !f->events->allowed(f->user, to))
        return TUNNEL_E_LOOP;
    if (f->freed || find(f, id) != w)
        return TUNNEL_E_GONE;
    int rc = tnl_udp_connect(&w->udp, f->loop, to, &udp_events, w);
    flow *other = longest_idle(f);
    if (rc == TUNNEL_E_LIMIT && other && other != w) {
        /* No descriptor is free: one that is less wanted is given up. */
        end_flow(other, rc, "too many open files");
        if (f->freed || find(f, id) != w)
            return TUNNEL_E_GONE;
        rc = tnl_udp_connect(&w->udp, f->loop, to, &udp_events, w);
    }
    if (rc == 0)
        w->own_port = tnl_udp_bound(w->udp).port;
    return rc;
}

/* Another of the upstream's addresses, where the last datagram has not been tried yet. */
static bool move_on(flow *w)
{
    tnl_flows *f = w->owner;
    while (!w->answered && w->tries) {
        w->tries--;
        w->at = (uint8_t)((w->at + 1) % f->list_count);
        tnl_udp_free(w->udp);
        w->udp = NULL;
        int rc = open_socket(w);
        if (rc == TUNNEL_E_LOOP || rc == TUNNEL_E_GONE)
            return false;
        if (rc == 0) {
            if (w->kept)
                tnl_udp_send(w->udp, NULL, w->kept, w->kept_n);
            return true;
        }
    }
    return false;
}

static void on_refused(void *user)
{
    flow *w = user;
    tnl_flows *f = w->owner;
    uint8_t at = w->at;
    f->busy++;
    w->error = TUNNEL_E_REFUSED;
    if (!move_on(w) && !f->freed)
        say_unreachable(f, at, TUNNEL_E_REFUSED);
    leave(f);
}

static void keep(flow *w, const uint8_t *p, size_t n)
{
    forget_kept(w);
    if (w->answered || w->owner->list_count < 2 || n > MAX_KEPT)
        return;
    w->kept = tnl_malloc(n);
    w->kept_n = w->kept ? n : 0;
    if (w->kept && n)
        memcpy(w->kept, p, n);
}

/* The addresses are known. */
static void to_upstream(flow *w, const uint8_t *p, size_t n)
{
    tnl_flows *f = w->owner;
    int rc = 0;
    w->tries = (uint8_t)(f->list_count - 1);
    keep(w, p, n);
    if (w->udp) {
        tnl_udp_send(w->udp, NULL, p, n);
        return;
    }
    w->at = f->preferred;
    rc = open_socket(w);
    if (rc == TUNNEL_E_LOOP || rc == TUNNEL_E_GONE)
        return;
    if (rc == 0) {
        tnl_udp_send(w->udp, NULL, p, n);
        return;
    }
    w->error = rc;
    uint8_t at = w->at;
    if (!move_on(w) && !f->freed)
        say_unreachable(f, at, rc);
}

/* --- what the upstream's name stands for ------------------------------------------------------ */

static waiting *first_waiting(const tnl_flows *f)
{
    tnl_list *n = tnl_list_first(&f->waiting);
    return n ? TNL_CONTAINER(n, waiting, node) : NULL;
}

static void take_waiting(tnl_flows *f, waiting *g)
{
    tnl_list_remove(&g->node);
    f->waiting_bytes -= sizeof(*g) + g->n;
}

static void drop_waiting(tnl_flows *f)
{
    for (waiting *g; (g = first_waiting(f));) {
        take_waiting(f, g);
        tnl_free(g);
    }
}

static void on_found(void *user, int error, const char *detail, const tnl_udp_address *list,
                     size_t n)
{
    tnl_flows *f = user;
    f->lookup = NULL;
    f->busy++;
    f->looked_up = tnl_loop_now(f->loop) + 1;
    if (error == 0) {
        memcpy(f->list, list, n * sizeof(*list));
        f->list_count = (uint8_t)n;
        f->preferred = f->preferred < n ? f->preferred : 0;
    } else {
        tell_upstream(f, error, detail);
    }
    for (waiting *g; !f->freed && f->list_count && (g = first_waiting(f));) {
        take_waiting(f, g);
        flow *w = find(f, g->flow);
        if (w)
            to_upstream(w, g->bytes, g->n);
        tnl_free(g);
    }
    drop_waiting(f);
    leave(f);
}

static bool is_numeric(const tnl_flows *f)
{
    return f->host[strspn(f->host, "0123456789.")] == '\0' || strchr(f->host, ':') ||
           tnl_host_is_loopback(f->host);
}

/* True when the addresses are known well enough; else a lookup is on its way, or has just failed.
 */
static bool look_up(tnl_flows *f)
{
    uint64_t now = tnl_loop_now(f->loop);
    uint64_t good = f->list_count ? LOOKUP_GOOD_MS : LOOKUP_AGAIN_MS;
    if (f->list_count && is_numeric(f))
        return true;
    if (f->lookup || (f->looked_up && now < f->looked_up + good))
        return f->list_count > 0;
    if (tnl_udp_lookup_start(&f->lookup, f->loop, f->host, f->port, on_found, f))
        f->looked_up = now + 1;
    return f->list_count > 0;
}

static void wait_for_lookup(flow *w, const uint8_t *p, size_t n)
{
    tnl_flows *f = w->owner;
    /* One may always wait, however large. */
    bool fits = f->waiting_bytes == 0 || f->waiting_bytes + sizeof(waiting) + n <= MAX_WAITING;
    waiting *g = f->lookup && fits ? tnl_malloc(sizeof(*g) + n) : NULL;
    if (!g)
        return;
    g->flow = w->by_id.id;
    g->n = n;
    if (n)
        memcpy(g->bytes, p, n);
    tnl_list_init(&g->node);
    tnl_list_add_tail(&f->waiting, &g->node);
    f->waiting_bytes += sizeof(*g) + n;
}

/* --- datagrams -------------------------------------------------------------------------------- */

/* Whether the visitor is a socket of ours. */
static bool is_own(const tnl_flows *f, const tnl_datagram *d)
{
    tnl_udp_address a = {.family = d->family, .port = d->port};
    memcpy(a.address, d->address, sizeof(a.address));
    for (const tnl_list *n = f->all.next; d->family && d->port && n != &f->all; n = n->next) {
        const flow *w = TNL_CONTAINER(n, const flow, recent);
        if (w->udp && w->own_port == d->port &&
            strcmp(tnl_udp_bound(w->udp).host, tnl_udp_text(&a).host) == 0)
            return true;
    }
    return false;
}

/* NULL: not begun. */
static flow *begin_flow(tnl_flows *f, const tnl_datagram *d)
{
    if (is_own(f, d)) {
        if (f->events->cycle)
            f->events->cycle(f->user);
        return NULL;
    }
    flow *other = f->count >= f->max ? longest_idle(f) : NULL;
    if (other)
        end_flow(other, TUNNEL_E_LIMIT, "too many flows at once; it was idle for longest");
    flow *w = f->freed ? NULL : tnl_calloc(1, sizeof(*w));
    if (!w)
        return NULL;
    w->owner = f;
    w->family = d->family;
    w->port = d->port;
    memcpy(w->address, d->address, sizeof(w->address));
    w->born = tnl_loop_now(f->loop);
    tnl_list_init(&w->recent);
    if (tnl_map_put_id(&f->ids, &w->by_id, d->flow)) {
        tnl_free(w);
        return NULL;
    }
    f->count++;
    tnl_list_add_tail(&f->all, &w->recent);
    begin_sweeping(f);
    return w;
}

void tnl_flows_receive(tnl_flows *f, const tnl_datagram *d)
{
    f->busy++;
    flow *w = find(f, d->flow);
    if (!w)
        w = begin_flow(f, d);
    if (!w)
        goto done;
    touch(w);
    w->bytes_in += d->n;
    if (f->listens)
        f->events->datagram(f->user, d->flow, d->p, d->n);
    else if (w->udp || look_up(f))
        to_upstream(w, d->p, d->n);
    else
        wait_for_lookup(w, d->p, d->n);
done:
    leave(f);
}

int tnl_flows_send(tnl_flows *f, uint64_t id, const void *p, size_t n)
{
    flow *w = find(f, id);
    if (!w)
        return TUNNEL_E_NOT_FOUND;
    if (n > TNL_UDP_MAX)
        return TUNNEL_E_LIMIT;
    f->busy++;
    w->answered = true;
    w->bytes_out += n;
    touch(w);
    f->events->send(f->user, id, p, n);
    leave(f);
    return 0;
}

int tnl_flows_visitor(const tnl_flows *f, uint64_t id, tnl_address *out)
{
    const flow *w = find(f, id);
    if (!w)
        return TUNNEL_E_NOT_FOUND;
    *out = visitor_of(w);
    return 0;
}

size_t tnl_flows_count(const tnl_flows *f)
{
    return f->count;
}

/* --- all of them ------------------------------------------------------------------------------ */

static uint32_t idle_of(uint32_t asked)
{
    uint32_t ms = asked == 0              ? IDLE_DEFAULT_MS
                  : asked < IDLE_LEAST_MS ? IDLE_LEAST_MS
                  : asked > IDLE_MOST_MS  ? IDLE_MOST_MS
                                          : asked;
    /* The server, which hears of every datagram first, ends it first. */
    return ms + (ms / 8 < 500 ? 500 : ms / 8);
}

int tnl_flows_new(tnl_flows **out, tnl_loop *loop, const tnl_flows_config *config,
                  const tnl_flows_events *events, void *user)
{
    tnl_flows *f = tnl_calloc(1, sizeof(*f));
    if (!f)
        return TUNNEL_E_NOMEM;
    f->loop = loop;
    f->events = events;
    f->user = user;
    f->listens = config->host == NULL;
    f->port = config->port;
    f->max = config->max ? config->max : TNL_FLOWS_MAX;
    f->idle_ms = idle_of(config->idle_ms);
    snprintf(f->host, sizeof(f->host), "%s", config->host ? config->host : "");
    tnl_map_init(&f->ids, 0);
    tnl_list_init(&f->all);
    tnl_list_init(&f->waiting);
    int rc = tnl_timer_new(&f->sweep, loop, on_sweep, f);
    if (rc)
        tnl_free(f);
    else
        *out = f;
    return rc;
}

void tnl_flows_end_all(tnl_flows *f, int error, const char *text)
{
    f->busy++;
    tnl_udp_lookup_cancel(f->lookup);
    f->lookup = NULL;
    drop_waiting(f);
    for (flow *w; !f->freed && (w = longest_idle(f));)
        end_flow(w, error, text);
    leave(f);
}

void tnl_flows_free(tnl_flows *f)
{
    if (!f || f->freed)
        return;
    f->busy++;
    tnl_flows_end_all(f, TUNNEL_E_CANCELED, "the tunnel has ended");
    /* A callback of these may have called this too; then it is done. */
    f->freed = true;
    tnl_timer_stop(f->sweep);
    leave(f);
}
