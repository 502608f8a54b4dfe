/* SPDX-License-Identifier: Apache-2.0 */
#include "server/account.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

tnl_account *tnl_account_join(tnl_map *accounts, const char *name)
{
    tnl_map_node *n = tnl_map_get(accounts, name, strlen(name));
    tnl_account *a = n ? TNL_CONTAINER(n, tnl_account, by_name) : tnl_calloc(1, sizeof(*a));
    if (!a)
        return NULL;
    if (!n) {
        snprintf(a->name, sizeof(a->name), "%s", name);
        if (tnl_map_put(accounts, &a->by_name, a->name, strlen(a->name))) {
            tnl_free(a);
            return NULL;
        }
    }
    a->sessions++;
    return a;
}

void tnl_account_leave(tnl_map *accounts, tnl_account *a)
{
    if (!a || --a->sessions)
        return;
    tnl_map_remove(accounts, &a->by_name);
    tnl_free(a);
}
