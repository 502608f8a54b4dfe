/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/app.h"
#include "client/show.h"
#include "common/process.h"
#include "common/terminal.h"

static void on_closed(void *user)
{
    app *a = user;
    if (--a->open == 0)
        tunnel_loop_stop(a->loop);
}

void leave(app *a, int code)
{
    tunnel_client *client = a->client;
    if (a->leaving)
        return;
    a->leaving = true;
    a->exit_code = code;
    a->client = NULL;
    if (client)
        tunnel_client_close(client, on_closed, a);
}

static void on_stop(void *user, int signum)
{
    (void)signum;
    leave(user, 0);
}

/* The exit code for what tunnel_client_new() and tunnel_client_forward() say. */
static int code_of(int rc)
{
    return rc == TUNNEL_E_INVALID || rc == TUNNEL_E_NAME_INVALID ? EXIT_USAGE : 1;
}

static int fail(app *a, int rc, const char *option, const char *detail)
{
    snprintf(a->line, sizeof(a->line), "%s%s", option, detail);
    return fail_with(&a->command, code_of(rc), a->line);
}

/* The option that a file belongs to which could not be used. */
static const char *file_option(const plan *p, int rc)
{
    if (p->type == TYPE_PORTS && rc == TUNNEL_E_INVALID)
        return "--allow-ports: ";
    if (code_of(rc) == EXIT_USAGE)
        return "";
    if (p->fields[PLAN_TLS_CERT])
        return "--tls-cert, --tls-key: ";
    return p->fields[PLAN_UPSTREAM_CA] ? "--upstream-ca: " : "";
}

static int open_client(app *a)
{
    char detail[600];
    settings *s = a->settings;
    if (!s->connection[CONNECTION_SERVER])
        return fail_with(&a->command, EXIT_USAGE,
                         "no server is set: give --server URL or TUNNEL_SERVER");
    int rc = tunnel_client_new(&a->client, a->loop, s->config, detail, sizeof(detail));
    if (rc)
        return fail(a, rc, code_of(rc) == 1 && s->connection[CONNECTION_CA] ? "--ca: " : "",
                    detail);
    a->open++;
    tunnel_client_on_event(a->client, on_client_event, a);
    for (plan *p = s->plans; p; p = p->next)
        for (size_t i = 0; i < p->name_count; i++) {
            rc = plan_publish(p, &p->names[i], a->client, detail, sizeof(detail));
            if (rc)
                return fail(a, rc, file_option(p, rc), detail);
        }
    return -1;
}

/* One tunnel, from the command line alone. */
static int prepare_one(app *a)
{
    settings *s = a->settings;
    tunnel_type type = (tunnel_type)(a->command.command - a->command.commands);
    plan *p = settings_add_plan(s, NULL, type);
    if (!p ||
        (a->command.argument_count && !text_set(&p->fields[PLAN_TO], a->command.arguments[0])))
        return fail_with(&a->command, 1, "out of memory");
    int rc = apply_options(&a->command, s);
    if (rc >= 0)
        return rc;
    const char *error = plan_complete(p, a->line, sizeof(a->line));
    if (!error)
        error = settings_complete(s);
    return error ? fail_with(&a->command, EXIT_USAGE, error) : open_client(a);
}

static int prepare(app *a)
{
    int rc = prepare_one(a);
    if (rc >= 0)
        return rc;
    tunnel_loop_on_signal(a->loop, SIGTERM, on_stop, a);
    tunnel_loop_on_signal(a->loop, SIGINT, on_stop, a);
    tunnel_client_start(a->client);
    return -1;
}

int main(int argc, char **argv)
{
    app a = {.exit_code = 0};
    client_command_line(&a.command);
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    a.settings = settings_new();
    if (!a.settings || tunnel_loop_new(&a.loop, NULL))
        return fail_with(&a.command, 1, "out of memory");
    int rc = read_command_line(&a.command, argc, argv);
    if (rc < 0)
        rc = prepare(&a);
    if (rc >= 0)
        leave(&a, rc);
    tunnel_loop_run(a.loop);
    hold_signals();
    tunnel_loop_free(a.loop);
    settings_free(a.settings);
    free_command_line(&a.command);
    return a.exit_code;
}
