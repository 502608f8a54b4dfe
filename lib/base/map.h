/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_BASE_MAP_H
#define TNL_BASE_MAP_H

#include <stddef.h>
#include <stdint.h>

/*
 * An intrusive hash map with chains: members embed a tnl_map_node and own their keys, so that
 * inserting never fails once the first buckets exist (growing is skipped when memory is short).
 * Keys are byte strings or 64-bit numbers, one kind per map. Byte keys are hashed with a per-map
 * seed, so that chosen keys cannot be made to collide.
 */
typedef struct tnl_map_node {
    struct tnl_map_node *next;
    const void
        *key;    /* byte keys: borrowed from the member, must live as long as it is in the map */
    uint64_t id; /* number key, or the hash of a byte key */
    size_t key_len;
} tnl_map_node;

typedef struct tnl_map {
    tnl_map_node **buckets;
    size_t bucket_count; /* 0 or a power of two */
    size_t count;
    uint64_t seed;
} tnl_map;

/* seed: any number an attacker cannot know (byte keys), or 0. Allocates nothing. */
void tnl_map_init(tnl_map *m, uint64_t seed);

/* Frees the buckets; the members are the caller's. */
void tnl_map_free(tnl_map *m);

/* 0, or TUNNEL_E_NOMEM when not even the first buckets could be allocated. The key must not be in
 * the map already. */
int tnl_map_put_id(tnl_map *m, tnl_map_node *n, uint64_t id);
int tnl_map_put(tnl_map *m, tnl_map_node *n, const void *key, size_t len);

tnl_map_node *tnl_map_get_id(const tnl_map *m, uint64_t id);
tnl_map_node *tnl_map_get(const tnl_map *m, const void *key, size_t len);

/* Removes a member that is in the map. */
void tnl_map_remove(tnl_map *m, tnl_map_node *n);

/*
 * Walks all members in no order: start with NULL; NULL ends. The member returned may be removed
 * before the next call only when `next` was fetched first.
 */
tnl_map_node *tnl_map_next(const tnl_map *m, const tnl_map_node *n);

#endif
