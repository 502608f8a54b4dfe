/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <tunnel/tunnel.h>

#include "client/proxy.h"
#include "common/options.h"
#include "common/process.h"

typedef struct app {
    tunnel_client_config *config;
    tunnel_options *options;
    tunnel_client *client;
    tunnel_loop *loop;
    const command_line *command;
    const char *server;
    const char *subdomain;
    bool has_token;
    bool has_ca;
    bool has_upstream_ca;
    bool has_proxy;
    bool quiet;
    bool verbose;
    bool lost; /* a retry was told, so that coming back is told too */
    int exit_code;
    char url[512]; /* the public URL printed last */
    char line[700];
} app;

/* --- options ---------------------------------------------------------------------------------- */

static const char *result(app *a, int rc)
{
    if (rc == 0)
        return NULL;
    const char *line = tunnel_client_config_error(a->config);
    return *line ? line : tunnel_strerror(rc);
}

static const char *option_result(app *a, int rc)
{
    if (rc == 0)
        return NULL;
    const char *line = tunnel_options_error(a->options);
    return *line ? line : tunnel_strerror(rc);
}

static const char *set_server(void *user, const char *value)
{
    app *a = user;
    a->server = value;
    return result(a, tunnel_client_config_set_server(a->config, value));
}

static const char *set_token(void *user, const char *value)
{
    app *a = user;
    a->has_token = true;
    return result(a, tunnel_client_config_set_token(a->config, value));
}

static const char *set_subdomain(void *user, const char *value)
{
    app *a = user;
    size_t n = strlen(value);
    a->subdomain = value;
    if (strcmp(value, "@") == 0)
        return NULL;
    if (n >= 1 && n <= 63 && strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789-") == n &&
        value[0] != '-' && value[n - 1] != '-')
        return NULL;
    snprintf(
        a->line, sizeof(a->line),
        "'%.80s' is not a DNS label: use 1 to 63 of a-z, 0-9 and '-' (not first or last), or @ for the root domain",
        value);
    return a->line;
}

static const char *set_host_header(void *user, const char *value)
{
    app *a = user;
    return option_result(a, tunnel_options_set_host_header(a->options, value));
}

static const char *set_quiet(void *user, const char *value)
{
    (void)value;
    ((app *)user)->quiet = true;
    return NULL;
}

static const char *set_ca(void *user, const char *value)
{
    app *a = user;
    a->has_ca = true;
    return result(a, tunnel_client_config_set_ca_file(a->config, value));
}

static const char *set_insecure(void *user, const char *value)
{
    app *a = user;
    (void)value;
    return result(a, tunnel_client_config_set_insecure(a->config, 1));
}

static const char *set_proxy(void *user, const char *value)
{
    app *a = user;
    a->has_proxy = true;
    return result(a, tunnel_client_config_set_proxy(a->config, value));
}

static const char *set_force(void *user, const char *value)
{
    app *a = user;
    (void)value;
    return result(a, tunnel_client_config_set_force(a->config, 1));
}

static const char *set_instance(void *user, const char *value)
{
    app *a = user;
    return result(a, tunnel_client_config_set_instance(a->config, value));
}

static const char *set_upstream_ca(void *user, const char *value)
{
    app *a = user;
    a->has_upstream_ca = true;
    return option_result(a, tunnel_options_set_upstream_ca_file(a->options, value));
}

static const char *set_link_timeout(void *user, const char *value)
{
    app *a = user;
    char *end;
    double seconds = strtod(value, &end);
    if (end == value || *end || !(seconds >= 1 && seconds <= 600))
        return "give a number of seconds, 1 to 600";
    return result(a, tunnel_client_config_set_silence(a->config, (uint32_t)(seconds * 1000)));
}

static const char *set_verbose(void *user, const char *value)
{
    (void)value;
    ((app *)user)->verbose = true;
    return NULL;
}

static const option_row rows[] = {
    {"server", "URL", "TUNNEL_SERVER", false,
     "The tunnel server: wss://HOST[:PORT], or ws:// (see\n--insecure); https and http mean the same. Required.",
     set_server},
    {"token", "SECRET", "TUNNEL_TOKEN", false, "The credential that the server knows.", set_token},
    {"subdomain", "NAME", "TUNNEL_SUBDOMAIN", false,
     "The name to publish; @ is the root domain.\nDefault: one that the server makes up.",
     set_subdomain},
    {"host-header", "VALUE", "TUNNEL_HOST_HEADER", false,
     "Send this Host to the service instead of the visitor's.", set_host_header},
    {"quiet", NULL, "TUNNEL_QUIET", false, "No line per request.", set_quiet},
    {"ca", "FILE", "TUNNEL_CA", false,
     "Verify the server against this PEM file instead of the\nsystem's store.", set_ca},
    {"insecure", NULL, "TUNNEL_INSECURE", false, "Allow plain ws:// to hosts other than this one.",
     set_insecure},
    {"proxy", "URL", "TUNNEL_PROXY", false,
     "Go out through this HTTP proxy:\nhttp://[USER:PASSWORD@]HOST[:PORT]; '' for none.\n"
     "Default: HTTPS_PROXY, unless NO_PROXY names the server.",
     set_proxy},
    {"force", NULL, "TUNNEL_FORCE", false, "Take the name from a live client with the same token.",
     set_force},
    {"instance", "HEX", "TUNNEL_INSTANCE", false,
     "32 hex digits: a newer client with the same ones (and the\nsame token) takes over at once. Default: random.",
     set_instance},
    {"upstream-ca", "FILE", "TUNNEL_UPSTREAM_CA", false,
     "Verify an https:// service against this PEM file.\nDefault: the system's store; not verified on localhost.",
     set_upstream_ca},
    {"link-timeout", "SECONDS", "TUNNEL_LINK_TIMEOUT", false,
     "How long the server may be silent before the connection\ncounts as dead, 1 to 600. Default: 5.",
     set_link_timeout},
    {"verbose", NULL, "TUNNEL_VERBOSE", false, "Tell about every connection attempt.", set_verbose},
};

static const char usage[] =
    "http UPSTREAM --server URL [OPTIONS]\n\n"
    "Makes a local web service reachable through a tunnel server. UPSTREAM is a port of this\n"
    "machine (3000), HOST:PORT, unix:/PATH or https://HOST:PORT. It need not be up yet.";

static const char examples[] =
    "Examples:\n"
    "  tunnel-client http 3000 --server wss://tunnel.example.com --subdomain demo --token SECRET\n"
    "  tunnel-client http unix:/run/app.sock --server wss://tunnel.example.com --host-header app.local\n"
    "  TUNNEL_SERVER=ws://127.0.0.1:8080 TUNNEL_TOKEN=SECRET tunnel-client http 3000\n";

/* --- events ----------------------------------------------------------------------------------- */

static void on_closed(void *user)
{
    tunnel_loop_stop(((app *)user)->loop);
}

static void leave(app *a, int code)
{
    if (!a->client)
        return;
    tunnel_client *client = a->client;
    a->client = NULL;
    a->exit_code = code;
    tunnel_client_close(client, on_closed, a);
}

static void print_request(const tunnel_event *e)
{
    char when[16];
    time_t now = time(NULL);
    struct tm tm;
    localtime_r(&now, &tm);
    strftime(when, sizeof(when), "%H:%M:%S", &tm);
    printf("%s %s %s %d %.1fms\n", when, tunnel_event_method(e), tunnel_event_path(e),
           tunnel_event_status(e), (double)tunnel_event_duration_us(e) / 1000.0);
    fflush(stdout);
}

static const char *advice(const app *a, int error)
{
    switch (error) {
    case TUNNEL_E_AUTH_FAILED:
        return a->has_token ? "; check --token (TUNNEL_TOKEN)"
                            : "; give one with --token (TUNNEL_TOKEN)";
    case TUNNEL_E_NAME_TAKEN:
        return "; choose another --subdomain, or take it with --force from a client that has your token";
    case TUNNEL_E_REPLACED:
        return "; stop one of the two, or give it another --subdomain";
    case TUNNEL_E_CERTIFICATE:
        return "; --server must have a name of the certificate, and a CA of your own is given with --ca FILE";
    default:
        return "";
    }
}

static void on_failed(app *a, const tunnel_event *e)
{
    int error = tunnel_event_error(e);
    const char *name = tunnel_error_name(error), *text = tunnel_event_text(e);
    size_t n = strlen(name);
    if (strncmp(text, name, n) == 0 && text[n] == ':') /* the server's answer may begin with it */
        text += n + 1 + strspn(text + n + 1, " ");
    snprintf(a->line, sizeof(a->line), "%s: %s%s", name, text, advice(a, error));
    fail_with(a->command, 1, a->line);
    leave(a, 1);
}

static void on_published(app *a, const tunnel_event *e)
{
    if (strcmp(a->url, tunnel_event_url(e)) != 0) {
        snprintf(a->url, sizeof(a->url), "%s", tunnel_event_url(e));
        printf("public: %s\n", a->url);
        fflush(stdout);
    }
    if (a->lost)
        fprintf(stderr, "connected again\n");
    a->lost = false;
}

static void on_retrying(app *a, const tunnel_event *e)
{
    /* A TLS server just closes on what is no TLS. */
    bool plain = strncmp(a->server, "ws:", 3) == 0 || strncmp(a->server, "http:", 5) == 0;
    bool hint = plain && !*a->url && tunnel_event_error(e) == TUNNEL_E_EOF;
    a->lost = true;
    fprintf(stderr, "no tunnel through %s: %s%s (trying again in %.1f s)\n", a->server,
            tunnel_event_text(e), hint ? "; should it be wss:// instead?" : "",
            (double)tunnel_event_delay_ms(e) / 1000.0);
}

static void on_event(void *user, const tunnel_event *e)
{
    app *a = user;
    switch (tunnel_event_get_type(e)) {
    case TUNNEL_EVENT_CONNECTING:
        if (a->verbose)
            fprintf(stderr, "connecting to %s\n", tunnel_event_text(e));
        break;
    case TUNNEL_EVENT_CONNECTED:
        if (a->verbose)
            fprintf(stderr, "connected to %s\n", tunnel_event_text(e));
        break;
    case TUNNEL_EVENT_RETRYING:
        on_retrying(a, e);
        break;
    case TUNNEL_EVENT_PUBLISHED:
        on_published(a, e);
        break;
    case TUNNEL_EVENT_FAILED:
        on_failed(a, e);
        break;
    case TUNNEL_EVENT_REQUEST:
        if (!a->quiet)
            print_request(e);
        break;
    case TUNNEL_EVENT_DRAINING:
    case TUNNEL_EVENT_WARNING:
        fprintf(stderr, "%s: %s\n", tunnel_event_name(tunnel_event_get_type(e)),
                tunnel_event_text(e));
        break;
    default:
        break;
    }
}

static void on_stop(void *user, int signum)
{
    (void)signum;
    leave(user, 0);
}

/* --- start ------------------------------------------------------------------------------------ */

static int prepare(app *a, const command_line *c)
{
    char what[80], detail[600];
    if (c->argument_count == 0)
        return fail_with(
            c, EXIT_USAGE,
            "what shall be published? Try: tunnel-client http 3000 --server URL (see --help)");
    if (strcmp(c->arguments[0], "http") != 0) {
        bool port = strspn(c->arguments[0], "0123456789") == strlen(c->arguments[0]);
        snprintf(a->line, sizeof(a->line),
                 port ? "write 'http' before the address: tunnel-client http %.60s"
                      : "unknown command '%.60s': only 'http' is known (see --help)",
                 c->arguments[0]);
        return fail_with(c, EXIT_USAGE, a->line);
    }
    if (c->argument_count == 1)
        return fail_with(
            c, EXIT_USAGE,
            "'http' needs an address to forward to, e.g. tunnel-client http 3000 (see --help)");
    if (c->argument_count > 2) {
        snprintf(a->line, sizeof(a->line),
                 "'http' takes one address to forward to: '%.60s' is one too many (see --help)",
                 c->arguments[2]);
        return fail_with(c, EXIT_USAGE, a->line);
    }
    if (!a->server)
        return fail_with(c, EXIT_USAGE, "no server is set: give --server URL or TUNNEL_SERVER");
    const char *proxy = a->has_proxy ? NULL : proxy_from_environment(a->server);
    if (proxy && tunnel_client_config_set_proxy(a->config, proxy)) {
        snprintf(a->line, sizeof(a->line), "HTTPS_PROXY: %s",
                 tunnel_client_config_error(a->config));
        return fail_with(c, EXIT_USAGE, a->line);
    }
    int rc = tunnel_client_new(&a->client, a->loop, a->config, detail, sizeof(detail));
    if (rc == TUNNEL_E_INVALID)
        return fail_with(c, EXIT_USAGE, detail);
    if (rc) {
        snprintf(a->line, sizeof(a->line), "%s%s", a->has_ca ? "--ca: " : "", detail);
        return fail_with(c, 1, a->line);
    }
    tunnel_client_on_event(a->client, on_event, a);
    snprintf(what, sizeof(what), "http://%s", a->subdomain ? a->subdomain : "");
    rc = tunnel_client_forward(a->client, what, c->arguments[1], a->options, NULL, detail,
                               sizeof(detail));
    if (rc == TUNNEL_E_INVALID || rc == TUNNEL_E_NAME_INVALID)
        return fail_with(c, EXIT_USAGE, detail);
    if (rc) {
        snprintf(a->line, sizeof(a->line), "%s%s", a->has_upstream_ca ? "--upstream-ca: " : "",
                 detail);
        return fail_with(c, 1, a->line);
    }
    tunnel_loop_on_signal(a->loop, SIGTERM, on_stop, a);
    tunnel_loop_on_signal(a->loop, SIGINT, on_stop, a);
    tunnel_client_start(a->client);
    return -1;
}

int main(int argc, char **argv)
{
    app a = {.quiet = false};
    command_line c = {.program = "tunnel-client",
                      .usage = usage,
                      .examples = examples,
                      .rows = rows,
                      .row_count = sizeof(rows) / sizeof(*rows),
                      .user = &a};
    a.command = &c;
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    if (tunnel_client_config_new(&a.config) || tunnel_options_new(&a.options) ||
        tunnel_loop_new(&a.loop, NULL))
        return fail_with(&c, 1, "out of memory");
    int rc = read_command_line(&c, argc, argv);
    if (rc < 0)
        rc = prepare(&a, &c);
    if (rc >= 0)
        leave(&a, rc);
    tunnel_loop_run(a.loop);
    hold_signals();
    tunnel_loop_free(a.loop);
    tunnel_options_free(a.options);
    tunnel_client_config_free(a.config);
    return rc >= 0 ? rc : a.exit_code;
}
