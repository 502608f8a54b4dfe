/* SPDX-License-Identifier: Apache-2.0 */
#include "base/map.h"

#include <string.h>

#include "base/mem.h"
#include "tunnel/error.h"

enum { FIRST_BUCKETS = 16 };

void tnl_map_init(tnl_map *m, uint64_t seed)
{
    *m = (tnl_map){.seed = seed};
}

void tnl_map_free(tnl_map *m)
{
    tnl_free(m->buckets);
    tnl_map_init(m, m->seed);
}

/* The finalizer of splitmix64: spreads every input bit over the whole word. */
static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= UINT64_C(0xbf58476d1ce4e5b9);
    x ^= x >> 27;
    x *= UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static uint64_t hash_bytes(const tnl_map *m, const void *key, size_t len)
{
    const uint8_t *p = key;
    uint64_t h = mix(m->seed ^ len);
    while (len) {
        uint64_t word = 0;
        size_t n = len < 8 ? len : 8;
        memcpy(&word, p, n);
        h = mix(h ^ word) + m->seed;
        p += n;
        len -= n;
    }
    return h;
}

static tnl_map_node **bucket(const tnl_map *m, uint64_t id)
{
    return &m->buckets[mix(id) & (m->bucket_count - 1)];
}

static int grow(tnl_map *m)
{
    if (m->count < m->bucket_count)
        return 0;
    size_t old_count = m->bucket_count;
    size_t count = old_count ? old_count * 2 : FIRST_BUCKETS;
    tnl_map_node **old = m->buckets;
    tnl_map_node **buckets = tnl_calloc(count, sizeof(*buckets));
    if (!buckets)
        return old ? 0 : TUNNEL_E_NOMEM;
    m->buckets = buckets;
    m->bucket_count = count;
    for (size_t i = 0; i < old_count; i++) {
        for (tnl_map_node *n = old[i], *next; n; n = next) {
            next = n->next;
            tnl_map_node **b = bucket(m, n->id);
            n->next = *b;
            *b = n;
        }
    }
    tnl_free(old);
    return 0;
}

static int insert(tnl_map *m, tnl_map_node *n)
{
    int rc = grow(m);
    if (rc)
        return rc;
    tnl_map_node **b = bucket(m, n->id);
    n->next = *b;
    *b = n;
    m->count++;
    return 0;
}

int tnl_map_put_id(tnl_map *m, tnl_map_node *n, uint64_t id)
{
    n->id = id;
    n->key = NULL;
    n->key_len = 0;
    return insert(m, n);
}

int tnl_map_put(tnl_map *m, tnl_map_node *n, const void *key, size_t len)
{
    n->id = hash_bytes(m, key, len);
    n->key = key;
    n->key_len = len;
    return insert(m, n);
}

tnl_map_node *tnl_map_get_id(const tnl_map *m, uint64_t id)
{
    if (!m->bucket_count)
        return NULL;
    for (tnl_map_node *n = *bucket(m, id); n; n = n->next)
        if (n->id == id)
            return n;
    return NULL;
}

tnl_map_node *tnl_map_get(const tnl_map *m, const void *key, size_t len)
{
    if (!m->bucket_count)
        return NULL;
    uint64_t id = hash_bytes(m, key, len);
    for (tnl_map_node *n = *bucket(m, id); n; n = n->next)
        if (n->id == id && n->key_len == len && memcmp(n->key, key, len) == 0)
            return n;
    return NULL;
}

void tnl_map_remove(tnl_map *m, tnl_map_node *n)
{
    for (tnl_map_node **p = bucket(m, n->id); *p; p = &(*p)->next) {
        if (*p == n) {
            *p = n->next;
            m->count--;
            return;
        }
    }
}

tnl_map_node *tnl_map_next(const tnl_map *m, const tnl_map_node *n)
{
    size_t i = 0;
    if (n) {
        if (n->next)
            return n->next;
        i = (size_t)(bucket(m, n->id) - m->buckets) + 1;
    }
    for (; i < m->bucket_count; i++)
        if (m->buckets[i])
            return m->buckets[i];
    return NULL;
}
