/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TNL_AUTH_TOKEN_H
#define TNL_AUTH_TOKEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

/*
 * The tokens a server accepts. Only their SHA-256 is kept; a token presented is hashed and compared
 * with every one in constant time. An account is named after its token's hash, so names belong to
 * whoever has the token.
 */
enum { TNL_ACCOUNT_SIZE = 32, TNL_TOKEN_MAX = 4096, TNL_TOKENS_MAX = 1024 };

typedef struct tnl_tokens tnl_tokens;

int tnl_tokens_new(tnl_tokens **out);
void tnl_tokens_free(tnl_tokens *t);

/* 0; TUNNEL_E_INVALID (empty, over TNL_TOKEN_MAX bytes, or a byte that cannot stand in a header),
 * TUNNEL_E_LIMIT. */
int tnl_tokens_add(tnl_tokens *t, const char *token);

/* 0 and the account's name, or TUNNEL_E_AUTH_FAILED. */
int tnl_tokens_check(const tnl_tokens *t, tnl_str token, char account[TNL_ACCOUNT_SIZE]);

/* Whether there is a token with this account. */
bool tnl_tokens_has(const tnl_tokens *t, const char *account);

/* A new random token of 32 characters that can stand in a URL or a header. 0 or TUNNEL_E_IO. */
int tnl_token_make(char out[33]);

#endif
