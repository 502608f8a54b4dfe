/* SPDX-License-Identifier: Apache-2.0 */
/* Responses as upstreams send them; the first byte says which request they answer: bit 0 HEAD, bit
 * 1 one that asked for an upgrade. */
#include "http_split.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    split_check((split_run){.head_request = data[0] & 1, .upgrade_asked = data[0] & 2}, data + 1,
                size - 1);
    return 0;
}
