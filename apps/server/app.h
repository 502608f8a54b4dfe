/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_SERVER_APP_H
#define APPS_SERVER_APP_H

#include <stdio.h>
#include <tunnel/tunnel.h>

#include "server/settings.h"

/* The running program. */
typedef struct app {
    command_line command;
    settings *settings;
    tunnel_loop *loop;
    tunnel_server *server;
    const char *file; /* the configuration file; NULL: none */
    char token[33];   /* the one that was made because none was given, or "" */
    bool token_shown;
    FILE *access_file; /* NULL: none */
    bool draining;
    char line[1400];
} app;

#endif
