/* SPDX-License-Identifier: Apache-2.0 */
#include "auth/token.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "crypto/crypto.h"
#include "tunnel/error.h"

struct tnl_tokens {
    uint8_t (*hashes)[TNL_SHA256_SIZE];
    size_t count;
};

int tnl_tokens_new(tnl_tokens **out)
{
    *out = tnl_calloc(1, sizeof(**out));
    return *out ? 0 : TUNNEL_E_NOMEM;
}

void tnl_tokens_free(tnl_tokens *t)
{
    if (!t)
        return;
    tnl_free(t->hashes);
    tnl_free(t);
}

int tnl_tokens_add(tnl_tokens *t, const char *token)
{
    size_t n = strlen(token);
    if (n == 0 || n > TNL_TOKEN_MAX)
        return TUNNEL_E_INVALID;
    for (size_t i = 0; i < n; i++)
        if (token[i] <= ' ' || token[i] > '~')
            return TUNNEL_E_INVALID;
    if (t->count == TNL_TOKENS_MAX)
        return TUNNEL_E_LIMIT;
    void *grown = tnl_realloc(t->hashes, (t->count + 1) * sizeof(*t->hashes));
    if (!grown)
        return TUNNEL_E_NOMEM;
    t->hashes = grown;
    int rc = tnl_sha256(t->hashes[t->count], token, n);
    if (rc == 0)
        t->count++;
    return rc;
}

static void name_account(char account[TNL_ACCOUNT_SIZE], const uint8_t hash[TNL_SHA256_SIZE])
{
    char hex[2 * 8 + 1];
    tnl_hex(hex, hash, 8);
    snprintf(account, TNL_ACCOUNT_SIZE, "token:%s", hex);
}

int tnl_tokens_check(const tnl_tokens *t, tnl_str token, char account[TNL_ACCOUNT_SIZE])
{
    uint8_t hash[TNL_SHA256_SIZE];
    if (token.n == 0 || token.n > TNL_TOKEN_MAX || tnl_sha256(hash, token.p, token.n))
        return TUNNEL_E_AUTH_FAILED;
    bool found = false;
    for (size_t i = 0; i < t->count; i++)
        found |= tnl_equal_ct(hash, t->hashes[i], sizeof(hash));
    if (!found)
        return TUNNEL_E_AUTH_FAILED;
    name_account(account, hash);
    return 0;
}

bool tnl_tokens_has(const tnl_tokens *t, const char *account)
{
    char name[TNL_ACCOUNT_SIZE];
    for (size_t i = 0; i < t->count; i++) {
        name_account(name, t->hashes[i]);
        if (strcmp(name, account) == 0)
            return true;
    }
    return false;
}

int tnl_token_make(char out[33])
{
    uint8_t bytes[16];
    int rc = tnl_random(bytes, sizeof(bytes));
    if (rc)
        return rc;
    tnl_hex(out, bytes, sizeof(bytes));
    tnl_wipe(bytes, sizeof(bytes));
    return 0;
}
