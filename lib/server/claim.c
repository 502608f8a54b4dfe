/* SPDX-License-Identifier: Apache-2.0 */
#include "server/claim.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "server/internal.h"
#include "tunnel/error.h"

enum { KEY_MAX = TNL_HOST_MAX + TNL_PATH_ID_MAX + 16 };

/* An account that has claims. */
typedef struct owner {
    tnl_map_node by_account;
    tnl_list kept; /* its claims that are only kept, the oldest first */
    size_t kept_count;
    size_t count; /* all its claims */
    char account[TNL_ACCOUNT_SIZE];
} owner;

struct tnl_claim {
    tnl_map_node by_key;
    tnl_list kept;     /* in tnl_claims.kept */
    tnl_list of_owner; /* in owner.kept */
    owner *owner;
    size_t published; /* tunnels */
    uint64_t until;   /* without any: loop time */
    uint64_t awaited_until;
    char key[];
};

void tnl_claims_init(tnl_claims *c, uint64_t seed)
{
    tnl_map_init(&c->by_key, seed);
    tnl_map_init(&c->owners, seed);
    tnl_list_init(&c->kept);
    c->file = -1;
}

/* --- owners ----------------------------------------------------------------------------------- */

static owner *owner_of(tnl_claims *c, const char *account)
{
    tnl_map_node *n = tnl_map_get(&c->owners, account, strlen(account));
    if (n)
        return TNL_CONTAINER(n, owner, by_account);
    owner *o = tnl_calloc(1, sizeof(*o));
    if (!o)
        return NULL;
    snprintf(o->account, sizeof(o->account), "%s", account);
    tnl_list_init(&o->kept);
    if (tnl_map_put(&c->owners, &o->by_account, o->account, strlen(o->account))) {
        tnl_free(o);
        return NULL;
    }
    return o;
}

static void owner_free_if_none(tnl_claims *c, owner *o)
{
    if (o->count)
        return;
    tnl_map_remove(&c->owners, &o->by_account);
    tnl_free(o);
}

/* --- claims ----------------------------------------------------------------------------------- */

static void unkeep(tnl_claims *c, tnl_claim *claim)
{
    if (tnl_list_empty(&claim->kept))
        return;
    tnl_list_remove(&claim->kept);
    tnl_list_remove(&claim->of_owner);
    c->kept_count--;
    claim->owner->kept_count--;
}

static void claim_free(tnl_claims *c, tnl_claim *claim)
{
    owner *o = claim->owner;
    unkeep(c, claim);
    tnl_map_remove(&c->by_key, &claim->by_key);
    tnl_free(claim);
    o->count--;
    owner_free_if_none(c, o);
    c->changed = true;
}

static void keep(tnl_claims *c, tnl_claim *claim, uint64_t until)
{
    claim->until = until;
    tnl_list_add_tail(&c->kept, &claim->kept);
    tnl_list_add_tail(&claim->owner->kept, &claim->of_owner);
    c->kept_count++;
    size_t most = claim->awaited_until ? TNL_CLAIMS_BACK_ACCOUNT : TNL_CLAIMS_KEPT_ACCOUNT;
    if (++claim->owner->kept_count > most)
        claim_free(c, TNL_CONTAINER(tnl_list_first(&claim->owner->kept), tnl_claim, of_owner));
    else if (c->kept_count > TNL_CLAIMS_KEPT)
        claim_free(c, TNL_CONTAINER(tnl_list_first(&c->kept), tnl_claim, kept));
}

static tnl_claim *get(const tnl_claims *c, const char *key)
{
    tnl_map_node *n = key[0] ? tnl_map_get(&c->by_key, key, strlen(key)) : NULL;
    return n ? TNL_CONTAINER(n, tnl_claim, by_key) : NULL;
}

static int claim_new(tnl_claim **out, tnl_claims *c, const char *key, const char *account)
{
    size_t n = strlen(key);
    tnl_claim *claim = tnl_calloc(1, sizeof(*claim) + n + 1);
    owner *o = claim ? owner_of(c, account) : NULL;
    if (!o)
        goto fail;
    memcpy(claim->key, key, n + 1);
    tnl_list_init(&claim->kept);
    tnl_list_init(&claim->of_owner);
    if (tnl_map_put(&c->by_key, &claim->by_key, claim->key, n)) {
        owner_free_if_none(c, o);
        goto fail;
    }
    claim->owner = o;
    o->count++;
    c->changed = true;
    *out = claim;
    return 0;
fail:
    tnl_free(claim);
    return TUNNEL_E_NOMEM;
}

void tnl_claims_free(tnl_claims *c)
{
    for (tnl_map_node *n; (n = tnl_map_next(&c->by_key, NULL));)
        claim_free(c, TNL_CONTAINER(n, tnl_claim, by_key));
    tnl_map_free(&c->by_key);
    tnl_map_free(&c->owners);
    if (c->file >= 0)
        close(c->file);
    c->file = -1;
}

/* --- tunnels ---------------------------------------------------------------------------------- */

/* What is claimed with a tunnel's name; "": it has none yet. */
static const char *key_of(const tnl_tunnel *t, char out[KEY_MAX])
{
    const tnl_name *n = t->name;
    const char *host = n->host[0] == '*' ? n->host + 2 : n->host;
    out[0] = '\0';
    if (n->kind == TNL_KIND_TCP || n->kind == TNL_KIND_UDP) {
        if (n->port)
            snprintf(out, KEY_MAX, "%s:%u", tnl_kind_name(n->kind), n->port);
    } else if (n->path_id[0]) {
        snprintf(out, KEY_MAX, "name:%s.%s", n->path_id, n->server->config.domain);
    } else if (host[0]) {
        snprintf(out, KEY_MAX, "name:%s", host);
    }
    return out;
}

bool tnl_claim_foreign(const tnl_tunnel *wanted)
{
    char key[KEY_MAX];
    const tnl_server *s = wanted->peer->server;
    const tnl_claim *claim = get(&s->claims, key_of(wanted, key));
    if (!claim || strcmp(claim->owner->account, wanted->peer->account) == 0)
        return false;
    return claim->published || claim->until > tnl_loop_now(s->loop);
}

bool tnl_claim_awaited(const tnl_server *s, const char *host)
{
    char key[KEY_MAX];
    snprintf(key, sizeof(key), "name:%s", host);
    const tnl_claim *claim = get(&s->claims, key);
    return claim && claim->awaited_until > tnl_loop_now(s->loop);
}

void tnl_claim_await(const tnl_tunnel *t, uint64_t until)
{
    tnl_claims *c = &t->peer->server->claims;
    if (!t->claim)
        return;
    t->claim->awaited_until = until;
    if (c->awaited_until < until)
        c->awaited_until = until;
}

int tnl_claim_take(tnl_tunnel *t)
{
    char key[KEY_MAX];
    tnl_claims *c = &t->peer->server->claims;
    tnl_claim *claim = get(c, key_of(t, key));
    if (claim && strcmp(claim->owner->account, t->peer->account) != 0) {
        claim_free(c, claim); /* it was kept for long enough */
        claim = NULL;
    }
    if (!claim && claim_new(&claim, c, key, t->peer->account))
        return TUNNEL_E_NOMEM;
    unkeep(c, claim);
    if (claim->awaited_until)
        tnl_loop_defer(t->peer->server->loop, &t->peer->server->await_look);
    claim->awaited_until = 0;
    claim->published++;
    t->claim = claim;
    return 0;
}

void tnl_claim_leave(tnl_tunnel *t)
{
    const tnl_server *s = t->peer->server;
    tnl_claims *c = &t->peer->server->claims;
    tnl_claim *claim = t->claim;
    t->claim = NULL;
    if (!claim || --claim->published)
        return;
    c->changed = true;
    uint64_t now = tnl_loop_now(s->loop), until = now + s->config.hold_ms;
    if (until < claim->awaited_until)
        until = claim->awaited_until;
    if (until > now)
        keep(c, claim, until);
    else
        claim_free(c, claim);
}

/* --- all of them ------------------------------------------------------------------------------ */

int tnl_claims_restore(tnl_claims *c, const char *key, const char *account, uint64_t until,
                       uint64_t awaited_until)
{
    tnl_claim *claim;
    if (get(c, key))
        return TUNNEL_E_INVALID;
    int rc = claim_new(&claim, c, key, account);
    if (rc)
        return rc;
    claim->awaited_until = awaited_until;
    if (c->awaited_until < awaited_until)
        c->awaited_until = awaited_until;
    keep(c, claim, until);
    return 0;
}

const tnl_claim *tnl_claims_next(const tnl_claims *c, const tnl_claim *before)
{
    tnl_map_node *n = tnl_map_next(&c->by_key, before ? &before->by_key : NULL);
    return n ? TNL_CONTAINER(n, tnl_claim, by_key) : NULL;
}

const char *tnl_claim_key(const tnl_claim *c)
{
    return c->key;
}

const char *tnl_claim_account(const tnl_claim *c)
{
    return c->owner->account;
}

uint64_t tnl_claim_until(const tnl_claim *c, uint64_t now)
{
    return c->published || c->awaited_until > now ? 0 : c->until;
}

void tnl_claims_expire(tnl_claims *c, uint64_t now)
{
    enum { MOST = 1024 };
    tnl_list *n = tnl_list_first(&c->kept);
    for (int i = 0; n && i < MOST; i++, n = tnl_list_first(&c->kept)) {
        tnl_claim *claim = TNL_CONTAINER(n, tnl_claim, kept);
        if (claim->until > now)
            return;
        claim_free(c, claim);
    }
}
