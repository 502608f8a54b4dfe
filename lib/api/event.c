/* SPDX-License-Identifier: Apache-2.0 */
#include "base/event.h"

static const char *text_of(const char *s)
{
    return s ? s : "";
}

tunnel_event_type tunnel_event_get_type(const tunnel_event *e)
{
    return e->type;
}

uint64_t tunnel_event_tunnel(const tunnel_event *e)
{
    return e->tunnel;
}

int tunnel_event_error(const tunnel_event *e)
{
    return e->error;
}

const char *tunnel_event_text(const tunnel_event *e)
{
    return text_of(e->text);
}

const char *tunnel_event_url(const tunnel_event *e)
{
    return text_of(e->url);
}

const char *tunnel_event_account(const tunnel_event *e)
{
    return text_of(e->account);
}

const char *tunnel_event_method(const tunnel_event *e)
{
    return text_of(e->method);
}

const char *tunnel_event_host(const tunnel_event *e)
{
    return text_of(e->host);
}

const char *tunnel_event_path(const tunnel_event *e)
{
    return text_of(e->path);
}

const char *tunnel_event_visitor(const tunnel_event *e)
{
    return text_of(e->visitor);
}

int tunnel_event_status(const tunnel_event *e)
{
    return e->status;
}

uint64_t tunnel_event_duration_us(const tunnel_event *e)
{
    return e->duration_us;
}

uint64_t tunnel_event_bytes_in(const tunnel_event *e)
{
    return e->bytes_in;
}

uint64_t tunnel_event_bytes_out(const tunnel_event *e)
{
    return e->bytes_out;
}

uint64_t tunnel_event_delay_ms(const tunnel_event *e)
{
    return e->delay_ms;
}

int tunnel_event_served(const tunnel_event *e)
{
    return e->served;
}

const char *tunnel_event_name(tunnel_event_type type)
{
    switch (type) {
    case TUNNEL_EVENT_CONNECTING:
        return "connecting";
    case TUNNEL_EVENT_CONNECTED:
        return "connected";
    case TUNNEL_EVENT_RETRYING:
        return "retrying";
    case TUNNEL_EVENT_PUBLISHED:
        return "published";
    case TUNNEL_EVENT_FAILED:
        return "failed";
    case TUNNEL_EVENT_REQUEST:
        return "request";
    case TUNNEL_EVENT_DRAINING:
        return "draining";
    case TUNNEL_EVENT_WARNING:
        return "warning";
    case TUNNEL_EVENT_ROUND_TRIP:
        return "round_trip";
    case TUNNEL_EVENT_RESUMED:
        return "resumed";
    case TUNNEL_EVENT_CLIENT_PARKED:
        return "client_parked";
    case TUNNEL_EVENT_CLIENT_RESUMED:
        return "client_resumed";
    case TUNNEL_EVENT_CONNECTION:
        return "connection";
    case TUNNEL_EVENT_LISTENING:
        return "listening";
    case TUNNEL_EVENT_CLIENT_JOINED:
        return "client_joined";
    case TUNNEL_EVENT_CLIENT_LEFT:
        return "client_left";
    case TUNNEL_EVENT_NAME_PUBLISHED:
        return "name_published";
    case TUNNEL_EVENT_NAME_GONE:
        return "name_gone";
    case TUNNEL_EVENT_ACCESS:
        return "access";
    }
    return "unknown";
}
