/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_SERVER_SETTINGS_H
#define APPS_SERVER_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>
#include <tunnel/server.h>

#include "common/options.h"
#include "common/text.h"

enum { CERTS_MAX = 256 };

/* All that the command line, the environment and a file have said, checked. */
typedef struct settings {
    tunnel_server_config *config;
    text_list tokens; /* in the order given */
    text_list certs;
    text_list keys;
    size_t cert_lines[CERTS_MAX]; /* of the file, where they stand; 0: not from there */
    const size_t *reading;        /* the line of the file that is being read; NULL: none is */
    uint32_t udp_flows;           /* 0: not given */
    uint32_t udp_flows_per_source;
    uint32_t drain_delay_ms;
    uint32_t drain_timeout_ms;
    bool verbose;
    bool json;
    char *access_log;  /* NULL: none; "-": standard output */
    char *state;       /* NULL: none */
    size_t state_line; /* of the file; 0: not from there */
    char line[600];
} settings;

/* NULL: out of memory. */
settings *settings_new(void);
void settings_free(settings *s);

/* Puts together what was said in several options. Returns NULL or a line. */
const char *settings_complete(settings *s);

/* The command line of tunnel-server, whose setters take settings. */
void server_command_line(command_line *c);

#endif
