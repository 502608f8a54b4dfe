/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_CLIENT_CONNECTION_H
#define APPS_CLIENT_CONNECTION_H

#include "client/settings.h"

/* What the options of the connection do with a value; user: settings. NULL, or what is wrong. */

const char *set_server(void *user, const char *value);
const char *set_token(void *user, const char *value);
const char *set_token_file(void *user, const char *value);
const char *set_ca(void *user, const char *value);
const char *set_insecure(void *user, const char *value);
const char *set_proxy(void *user, const char *value);
const char *set_force(void *user, const char *value);
const char *set_instance(void *user, const char *value);
const char *set_lanes(void *user, const char *value);
const char *set_link_timeout(void *user, const char *value);

#endif
