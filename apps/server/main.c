/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <tunnel/tunnel.h>

#include "common/options.h"
#include "common/process.h"

enum { CERTS_MAX = 256 };

typedef struct app {
    tunnel_server_config *config;
    tunnel_server *server;
    tunnel_loop *loop;
    const char *certs[CERTS_MAX];
    const char *keys[CERTS_MAX];
    size_t cert_count;
    size_t key_count;
    bool has_token;
    char made_token[33]; /* to be printed when the server listens; then "" */
    bool verbose;
    const char *access_log; /* NULL: none; "-": standard output */
    FILE *access_file;
    char line[600];
} app;

/* --- options ---------------------------------------------------------------------------------- */

static const char *result(app *a, int rc)
{
    if (rc == 0)
        return NULL;
    const char *line = tunnel_server_config_error(a->config);
    return *line ? line : tunnel_strerror(rc);
}

static const char *set_listen(void *user, const char *value)
{
    app *a = user;
    return result(a, tunnel_server_config_add_listen(a->config, value));
}

static const char *set_tls_listen(void *user, const char *value)
{
    app *a = user;
    return result(a, tunnel_server_config_add_tls_listen(a->config, value));
}

static const char *set_tls_cert(void *user, const char *value)
{
    app *a = user;
    if (a->cert_count == CERTS_MAX)
        return "too many certificates";
    a->certs[a->cert_count] = strdup(value);
    return a->certs[a->cert_count++] ? NULL : "out of memory";
}

static const char *set_tls_key(void *user, const char *value)
{
    app *a = user;
    if (a->key_count == CERTS_MAX)
        return "too many keys";
    a->keys[a->key_count] = strdup(value);
    return a->keys[a->key_count++] ? NULL : "out of memory";
}

static const char *set_domain(void *user, const char *value)
{
    app *a = user;
    return result(a, tunnel_server_config_set_domain(a->config, value));
}

static const char *set_token(void *user, const char *value)
{
    app *a = user;
    a->has_token = true;
    return result(a, tunnel_server_config_add_token(a->config, value));
}

static const char *set_public_url(void *user, const char *value)
{
    app *a = user;
    return result(a, tunnel_server_config_set_public_url(a->config, value));
}

static const char *set_access_log(void *user, const char *value)
{
    app *a = user;
    a->access_log = value;
    return NULL;
}

/* Seconds, with a fraction if need be, as milliseconds; -1 when it is not a number of the range. */
static long milliseconds(const char *value)
{
    char *end;
    double seconds = strtod(value, &end);
    if (end == value || *end || !(seconds > 0 && seconds <= 86400))
        return -1;
    return (long)(seconds * 1000);
}

static const char *set_answer_timeout(void *user, const char *value)
{
    app *a = user;
    long ms = milliseconds(value);
    if (ms < 100)
        return "give a number of seconds, 0.1 to 86400";
    return result(a, tunnel_server_config_set_answer_timeout(a->config, (uint32_t)ms));
}

static const char *set_link_timeout(void *user, const char *value)
{
    app *a = user;
    long ms = milliseconds(value);
    if (ms < 1000 || ms > 600000)
        return "give a number of seconds, 1 to 600";
    return result(a, tunnel_server_config_set_silence(a->config, (uint32_t)ms));
}

static const char *set_verbose(void *user, const char *value)
{
    (void)value;
    ((app *)user)->verbose = true;
    return NULL;
}

static const option_row rows[] = {
    {"listen", "ADDRESS:PORT", "TUNNEL_LISTEN", true,
     "Serve visitors (http) and clients (ws) here.", set_listen},
    {"tls-listen", "ADDRESS:PORT", "TUNNEL_TLS_LISTEN", true,
     "Serve visitors (https) and clients (wss) here.", set_tls_listen},
    {"tls-cert", "FILE", "TUNNEL_TLS_CERT", true,
     "Certificate chain, PEM. With --tls-key; the pair may be\nrepeated, SNI chooses. Read again on SIGHUP.",
     set_tls_cert},
    {"tls-key", "FILE", "TUNNEL_TLS_KEY", true, "Its private key, PEM.", set_tls_key},
    {"domain", "NAME", "TUNNEL_DOMAIN", false,
     "Tunnels become NAME.DOMAIN. Point *.DOMAIN at this host.\nDefault: localhost.", set_domain},
    {"token", "SECRET", "TUNNEL_TOKEN", true,
     "What clients must present; each token is an account.\nDefault: one is made and printed.",
     set_token},
    {"public-url", "URL", "TUNNEL_PUBLIC_URL", false,
     "How visitors reach this server when a proxy stands in\nfront: https://tunnel.example.com",
     set_public_url},
    {"access-log", "FILE", "TUNNEL_ACCESS_LOG", false,
     "Write a line per request; - is standard output.", set_access_log},
    {"answer-timeout", "SECONDS", "TUNNEL_ANSWER_TIMEOUT", false,
     "How long a service may take to answer. Default: 60.", set_answer_timeout},
    {"link-timeout", "SECONDS", "TUNNEL_LINK_TIMEOUT", false,
     "How long a client may be silent before it counts as\ngone, 1 to 600. Default: 5.",
     set_link_timeout},
    {"verbose", NULL, "TUNNEL_VERBOSE", false, "Tell on standard error who comes and goes.",
     set_verbose},
};

static const char usage[] =
    "[OPTIONS]\n\n"
    "The public end of libtunnel: clients keep a connection to it, visitors come to the names\n"
    "they publish. Health: GET /__tunnel__/health/live and /__tunnel__/health/ready.";

static const char examples[] =
    "Examples:\n"
    "  tunnel-server --listen 127.0.0.1:8080 --domain localhost --token SECRET\n"
    "  tunnel-server --listen [::]:80 --tls-listen [::]:443 --tls-cert cert.pem --tls-key key.pem \\\n"
    "                --domain tunnel.example.com --token SECRET\n"
    "Then, where the service runs:\n"
    "  tunnel-client http 3000 --server ws://127.0.0.1:8080 --subdomain demo --token SECRET\n";

/* --- events ----------------------------------------------------------------------------------- */

static void print_access(app *a, const tunnel_event *e)
{
    char when[32];
    time_t now = time(NULL);
    struct tm tm;
    gmtime_r(&now, &tm);
    strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
    fprintf(
        a->access_file, "%s %s %s \"%s %s\" %d %llu %llu %.1fms\n", when, tunnel_event_visitor(e),
        tunnel_event_host(e), tunnel_event_method(e), tunnel_event_path(e), tunnel_event_status(e),
        (unsigned long long)tunnel_event_bytes_in(e), (unsigned long long)tunnel_event_bytes_out(e),
        (double)tunnel_event_duration_us(e) / 1000.0);
}

static void on_event(void *user, const tunnel_event *e)
{
    app *a = user;
    switch (tunnel_event_get_type(e)) {
    case TUNNEL_EVENT_LISTENING:
        if (a->made_token[0])
            printf("token: %s\n", a->made_token);
        a->made_token[0] = '\0';
        printf("listening: %s\n", tunnel_event_url(e));
        fflush(stdout);
        break;
    case TUNNEL_EVENT_ACCESS:
        if (a->access_file)
            print_access(a, e);
        break;
    case TUNNEL_EVENT_CLIENT_JOINED:
        if (a->verbose)
            fprintf(stderr, "client %s joined from %s\n", tunnel_event_account(e),
                    tunnel_event_text(e));
        break;
    case TUNNEL_EVENT_CLIENT_LEFT:
        if (a->verbose)
            fprintf(stderr, "client %s left: %s\n", tunnel_event_account(e),
                    *tunnel_event_text(e) ? tunnel_event_text(e)
                                          : tunnel_strerror(tunnel_event_error(e)));
        break;
    case TUNNEL_EVENT_NAME_PUBLISHED:
        if (a->verbose)
            fprintf(stderr, "client %s published %s\n", tunnel_event_account(e),
                    tunnel_event_url(e));
        break;
    case TUNNEL_EVENT_NAME_GONE:
        if (a->verbose)
            fprintf(stderr, "client %s: %s is gone\n", tunnel_event_account(e),
                    tunnel_event_url(e));
        break;
    default:
        break;
    }
}

static void print_counters(const app *a)
{
    static const char *const names[] = {"connections",  "failed TLS handshakes", "requests",
                                        "bad requests", "refused links",         "broken links",
                                        "sessions"};
    fprintf(stderr, "counted:");
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        fprintf(stderr, "%s %llu %s", i ? "," : "",
                (unsigned long long)tunnel_server_counter(a->server, (tunnel_counter)i), names[i]);
    fprintf(stderr, "\n");
}

static void on_stop(void *user, int signum)
{
    app *a = user;
    (void)signum;
    if (a->verbose && a->server)
        print_counters(a);
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
        a->access_file = freopen(a->access_log, "ae", a->access_file);
    if (a->access_file)
        setvbuf(a->access_file, NULL, _IOLBF, 0);
    if (a->cert_count == 0)
        return;
    if (tunnel_server_reload_certificates(a->server, detail, sizeof(detail)))
        fprintf(stderr, "tunnel-server: the certificates stay as they were: %s\n", detail);
    else
        fprintf(stderr, "tunnel-server: certificates read again\n");
}

/* --- start ------------------------------------------------------------------------------------ */

static int prepare(app *a, const command_line *c)
{
    char detail[600];
    if (c->argument_count) {
        snprintf(a->line, sizeof(a->line), "'%.60s' is not expected here (see --help)",
                 c->arguments[0]);
        return fail_with(c, EXIT_USAGE, a->line);
    }
    if (a->cert_count != a->key_count)
        return fail_with(
            c, EXIT_USAGE,
            "--tls-cert and --tls-key come in pairs: give as many of one as of the other");
    for (size_t i = 0; i < a->cert_count; i++)
        if (tunnel_server_config_add_certificate(a->config, a->certs[i], a->keys[i]))
            return fail_with(c, EXIT_USAGE, tunnel_server_config_error(a->config));
    if (a->access_log) {
        a->access_file = strcmp(a->access_log, "-") == 0 ? stdout : fopen(a->access_log, "ae");
        if (!a->access_file) {
            snprintf(a->line, sizeof(a->line), "cannot write the access log '%s': %s",
                     a->access_log, strerror(errno));
            return fail_with(c, 1, a->line);
        }
        setvbuf(a->access_file, NULL, _IOLBF, 0);
        tunnel_server_config_set_access_events(a->config, 1);
    }
    if (!a->has_token) {
        if (tunnel_make_token(a->made_token) ||
            tunnel_server_config_add_token(a->config, a->made_token))
            return fail_with(c, 1, "cannot make a token");
    }
    int rc = tunnel_server_new(&a->server, a->loop, a->config, detail, sizeof(detail));
    if (rc == TUNNEL_E_NOT_FOUND || rc == TUNNEL_E_ACCESS || rc == TUNNEL_E_CERTIFICATE) {
        snprintf(a->line, sizeof(a->line), "--tls-cert, --tls-key: %s", detail);
        return fail_with(c, 1, a->line);
    }
    if (rc)
        return fail_with(c, rc == TUNNEL_E_INVALID ? EXIT_USAGE : 1, detail);
    tunnel_server_on_event(a->server, on_event, a);
    tunnel_loop_on_signal(a->loop, SIGTERM, on_stop, a);
    tunnel_loop_on_signal(a->loop, SIGINT, on_stop, a);
    tunnel_loop_on_signal(a->loop, SIGHUP, on_hangup, a);
    rc = tunnel_server_start(a->server, detail, sizeof(detail));
    if (rc)
        return fail_with(c, 1, detail);
    return -1;
}

int main(int argc, char **argv)
{
    app a = {.verbose = false};
    command_line c = {.program = "tunnel-server",
                      .usage = usage,
                      .examples = examples,
                      .rows = rows,
                      .row_count = sizeof(rows) / sizeof(*rows),
                      .user = &a};
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    if (tunnel_server_config_new(&a.config) || tunnel_loop_new(&a.loop, NULL) ||
        tunnel_server_config_set_domain(a.config, "localhost"))
        return fail_with(&c, 1, "out of memory");
    int rc = read_command_line(&c, argc, argv);
    if (rc < 0)
        rc = prepare(&a, &c);
    if (rc >= 0)
        tunnel_server_close(a.server, NULL, NULL);
    tunnel_loop_run(a.loop);
    hold_signals();
    tunnel_loop_free(a.loop);
    tunnel_server_config_free(a.config);
    for (size_t i = 0; i < a.cert_count; i++)
        free((void *)a.certs[i]);
    for (size_t i = 0; i < a.key_count; i++)
        free((void *)a.keys[i]);
    if (a.access_file && a.access_file != stdout)
        fclose(a.access_file);
    return rc < 0 ? 0 : rc;
}
