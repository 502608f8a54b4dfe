/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APPS_CLIENT_PLAN_H
#define APPS_CLIENT_PLAN_H

#include <stdbool.h>
#include <stdint.h>
#include <tunnel/client.h>

#include "common/text.h"

/* The kinds of tunnels, in the order of the commands. */
typedef enum tunnel_type {
    TYPE_HTTP,
    TYPE_TCP,
    TYPE_UDP,
    TYPE_TLS,
    TYPE_FILES,
    TYPE_PORTS,
    TYPE_COUNT,
} tunnel_type;

/* What may be said about a tunnel, once. */
typedef enum plan_field {
    PLAN_TO, /* as people write an address; a folder */
    PLAN_PATH_ID,
    PLAN_REMOTE_PORT,
    PLAN_HOST_HEADER,
    PLAN_UPSTREAM_CA,
    PLAN_PROXY_PROTOCOL, /* "v1", "v2" */
    PLAN_TLS_CERT,
    PLAN_TLS_KEY,
    PLAN_IDLE_TIMEOUT, /* ms */
    PLAN_ALLOW_PORTS,
    PLAN_POOL, /* a switch */
    PLAN_BALANCE,
    PLAN_TLS, /* a switch */
    PLAN_FIELDS,
} plan_field;

/* One thing that the library publishes for a plan. */
typedef struct published_name {
    struct plan *plan;
    char *what;  /* "http://demo" */
    uint64_t id; /* of the library; 0: not published */
    char *url;   /* the public URL printed last; NULL: none yet */
} published_name;

/* A tunnel that somebody wants: checked values, and what has become of it. */
typedef struct plan {
    struct plan *next;
    char *label; /* its name in the file; NULL: from the command line */
    tunnel_type type;
    char *fields[PLAN_FIELDS]; /* NULL: not given */
    text_list subdomains;
    text_list domains;
    size_t line; /* of the file, where it begins, and where its names and fields stand */
    size_t names_line;
    size_t lines[PLAN_FIELDS];
    char *files; /* which versions of the files that it names were there */
    published_name *names;
    size_t name_count;
} plan;

/* NULL: out of memory. label may be NULL. */
plan *plan_new(const char *label, tunnel_type type);
void plan_free(plan *p);

/*
 * Looks whether it is whole, and makes its names. Returns NULL or a line in line[] that says what
 * is wrong.
 */
const char *plan_complete(plan *p, char *line, size_t size);

/* Publishes one of its names. The codes and lines are those of tunnel_client_forward(). */
int plan_publish(plan *p, published_name *name, tunnel_client *client, char *detail, size_t size);

/* Whether both would publish the same in the same manner. */
bool plan_same(const plan *a, const published_name *one, const plan *b, const published_name *two);

/* Where its visitors go, for people: "3000", "./public", "ports 22,8000-8100". */
const char *plan_target(const plan *p, char *out, size_t size);

/* What a change of a file changes: its number, size and time. "" if there is none. */
void file_version(const char *path, char *out, size_t size);

#endif
