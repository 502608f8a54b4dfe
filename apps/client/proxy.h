/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_CLIENT_PROXY_H
#define APPS_CLIENT_PROXY_H

/*
 * The outbound proxy that the environment asks for, as curl reads it: https_proxy or HTTPS_PROXY,
 * else all_proxy or ALL_PROXY; NULL when none is set, when NO_PROXY names the server's host, or
 * when the server is on this machine.
 */
const char *proxy_from_environment(const char *server_url);

#endif
