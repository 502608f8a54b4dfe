/* SPDX-License-Identifier: Apache-2.0 */
#include "link/attach.h"

#include <string.h>

#include "support/check.h"

static void a_proof_is_for_one_role_and_one_attach(void **state)
{
    uint8_t secret[TNL_SECRET_SIZE] = {1}, mac[TNL_SECRET_SIZE];
    tnl_attach a = {.session = {2}, .generation = 3, .link = 4, .nonce = {5}};
    (void)state;
    assert_int_equal(tnl_attach_prove(mac, secret, 'C', &a), 0);
    assert_true(tnl_attach_verify(mac, secret, 'C', &a));
    assert_false(tnl_attach_verify(mac, secret, 'S', &a));
    for (size_t i = 0; i < sizeof(mac); i++) {
        mac[i] ^= 0x40;
        assert_false(tnl_attach_verify(mac, secret, 'C', &a));
        mac[i] ^= 0x40;
        secret[i] ^= 1;
        assert_false(tnl_attach_verify(mac, secret, 'C', &a));
        secret[i] ^= 1;
    }
    tnl_attach b = a;
    b.link++;
    assert_false(tnl_attach_verify(mac, secret, 'C', &b));
    b = a;
    b.generation++;
    assert_false(tnl_attach_verify(mac, secret, 'C', &b));
    b = a;
    b.session[15] = 1;
    assert_false(tnl_attach_verify(mac, secret, 'C', &b));
    b = a;
    b.nonce[15] = 1;
    assert_false(tnl_attach_verify(mac, secret, 'C', &b));
}

/* The same with a set that remembers everything. */
static void a_number_counts_once(void **state)
{
    enum { MOST = 400 };
    (void)state;
    for (unsigned seed = 1; seed < 200; seed++) {
        bool used[MOST] = {true};
        tnl_link_numbers n = {0};
        uint64_t greatest = 0;
        uint32_t random = seed * 2654435761u;
        for (int i = 0; i < 300; i++) {
            random = random * 1664525u + 1013904223u;
            uint64_t number = random >> 20 & 1 ? greatest + 1 + (random >> 8) % 3
                                               : (random >> 8) % (greatest + 2);
            if (random % 97 == 0)
                number = greatest + 64 + (random >> 9) % 3;
            if (number >= MOST)
                continue;
            bool fresh = !used[number] && number + 64 >= greatest;
            assert_int_equal(tnl_link_numbers_fresh(&n, number), fresh);
            if (!fresh)
                continue;
            tnl_link_numbers_use(&n, number);
            used[number] = true;
            greatest = number > greatest ? number : greatest;
            assert_false(tnl_link_numbers_fresh(&n, number));
        }
    }
}

static void the_ends_of_the_range(void **state)
{
    tnl_link_numbers n = {0};
    (void)state;
    assert_false(tnl_link_numbers_fresh(&n, 0));
    assert_true(tnl_link_numbers_fresh(&n, UINT64_MAX));
    tnl_link_numbers_use(&n, UINT64_MAX);
    assert_false(tnl_link_numbers_fresh(&n, UINT64_MAX));
    assert_true(tnl_link_numbers_fresh(&n, UINT64_MAX - 64));
    assert_false(tnl_link_numbers_fresh(&n, UINT64_MAX - 65));
    assert_false(tnl_link_numbers_fresh(&n, 1));
    tnl_link_numbers_use(&n, UINT64_MAX - 64);
    assert_false(tnl_link_numbers_fresh(&n, UINT64_MAX - 64));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_proof_is_for_one_role_and_one_attach),
        cmocka_unit_test(a_number_counts_once),
        cmocka_unit_test(the_ends_of_the_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
