/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_BASE_PORTS_H
#define TNL_BASE_PORTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A set of TCP or UDP ports as people write it: "22,8000-8100"; "none" is the empty set. */
enum { TNL_PORTS_MAX = 64, TNL_PORTS_TEXT = TNL_PORTS_MAX * 12 };

typedef struct tnl_ports {
    struct {
        uint16_t first;
        uint16_t last;
    } ranges[TNL_PORTS_MAX]; /* in ascending order, apart from one another */
    size_t count;
} tnl_ports;

/* 0; TUNNEL_E_INVALID (not such a text, port 0, a range that ends before it begins), LIMIT (over
 * TNL_PORTS_MAX ranges). */
int tnl_ports_parse(tnl_ports *p, const char *text);
bool tnl_ports_has(const tnl_ports *p, uint32_t port);
/* How many ports, and the one with an index below that, in ascending order. */
size_t tnl_ports_total(const tnl_ports *p);
uint16_t tnl_ports_at(const tnl_ports *p, size_t index);
/* As text again, "none" when empty; out: TNL_PORTS_TEXT bytes always suffice. Returns out. */
const char *tnl_ports_print(const tnl_ports *p, char *out, size_t size);

#endif
