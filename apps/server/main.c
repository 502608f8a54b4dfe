/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/config.h"
#include "common/process.h"
#include "server/app.h"
#include "server/file.h"
#include "server/show.h"

/* --- settings --------------------------------------------------------------------------------- */

static void say(void *user, const char *text)
{
    (void)user;
    fprintf(stderr, "%s\n", text);
}

static void say_note(void *user, const char *text)
{
    show_note(user, "mistake", text);
}

/* A server without a token gets one, which stays the same when the file is read again. */
static const char *make_token(app *a, settings *s)
{
    if (s->tokens.count)
        return NULL;
    if ((!a->token[0] && tunnel_make_token(a->token)) ||
        tunnel_server_config_add_token(s->config, a->token))
        return "cannot make a token";
    return NULL;
}

/* A state file need not be there yet, but must be possible. */
static void check_state(const settings *s, mistakes *m)
{
    struct stat st;
    bool given = s->state && *s->state;
    char *folder = given ? folder_of(s->state) : NULL;
    if (folder && (stat(folder, &st) || !S_ISDIR(st.st_mode)))
        add_mistake(m, s->state_line, "state: there is no folder '%.200s': make it", folder);
    else if (given && stat(s->state, &st) == 0 && !S_ISREG(st.st_mode))
        add_mistake(m, s->state_line, "state: '%.200s' is not a file: give another name", s->state);
    free(folder);
}

/* What only a server itself can say. missing: say what is missing, too. */
static void check_with_server(app *a, settings *s, mistakes *m, bool missing)
{
    char detail[600];
    size_t line = 0;
    tunnel_server *server = NULL;
    int rc = tunnel_server_new(&server, a->loop, s->config, detail, sizeof(detail));
    for (size_t i = 0; rc && i < s->certs.count; i++)
        if (strstr(detail, s->certs.items[i]) || strstr(detail, s->keys.items[i]))
            line = s->cert_lines[i];
    if (line)
        add_mistake(m, line, "certificate: %s", detail);
    else if (rc && missing)
        add_mistake(m, 0, "%s", detail);
    tunnel_server_close(server, NULL, NULL);
}

/* All that the file, the environment and the flags say now. NULL: there are mistakes, which `tell`
 * was told, or a line has told about flags or environment; *code is for that. */
static settings *load(app *a, void (*tell)(void *user, const char *text), int *code)
{
    mistakes m = {.path = a->file};
    const command_line *c = &a->command;
    settings *s = settings_new();
    if (!s) {
        *code = fail_with(c, 1, "out of memory");
        return NULL;
    }
    *code = apply_options(c, s);
    if (*code >= 0) {
        settings_free(s);
        return NULL;
    }
    if (a->file)
        read_config_file(s, c, a->file, &m);
    const char *error = settings_complete(s);
    if (!error)
        error = make_token(a, s);
    if (error && m.count == 0)
        *code = fail_with(c, EXIT_USAGE, error);
    if (*code < 0 && c->command && !error) {
        check_with_server(a, s, &m, m.count == 0);
        check_state(s, &m);
    }
    if (m.count)
        *code = EXIT_USAGE;
    tell_mistakes(&m, tell, a);
    clear_mistakes(&m);
    if (*code < 0)
        return s;
    settings_free(s);
    return NULL;
}

/* --- the access log --------------------------------------------------------------------------- */

/* 0, or an errno; then it stays as it was. */
static int open_access_log(app *a, const settings *s)
{
    const char *path = s->access_log;
    FILE *file = NULL;
    if (path) {
        file = strcmp(path, "-") == 0 ? stdout : fopen(path, "ae");
        if (!file)
            return errno;
        setvbuf(file, NULL, _IOLBF, 0);
    }
    if (a->access_file && a->access_file != stdout)
        fclose(a->access_file);
    a->access_file = file;
    return 0;
}

static const char *access_log_problem(app *a, const settings *s, int error)
{
    snprintf(a->line, sizeof(a->line), "cannot write the access log '%s': %s", s->access_log,
             strerror(error));
    return a->line;
}

/* --- signals ---------------------------------------------------------------------------------- */

/* An idle server ends before there is anything to tell. */
enum { TELL_DRAINING_MS = 300 };

static void on_closed(void *user)
{
    ((app *)user)->server = NULL;
}

static void on_alarm(void *user, int signum)
{
    app *a = user;
    (void)signum;
    if (a->server)
        show_draining(a);
}

static void on_stop(void *user, int signum)
{
    app *a = user;
    (void)signum;
    if (a->draining) {
        tunnel_server_close(a->server, NULL, NULL);
        return;
    }
    a->draining = true;
    if (a->settings->verbose)
        show_counters(a);
    tunnel_loop_on_signal(a->loop, SIGALRM, on_alarm, a);
    set_alarm(TELL_DRAINING_MS);
    tunnel_server_drain(a->server, a->settings->drain_delay_ms, a->settings->drain_timeout_ms,
                        on_closed, a);
}

/* Who turns the access log over gets a new one in any case. */
static void open_access_log_again(app *a)
{
    int error = open_access_log(a, a->settings);
    if (error)
        show_note(a, "warning", access_log_problem(a, a->settings, error));
}

/* Reads everything again; on a mistake everything stays as it was. */
static void on_hangup(void *user, int signum)
{
    app *a = user;
    char detail[600];
    int code;
    (void)signum;
    if (a->draining) {
        show_note(a, "not_reloaded", "nothing is read again: the server is about to end");
        open_access_log_again(a);
        return;
    }
    settings *fresh = load(a, say_note, &code);
    int rc = fresh ? tunnel_server_reload(a->server, fresh->config, detail, sizeof(detail)) : 0;
    if (!fresh || (rc && rc != TUNNEL_E_STATE)) {
        snprintf(a->line, sizeof(a->line), "%s%s%s", "everything stays as it was",
                 fresh ? ": " : "", fresh ? detail : "");
        show_note(a, "not_reloaded", a->line);
        settings_free(fresh);
    } else {
        settings_free(a->settings);
        a->settings = fresh;
        show_note(a, "reloaded", "configuration and certificates read again");
    }
    if (rc == TUNNEL_E_STATE)
        show_note(a, "warning", detail);
    open_access_log_again(a);
}

/* --- start ------------------------------------------------------------------------------------ */

static int start_server(app *a)
{
    char detail[600];
    const command_line *c = &a->command;
    int rc = tunnel_server_new(&a->server, a->loop, a->settings->config, detail, sizeof(detail));
    if (rc == TUNNEL_E_NOT_FOUND || rc == TUNNEL_E_ACCESS || rc == TUNNEL_E_CERTIFICATE) {
        snprintf(a->line, sizeof(a->line), "%s%s",
                 a->file ? "" : "--tls-cert, --tls-key: ", detail);
        return fail_with(c, 1, a->line);
    }
    if (rc) {
        snprintf(a->line, sizeof(a->line), "%s%s%s", a->file ? a->file : "", a->file ? ": " : "",
                 detail);
        return fail_with(c, rc == TUNNEL_E_INVALID ? EXIT_USAGE : 1, a->line);
    }
    int error = open_access_log(a, a->settings);
    if (error)
        return fail_with(c, 1, access_log_problem(a, a->settings, error));
    tunnel_server_on_event(a->server, on_server_event, a);
    tunnel_loop_on_signal(a->loop, SIGTERM, on_stop, a);
    tunnel_loop_on_signal(a->loop, SIGINT, on_stop, a);
    tunnel_loop_on_signal(a->loop, SIGHUP, on_hangup, a);
    rc = tunnel_server_start(a->server, detail, sizeof(detail));
    return rc ? fail_with(c, 1, detail) : -1;
}

static int prepare(app *a)
{
    int code;
    const command_line *c = &a->command;
    a->file = c->argument_count ? c->arguments[0] : option_value(c, "config");
    if (c->command && !a->file)
        return fail_with(c, EXIT_USAGE,
                         "'check-config' needs a file, e.g. tunnel-server check-config server.yml "
                         "(see --help)");
    settings *s = load(a, say, &code);
    if (!s)
        return code;
    settings_free(a->settings);
    a->settings = s;
    if (!c->command)
        return start_server(a);
    printf("%s: no mistakes\n", a->file);
    return 0;
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
