/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_LINK_ATTACH_H
#define TNL_LINK_ATTACH_H

#include "wire/message.h"

/*
 * The proofs by which a link joins a session (docs/protocol.md section "Attaching"). Of a the
 * session, generation, link and nonce count; role is 'C' in ATTACH and 'S' in ATTACHED.
 */

/* 0 or TUNNEL_E_NOMEM. */
int tnl_attach_prove(uint8_t mac[TNL_SECRET_SIZE], const uint8_t secret[TNL_SECRET_SIZE], char role,
                     const tnl_attach *a);
/* In constant time; false also when there is no memory to find out. */
bool tnl_attach_verify(const uint8_t mac[TNL_SECRET_SIZE], const uint8_t secret[TNL_SECRET_SIZE],
                       char role, const tnl_attach *a);

/* The link numbers that a session has seen; all zeros: 0 alone, that of the HELLO's link. */
typedef struct tnl_link_numbers {
    uint64_t greatest;
    uint64_t below; /* bit i: greatest - 1 - i was used */
} tnl_link_numbers;

/* Whether a number was not used before; one too far behind to know counts as used. */
bool tnl_link_numbers_fresh(const tnl_link_numbers *n, uint64_t number);
/* Uses a fresh one up. */
void tnl_link_numbers_use(tnl_link_numbers *n, uint64_t number);

#endif
