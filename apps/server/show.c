/* SPDX-License-Identifier: Apache-2.0 */
#include "server/show.h"

#include <string.h>
#include <time.h>

#include "common/json.h"

void show_note(const app *a, const char *event, const char *text)
{
    json_line j;
    if (!a->settings->json) {
        fprintf(stderr, "%s: %s\n", a->command.program, text);
        return;
    }
    json_begin(&j, stdout, event);
    json_text(&j, "text", text);
    json_end(&j);
}

/* --- for machines ----------------------------------------------------------------------------- */

static void json_access(FILE *out, const tunnel_event *e)
{
    json_line j;
    bool request = *tunnel_event_path(e) != '\0';
    json_begin(&j, out, tunnel_event_name(TUNNEL_EVENT_ACCESS));
    json_text(&j, "visitor", tunnel_event_visitor(e));
    json_text(&j, "host", tunnel_event_host(e));
    json_text(&j, "method", tunnel_event_method(e));
    if (request) {
        json_text(&j, "path", tunnel_event_path(e));
        json_number(&j, "status", (uint64_t)tunnel_event_status(e));
    }
    json_number(&j, "bytes_in", tunnel_event_bytes_in(e));
    json_number(&j, "bytes_out", tunnel_event_bytes_out(e));
    json_ms(&j, "duration_ms", tunnel_event_duration_us(e));
    json_end(&j);
}

static void show_json(const app *a, const tunnel_event *e)
{
    json_line j;
    if (tunnel_event_get_type(e) == TUNNEL_EVENT_ACCESS) {
        if (a->access_file)
            json_access(a->access_file, e);
        return;
    }
    json_begin(&j, stdout, tunnel_event_name(tunnel_event_get_type(e)));
    json_text_if(&j, "account", tunnel_event_account(e));
    json_text_if(&j, "url", tunnel_event_url(e));
    if (tunnel_event_error(e))
        json_text(&j, "error", tunnel_error_name(tunnel_event_error(e)));
    json_text_if(&j, "text", tunnel_event_text(e));
    if (tunnel_event_get_type(e) == TUNNEL_EVENT_CLIENT_PARKED)
        json_number(&j, "kept_ms", tunnel_event_delay_ms(e));
    else if (tunnel_event_get_type(e) == TUNNEL_EVENT_CLIENT_RESUMED)
        json_number(&j, "away_ms", tunnel_event_delay_ms(e));
    else if (tunnel_event_get_type(e) == TUNNEL_EVENT_DRAINING)
        json_number(&j, "timeout_ms", tunnel_event_delay_ms(e));
    json_end(&j);
}

/* --- for people ------------------------------------------------------------------------------- */

static void show_access(FILE *out, const tunnel_event *e)
{
    char when[32];
    time_t now = time(NULL);
    struct tm tm;
    const char *path = tunnel_event_path(e);
    gmtime_r(&now, &tm);
    strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
    fprintf(out, "%s %s %s \"%s%s%s\" %d %llu %llu %.1fms\n", when, tunnel_event_visitor(e),
            tunnel_event_host(e), tunnel_event_method(e), *path ? " " : "", path,
            tunnel_event_status(e), (unsigned long long)tunnel_event_bytes_in(e),
            (unsigned long long)tunnel_event_bytes_out(e),
            (double)tunnel_event_duration_us(e) / 1000.0);
}

static void show_verbose(const tunnel_event *e)
{
    const char *account = tunnel_event_account(e), *text = tunnel_event_text(e);
    switch (tunnel_event_get_type(e)) {
    case TUNNEL_EVENT_CLIENT_JOINED:
        fprintf(stderr, "client %s joined from %s\n", account, text);
        break;
    case TUNNEL_EVENT_CLIENT_LEFT:
        fprintf(stderr, "client %s left: %s\n", account,
                *text ? text : tunnel_strerror(tunnel_event_error(e)));
        break;
    case TUNNEL_EVENT_CLIENT_PARKED:
        fprintf(stderr, "client %s lost its connection: %s; kept for %.0f s\n", account, text,
                (double)tunnel_event_delay_ms(e) / 1000.0);
        break;
    case TUNNEL_EVENT_CLIENT_RESUMED:
        fprintf(stderr, "client %s is back from %s after %.1f s\n", account, text,
                (double)tunnel_event_delay_ms(e) / 1000.0);
        break;
    case TUNNEL_EVENT_NAME_PUBLISHED:
        fprintf(stderr, "client %s published %s\n", account, tunnel_event_url(e));
        break;
    case TUNNEL_EVENT_NAME_GONE:
        fprintf(stderr, "client %s no longer publishes %s\n", account, tunnel_event_url(e));
        break;
    default:
        break;
    }
}

static void show_made_token(app *a)
{
    json_line j;
    if (a->token_shown || !a->token[0])
        return;
    a->token_shown = true;
    if (!a->settings->json) {
        printf("token: %s\n", a->token);
        return;
    }
    json_begin(&j, stdout, "token");
    json_text(&j, "token", a->token);
    json_end(&j);
}

void on_server_event(void *user, const tunnel_event *e)
{
    app *a = user;
    tunnel_event_type type = tunnel_event_get_type(e);
    if (type == TUNNEL_EVENT_LISTENING)
        show_made_token(a);
    if (a->settings->json) {
        show_json(a, e);
    } else if (type == TUNNEL_EVENT_LISTENING) {
        printf("listening: %s\n", tunnel_event_url(e));
        fflush(stdout);
    } else if (type == TUNNEL_EVENT_WARNING) {
        show_note(a, "warning", tunnel_event_text(e));
    } else if (type == TUNNEL_EVENT_ACCESS) {
        if (a->access_file)
            show_access(a->access_file, e);
    } else if (a->settings->verbose) {
        show_verbose(e);
    }
}

void show_draining(const app *a)
{
    char text[200], before[80] = "";
    const settings *s = a->settings;
    if (s->json) /* an event has told */
        return;
    if (s->drain_delay_ms)
        snprintf(before, sizeof(before), "all goes on for %.9g s, then ",
                 s->drain_delay_ms / 1000.0);
    snprintf(text, sizeof(text),
             "draining: %swhat is under way may take %.9g s; another signal ends it at once",
             before, s->drain_timeout_ms / 1000.0);
    show_note(a, "draining", text);
}

void show_counters(const app *a)
{
    static const struct {
        const char *name, *key;
    } counters[] = {{"connections", "connections"},
                    {"failed TLS handshakes", "bad_handshakes"},
                    {"requests", "requests"},
                    {"bad requests", "bad_requests"},
                    {"refused links", "refused_links"},
                    {"broken links", "broken_links"},
                    {"sessions", "sessions"},
                    {"TCP and TLS tunnel connections", "tunnel_connections"},
                    {"UDP flows", "udp_flows"},
                    {"dropped datagrams", "datagrams_dropped"},
                    {"refused attaches", "refused_attaches"},
                    {"retried requests", "retried"}};
    json_line j;
    if (a->settings->json)
        json_begin(&j, stdout, "counters");
    else
        fprintf(stderr, "counted:");
    for (size_t i = 0; i < sizeof(counters) / sizeof(*counters); i++) {
        uint64_t value = tunnel_server_counter(a->server, (tunnel_counter)i);
        if (a->settings->json)
            json_number(&j, counters[i].key, value);
        else
            fprintf(stderr, "%s %llu %s", i ? "," : "", (unsigned long long)value,
                    counters[i].name);
    }
    if (a->settings->json)
        json_end(&j);
    else
        fprintf(stderr, "\n");
}
