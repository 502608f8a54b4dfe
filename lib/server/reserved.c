/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "server/visitor.h"
#include "tunnel/error.h"

#define PREFIX "/__tunnel__"

static bool path_is(const tnl_http_head *h, const char *path)
{
    const char *query = h->path.n ? memchr(h->path.p, '?', h->path.n) : NULL;
    size_t n = query ? (size_t)(query - h->path.p) : h->path.n;
    return n == strlen(path) && memcmp(h->path.p, path, n) == 0;
}

bool tnl_reserved_is(const tnl_http_head *h)
{
    size_t n = sizeof(PREFIX) - 1;
    if (h->path.n < n || memcmp(h->path.p, PREFIX, n) != 0)
        return false;
    return h->path.n == n || h->path.p[n] == '/' || h->path.p[n] == '?';
}

static void answer_json(tnl_visitor *v, int status, const char *json, const char *name,
                        const char *value)
{
    tnl_http_field fields[2] = {{{"Cache-Control", 13}, {"no-store", 8}}};
    size_t count = 1;
    if (name)
        fields[count++] = (tnl_http_field){{name, strlen(name)}, {value, strlen(value)}};
    tnl_http_reply r = {.status = status,
                        .content_type = "application/json",
                        .fields = fields,
                        .field_count = count};
    tnl_visitor_reply(v, &r, json, strlen(json));
}

static void refuse_link(tnl_visitor *v, int status, int error, const char *message,
                        const char *name, const char *value)
{
    char json[256];
    v->server->stats.refused_links++;
    v->close_after = true;
    snprintf(json, sizeof(json), "{\"error\":\"%s\",\"message\":\"%s\"}\n",
             tunnel_error_name(error), message);
    answer_json(v, status, json, name, value);
}

/* RFC 6455 section 4.2.1: the key is the base64 form of 16 bytes. */
static bool is_websocket_key(tnl_http_span key)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (key.n != 24 || key.p[22] != '=' || key.p[23] != '=')
        return false;
    for (size_t i = 0; i < 22; i++)
        if (!strchr(digits, key.p[i]))
            return false;
    return true;
}

static int account_of(const tnl_visitor *v, char account[TNL_ACCOUNT_SIZE])
{
    const tnl_http_field *f = tnl_http_find(v->head, "Authorization");
    if (!f || f->value.n < 8 || strncasecmp(f->value.p, "Bearer ", 7) != 0)
        return TUNNEL_E_AUTH_FAILED;
    tnl_str token = {f->value.p + 7, f->value.n - 7};
    return tnl_tokens_check(v->server->config.tokens, token, account);
}

/* Whether the server takes one more link; else the client was told. Sessions that are parked count,
 * and must not be kept from coming back by that. */
static bool has_room(tnl_visitor *v)
{
    if (v->server->closing)
        refuse_link(v, 503, TUNNEL_E_GONE, "the server is shutting down", "Retry-After", "2");
    else if (v->server->peer_count + v->server->newcomers.count >=
             TNL_MAX_CLIENTS + TNL_MAX_JOINING)
        refuse_link(v, 503, TUNNEL_E_LIMIT, "the server has as many clients as it takes",
                    "Retry-After", "60");
    else
        return true;
    return false;
}

static void answer_link(tnl_visitor *v)
{
    const tnl_http_head *h = v->head;
    const tnl_http_field *key = tnl_http_find(h, "Sec-WebSocket-Key");
    const tnl_http_field *version = tnl_http_find(h, "Sec-WebSocket-Version");
    if (!tnl_http_is(h->method, "GET")) {
        refuse_link(v, 405, TUNNEL_E_INVALID, "a link is opened with GET", "Allow", "GET");
    } else if (account_of(v, v->account)) {
        refuse_link(v, 401, TUNNEL_E_AUTH_FAILED, "the token is not one of this server's",
                    "WWW-Authenticate", "Bearer");
    } else if (!h->upgrade || !tnl_http_has_token(h, "Upgrade", "websocket")) {
        refuse_link(v, 426, TUNNEL_E_INVALID, "a link is a WebSocket", "Upgrade", "websocket");
    } else if (!version || !tnl_http_is(version->value, "13")) {
        refuse_link(v, 426, TUNNEL_E_INVALID, "WebSocket version 13 is needed",
                    "Sec-WebSocket-Version", "13");
    } else if (!key || !is_websocket_key(key->value)) {
        refuse_link(v, 400, TUNNEL_E_INVALID, "Sec-WebSocket-Key is not base64 of 16 bytes", NULL,
                    NULL);
    } else if (!tnl_http_has_token(h, "Sec-WebSocket-Protocol", "tunnel.v1")) {
        refuse_link(v, 400, TUNNEL_E_VERSION, "the sub-protocol tunnel.v1 must be offered", NULL,
                    NULL);
    } else if (!has_room(v)) {
        return;
    } else if (
        tnl_buf_addf(
            &v->out,
            "GET " PREFIX "/link HTTP/1.1\r\nHost: tunnel\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: %.24s\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: tunnel.v1\r\n\r\n",
            key->value.p)) {
        tnl_visitor_abort(v);
    } else {
        v->link_taken = true;
    }
}

static void answer_lane(tnl_visitor *v)
{
    const tnl_http_head *h = v->head;
    if (!tnl_http_is(h->method, "GET")) {
        refuse_link(v, 405, TUNNEL_E_INVALID, "a lane is opened with GET", "Allow", "GET");
    } else if (account_of(v, v->account)) {
        refuse_link(v, 401, TUNNEL_E_AUTH_FAILED, "the token is not one of this server's",
                    "WWW-Authenticate", "Bearer");
    } else if (!h->upgrade || !tnl_http_has_token(h, "Upgrade", TNL_LANE_PROTOCOL)) {
        refuse_link(v, 426, TUNNEL_E_INVALID, "a lane is an upgrade to " TNL_LANE_PROTOCOL,
                    "Upgrade", TNL_LANE_PROTOCOL);
    } else if (has_room(v)) {
        if (tnl_buf_addf(&v->out, "HTTP/1.1 101 Switching Protocols\r\n"
                                  "Upgrade: " TNL_LANE_PROTOCOL "\r\nConnection: Upgrade\r\n\r\n"))
            tnl_visitor_abort(v);
        else
            v->link_taken = v->is_lane = true;
    }
}

static void answer_health(tnl_visitor *v, bool ready)
{
    bool ok = !ready || v->server->ready;
    if (!tnl_http_is(v->head->method, "GET") && !v->head_request)
        answer_json(v, 405, "{\"error\":\"METHOD_NOT_ALLOWED\"}\n", "Allow", "GET, HEAD");
    else if (ready)
        answer_json(v, ok ? 200 : 503,
                    ok ? "{\"status\":\"ready\"}\n" : "{\"status\":\"not ready\"}\n", NULL, NULL);
    else
        answer_json(v, 200, "{\"status\":\"live\"}\n", NULL, NULL);
}

void tnl_reserved_answer(tnl_visitor *v)
{
    if (path_is(v->head, PREFIX "/health/live"))
        answer_health(v, false);
    else if (path_is(v->head, PREFIX "/health/ready"))
        answer_health(v, true);
    else if (path_is(v->head, PREFIX "/link"))
        answer_link(v);
    else if (path_is(v->head, PREFIX "/lane"))
        answer_lane(v);
    else
        answer_json(v, 404, "{\"error\":\"NOT_FOUND\"}\n", NULL, NULL);
}
