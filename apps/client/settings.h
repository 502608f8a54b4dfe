/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_CLIENT_SETTINGS_H
#define APPS_CLIENT_SETTINGS_H

#include <stdbool.h>
#include <tunnel/client.h>

#include "client/plan.h"
#include "common/options.h"

/* The commands, in the order of their rows; the first ones are the kinds of tunnels. */
enum { COMMAND_START = TYPE_COUNT, COMMAND_CHECK, CLIENT_COMMANDS };

enum { SERVERS_MAX = 8 }; /* as the library has it */

/* What a connection depends on: when one of these changes, it must be made anew. */
typedef enum connection_field {
    CONNECTION_SERVER,
    CONNECTION_TOKEN,
    CONNECTION_CA,
    CONNECTION_INSECURE,
    CONNECTION_PROXY,
    CONNECTION_FORCE,
    CONNECTION_INSTANCE,
    CONNECTION_LINK_TIMEOUT,
    CONNECTION_LANES,
    CONNECTION_FIELDS,
} connection_field;

/* All that the command line, the environment and a file have said, checked. */
typedef struct settings {
    tunnel_client_config *config;
    char *connection[CONNECTION_FIELDS];        /* NULL: not given */
    text_list servers;                          /* each; all of them are a connection field */
    size_t server_lines[SERVERS_MAX];           /* of the file, as below */
    char *ca_version;                           /* which version of the CA file it was */
    size_t connection_lines[CONNECTION_FIELDS]; /* of the file; 0: not from there */
    const size_t *reading; /* the line of the file that is being read; NULL: none is */
    plan *plans;
    plan *current; /* whose options are being set */
    uint32_t drain_ms;
    bool quiet;
    bool verbose;
    bool qr;
    bool json;
    tunnel_options *scratch; /* for checking */
    char line[700];
} settings;

/* NULL: out of memory. */
settings *settings_new(void);
void settings_free(settings *s);

/* Adds a plan at the end and makes it the current one. NULL: out of memory. */
plan *settings_add_plan(settings *s, const char *label, tunnel_type type);

/* Takes the outbound proxy from the environment if none was given. NULL or a line. */
const char *settings_complete(settings *s);
/* The server, as it was given, whose address the library tells ("wss://host:port"); that itself if
 * it is none. */
const char *settings_server_at(const settings *s, const char *address);
/* Whether the same connection serves both. */
bool settings_same_connection(const settings *a, const settings *b);
size_t settings_name_count(const settings *s);

/* The command line of tunnel-client, whose setters take settings. */
void client_command_line(command_line *c);

#endif
