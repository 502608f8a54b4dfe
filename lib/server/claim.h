/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_SERVER_CLAIM_H
#define TNL_SERVER_CLAIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "base/map.h"
#include "io/loop.h"

/*
 * Who owns which name or port. One account has a name in all its forms (http, tls, wildcard, ports
 * behind a client, path id); a port is a port. A claim is there as long as something is published
 * under it, and is kept for its account for a while after that. With a file it outlives the server.
 *
 * Bounded: claims that are only kept are at most TNL_CLAIMS_KEPT, and TNL_CLAIMS_KEPT_ACCOUNT of
 * one account (TNL_CLAIMS_BACK_ACCOUNT after a restart); the oldest go.
 */
struct tnl_server;
struct tnl_tunnel;
typedef struct tnl_claim tnl_claim;

enum {
    TNL_CLAIMS_KEPT = 16384,
    TNL_CLAIMS_KEPT_ACCOUNT = 1024,
    TNL_CLAIMS_BACK_ACCOUNT = 8192, /* after a restart: what was in use then */
};

typedef struct tnl_claims {
    tnl_map by_key;
    tnl_map owners; /* by account */
    tnl_list kept;  /* those that nothing is published under, the oldest first */
    size_t kept_count;
    bool opened;  /* the file was read */
    bool changed; /* since the file was written */
    bool frozen;  /* the server ends: what ends with it stays claimed */
    bool file_failed;
    int file; /* the state file, open and locked; -1: none */
    uint64_t written_at;
    uint64_t awaited_until; /* none is awaited after that; 0: none at all */
} tnl_claims;

void tnl_claims_init(tnl_claims *c, uint64_t seed);
void tnl_claims_free(tnl_claims *c);

/* Whether another account has what a tunnel is to be called. */
bool tnl_claim_foreign(const struct tnl_tunnel *wanted);
/* Whether something was published under the name (lower case) when the server was last stopped, and
 * may come back now. */
bool tnl_claim_awaited(const struct tnl_server *s, const char *host);
/* What is published there will be again, at once: visitors may wait for it until then. */
void tnl_claim_await(const struct tnl_tunnel *t, uint64_t until);
/* The tunnel is being published; its name is not foreign. 0 or TUNNEL_E_NOMEM. */
int tnl_claim_take(struct tnl_tunnel *t);
/* It is not published any more. A no-op for one that has taken none. */
void tnl_claim_leave(struct tnl_tunnel *t);

/* claim_file.c: the file */
/* What a former server has left, then writes it: so that a file that cannot be used shows at once.
 * 0; NOT_FOUND (no such folder), ACCESS, INVALID, ADDR_IN_USE (another server has it), IO, NOMEM
 * with a line in detail. After a start that failed: 0, it is still open. */
int tnl_claims_open(struct tnl_server *s, char *detail, size_t size);
/* From time to time: ends what was kept for long enough, writes what has changed. now: loop time.
 */
void tnl_claims_look(struct tnl_server *s, uint64_t now);
/* The server ends. */
void tnl_claims_close(struct tnl_server *s);

/* --- for claim_file.c ------------------------------------------------------------------------- */

/* Both times are loop times; 0: it is not awaited. TUNNEL_E_NOMEM; TUNNEL_E_INVALID: the key is
 * there already. */
int tnl_claims_restore(tnl_claims *c, const char *key, const char *account, uint64_t until,
                       uint64_t awaited_until);
/* Walks all: NULL begins, NULL ends. */
const tnl_claim *tnl_claims_next(const tnl_claims *c, const tnl_claim *before);
const char *tnl_claim_key(const tnl_claim *c);
const char *tnl_claim_account(const tnl_claim *c);
/* Loop time; 0: as long as what is published under it, or is awaited now. */
uint64_t tnl_claim_until(const tnl_claim *c, uint64_t now);
void tnl_claims_expire(tnl_claims *c, uint64_t now);

#endif
