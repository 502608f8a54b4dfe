/* SPDX-License-Identifier: Apache-2.0 */
#include "client/connection.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tunnel/error.h>

#include "common/tokens.h"

static const char *connection_error(const settings *s, int rc)
{
    const char *line = tunnel_client_config_error(s->config);
    return *line ? line : tunnel_strerror(rc);
}

static const char *connection_result(settings *s, int rc, connection_field field, const char *value)
{
    s->connection_lines[field] = s->reading ? *s->reading : 0;
    if (rc == 0)
        return text_set(&s->connection[field], value) ? NULL : "out of memory";
    return connection_error(s, rc);
}

static const char *add_server(settings *s, const char *url)
{
    char *all = NULL;
    int rc = tunnel_client_config_add_server(s->config, url);
    if (rc)
        return connection_error(s, rc);
    if (s->servers.count < SERVERS_MAX)
        s->server_lines[s->servers.count] = s->reading ? *s->reading : 0;
    const char *before = s->connection[CONNECTION_SERVER];
    bool ok = text_add(&s->servers, url) &&
              asprintf(&all, "%s%s%s", before ? before : "", before ? "," : "", url) >= 0;
    if (ok)
        ok = text_set(&s->connection[CONNECTION_SERVER], all);
    free(all);
    return ok ? NULL : "out of memory";
}

const char *set_server(void *user, const char *value)
{
    char *copy = strdup(value), *rest = copy;
    const char *error = copy ? NULL : "out of memory";
    for (char *url; !error && (url = strsep(&rest, ","));)
        error = add_server(user, url + strspn(url, " "));
    free(copy);
    return error;
}

const char *set_token(void *user, const char *value)
{
    settings *s = user;
    if (s->connection[CONNECTION_TOKEN])
        return "a token is given already: give either token or token-file";
    return connection_result(s, tunnel_client_config_set_token(s->config, value), CONNECTION_TOKEN,
                             value);
}

const char *set_token_file(void *user, const char *value)
{
    settings *s = user;
    text_list tokens = {.count = 0};
    const char *error = read_token_file(&tokens, value, s->line, sizeof(s->line));
    if (!error && tokens.count != 1) {
        snprintf(s->line, sizeof(s->line), "'%.200s' must hold one token, on a line of its own",
                 value);
        error = s->line;
    } else if (!error) {
        error = set_token(user, tokens.items[0]);
    }
    text_clear(&tokens);
    return error;
}

const char *set_ca(void *user, const char *value)
{
    settings *s = user;
    return connection_result(s, tunnel_client_config_set_ca_file(s->config, value), CONNECTION_CA,
                             value);
}

const char *set_insecure(void *user, const char *value)
{
    settings *s = user;
    return connection_result(s, tunnel_client_config_set_insecure(s->config, 1),
                             CONNECTION_INSECURE, value);
}

const char *set_proxy(void *user, const char *value)
{
    settings *s = user;
    return connection_result(s, tunnel_client_config_set_proxy(s->config, value), CONNECTION_PROXY,
                             value);
}

const char *set_force(void *user, const char *value)
{
    settings *s = user;
    return connection_result(s, tunnel_client_config_set_force(s->config, 1), CONNECTION_FORCE,
                             value);
}

const char *set_instance(void *user, const char *value)
{
    settings *s = user;
    return connection_result(s, tunnel_client_config_set_instance(s->config, value),
                             CONNECTION_INSTANCE, value);
}

const char *set_lanes(void *user, const char *value)
{
    settings *s = user;
    if (strlen(value) != 1 || value[0] < '0' || value[0] > '8')
        return "give a number, 0 to 8";
    return connection_result(s,
                             tunnel_client_config_set_lanes(s->config, (uint32_t)(value[0] - '0')),
                             CONNECTION_LANES, value);
}

const char *set_link_timeout(void *user, const char *value)
{
    settings *s = user;
    long ms = milliseconds(value);
    if (ms < 1000 || ms > 600000)
        return "give a number of seconds, 1 to 600";
    return connection_result(s, tunnel_client_config_set_silence(s->config, (uint32_t)ms),
                             CONNECTION_LINK_TIMEOUT, value);
}
