/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "auth/token.h"
#include "base/mem.h"
#include "support/check.h"
#include "support/memory.h"
#include "tunnel/error.h"

/* The nth allocation from now on fails, 0: none. */
static size_t fail_first;

static bool fails(void)
{
    return fail_first && memory.count == fail_first;
}

static void fail_from(size_t nth)
{
    memory.count = 0;
    memory.fails = fails;
    fail_first = nth;
}

static int check(const tnl_tokens *t, const char *token, char account[TNL_ACCOUNT_SIZE])
{
    return tnl_tokens_check(t, tnl_str_of(token), account);
}

static void only_what_was_added_is_accepted(void **state)
{
    (void)state;
    tnl_tokens *t;
    char account[TNL_ACCOUNT_SIZE] = "untouched", again[TNL_ACCOUNT_SIZE], other[TNL_ACCOUNT_SIZE];
    assert_int_equal(tnl_tokens_new(&t), 0);
    assert_int_equal(check(t, "abc", account), TUNNEL_E_AUTH_FAILED);
    assert_int_equal(tnl_tokens_add(t, "abc"), 0);
    assert_int_equal(tnl_tokens_add(t, "SECRET"), 0);
    static const char *const wrong[] = {"",     "ab",     "abcd",     "ABC",
                                        "abc ", "secret", "SECRET\n", "abcSECRET"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
        assert_int_equal(check(t, wrong[i], account), TUNNEL_E_AUTH_FAILED);
    assert_int_equal(tnl_tokens_check(t, (tnl_str){"abc\0", 4}, account), TUNNEL_E_AUTH_FAILED);
    assert_int_equal(tnl_tokens_check(t, (tnl_str){NULL, 0}, account), TUNNEL_E_AUTH_FAILED);
    assert_string_equal(account, "untouched");
    assert_int_equal(check(t, "abc", account), 0);
    assert_int_equal(check(t, "abc", again), 0);
    assert_int_equal(check(t, "SECRET", other), 0);
    /* Accounts are told apart by their tokens and named after the hash, not the token. */
    assert_string_equal(account, "token:ba7816bf8f01cfea");
    assert_string_equal(again, account);
    assert_string_not_equal(other, account);
    assert_null(strstr(other, "SECRET"));
    tnl_tokens_free(t);
    tnl_tokens_free(NULL);
}

static void tokens_must_fit_into_a_header(void **state)
{
    (void)state;
    tnl_tokens *t;
    char account[TNL_ACCOUNT_SIZE];
    char text[TNL_TOKEN_MAX + 2];
    assert_int_equal(tnl_tokens_new(&t), 0);
    static const char *const bad[] = {"", " ", "a b", "a\tb", "a\n", "\x7f", "\xc3\xa4", "\x01"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_int_equal(tnl_tokens_add(t, bad[i]), TUNNEL_E_INVALID);
    memset(text, 'x', sizeof(text));
    text[TNL_TOKEN_MAX + 1] = '\0';
    assert_int_equal(tnl_tokens_add(t, text), TUNNEL_E_INVALID);
    assert_int_equal(check(t, text, account), TUNNEL_E_AUTH_FAILED);
    text[TNL_TOKEN_MAX] = '\0';
    assert_int_equal(check(t, text, account), TUNNEL_E_AUTH_FAILED);
    assert_int_equal(tnl_tokens_add(t, text), 0);
    assert_int_equal(check(t, text, account), 0);
    assert_int_equal(tnl_tokens_add(t, "!~"), 0);
    assert_int_equal(check(t, "!~", account), 0);
    tnl_tokens_free(t);
}

static void their_number_is_bounded(void **state)
{
    (void)state;
    tnl_tokens *t;
    char text[32], account[TNL_ACCOUNT_SIZE];
    assert_int_equal(tnl_tokens_new(&t), 0);
    for (int i = 0; i < TNL_TOKENS_MAX; i++) {
        snprintf(text, sizeof(text), "token-%d", i);
        assert_int_equal(tnl_tokens_add(t, text), 0);
    }
    assert_int_equal(tnl_tokens_add(t, "one-more"), TUNNEL_E_LIMIT);
    assert_int_equal(check(t, "one-more", account), TUNNEL_E_AUTH_FAILED);
    assert_int_equal(check(t, "token-0", account), 0);
    assert_int_equal(check(t, text, account), 0);
    tnl_tokens_free(t);
}

static void want_of_memory_lets_nobody_in(void **state)
{
    (void)state;
    tnl_tokens *t;
    char account[TNL_ACCOUNT_SIZE];
    fail_from(1);
    assert_int_equal(tnl_tokens_new(&t), TUNNEL_E_NOMEM);
    assert_int_equal(tnl_tokens_new(&t), 0);
    fail_from(1);
    assert_int_equal(tnl_tokens_add(t, "abc"), TUNNEL_E_NOMEM);
    assert_int_equal(check(t, "abc", account), TUNNEL_E_AUTH_FAILED);
    assert_int_equal(tnl_tokens_add(t, "abc"), 0);
    fail_from(1);
    assert_int_equal(tnl_tokens_add(t, "def"), TUNNEL_E_NOMEM);
    fail_from(0);
    assert_int_equal(check(t, "abc", account), 0);
    assert_int_equal(check(t, "def", account), TUNNEL_E_AUTH_FAILED);
    tnl_tokens_free(t);
    assert_int_equal(memory.live, 0);
}

static void made_tokens_are_good_and_new(void **state)
{
    (void)state;
    char a[33], b[33], account[TNL_ACCOUNT_SIZE];
    tnl_tokens *t;
    assert_int_equal(tnl_token_make(a), 0);
    assert_int_equal(tnl_token_make(b), 0);
    assert_int_equal(strlen(a), 32);
    assert_int_equal(strspn(a, "0123456789abcdef"), 32);
    assert_string_not_equal(a, b);
    assert_int_equal(tnl_tokens_new(&t), 0);
    assert_int_equal(tnl_tokens_add(t, a), 0);
    assert_int_equal(check(t, a, account), 0);
    assert_int_equal(check(t, b, account), TUNNEL_E_AUTH_FAILED);
    tnl_tokens_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_was_added_is_accepted),
        cmocka_unit_test(tokens_must_fit_into_a_header),
        cmocka_unit_test(their_number_is_bounded),
        cmocka_unit_test(want_of_memory_lets_nobody_in),
        cmocka_unit_test(made_tokens_are_good_and_new),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
