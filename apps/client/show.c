/* SPDX-License-Identifier: Apache-2.0 */
#include "client/show.h"

#include <string.h>

#include "client/qr.h"
#include "common/json.h"
#include "common/terminal.h"

published_name *find_name(const app *a, uint64_t id)
{
    for (const plan *p = a->settings ? a->settings->plans : NULL; p && id; p = p->next)
        for (size_t i = 0; i < p->name_count; i++)
            if (p->names[i].id == id)
                return &p->names[i];
    return NULL;
}

/* The server that an event is about, as it was given. */
static const char *server_of(const app *a, const tunnel_event *e)
{
    return settings_server_at(a->settings, tunnel_event_host(e));
}

void show_note(const app *a, const char *event, const char *text)
{
    json_line j;
    if (!a->settings->json) {
        fprintf(stderr, "%s\n", text);
        return;
    }
    json_begin(&j, stdout, event);
    json_text(&j, "text", text);
    json_end(&j);
}

void show_draining(const app *a)
{
    json_line j;
    char text[200];
    snprintf(text, sizeof(text), "what is under way may take %.9g s; %s leaves at once",
             a->settings->drain_ms / 1000.0, has_terminal() ? "another Ctrl-C" : "another signal");
    if (!a->settings->json) {
        fprintf(stderr, "draining: %s\n", text);
        return;
    }
    json_begin(&j, stdout, tunnel_event_name(TUNNEL_EVENT_DRAINING));
    json_text(&j, "text", text);
    json_number(&j, "timeout_ms", a->settings->drain_ms);
    json_end(&j);
}

/* --- for machines ----------------------------------------------------------------------------- */

static void json_error(json_line *j, const tunnel_event *e)
{
    if (tunnel_event_error(e))
        json_text(j, "error", tunnel_error_name(tunnel_event_error(e)));
    json_text_if(j, "text", tunnel_event_text(e));
}

static void json_visit(json_line *j, const tunnel_event *e)
{
    json_text_if(j, "visitor", tunnel_event_visitor(e));
    json_ms(j, "duration_ms", tunnel_event_duration_us(e));
    json_number(j, "bytes_in", tunnel_event_bytes_in(e));
    json_number(j, "bytes_out", tunnel_event_bytes_out(e));
}

static void show_json(const app *a, const tunnel_event *e, const published_name *name)
{
    char to[700];
    json_line j;
    tunnel_event_type type = tunnel_event_get_type(e);
    json_begin(&j, stdout, tunnel_event_name(type));
    if (tunnel_event_tunnel(e))
        json_number(&j, "tunnel", tunnel_event_tunnel(e));
    if (name) {
        json_text_if(&j, "name", name->plan->label);
        json_text(&j, "what", name->what);
    }
    switch (type) {
    case TUNNEL_EVENT_PUBLISHED:
        json_text(&j, "url", tunnel_event_url(e));
        if (name)
            json_text(&j, "to", plan_target(name->plan, to, sizeof(to)));
        break;
    case TUNNEL_EVENT_RESUMED:
        json_text(&j, "server", server_of(a, e));
        json_number(&j, "away_ms", tunnel_event_delay_ms(e));
        break;
    case TUNNEL_EVENT_RETRYING:
        json_text(&j, "server", server_of(a, e));
        json_error(&j, e);
        json_number(&j, "delay_ms", tunnel_event_delay_ms(e));
        break;
    case TUNNEL_EVENT_ROUND_TRIP:
        json_text(&j, "server", server_of(a, e));
        json_ms(&j, "duration_ms", tunnel_event_duration_us(e));
        break;
    case TUNNEL_EVENT_FAILED:
        if (*tunnel_event_host(e))
            json_text(&j, "server", server_of(a, e));
        json_error(&j, e);
        break;
    case TUNNEL_EVENT_CONNECTING:
    case TUNNEL_EVENT_CONNECTED:
    case TUNNEL_EVENT_DRAINING:
        json_text(&j, "server", server_of(a, e));
        json_error(&j, e);
        break;
    case TUNNEL_EVENT_REQUEST:
        json_text(&j, "method", tunnel_event_method(e));
        json_text(&j, "path", tunnel_event_path(e));
        json_number(&j, "status", (uint64_t)tunnel_event_status(e));
        json_visit(&j, e);
        break;
    case TUNNEL_EVENT_CONNECTION:
        json_visit(&j, e);
        json_error(&j, e);
        break;
    default:
        json_error(&j, e);
    }
    json_end(&j);
}

/* --- for people ------------------------------------------------------------------------------- */

static void begin_line(const published_name *name)
{
    char when[16];
    clock_text(when);
    printf("%s %s%s", when, name && name->plan->label ? name->plan->label : "",
           name && name->plan->label ? " " : "");
}

static void show_request(const tunnel_event *e, const published_name *name)
{
    bool colours = has_colours(stdout);
    int status = tunnel_event_status(e);
    begin_line(name);
    printf("%s %s %s%d%s %.1fms\n", tunnel_event_method(e), tunnel_event_path(e),
           colour_of_status(colours, status), status, colour_end(colours),
           (double)tunnel_event_duration_us(e) / 1000.0);
    fflush(stdout);
}

static void show_connection(const tunnel_event *e, const published_name *name)
{
    bool colours = has_colours(stdout);
    int error = tunnel_event_error(e);
    const char *what = name ? name->what : "tcp", *text = tunnel_event_text(e);
    begin_line(name);
    printf("%.3s %s %llu in %llu out %.1fms", what, tunnel_event_visitor(e),
           (unsigned long long)tunnel_event_bytes_in(e),
           (unsigned long long)tunnel_event_bytes_out(e),
           (double)tunnel_event_duration_us(e) / 1000.0);
    if (error)
        printf(" %s%s%s", colour_of_status(colours, 500), *text ? text : tunnel_strerror(error),
               colour_end(colours));
    putchar('\n');
    fflush(stdout);
}

static void show_published(app *a, const tunnel_event *e, published_name *name)
{
    char to[700];
    const char *url = tunnel_event_url(e);
    bool fresh = name && !text_equal(name->url, url);
    if (fresh) {
        bool several = settings_name_count(a->settings) > 1;
        bool page = (strncmp(url, "http:", 5) == 0 || strncmp(url, "https:", 6) == 0) &&
                    !strchr(url, '*') && name->plan->type != TYPE_PORTS;
        (void)text_set(&name->url, url);
        printf("public: %s%s%s\n", url, several ? " -> " : "",
               several ? plan_target(name->plan, to, sizeof(to)) : "");
        if (a->settings->qr && page && !print_qr(stdout, url, has_colours(stdout)))
            fprintf(stderr, "%s is too long for a QR code\n", url);
        fflush(stdout);
    }
    if (a->lost && !fresh && a->settings->servers.count == 1)
        fprintf(stderr, "connected again\n");
    a->lost = false;
}

/* What web servers answer to http where they want https: 400 on the port itself, a redirect on
 * another. */
static bool wants_tls(const char *text)
{
    const char *status = strstr(text, "HTTP ");
    return status && (strncmp(status + 5, "400", 3) == 0 || strncmp(status + 5, "30", 2) == 0);
}

static void show_retrying(app *a, const tunnel_event *e)
{
    /* A TLS server just closes on what is no TLS. */
    const char *server = server_of(a, e);
    bool several = a->settings->servers.count > 1;
    bool plain = strncmp(server, "ws:", 3) == 0 || strncmp(server, "http:", 5) == 0;
    bool hint = plain && !a->connected &&
                (tunnel_event_error(e) == TUNNEL_E_EOF || wants_tls(tunnel_event_text(e)));
    a->lost = true;
    char when[32] = "at once";
    if (tunnel_event_delay_ms(e) >= 50)
        snprintf(when, sizeof(when), "in %.1f s", (double)tunnel_event_delay_ms(e) / 1000.0);
    /* What is published goes on at a server that stops, for a while. */
    fprintf(stderr, "no %stunnel through %s: %s%s (%s %s)\n", tunnel_event_served(e) ? "new " : "",
            server, tunnel_event_text(e), hint ? "; should it be wss:// instead?" : "",
            several ? "next attempt" : "trying again", when);
}

/* Pings go all the time: what has hardly changed is no news. */
static void show_round_trip(app *a, const tunnel_event *e)
{
    uint64_t us = tunnel_event_duration_us(e), last = a->round_trip_us;
    if (!a->settings->verbose || (last && us < last * 2 + 5000 && last < us * 2 + 5000))
        return;
    a->round_trip_us = us ? us : 1;
    fprintf(stderr, "round trip %.1f ms\n", (double)us / 1000.0);
}

static void show_server_draining(const app *a, const tunnel_event *e)
{
    bool several = a->settings->servers.count > 1;
    fprintf(stderr, "draining: %s%s%s; what is under way there goes on\n",
            several ? server_of(a, e) : "", several ? ": " : "", tunnel_event_text(e));
}

static void show_text(app *a, const tunnel_event *e, published_name *name)
{
    tunnel_event_type type = tunnel_event_get_type(e);
    switch (type) {
    case TUNNEL_EVENT_CONNECTING:
        if (a->settings->verbose)
            fprintf(stderr, "connecting to %s\n", server_of(a, e));
        break;
    case TUNNEL_EVENT_CONNECTED:
        if (a->settings->verbose || a->settings->servers.count > 1)
            fprintf(stderr, "connected to %s\n", server_of(a, e));
        break;
    case TUNNEL_EVENT_RETRYING:
        show_retrying(a, e);
        break;
    case TUNNEL_EVENT_RESUMED:
        fprintf(stderr, "connected again after %.1f s; all streams go on\n",
                (double)tunnel_event_delay_ms(e) / 1000.0);
        a->lost = false;
        break;
    case TUNNEL_EVENT_PUBLISHED:
        show_published(a, e, name);
        break;
    case TUNNEL_EVENT_ROUND_TRIP:
        show_round_trip(a, e);
        break;
    case TUNNEL_EVENT_REQUEST:
        if (!a->settings->quiet)
            show_request(e, name);
        break;
    case TUNNEL_EVENT_CONNECTION:
        if (!a->settings->quiet)
            show_connection(e, name);
        break;
    case TUNNEL_EVENT_DRAINING:
        show_server_draining(a, e);
        break;
    case TUNNEL_EVENT_WARNING:
        fprintf(stderr, "%s: %s%s%s\n", tunnel_event_name(type),
                name && name->plan->label ? name->plan->label : "",
                name && name->plan->label ? ": " : "", tunnel_event_text(e));
        break;
    default:
        break;
    }
}

/* --- the end ---------------------------------------------------------------------------------- */

static const char *advice(const app *a, int error, const published_name *name, const char *text)
{
    bool port = name && (name->plan->type == TYPE_TCP || name->plan->type == TYPE_UDP);
    bool file = name && name->plan->label;
    switch (error) {
    case TUNNEL_E_AUTH_FAILED:
        return a->settings->connection[CONNECTION_TOKEN] ? "; check --token (TUNNEL_TOKEN)"
                                                         : "; give one with --token (TUNNEL_TOKEN)";
    case TUNNEL_E_NAME_TAKEN:
        if (strstr(text, "pool")) /* the server has told how to join it */
            return port ? "; or choose another port" : "; or choose another name";
        if (port)
            return file
                       ? "; choose another remote-port (--force takes it only from another client with your token)"
                       : "; choose another --remote-port (--force takes it only from another client with your token)";
        return file
                   ? "; choose another name (--force takes it only from another client with your token)"
                   : "; choose another --subdomain (--force takes it only from another client with your token)";
    case TUNNEL_E_ADDR_IN_USE:
        return file ? "; choose another remote-port" : "; choose another --remote-port";
    case TUNNEL_E_REPLACED:
        return port ? "; stop one of the two, or give it another --remote-port"
                    : "; stop one of the two, or give it another --subdomain";
    case TUNNEL_E_CERTIFICATE:
        return "; --server must have a name of the certificate, and a CA of your own is given with --ca FILE";
    default:
        return "";
    }
}

static bool any_published(const app *a)
{
    for (const plan *p = a->settings->plans; p; p = p->next)
        for (size_t i = 0; i < p->name_count; i++)
            if (p->names[i].id)
                return true;
    return false;
}

static void on_failed(app *a, const tunnel_event *e, published_name *which)
{
    int error = tunnel_event_error(e);
    const char *name = tunnel_error_name(error), *text = tunnel_event_text(e);
    size_t n = strlen(name);
    if (strncmp(text, name, n) == 0 && text[n] == ':') /* the server's answer may begin with it */
        text += n + 1 + strspn(text + n + 1, " ");
    bool several = which && settings_name_count(a->settings) > 1;
    const char *label = several && which->plan->label ? which->plan->label : "";
    if (which)
        which->id = 0;
    bool last = !tunnel_event_tunnel(e) || !any_published(a);
    bool from = !tunnel_event_tunnel(e) && a->settings->servers.count > 1 && *server_of(a, e);
    snprintf(a->line, sizeof(a->line), "%s%s%s%s%s%s%s: %s%s%s", from ? server_of(a, e) : "",
             from ? ": " : "", label, *label ? " (" : "", several ? which->what : "",
             *label    ? "): "
             : several ? ": "
                       : "",
             name, text, advice(a, error, which, text), last ? "" : "; the other tunnels stay");
    if (last || !a->settings->json)
        fail_with(&a->command, 1, a->line);
    if (last)
        leave(a, 1);
}

void on_client_event(void *user, const tunnel_event *e)
{
    app *a = user;
    published_name *name = find_name(a, tunnel_event_tunnel(e));
    tunnel_event_type type = tunnel_event_get_type(e);
    bool line = type == TUNNEL_EVENT_REQUEST || type == TUNNEL_EVENT_CONNECTION ||
                type == TUNNEL_EVENT_ROUND_TRIP;
    if (type == TUNNEL_EVENT_CONNECTED) {
        a->connected = true;
        a->round_trip_us = 0;
    }
    if (tunnel_event_tunnel(e) && !name && type != TUNNEL_EVENT_FAILED)
        return; /* of one that was taken back */
    if (!a->settings->json)
        show_text(a, e, name);
    else if (!line || !a->settings->quiet)
        show_json(a, e, name);
    if (type == TUNNEL_EVENT_FAILED && !(tunnel_event_tunnel(e) && !name))
        on_failed(a, e, name);
}
