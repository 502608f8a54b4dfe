/* SPDX-License-Identifier: Apache-2.0 */
#include "link/attach.h"

#include "crypto/crypto.h"

enum { KEPT = 64 };

int tnl_attach_prove(uint8_t mac[TNL_SECRET_SIZE], const uint8_t secret[TNL_SECRET_SIZE], char role,
                     const tnl_attach *a)
{
    uint8_t input[TNL_ATTACH_MAC_INPUT];
    tnl_attach_mac_input(input, role, a);
    return tnl_hmac_sha256(mac, secret, TNL_SECRET_SIZE, input, sizeof(input));
}

bool tnl_attach_verify(const uint8_t mac[TNL_SECRET_SIZE], const uint8_t secret[TNL_SECRET_SIZE],
                       char role, const tnl_attach *a)
{
    uint8_t right[TNL_SECRET_SIZE];
    return tnl_attach_prove(right, secret, role, a) == 0 && tnl_equal_ct(mac, right, sizeof(right));
}

bool tnl_link_numbers_fresh(const tnl_link_numbers *n, uint64_t number)
{
    if (number > n->greatest)
        return true;
    uint64_t behind = n->greatest - number;
    return behind >= 1 && behind <= KEPT && !(n->below >> (behind - 1) & 1);
}

void tnl_link_numbers_use(tnl_link_numbers *n, uint64_t number)
{
    if (number > n->greatest) {
        uint64_t step = number - n->greatest;
        /* The old greatest becomes one of those below. */
        n->below = step <= KEPT ? (step < KEPT ? n->below << step : 0) | 1ULL << (step - 1) : 0;
        n->greatest = number;
    } else if (number < n->greatest && n->greatest - number <= KEPT) {
        n->below |= 1ULL << (n->greatest - number - 1);
    }
}
