/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_CLIENT_APP_H
#define APPS_CLIENT_APP_H

#include <tunnel/tunnel.h>

#include "client/settings.h"

/* The running program. */
typedef struct app {
    command_line command;
    settings *settings;
    settings *next; /* read again; waits until the old connection is closed */
    char *file;     /* the configuration file that is in use; NULL: none */
    tunnel_loop *loop;
    tunnel_client *client;
    unsigned open;          /* clients that are not closed yet */
    bool lost;              /* a retry was told, so that coming back is told too */
    bool connected;         /* it was, once */
    uint64_t round_trip_us; /* that was told last; 0: none yet */
    bool draining;          /* a signal has asked for the end */
    bool leaving;           /* exit_code is final */
    bool had_terminal;      /* a terminal that goes takes us along */
    int exit_code;
    char line[1400];
} app;

/* Makes the client and publishes all plans. -1, or an exit code after a line that told why. */
int open_client(app *a);
/* Ends the client, and with it the program. */
void leave(app *a, int code);
/* For clients that are closed: the program ends with the last one. */
void on_client_closed(void *user);
/* The name that the library knows by this id; NULL: none. */
published_name *find_name(const app *a, uint64_t id);

#endif
