/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/app.h"
#include "client/show.h"
#include "client/start.h"
#include "common/process.h"
#include "common/terminal.h"

/* --- the client ------------------------------------------------------------------------------- */

void on_client_closed(void *user)
{
    app *a = user;
    if (--a->open == 0 && a->leaving)
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
        tunnel_client_close(client, on_client_closed, a);
    else if (a->open == 0)
        tunnel_loop_stop(a->loop);
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

int open_client(app *a)
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

/* --- start ------------------------------------------------------------------------------------ */

/* An idle program ends before there is anything to tell. */
enum { TELL_DRAINING_MS = 300 };

static void on_drained(void *user)
{
    app *a = user;
    a->client = NULL;
    a->leaving = true;
    on_client_closed(a);
}

static void on_alarm(void *user, int signum)
{
    (void)signum;
    show_draining(user);
}

static void on_stop(void *user, int signum)
{
    app *a = user;
    uint32_t timeout = a->settings->drain_ms;
    (void)signum;
    if (a->draining || !a->client || !timeout) {
        leave(a, 0);
        return;
    }
    a->draining = true;
    tunnel_client_drain(a->client, timeout, on_drained, a);
    tunnel_loop_on_signal(a->loop, SIGALRM, on_alarm, a);
    set_alarm(TELL_DRAINING_MS);
}

/* Who starts a program with nohup wants it to outlive the terminal. */
static bool is_tied_to_terminal(void)
{
    struct sigaction now;
    return has_terminal() && (sigaction(SIGHUP, NULL, &now) || now.sa_handler != SIG_IGN);
}

static int prepare(app *a)
{
    size_t command = (size_t)(a->command.command - a->command.commands);
    if (command == COMMAND_CHECK)
        return check_file(a);
    int rc = command == COMMAND_START ? prepare_file(a) : prepare_one(a);
    if (rc >= 0)
        return rc;
    a->had_terminal = is_tied_to_terminal();
    tunnel_loop_on_signal(a->loop, SIGTERM, on_stop, a);
    tunnel_loop_on_signal(a->loop, SIGINT, on_stop, a);
    if (command == COMMAND_START)
        tunnel_loop_on_signal(a->loop, SIGHUP, on_hangup, a);
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
    settings_free(a.next);
    free(a.file);
    free_command_line(&a.command);
    return a.exit_code;
}
