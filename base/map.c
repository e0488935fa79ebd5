/* map.c: see map.h. FNV-1a, finished by a multiply-shift so that the low bits depend on all; linear probing
 * at half load. The seed is fixed: results must not depend on the run, and a map holds one file's names. */
#include "map.h"

#include <stdlib.h>
#include <string.h>

#include "memory.h"

static uint32_t hash_bytes(const char *key, size_t length)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < length; i++) h = (h ^ (unsigned char)key[i]) * 0x100000001b3u;
    h ^= h >> 29;
    h *= 0xbf58476d1ce4e5b9u;
    return (uint32_t)(h >> 32);
}

void sdx_map_fini(sdx_map *map)
{
    free(map->slot);
    *map = (sdx_map){0};
}

static sdx_map_slot *find(const sdx_map *map, const char *key, size_t length, uint32_t hash)
{
    for (size_t i = hash;; i++) {
        sdx_map_slot *s = &map->slot[i & (map->capacity - 1)];
        if (!s->key || (s->hash == hash && s->length == length && !memcmp(s->key, key, length))) return s;
    }
}

bool sdx_map_reserve(sdx_map *map, size_t count)
{
    size_t capacity = map->capacity ? map->capacity : 16;
    while (capacity / 2 < count) capacity *= 2;
    if (capacity == map->capacity) return true;
    sdx_map grown = {.capacity = capacity, .count = map->count};
    grown.slot = sdx_calloc(capacity, sizeof *grown.slot);
    if (!grown.slot) return false;
    for (size_t i = 0; i < map->capacity; i++) {
        const sdx_map_slot *s = &map->slot[i];
        if (s->key) *find(&grown, s->key, s->length, s->hash) = *s;
    }
    free(map->slot);
    *map = grown;
    return true;
}

bool sdx_map_put(sdx_map *map, const char *key, size_t length, int64_t value)
{
    if (!sdx_map_reserve(map, map->count + 1)) return false;
    uint32_t hash = hash_bytes(key, length);
    sdx_map_slot *s = find(map, key, length, hash);
    if (!s->key) map->count++;
    *s = (sdx_map_slot){key, (uint32_t)length, hash, value};
    return true;
}

int64_t sdx_map_get(const sdx_map *map, const char *key, size_t length, int64_t missing)
{
    if (!map->count) return missing;
    const sdx_map_slot *s = find(map, key, length, hash_bytes(key, length));
    return s->key ? s->value : missing;
}
