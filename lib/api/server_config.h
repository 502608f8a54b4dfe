/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_API_SERVER_CONFIG_H
#define TNL_API_SERVER_CONFIG_H

#include "server/server.h"
#include "tunnel/server.h"

enum { TNL_SERVER_CONFIG_LINE = 512 };

/* A token, or a domain that may be published: for one token or (NULL) for all. */
typedef struct tnl_config_item {
    tnl_list node;
    char *token;
    char *pattern;
} tnl_config_item;

/* Its tokens and allowed domains stay out of `c`: they are hashed when a server is made of it. */
struct tunnel_server_config {
    tnl_server_config c;
    tnl_list tokens;
    tnl_list domains;
    char line[TNL_SERVER_CONFIG_LINE];
};

/*
 * A copy for tnl_server_new() or tnl_server_reload(), with tokens and allowed domains hashed: the
 * caller owns these two until one of the calls has succeeded (tnl_server_config_drop()). The rest
 * is borrowed from config. INVALID (with a line: what is missing), NOMEM, LIMIT.
 */
int tnl_server_config_make(tnl_server_config **out, const tunnel_server_config *config,
                           char *detail, size_t size);
/* Frees the copy; with `all` what it owns, too. NULL is fine. */
void tnl_server_config_drop(tnl_server_config *c, bool all);

#endif
