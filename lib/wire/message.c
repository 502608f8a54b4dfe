/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/message.h"

#include "base/bytes.h"
#include "wire/schema.h"

enum { OPTIONAL = 0, REQUIRED = 1 };

/* A row: the key is the member's name, the kind follows from its type. min and max are of values,
 * or of lengths. */
#define KIND(message, member)                                                                      \
    _Generic(((tnl_##message *)0)->member,                                                         \
             uint32_t: TNL_FIELD_U32,                                                              \
             uint64_t: TNL_FIELD_U64,                                                              \
             bool: TNL_FIELD_BOOL,                                                                 \
             uint8_t *: TNL_FIELD_BIN,                                                             \
             tnl_str: TNL_FIELD_STR)
#define ROW(message, member, required_, min_, max_)                                                \
    {                                                                                              \
        .key = #member, .kind = KIND(message, member), .required = (required_),                    \
        .offset = offsetof(tnl_##message, member), .size = sizeof(((tnl_##message *)0)->member),   \
        .min = (min_), .max = (max_)                                                               \
    }
#define FLAG(message, member)  ROW(message, member, OPTIONAL, 0, 1)
#define BYTES(message, member) ROW(message, member, REQUIRED, 0, 0)
#define LIMITS(message)                                                                            \
    {                                                                                              \
        .key = "limits", .kind = TNL_FIELD_MAP, .required = true,                                  \
        .offset = offsetof(tnl_##message, limits), .size = sizeof(tnl_limits),                     \
        .map = &limits_schema                                                                      \
    }
#define SCHEMA(message)                                                                            \
    static const tnl_schema message##_schema = {                                                   \
        message##_fields, sizeof(message##_fields) / sizeof(*message##_fields),                    \
        sizeof(tnl_##message)};                                                                    \
    _Static_assert(sizeof(message##_fields) / sizeof(*message##_fields) <= TNL_SCHEMA_MAX_FIELDS,  \
                   "too many fields")

static const tnl_field limits_fields[] = {
    ROW(limits, max_frame, REQUIRED, 1024, 65536),
    ROW(limits, max_streams, REQUIRED, 0, 65536),
    ROW(limits, window, REQUIRED, 16384, 1048576),
};
SCHEMA(limits);

static const tnl_field hello_fields[] = {
    ROW(hello, version_min, REQUIRED, 1, UINT32_MAX),
    ROW(hello, version_max, REQUIRED, 1, UINT32_MAX),
    BYTES(hello, instance),
    FLAG(hello, force),
    ROW(hello, agent, OPTIONAL, 0, 64),
    LIMITS(hello),
};
SCHEMA(hello);

static const tnl_field welcome_fields[] = {
    ROW(welcome, version, REQUIRED, 1, UINT32_MAX),
    BYTES(welcome, session),
    BYTES(welcome, secret),
    ROW(welcome, generation, REQUIRED, 1, UINT64_MAX),
    ROW(welcome, grace_ms, OPTIONAL, 0, UINT32_MAX),
    ROW(welcome, agent, OPTIONAL, 0, 64),
    LIMITS(welcome),
};
SCHEMA(welcome);

static const tnl_field attach_fields[] = {
    BYTES(attach, session),
    ROW(attach, generation, REQUIRED, 1, UINT64_MAX),
    ROW(attach, link, REQUIRED, 1, UINT64_MAX),
    BYTES(attach, nonce),
    BYTES(attach, mac),
};
SCHEMA(attach);

static const tnl_field attached_fields[] = {
    BYTES(attached, mac),
};
SCHEMA(attached);

static const tnl_field open_fields[] = {
    ROW(open, tunnel, REQUIRED, 1, UINT64_MAX), ROW(open, visitor, OPTIONAL, 0, 64),
    ROW(open, port, OPTIONAL, 0, 65535),        ROW(open, server, OPTIONAL, 0, 64),
    ROW(open, server_port, OPTIONAL, 0, 65535), ROW(open, target, OPTIONAL, 0, 65535),
};
SCHEMA(open);

static const tnl_field event_fields[] = {
    ROW(event, event, REQUIRED, 1, 32),
    ROW(event, tunnel, OPTIONAL, 0, UINT64_MAX),
    ROW(event, method, OPTIONAL, 0, 32),
    ROW(event, path, OPTIONAL, 0, 1024),
    ROW(event, status, OPTIONAL, 0, 999),
    ROW(event, duration_us, OPTIONAL, 0, UINT64_MAX),
    ROW(event, received, OPTIONAL, 0, UINT64_MAX),
    ROW(event, sent, OPTIONAL, 0, UINT64_MAX),
    ROW(event, visitor, OPTIONAL, 0, 64),
};
SCHEMA(event);

static const tnl_field publish_fields[] = {
    ROW(publish, tunnel, REQUIRED, 1, UINT64_MAX),
    ROW(publish, kind, REQUIRED, 1, 16),
    ROW(publish, name, OPTIONAL, 0, 255),
    ROW(publish, domain, OPTIONAL, 0, 253),
    ROW(publish, path_id, OPTIONAL, 0, 128),
    ROW(publish, port, OPTIONAL, 0, 65535),
    FLAG(publish, ports),
    FLAG(publish, fresh),
    ROW(publish, idle_ms, OPTIONAL, 0, UINT32_MAX),
    ROW(publish, host_header, OPTIONAL, 0, 255),
    ROW(publish, credential, OPTIONAL, 0, 4096),
    ROW(publish, pool, OPTIONAL, 0, 16),
};
SCHEMA(publish);

static const tnl_field published_fields[] = {
    ROW(published, tunnel, REQUIRED, 1, UINT64_MAX),
    ROW(published, name, OPTIONAL, 0, 255),
    ROW(published, url, REQUIRED, 1, 2048),
    ROW(published, port, OPTIONAL, 0, 65535),
};
SCHEMA(published);

static const tnl_field publish_failed_fields[] = {
    ROW(publish_failed, tunnel, REQUIRED, 1, UINT64_MAX),
    ROW(publish_failed, code, REQUIRED, 1, UINT32_MAX),
    ROW(publish_failed, message, OPTIONAL, 0, 1024),
};
SCHEMA(publish_failed);

static const tnl_field unpublish_fields[] = {
    ROW(unpublish, tunnel, REQUIRED, 1, UINT64_MAX),
};
SCHEMA(unpublish);

static const tnl_field goaway_fields[] = {
    FLAG(goaway, final),
    ROW(goaway, last, OPTIONAL, 0, UINT64_MAX),
    ROW(goaway, message, OPTIONAL, 0, 1024),
};
SCHEMA(goaway);

static const tnl_field reauth_fields[] = {
    ROW(reauth, token, REQUIRED, 1, 4096),
};
SCHEMA(reauth);

static const tnl_field reauth_result_fields[] = {
    ROW(reauth_result, code, OPTIONAL, 0, UINT32_MAX),
    ROW(reauth_result, message, OPTIONAL, 0, 1024),
};
SCHEMA(reauth_result);

#define DEFINE(name)                                                                               \
    size_t tnl_##name##_encode(uint8_t *out, size_t cap, const tnl_##name *m)                      \
    {                                                                                              \
        return tnl_schema_encode(&name##_schema, m, out, cap);                                     \
    }                                                                                              \
    int tnl_##name##_decode(tnl_##name *m, const uint8_t *p, size_t n)                             \
    {                                                                                              \
        return tnl_schema_decode(&name##_schema, m, p, n);                                         \
    }
TNL_MESSAGE_MAP(DEFINE)

static const char *const kinds[TNL_KIND_COUNT] = {"http", "tls", "tcp", "udp"};

const char *tnl_kind_name(tnl_kind kind)
{
    return kinds[kind];
}

tnl_kind tnl_kind_of(tnl_str name)
{
    int kind = 0;
    while (kind < TNL_KIND_COUNT && !tnl_str_eq(name, kinds[kind]))
        kind++;
    return (tnl_kind)kind;
}

void tnl_attach_mac_input(uint8_t out[TNL_ATTACH_MAC_INPUT], char role, const tnl_attach *a)
{
    static const char label[] = "tunnel v1 attach";
    tnl_writer w = tnl_writer_of(out, TNL_ATTACH_MAC_INPUT);
    tnl_write_bytes(&w, label, sizeof(label) - 1);
    tnl_write_uint(&w, (uint8_t)role, 1);
    tnl_write_bytes(&w, a->session, sizeof(a->session));
    tnl_write_uint(&w, a->generation, 8);
    tnl_write_uint(&w, a->link, 8);
    tnl_write_bytes(&w, a->nonce, sizeof(a->nonce));
}
