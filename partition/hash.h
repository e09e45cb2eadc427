/* uthash with our allocator. Its macros mix signedness freely, so files that
 * use them silence that one warning. */
#ifndef PARTITION_HASH_H
#define PARTITION_HASH_H

#include "base/mem.h"

#pragma GCC diagnostic ignored "-Wsign-conversion"
#define uthash_malloc(size) mem_alloc(size)
#define uthash_free(p, size) mem_free(p)
#include <uthash.h>

#endif
