/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "server/visitor.h"

/*
 * Visitors of a server that has just restarted, who ask for what was published before: its client
 * is on its way back.
 */

static bool is_awaited(tnl_server *s, const char *host)
{
    enum { MAX_DEPTH = 8 };
    bool own = tnl_registry_is_own(s, host);
    if (tnl_claim_awaited(s, host))
        return true;
    /* A wildcard, or ports behind a client. The domain itself stands for nothing below it. */
    for (int i = 0; i < MAX_DEPTH && (host = strchr(host, '.')) != NULL; i++) {
        host++;
        if (own && (!tnl_registry_is_own(s, host) || strcmp(host, s->config.domain) == 0))
            return false;
        if (tnl_claim_awaited(s, host))
            return true;
    }
    return false;
}

static bool is_path_awaited(tnl_server *s, tnl_http_span path)
{
    char name[TNL_HOST_MAX + TNL_PATH_ID_MAX + 2];
    size_t n = 1;
    while (n < path.n && path.p[n] != '/' && path.p[n] != '?')
        n++;
    if (n < 2 || n > TNL_PATH_ID_MAX)
        return false;
    snprintf(name, sizeof(name), "%.*s.%s", (int)(n - 1), path.p + 1, s->config.domain);
    return tnl_claim_awaited(s, name);
}

bool tnl_await(tnl_visitor *v, bool by_path)
{
    char host[TNL_HOST_MAX];
    tnl_server *s = v->server;
    uint64_t now = tnl_loop_now(s->loop);
    bool awaited = (by_path && is_path_awaited(s, v->head->path)) ||
                   (tnl_registry_host(host, v->head->host) && is_awaited(s, host));
    if (!awaited && !v->awaits_since)
        return false;
    if (!v->awaits_since)
        v->awaits_since = now;
    /* A body cannot wait with it. */
    if (v->request_framing != TNL_HTTP_NO_BODY || now - v->awaits_since >= TNL_GAP_MS ||
        s->awaiting_count >= TNL_MAX_AWAITING) {
        tnl_visitor_answer(
            v, 503,
            "The server has just been restarted, and the tunnel's client is not back "
            "yet.\nTry again in a moment.");
    } else {
        tnl_list_add_tail(&s->awaiting, &v->awaiting);
        s->awaiting_count++;
    }
    return true;
}

void tnl_await_leave(tnl_visitor *v)
{
    v->awaits_since = 0;
    if (tnl_list_empty(&v->awaiting))
        return;
    tnl_list_remove(&v->awaiting);
    v->server->awaiting_count--;
}

void tnl_await_look(void *user)
{
    tnl_server *s = user;
    tnl_list list;
    tnl_list_init(&list);
    for (tnl_list *n; (n = tnl_list_first(&s->awaiting));) {
        tnl_list_remove(n);
        tnl_list_add_tail(&list, n);
    }
    for (tnl_list *n; (n = tnl_list_first(&list));) {
        tnl_list_remove(n);
        s->awaiting_count--;
        tnl_exchange_start(TNL_CONTAINER(n, tnl_visitor, awaiting));
    }
}
