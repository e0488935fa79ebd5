/* pickle.c: see pickle.h. The instructions are those of CPython's Lib/pickletools.py, protocol 2, as far as
 * torch.save uses them; torch.load(weights_only=True) restricts itself likewise. Memory stays in proportion to
 * the pickle: each instruction makes at most one object, and tuples take over what was on the stack. */
#include "pickle.h"

#include <stdio.h>
#include <string.h>

#include "../base/dtype.h"

typedef enum kind {
    NONE,
    MARK,
    INT, /* also booleans */
    TEXT,
    LIST, /* also tuples */
    DICT,
    GLOBAL,
    STORAGE,
    TENSOR,
    OTHER /* a value nothing here depends on */
} kind;

typedef struct object object;

typedef struct storage {
    sdx_dtype dtype;
    sdx_pickle_text key;
} storage;

struct object {
    kind kind;
    union {
        int64_t number;       /* INT; GLOBAL: row of globals[] */
        sdx_pickle_text text; /* TEXT */
        storage storage;      /* STORAGE */
        sdx_pickle_tensor *tensor;
        struct {
            object **item; /* DICT: key, value, key, value, ... */
            size_t count, capacity;
        };
    };
};

typedef enum role { ORDERED_DICT, TENSOR_V2, PARAMETER, STORAGE_CLASS } role;

static const struct {
    const char *name; /* "module name", as the instruction spells it with a newline between */
    role role;
    sdx_dtype dtype;
} globals[] = {
    {"collections OrderedDict", ORDERED_DICT, SDX_UNDEFINED},
    {"torch._utils _rebuild_tensor_v2", TENSOR_V2, SDX_UNDEFINED},
    {"torch._utils _rebuild_parameter", PARAMETER, SDX_UNDEFINED},
    {"torch FloatStorage", STORAGE_CLASS, SDX_F32},
    {"torch HalfStorage", STORAGE_CLASS, SDX_F16},
    {"torch BFloat16Storage", STORAGE_CLASS, SDX_BF16},
    {"torch DoubleStorage", STORAGE_CLASS, SDX_F64},
    {"torch LongStorage", STORAGE_CLASS, SDX_I64},
    {"torch IntStorage", STORAGE_CLASS, SDX_I32},
    {"torch ShortStorage", STORAGE_CLASS, SDX_I16},
    {"torch CharStorage", STORAGE_CLASS, SDX_I8},
    {"torch ByteStorage", STORAGE_CLASS, SDX_U8},
    {"torch BoolStorage", STORAGE_CLASS, SDX_BOOL},
};

typedef struct machine {
    sdx_arena *arena;
    const unsigned char *data; /* [size]: the program */
    size_t size, at;
    object **stack;
    size_t depth, capacity;
    object **memo;
    size_t memo_capacity;
    bool stopped;
    sdx_error *err;
} machine;

static sdx_status fail(machine *m, const char *what)
{
    return sdx_fail(m->err, SDX_ERR_FILE, "pickle, byte %zu: %s", m->at, what);
}

/* ---- objects and stack ----------------------------------------------------------------------------------- */

/* Room for one more pointer in an arena array; the old one is abandoned, as sizes double. */
static bool reserve(sdx_arena *arena, object ***array, size_t used, size_t *capacity)
{
    if (used < *capacity) return true;
    size_t grown = *capacity ? *capacity * 2 : 16;
    object **copy = sdx_arena_array(arena, grown, sizeof *copy);
    if (!copy) return false;
    if (used) memcpy(copy, *array, used * sizeof *copy);
    *array = copy;
    *capacity = grown;
    return true;
}

static sdx_status push(machine *m, object *o)
{
    if (!o || !reserve(m->arena, &m->stack, m->depth, &m->capacity)) return sdx_fail_memory(m->err, sizeof *o);
    m->stack[m->depth++] = o;
    return SDX_OK;
}

static sdx_status push_new(machine *m, object value)
{
    object *o = sdx_arena_alloc(m->arena, sizeof *o);
    if (o) *o = value;
    return push(m, o);
}

static sdx_status pop(machine *m, object **out)
{
    if (!m->depth || m->stack[m->depth - 1]->kind == MARK) return fail(m, "the stack is empty");
    *out = m->stack[--m->depth];
    return SDX_OK;
}

/* Position behind the topmost mark. */
static sdx_status find_mark(machine *m, size_t *out)
{
    for (size_t i = m->depth; i > 0; i--) {
        if (m->stack[i - 1]->kind != MARK) continue;
        *out = i;
        return SDX_OK;
    }
    return fail(m, "no mark on the stack");
}

static sdx_status append(machine *m, object *list, object *item)
{
    if (!reserve(m->arena, &list->item, list->count, &list->capacity))
        return sdx_fail_memory(m->err, sizeof item);
    list->item[list->count++] = item;
    return SDX_OK;
}

/* The top `count` objects become one tuple. */
static sdx_status make_tuple(machine *m, size_t count)
{
    object tuple = {.kind = LIST};
    if (count > m->depth) return fail(m, "the stack is empty");
    for (size_t i = m->depth - count; i < m->depth; i++) {
        if (m->stack[i]->kind == MARK) return fail(m, "the stack is empty");
        TRY(append(m, &tuple, m->stack[i]));
    }
    m->depth -= count;
    return push_new(m, tuple);
}

static sdx_status make_marked_tuple(machine *m)
{
    size_t from = 0;
    TRY(find_mark(m, &from));
    TRY(make_tuple(m, m->depth - from));
    m->stack[m->depth - 2] = m->stack[m->depth - 1]; /* over the mark */
    m->depth--;
    return SDX_OK;
}

/* Objects [from, depth) go into the container below; `marks` stand between the two. */
static sdx_status add_items(machine *m, size_t from, size_t marks, kind into)
{
    if (from > m->depth || from < marks + 1) return fail(m, "the stack is empty");
    object *container = m->stack[from - marks - 1];
    if (container->kind != into && container->kind != OTHER) return fail(m, "items for what is no container");
    if (into == DICT && (m->depth - from) % 2) return fail(m, "a key without a value");
    for (size_t i = from; i < m->depth && container->kind == into; i++) TRY(append(m, container, m->stack[i]));
    m->depth = from - marks;
    return SDX_OK;
}

/* The top `count` objects go into the container below them. */
static sdx_status add_last(machine *m, size_t count, kind into)
{
    return count <= m->depth ? add_items(m, m->depth - count, 0, into) : fail(m, "the stack is empty");
}

static sdx_status add_marked(machine *m, kind into)
{
    size_t from = 0;
    TRY(find_mark(m, &from));
    return add_items(m, from, 1, into);
}

/* ---- reading operands ------------------------------------------------------------------------------------ */

static sdx_status take(machine *m, size_t n, const unsigned char **out)
{
    if (n > m->size - m->at) return fail(m, "ends in the middle of an instruction");
    *out = m->data + m->at;
    m->at += n;
    return SDX_OK;
}

static sdx_status take_number(machine *m, size_t n, uint64_t *out)
{
    const unsigned char *p = NULL;
    TRY(take(m, n, &p));
    *out = 0;
    for (size_t i = 0; i < n; i++) *out |= (uint64_t)p[i] << 8 * i;
    return SDX_OK;
}

static sdx_status push_number(machine *m, size_t n)
{
    uint64_t v = 0;
    TRY(take_number(m, n, &v));
    return push_new(m, (object){.kind = INT, .number = n == 4 ? (int32_t)(uint32_t)v : (int64_t)v});
}

/* LONG1: a length byte, then a two's complement number. */
static sdx_status push_long(machine *m)
{
    uint64_t n = 0, v = 0;
    TRY(take_number(m, 1, &n));
    if (n > 8) return fail(m, "a number of more than 64 bits");
    TRY(take_number(m, n, &v));
    if (n && n < 8 && v >> (8 * n - 1)) v |= UINT64_MAX << 8 * n;
    return push_new(m, (object){.kind = INT, .number = (int64_t)v});
}

static sdx_status push_text(machine *m, size_t length_bytes)
{
    uint64_t n = 0;
    const unsigned char *p = NULL;
    TRY(take_number(m, length_bytes, &n));
    TRY(take(m, n, &p));
    return push_new(m, (object){.kind = TEXT, .text = {(const char *)p, n}});
}

static sdx_status push_float(machine *m)
{
    const unsigned char *p = NULL;
    TRY(take(m, 8, &p));
    return push_new(m, (object){.kind = OTHER});
}

static sdx_status take_line(machine *m, sdx_pickle_text *out)
{
    const unsigned char *begin = m->data + m->at, *end = memchr(begin, '\n', m->size - m->at);
    if (!end) return fail(m, "ends in the middle of an instruction");
    *out = (sdx_pickle_text){(const char *)begin, (size_t)(end - begin)};
    m->at += out->length + 1;
    return SDX_OK;
}

static sdx_status push_global(machine *m)
{
    sdx_pickle_text module = {0}, name = {0};
    char full[160];
    TRY(take_line(m, &module));
    TRY(take_line(m, &name));
    int n = snprintf(full, sizeof full, "%.*s %.*s", (int)(module.length & 0xff), module.data,
                     (int)(name.length & 0xff), name.data);
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
        if (module.length + 1 + name.length == (size_t)n && !strcmp(globals[i].name, full))
            return push_new(m, (object){.kind = GLOBAL, .number = (int64_t)i});
    return sdx_fail(m->err, SDX_ERR_UNSUPPORTED,
                    "the pickle calls \"%s\", which a file of weights has no need of", full);
}

static sdx_status memo_put(machine *m, size_t length_bytes)
{
    uint64_t i = 0;
    TRY(take_number(m, length_bytes, &i));
    if (!m->depth || m->stack[m->depth - 1]->kind == MARK) return fail(m, "the stack is empty");
    if (i >= m->memo_capacity) return fail(m, "a memo number beyond the length of the pickle");
    m->memo[i] = m->stack[m->depth - 1];
    return SDX_OK;
}

static sdx_status memo_get(machine *m, size_t length_bytes)
{
    uint64_t i = 0;
    TRY(take_number(m, length_bytes, &i));
    if (i >= m->memo_capacity || !m->memo[i]) return fail(m, "a memo number that was never set");
    return push(m, m->memo[i]);
}

/* ---- tensors --------------------------------------------------------------------------------------------- */

/* ('storage', class, key, location, elements): see torch/serialization.py, persistent_id. */
static sdx_status load_storage(machine *m)
{
    object *id = NULL;
    TRY(pop(m, &id));
    if (id->kind != LIST || id->count < 4 || id->item[1]->kind != GLOBAL || id->item[2]->kind != TEXT ||
        globals[id->item[1]->number].role != STORAGE_CLASS)
        return fail(m, "a persistent id that is no storage");
    storage s = {globals[id->item[1]->number].dtype, id->item[2]->text};
    return push_new(m, (object){.kind = STORAGE, .storage = s});
}

static bool get_sizes(const object *list, int *rank, int64_t *size)
{
    if (list->kind != LIST || list->count > SDX_MAX_RANK) return false;
    for (size_t i = 0; i < list->count; i++) {
        if (list->item[i]->kind != INT || list->item[i]->number < 0) return false;
        size[i] = list->item[i]->number;
    }
    *rank = (int)list->count;
    return true;
}

/* (storage, offset, size, stride, ...) */
static sdx_status build_tensor(machine *m, const object *arguments)
{
    sdx_pickle_tensor *t;
    int strides;
    ARENA_NEW(m->arena, t, 1, m->err);
    object **a = arguments->item;
    if (arguments->count < 4 || a[0]->kind != STORAGE || a[1]->kind != INT || a[1]->number < 0 ||
        !get_sizes(a[2], &t->rank, t->dim) || !get_sizes(a[3], &strides, t->stride) || strides != t->rank)
        return fail(m, "a tensor with impossible arguments");
    t->storage = a[0]->storage.key;
    t->dtype = a[0]->storage.dtype;
    t->offset = a[1]->number;
    for (int i = 0; i < t->rank; i++)
        if (t->dim[i] == 1) t->stride[i] = 0; /* never stepped along: any value may stand there */
    return push_new(m, (object){.kind = TENSOR, .tensor = t});
}

static sdx_status reduce(machine *m)
{
    object *arguments = NULL, *function = NULL;
    TRY(pop(m, &arguments));
    TRY(pop(m, &function));
    if (arguments->kind != LIST || function->kind != GLOBAL) return fail(m, "a call of what is no function");
    switch (globals[function->number].role) {
    case ORDERED_DICT:
        if (arguments->count) return fail(m, "an OrderedDict with arguments");
        return push_new(m, (object){.kind = DICT});
    case TENSOR_V2: return build_tensor(m, arguments);
    case PARAMETER: /* (tensor, requires_grad, hooks) */
        if (!arguments->count || arguments->item[0]->kind != TENSOR)
            return fail(m, "a parameter without a tensor");
        return push(m, arguments->item[0]);
    case STORAGE_CLASS: break;
    }
    return fail(m, "a call of a storage class");
}

/* ---- the machine ----------------------------------------------------------------------------------------- */

static sdx_status step(machine *m)
{
    const unsigned char *p = NULL;
    object *ignored = NULL;
    TRY(take(m, 1, &p));
    /* clang-format off */
    switch (*p) {
    case 0x80: return take(m, 1, &p);                               /* PROTO */
    case '.': m->stopped = true; return SDX_OK;                     /* STOP */
    case '(': return push_new(m, (object){.kind = MARK});           /* MARK */
    case 'N': return push_new(m, (object){.kind = NONE});           /* NONE */
    case 0x88: return push_new(m, (object){.kind = INT, .number = 1});  /* NEWTRUE */
    case 0x89: return push_new(m, (object){.kind = INT});           /* NEWFALSE */
    case 'K': return push_number(m, 1);                             /* BININT1 */
    case 'M': return push_number(m, 2);                             /* BININT2 */
    case 'J': return push_number(m, 4);                             /* BININT, signed */
    case 0x8a: return push_long(m);                                 /* LONG1 */
    case 'G': return push_float(m);                                 /* BINFLOAT */
    case 'U': return push_text(m, 1);                               /* SHORT_BINSTRING */
    case 'X': return push_text(m, 4);                               /* BINUNICODE */
    case 'c': return push_global(m);                                /* GLOBAL */
    case 'q': return memo_put(m, 1);                                /* BINPUT */
    case 'r': return memo_put(m, 4);                                /* LONG_BINPUT */
    case 'h': return memo_get(m, 1);                                /* BINGET */
    case 'j': return memo_get(m, 4);                                /* LONG_BINGET */
    case ')': return make_tuple(m, 0);                              /* EMPTY_TUPLE */
    case 0x85: return make_tuple(m, 1);                             /* TUPLE1 */
    case 0x86: return make_tuple(m, 2);                             /* TUPLE2 */
    case 0x87: return make_tuple(m, 3);                             /* TUPLE3 */
    case 't': return make_marked_tuple(m);                          /* TUPLE */
    case ']': return push_new(m, (object){.kind = LIST});           /* EMPTY_LIST */
    case '}': return push_new(m, (object){.kind = DICT});           /* EMPTY_DICT */
    case 'a': return add_last(m, 1, LIST);                          /* APPEND */
    case 'e': return add_marked(m, LIST);                           /* APPENDS */
    case 's': return add_last(m, 2, DICT);                          /* SETITEM */
    case 'u': return add_marked(m, DICT);                           /* SETITEMS */
    case 'Q': return load_storage(m);                               /* BINPERSID */
    case 'R': return reduce(m);                                     /* REDUCE */
    case 'b': return pop(m, &ignored);                              /* BUILD: attributes of a dictionary */
    }
    /* clang-format on */
    return sdx_fail(m->err, SDX_ERR_UNSUPPORTED,
                    "pickle, byte %zu: instruction 0x%02x is not used by files of weights", m->at - 1, *p);
}

static sdx_status collect(machine *m, const object *dict, sdx_pickle_tensor **out, size_t *count)
{
    if (dict->kind != DICT) return fail(m, "the file does not hold a dictionary of tensors");
    ARENA_NEW(m->arena, *out, dict->count / 2, m->err);
    *count = 0;
    for (size_t i = 0; i < dict->count; i += 2) {
        const object *key = dict->item[i], *value = dict->item[i + 1];
        if (key->kind != TEXT || value->kind != TENSOR) continue;
        sdx_pickle_tensor *t = &(*out)[(*count)++];
        *t = *value->tensor;
        t->name = key->text;
    }
    if (*count) return SDX_OK;
    return fail(m, "the dictionary holds no tensors; save the model's state_dict() alone");
}

sdx_status sdx_pickle_read(sdx_arena *arena, const unsigned char *data, size_t size, sdx_pickle_tensor **out,
                           size_t *count, sdx_error *err)
{
    machine m = {.arena = arena, .data = data, .size = size, .memo_capacity = size, .err = err};
    object *result = NULL;
    ARENA_NEW(arena, m.memo, size, err);
    while (!m.stopped) TRY(step(&m));
    TRY(pop(&m, &result));
    return collect(&m, result, out, count);
}
