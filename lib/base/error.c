/* SPDX-License-Identifier: Apache-2.0 */
#include "tunnel/error.h"

const char *tunnel_strerror(int code)
{
    switch (code) {
    case TUNNEL_OK:
        return "success";
#define TEXT(name, value, class_, text)                                                            \
    case TUNNEL_E_##name:                                                                          \
        return text;
        TUNNEL_ERROR_MAP(TEXT)
#undef TEXT
    default:
        return "unknown error";
    }
}

const char *tunnel_error_name(int code)
{
    switch (code) {
    case TUNNEL_OK:
        return "OK";
#define NAME(name, value, class_, text)                                                            \
    case TUNNEL_E_##name:                                                                          \
        return #name;
        TUNNEL_ERROR_MAP(NAME)
#undef NAME
    default:
        return "UNKNOWN";
    }
}

int tunnel_error_is_final(int code)
{
    enum { RETRY, CONFIG, FINAL };
    switch (code) {
#define CLASS(name, value, class_, text)                                                           \
    case TUNNEL_E_##name:                                                                          \
        return (class_) != RETRY;
        TUNNEL_ERROR_MAP(CLASS)
#undef CLASS
    default:
        return 0;
    }
}
