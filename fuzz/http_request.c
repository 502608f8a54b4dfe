/* SPDX-License-Identifier: Apache-2.0 */
/* Requests as visitors send them: any bytes give the same result however they are split, and what
 * is accepted is forwarded with the same meaning. */
#include "http_split.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    split_check((split_run){.is_request = true}, data, size);
    return 0;
}
