/* SPDX-License-Identifier: Apache-2.0 */
#include "client/start.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/file.h"
#include "client/show.h"
#include "common/terminal.h"

/* --- looking at plans with the library's eyes ------------------------------------------------- */

static bool is_usage(int rc)
{
    return rc == TUNNEL_E_INVALID || rc == TUNNEL_E_NAME_INVALID;
}

static void add_plan_mistake(const plan *p, int rc, const char *detail, mistakes *m)
{
    static const char *const keys[PLAN_FIELDS] = {[PLAN_TO] = "to",
                                                  [PLAN_UPSTREAM_CA] = "upstream-ca",
                                                  [PLAN_TLS_CERT] = "tls-cert",
                                                  [PLAN_ALLOW_PORTS] = "allow-ports"};
    plan_field field = PLAN_TO;
    if (rc == TUNNEL_E_NAME_INVALID || rc == TUNNEL_E_LIMIT) {
        add_mistake(m, p->names_line ? p->names_line : p->line, "tunnels.%s: %s", p->label, detail);
        return;
    }
    if (p->type == TYPE_PORTS && is_usage(rc))
        field = PLAN_ALLOW_PORTS;
    else if (!is_usage(rc) && p->fields[PLAN_TLS_CERT])
        field = PLAN_TLS_CERT;
    else if (!is_usage(rc) && p->fields[PLAN_UPSTREAM_CA])
        field = PLAN_UPSTREAM_CA;
    add_mistake(m, p->lines[field] ? p->lines[field] : p->line, "tunnels.%s.%s: %s", p->label,
                keys[field], detail);
}

/* The line of the server that the library is not content with, as it says "ws://HOST ...". */
static size_t server_line(const settings *s, const char *detail)
{
    char pattern[300];
    for (size_t i = 0; i < s->servers.count; i++) {
        const char *host = strstr(s->servers.items[i], "://");
        host = host ? host + 3 : "";
        bool ipv6 = *host == '[';
        host += ipv6;
        snprintf(pattern, sizeof(pattern), "//%.*s ", (int)strcspn(host, ipv6 ? "]" : ":/"), host);
        if (strcasestr(detail, pattern))
            return s->server_lines[i];
    }
    return s->servers.count ? s->server_lines[0] : 0;
}

/* A client that is never started judges as the one that will be. false: there cannot be one. */
static bool probe_plans(app *a, settings *s, const tunnel_client_config *config, mistakes *m)
{
    char detail[600];
    tunnel_client *probe;
    int rc = tunnel_client_new(&probe, a->loop, config, detail, sizeof(detail));
    if (rc && config == s->config) {
        size_t line = is_usage(rc) ? server_line(s, detail) : s->connection_lines[CONNECTION_CA];
        add_mistake(m, line, "%s: %s", is_usage(rc) ? "server" : "ca", detail);
    } else if (rc) {
        add_mistake(m, 0, "%s", detail);
    }
    if (rc)
        return false;
    a->open++;
    for (plan *p = s->plans; p; p = p->next)
        for (size_t i = 0; i < p->name_count; i++) {
            rc = plan_publish(p, &p->names[i], probe, detail, sizeof(detail));
            p->names[i].id = 0;
            if (rc) {
                add_plan_mistake(p, rc, detail, m);
                break;
            }
        }
    tunnel_client_close(probe, on_client_closed, a);
    return true;
}

static void probe(app *a, settings *s, mistakes *m)
{
    tunnel_client_config *stand_in = NULL;
    /* Without a server there is a mistake already; the rest of the connection is looked at. */
    if (!s->connection[CONNECTION_SERVER])
        tunnel_client_config_set_server(s->config, "wss://localhost");
    if (probe_plans(a, s, s->config, m))
        return;
    /* The tunnels can be looked at all the same. */
    if (tunnel_client_config_new(&stand_in) == 0 &&
        tunnel_client_config_set_server(stand_in, "wss://localhost") == 0)
        probe_plans(a, s, stand_in, m);
    tunnel_client_config_free(stand_in);
}

/* --- reading ---------------------------------------------------------------------------------- */

/* Leaves the plans that are named on the command line, if any is. */
static void choose_plans(const command_line *c, settings *s, mistakes *m)
{
    for (size_t i = 0; i < c->argument_count; i++) {
        const plan *p = s->plans;
        while (p && strcmp(p->label, c->arguments[i]) != 0)
            p = p->next;
        if (!p)
            add_mistake(m, 0, "there is no tunnel '%.80s' in it", c->arguments[i]);
    }
    for (plan **at = &s->plans; c->argument_count && *at;) {
        plan *p = *at;
        bool wanted = false;
        for (size_t i = 0; i < c->argument_count; i++)
            wanted |= strcmp(p->label, c->arguments[i]) == 0;
        if (wanted) {
            at = &p->next;
            continue;
        }
        *at = p->next;
        plan_free(p);
    }
    s->current = NULL;
}

/* All that the file, the environment and the flags say now; mistakes are gathered. NULL: the flags
 * or the environment are wrong (*code), as a line has told. */
static settings *load(app *a, mistakes *m, int *code)
{
    bool start = a->command.command == &a->command.commands[COMMAND_START];
    settings *s = settings_new();
    if (!s) {
        *code = fail_with(&a->command, 1, "out of memory");
        return NULL;
    }
    *code = apply_options(&a->command, s);
    if (*code >= 0) {
        settings_free(s);
        return NULL;
    }
    read_config_file(s, &a->command, m->path, true, m);
    const char *error = settings_complete(s);
    if (error)
        add_mistake(m, 0, "%s", error);
    probe(a, s, m);
    if (start)
        choose_plans(&a->command, s, m);
    return s;
}

static void say(void *user, const char *text)
{
    (void)user;
    fprintf(stderr, "%s\n", text);
}

static void say_note(void *user, const char *text)
{
    show_note(user, "mistake", text);
}

/* Finds the file and reads it. -1, or an exit code. */
static int load_first(app *a, const char *path)
{
    int code;
    a->file = path ? strdup(path) : find_config_file(true);
    if (!a->file)
        return fail_with(
            &a->command, EXIT_USAGE,
            "there is no configuration file: name one with --config FILE, or write ./tunnel.yml or ~/.config/libtunnel/tunnel.yml (see tunnel.yml(5))");
    mistakes m = {.path = a->file};
    settings *s = load(a, &m, &code);
    if (!s)
        return code;
    settings_free(a->settings);
    a->settings = s;
    code = m.count ? EXIT_USAGE : -1;
    tell_mistakes(&m, say, NULL);
    clear_mistakes(&m);
    return code;
}

/* --- commands --------------------------------------------------------------------------------- */

int prepare_one(app *a)
{
    settings *s = a->settings;
    const command_line *c = &a->command;
    plan *p = settings_add_plan(s, NULL, (tunnel_type)(c->command - c->commands));
    if (!p || (c->argument_count && !text_set(&p->fields[PLAN_TO], c->arguments[0])))
        return fail_with(c, 1, "out of memory");
    int rc = apply_options(c, s);
    if (rc >= 0)
        return rc;
    /* Not ./tunnel.yml: a folder from elsewhere must not say where the token goes. */
    const char *named = option_value(c, "config");
    a->file = named ? strdup(named) : find_config_file(false);
    if (a->file) {
        mistakes m = {.path = a->file};
        read_config_file(s, c, a->file, false, &m);
        tell_mistakes(&m, say, NULL);
        rc = m.count ? EXIT_USAGE : -1;
        clear_mistakes(&m);
    }
    if (rc >= 0)
        return rc;
    const char *error = plan_complete(p, a->line, sizeof(a->line));
    if (!error)
        error = settings_complete(s);
    return error ? fail_with(c, EXIT_USAGE, error) : open_client(a);
}

int prepare_file(app *a)
{
    int rc = load_first(a, option_value(&a->command, "config"));
    return rc >= 0 ? rc : open_client(a);
}

int check_file(app *a)
{
    const command_line *c = &a->command;
    int rc = load_first(a, c->argument_count ? c->arguments[0] : option_value(c, "config"));
    if (rc >= 0)
        return rc;
    printf("%s: no mistakes\n", a->file);
    return 0;
}

/* --- reading again ---------------------------------------------------------------------------- */

static published_name *find_same(settings *s, const plan *p, const published_name *name)
{
    for (plan *q = s->plans; q; q = q->next)
        for (size_t i = 0; i < q->name_count; i++)
            if (q->names[i].id && plan_same(q, &q->names[i], p, name))
                return &q->names[i];
    return NULL;
}

/* Gives what stays to the new plans and ends the rest. Returns how many stay. */
static size_t keep_same(app *a, settings *old, settings *fresh, size_t *gone)
{
    size_t kept = 0;
    for (plan *p = fresh->plans; p; p = p->next)
        for (size_t i = 0; i < p->name_count; i++) {
            published_name *was = find_same(old, p, &p->names[i]);
            if (!was)
                continue;
            p->names[i].id = was->id;
            p->names[i].url = was->url;
            was->id = 0;
            was->url = NULL;
            kept++;
        }
    *gone = 0;
    for (plan *p = old->plans; p; p = p->next)
        for (size_t i = 0; i < p->name_count; i++)
            if (p->names[i].id) {
                tunnel_client_unpublish(a->client, p->names[i].id);
                ++*gone;
            }
    return kept;
}

static void change_tunnels(app *a, settings *fresh)
{
    char detail[600];
    size_t gone, added = 0;
    settings *old = a->settings;
    size_t kept = keep_same(a, old, fresh, &gone);
    a->settings = fresh;
    for (plan *p = fresh->plans; p; p = p->next)
        for (size_t i = 0; i < p->name_count; i++) {
            if (p->names[i].id)
                continue;
            if (plan_publish(p, &p->names[i], a->client, detail, sizeof(detail)) == 0) {
                added++;
                continue;
            }
            snprintf(a->line, sizeof(a->line), "tunnels.%s: %s", p->label, detail);
            show_note(a, "warning", a->line);
        }
    settings_free(old);
    snprintf(a->line, sizeof(a->line), "%s read again: %zu new, %zu gone, %zu as before", a->file,
             added, gone, kept);
    show_note(a, "reloaded", a->line);
}

static void on_switched(void *user)
{
    app *a = user;
    on_client_closed(a);
    if (a->leaving || !a->next)
        return;
    settings_free(a->settings);
    a->settings = a->next;
    a->next = NULL;
    a->connected = a->lost = false;
    int rc = open_client(a);
    if (rc >= 0)
        leave(a, rc);
    else
        tunnel_client_start(a->client);
}

static void change_connection(app *a, settings *fresh)
{
    tunnel_client *client = a->client;
    settings_free(a->next);
    a->next = fresh;
    a->client = NULL;
    snprintf(a->line, sizeof(a->line),
             "%s read again: the connection is set up differently, connecting anew", a->file);
    show_note(a, "reloaded", a->line);
    if (client)
        tunnel_client_close(client, on_switched, a);
}

void on_hangup(void *user, int signum)
{
    app *a = user;
    int code;
    (void)signum;
    if (a->leaving)
        return;
    if (a->had_terminal && !has_terminal()) {
        leave(a, 0);
        return;
    }
    if (a->draining) {
        snprintf(a->line, sizeof(a->line), "%s is not read again: the client is about to end",
                 a->file);
        show_note(a, "not_reloaded", a->line);
        return;
    }
    mistakes m = {.path = a->file};
    settings *fresh = load(a, &m, &code);
    if (!fresh || m.count) {
        tell_mistakes(&m, say_note, a);
        snprintf(a->line, sizeof(a->line), "%s was read again: everything stays as it was",
                 a->file);
        show_note(a, "not_reloaded", a->line);
        settings_free(fresh);
    } else if (!a->client || !settings_same_connection(a->settings, fresh)) {
        change_connection(a, fresh);
    } else {
        change_tunnels(a, fresh);
    }
    clear_mistakes(&m);
}
