/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_SERVER_ACCOUNT_H
#define TNL_SERVER_ACCOUNT_H

#include <stddef.h>

#include "auth/token.h"
#include "base/list.h"
#include "base/map.h"

/* What the sessions of an account use together. There as long as one of them is. */
typedef struct tnl_account {
    tnl_map_node by_name;
    size_t sessions;
    size_t parked;       /* sessions without a link */
    size_t parked_bytes; /* what their streams hold, at the last look */
    char name[TNL_ACCOUNT_SIZE];
} tnl_account;

/* The account with that name, for one more session; NULL: no memory. */
tnl_account *tnl_account_join(tnl_map *accounts, const char *name);
void tnl_account_leave(tnl_map *accounts, tnl_account *a); /* NULL is fine */

#endif
