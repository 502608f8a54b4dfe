/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/process.h"
#include "server/app.h"
#include "server/show.h"

/* --- signals ---------------------------------------------------------------------------------- */

static void on_stop(void *user, int signum)
{
    app *a = user;
    (void)signum;
    if (a->settings->verbose && a->server)
        show_counters(a);
    tunnel_server_close(a->server, NULL, NULL);
    a->server = NULL;
    tunnel_loop_on_signal(a->loop, SIGHUP, NULL, NULL);
}

static void on_hangup(void *user, int signum)
{
    app *a = user;
    char detail[600];
    (void)signum;
    if (a->access_file && a->access_file != stdout)
        a->access_file = freopen(a->settings->access_log, "ae", a->access_file);
    if (a->access_file)
        setvbuf(a->access_file, NULL, _IOLBF, 0);
    if (a->settings->certs.count == 0)
        return;
    if (tunnel_server_reload_certificates(a->server, detail, sizeof(detail)))
        fprintf(stderr, "tunnel-server: the certificates stay as they were: %s\n", detail);
    else
        fprintf(stderr, "tunnel-server: certificates read again\n");
}

/* --- start ------------------------------------------------------------------------------------ */

static int open_access_log(app *a)
{
    const char *path = a->settings->access_log;
    if (!path)
        return -1;
    a->access_file = strcmp(path, "-") == 0 ? stdout : fopen(path, "ae");
    if (!a->access_file) {
        snprintf(a->line, sizeof(a->line), "cannot write the access log '%s': %s", path,
                 strerror(errno));
        return fail_with(&a->command, 1, a->line);
    }
    setvbuf(a->access_file, NULL, _IOLBF, 0);
    return -1;
}

static int start_server(app *a)
{
    char detail[600];
    const command_line *c = &a->command;
    int rc = tunnel_server_new(&a->server, a->loop, a->settings->config, detail, sizeof(detail));
    if (rc == TUNNEL_E_NOT_FOUND || rc == TUNNEL_E_ACCESS || rc == TUNNEL_E_CERTIFICATE) {
        snprintf(a->line, sizeof(a->line), "--tls-cert, --tls-key: %s", detail);
        return fail_with(c, 1, a->line);
    }
    if (rc)
        return fail_with(c, rc == TUNNEL_E_INVALID ? EXIT_USAGE : 1, detail);
    tunnel_server_on_event(a->server, on_server_event, a);
    tunnel_loop_on_signal(a->loop, SIGTERM, on_stop, a);
    tunnel_loop_on_signal(a->loop, SIGINT, on_stop, a);
    tunnel_loop_on_signal(a->loop, SIGHUP, on_hangup, a);
    rc = tunnel_server_start(a->server, detail, sizeof(detail));
    return rc ? fail_with(c, 1, detail) : -1;
}

static int prepare(app *a)
{
    const command_line *c = &a->command;
    if (c->argument_count) {
        snprintf(a->line, sizeof(a->line), "'%.60s' is not expected here (see --help)",
                 c->arguments[0]);
        return fail_with(c, EXIT_USAGE, a->line);
    }
    int rc = apply_options(c, a->settings);
    if (rc >= 0)
        return rc;
    const char *error = settings_complete(a->settings);
    if (error)
        return fail_with(c, EXIT_USAGE, error);
    rc = open_access_log(a);
    if (rc >= 0)
        return rc;
    if (!a->settings->has_token && (tunnel_make_token(a->token) ||
                                    tunnel_server_config_add_token(a->settings->config, a->token)))
        return fail_with(c, 1, "cannot make a token");
    return start_server(a);
}

int main(int argc, char **argv)
{
    app a = {.server = NULL};
    server_command_line(&a.command);
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    a.settings = settings_new();
    if (!a.settings || tunnel_loop_new(&a.loop, NULL))
        return fail_with(&a.command, 1, "out of memory");
    int rc = read_command_line(&a.command, argc, argv);
    if (rc < 0)
        rc = prepare(&a);
    if (rc >= 0)
        tunnel_server_close(a.server, NULL, NULL);
    tunnel_loop_run(a.loop);
    hold_signals();
    tunnel_loop_free(a.loop);
    if (a.access_file && a.access_file != stdout)
        fclose(a.access_file);
    settings_free(a.settings);
    free_command_line(&a.command);
    return rc < 0 ? 0 : rc;
}
