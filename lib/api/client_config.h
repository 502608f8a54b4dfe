/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_API_CLIENT_CONFIG_H
#define TNL_API_CLIENT_CONFIG_H

#include "client/client.h"
#include "tunnel/client.h"

enum { TNL_CLIENT_CONFIG_LINE = 512 };

struct tunnel_client_config {
    tnl_client_config c;
    bool has_instance;
    bool insecure;
    char line[TNL_CLIENT_CONFIG_LINE];
};

/* Members that were not set are 0 or "". */
struct tunnel_options {
    char host_header[256];
    char upstream_ca[512];
    char path_id[129];
    int proxy_protocol;
    char *cert_file; /* both or neither */
    char *key_file;
    uint32_t idle_ms;
    char pool[16];
    char line[TNL_CLIENT_CONFIG_LINE];
};

/* Whether a client can be made of it: 0 or TUNNEL_E_INVALID with a line in detail. */
int tnl_client_config_check(const tunnel_client_config *config, char *detail, size_t size);

/* Makes one line of a text that holds what someone gave: control characters become '?'. */
void tnl_line_tidy(char *line);

#endif
