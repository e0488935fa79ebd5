/* map.h: strings to integers, open addressing, insert only. Keys are not copied: they must outlive the map. */
#ifndef SDX_BASE_MAP_H
#define SDX_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct sdx_map_slot {
    const char *key;
    uint32_t length, hash;
    int64_t value;
} sdx_map_slot;

typedef struct sdx_map {
    sdx_map_slot *slot; /* [capacity], capacity a power of two; owned */
    size_t count, capacity;
} sdx_map;

void sdx_map_fini(sdx_map *map);
/* Room for count entries without growing. */
bool sdx_map_reserve(sdx_map *map, size_t count);
/* Adds or replaces; false when out of memory. */
bool sdx_map_put(sdx_map *map, const char *key, size_t length, int64_t value);
/* The value, or `missing`. */
int64_t sdx_map_get(const sdx_map *map, const char *key, size_t length, int64_t missing);

#endif
