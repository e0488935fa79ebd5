/* sequence.c: lists of tensors. An operator puts together the headers of the items it wants, wherever they lie, and
 * gives that: the engine copies it into one block (base/sequence.h). Sequences are short and their operators rare, so
 * nothing is shared. */
#include <string.h>

#include "contents.h"
#include "control_flow.h"
#include "copy.h"

enum { FLAGS = SDX_OP_DYNAMIC | SDX_OP_ANY_VALUE };

static sdx_status infer_nothing(sdx_infer *infer)
{
    (void)infer; /* types of sequences are for the run to see */
    return SDX_OK;
}

static sdx_status take_sequence(sdx_run *run, int i, const sdx_tensor_list **out)
{
    bool is_sequence = run->in[i].dtype == SDX_TENSOR_LIST;
    *out = is_sequence ? sdx_tensor_sequence(&run->in[i]) : NULL;
    return is_sequence ? SDX_OK : sdx_fail(run->err, SDX_ERR_USAGE, "input %d must be a sequence", i);
}

static sdx_status take_tensor(sdx_run *run, int i)
{
    if (sdx_dtype_is_tensor(run->in[i].dtype)) return SDX_OK;
    return sdx_fail(run->err, SDX_ERR_USAGE, "input %d must be a tensor", i);
}

/* Room for headers of items. */
static sdx_status new_sequence(sdx_run *run, sdx_dtype dtype, size_t capacity, sdx_tensor_list *out)
{
    *out = (sdx_tensor_list){.dtype = dtype};
    ARENA_NEW(run->scratch, out->item, capacity, run->err);
    return SDX_OK;
}

static sdx_status append(sdx_run *run, sdx_tensor_list *to, const sdx_tensor *item)
{
    if (to->dtype == SDX_UNDEFINED) to->dtype = item->dtype;
    if (!sdx_dtype_is_tensor(item->dtype) || item->dtype != to->dtype)
        return sdx_fail(run->err, SDX_ERR_USAGE, "a sequence of %s cannot hold %s", sdx_dtype_name(to->dtype),
                        sdx_dtype_name(item->dtype));
    to->item[to->count++] = *item;
    return SDX_OK;
}

static sdx_status give_sequence(sdx_run *run, int i, const sdx_tensor_list *list)
{
    sdx_tensor value = sdx_sequence_view(list);
    return run->give(run, i, &value);
}

/* A position in [-count, limit), or `missing` when the input is absent. */
static sdx_status take_position(sdx_run *run, int i, size_t count, size_t limit, size_t missing, size_t *out)
{
    int64_t at;
    *out = missing;
    if (!sdx_run_has_in(run, i)) return SDX_OK;
    TRY(sdx_run_number(run, &run->in[i], "the position", &at));
    int64_t from_start = at < 0 ? at + (int64_t)count : at;
    if (from_start < 0 || from_start >= (int64_t)limit)
        return sdx_fail(run->err, SDX_ERR_USAGE, "position %lld is outside a sequence of %zu", (long long)at, count);
    *out = (size_t)from_start;
    return SDX_OK;
}

/* ---- making and changing --------------------------------------------------------------------------------- */

static sdx_status run_empty(sdx_run *run)
{
    sdx_tensor_list list = {.dtype = (sdx_dtype)sdx_node_int(run->node, "dtype", SDX_F32)};
    return give_sequence(run, 0, &list);
}

static sdx_status run_construct(sdx_run *run)
{
    sdx_tensor_list list;
    TRY(new_sequence(run, SDX_UNDEFINED, (size_t)run->n_in, &list));
    for (int i = 0; i < run->n_in; i++) TRY(append(run, &list, &run->in[i]));
    return give_sequence(run, 0, &list);
}

static sdx_status run_insert(sdx_run *run)
{
    const sdx_tensor_list *from;
    sdx_tensor_list list;
    size_t at;
    TRY(take_sequence(run, 0, &from));
    TRY(take_position(run, 2, from->count, from->count + 1, from->count, &at));
    TRY(new_sequence(run, from->count ? from->dtype : SDX_UNDEFINED, from->count + 1, &list));
    for (size_t i = 0; i <= from->count; i++) {
        if (i == at) TRY(append(run, &list, &run->in[1]));
        if (i < from->count) TRY(append(run, &list, &from->item[i]));
    }
    return give_sequence(run, 0, &list);
}

static sdx_status run_erase(sdx_run *run)
{
    const sdx_tensor_list *from;
    sdx_tensor_list list;
    size_t at;
    TRY(take_sequence(run, 0, &from));
    if (!from->count) return sdx_fail(run->err, SDX_ERR_USAGE, "the sequence is empty");
    TRY(take_position(run, 1, from->count, from->count, from->count - 1, &at));
    TRY(new_sequence(run, from->dtype, from->count, &list));
    for (size_t i = 0; i < from->count; i++)
        if (i != at) TRY(append(run, &list, &from->item[i]));
    return give_sequence(run, 0, &list);
}

/* ---- looking --------------------------------------------------------------------------------------------- */

static sdx_status run_at(sdx_run *run)
{
    const sdx_tensor_list *from;
    size_t at;
    TRY(take_sequence(run, 0, &from));
    TRY(take_position(run, 1, from->count, from->count, 0, &at));
    return run->give(run, 0, &from->item[at]);
}

static sdx_status infer_length(sdx_infer *x)
{
    sdx_infer_set(x, 0, SDX_I64, &(sdx_shape){.rank = 0});
    return SDX_OK;
}

static sdx_status run_length(sdx_run *run)
{
    const sdx_tensor_list *from;
    TRY(take_sequence(run, 0, &from));
    TRY(run->allocate(run, 0, SDX_I64, &(sdx_shape){.rank = 0}));
    if (run->out[0].data) *(int64_t *)run->out[0].data = (int64_t)from->count;
    return SDX_OK;
}

/* ---- cutting and joining --------------------------------------------------------------------------------- */

/* Seen from an axis a tensor is [outer, length, inner]. */
typedef struct row {
    int64_t outer, length, inner;
} row;

static row rows_of(const sdx_tensor *t, int axis)
{
    sdx_shape s = sdx_tensor_shape(t);
    return (row){sdx_shape_span(&s, 0, axis), s.dim[axis], sdx_shape_span(&s, axis + 1, s.rank)};
}

/* Moves `length` columns between a part and the whole, where they begin at column `at`. */
static void move_columns(row whole, int64_t at, int64_t length, char *part, char *all, size_t size, bool join)
{
    sdx_copy c = {.rank = 2, .dim = {whole.outer, length * whole.inner}, .size = size};
    char *place = all + (size_t)(at * whole.inner) * size;
    c.src = join ? part : place;
    c.dst = join ? place : part;
    c.src_stride[0] = (join ? length : whole.length) * whole.inner;
    c.dst_stride[0] = (join ? whole.length : length) * whole.inner;
    c.src_stride[1] = c.dst_stride[1] = 1;
    sdx_copy_strided(&c, 1);
}

/* Sizes of the parts: given one by one, or one for all but the last, or 1 each. */
static sdx_status part_sizes(sdx_run *run, int64_t length, int64_t **size, size_t *count)
{
    int64_t each = 1, sum = 0;
    *size = NULL;
    *count = 0;
    const sdx_tensor *t = sdx_run_has_in(run, 1) ? &run->in[1] : NULL;
    if (t && (!sdx_dtype_is_tensor(t->dtype) || !sdx_dtype_is_integer(t->dtype) || t->rank > 1))
        return sdx_fail(run->err, SDX_ERR_USAGE, "split must be an integer or a list of integers");
    if (t && t->rank == 0) TRY(sdx_run_number(run, t, "split", &each));
    if (each < 1) return sdx_fail(run->err, SDX_ERR_USAGE, "split is %lld", (long long)each);
    bool listed = t && t->rank == 1;
    *count = (size_t)(listed ? t->dim[0] : length / each + (length % each != 0));
    ARENA_NEW(run->scratch, *size, *count, run->err);
    for (size_t i = 0; i < *count; i++) {
        int64_t left = length - sum, n = listed ? sdx_tensor_get_i64(t, (int64_t)i) : left < each ? left : each;
        if (n < 0 || n > left)
            return sdx_fail(run->err, SDX_ERR_USAGE, "the parts do not add up to %lld", (long long)length);
        (*size)[i] = n;
        sum += n;
    }
    if (sum == length) return SDX_OK;
    return sdx_fail(run->err, SDX_ERR_USAGE, "the parts add up to %lld, not %lld", (long long)sum, (long long)length);
}

static void drop_axis(sdx_tensor *t, int axis)
{
    t->rank--;
    for (int i = axis; i < t->rank; i++) t->dim[i] = t->dim[i + 1];
}

static sdx_status run_split(sdx_run *run)
{
    const sdx_tensor *whole = &run->in[0];
    TRY(take_tensor(run, 0));
    int64_t *size, at = 0;
    int axis;
    size_t count, each = sdx_element_size(whole->dtype);
    sdx_tensor_list list;
    TRY(sdx_axis_normalize(sdx_node_int(run->node, "axis", 0), whole->rank, &axis, run->err));
    row r = rows_of(whole, axis);
    TRY(part_sizes(run, r.length, &size, &count));
    TRY(new_sequence(run, whole->dtype, count, &list));
    bool squeeze = !sdx_run_has_in(run, 1) && !sdx_node_int(run->node, "keepdims", 1);
    for (size_t i = 0; i < count; at += size[i++]) {
        sdx_tensor part = *whole;
        part.dim[axis] = size[i];
        size_t bytes = sdx_tensor_bytes(&part);
        if (!(part.data = sdx_arena_alloc(run->scratch, bytes))) return sdx_fail_memory(run->err, bytes);
        move_columns(r, at, size[i], part.data, whole->data, each, false);
        if (squeeze) drop_axis(&part, axis);
        TRY(append(run, &list, &part));
    }
    return give_sequence(run, 0, &list);
}

static sdx_status joined_shape(sdx_run *run, const sdx_tensor_list *from, int axis, bool fresh, sdx_shape *out)
{
    sdx_shape first = sdx_tensor_shape(&from->item[0]);
    *out = first;
    if (fresh) {
        out->rank++;
        for (int i = out->rank - 1; i > axis; i--) out->dim[i] = out->dim[i - 1];
        out->dim[axis] = (int64_t)from->count;
    }
    for (size_t i = 1; i < from->count; i++) {
        const sdx_tensor *t = &from->item[i];
        bool fits = t->rank == first.rank && t->dtype == from->item[0].dtype;
        for (int k = 0; k < first.rank && fits; k++) fits = t->dim[k] == first.dim[k] || (k == axis && !fresh);
        if (!fits || (!fresh && __builtin_add_overflow(out->dim[axis], t->dim[axis], &out->dim[axis])))
            return sdx_fail(run->err, SDX_ERR_USAGE, "item %zu does not fit the first one", i);
    }
    return SDX_OK;
}

static sdx_status run_concat(sdx_run *run)
{
    const sdx_tensor_list *from;
    sdx_shape shape;
    int axis;
    TRY(take_sequence(run, 0, &from));
    if (!from->count) return sdx_fail(run->err, SDX_ERR_USAGE, "the sequence is empty");
    bool fresh = sdx_node_int(run->node, "new_axis", 0);
    int rank = from->item[0].rank + fresh;
    if (rank > SDX_MAX_RANK) return sdx_fail(run->err, SDX_ERR_UNSUPPORTED, "a rank above %d", SDX_MAX_RANK);
    TRY(sdx_axis_normalize(sdx_node_int(run->node, "axis", 0), rank, &axis, run->err));
    TRY(joined_shape(run, from, axis, fresh, &shape));
    TRY(run->allocate(run, 0, from->item[0].dtype, &shape));
    sdx_tensor *whole = &run->out[0];
    if (!whole->data) return SDX_OK;
    row r = rows_of(whole, axis);
    int64_t at = 0;
    for (size_t i = 0; i < from->count; i++) {
        int64_t length = fresh ? 1 : from->item[i].dim[axis];
        move_columns(r, at, length, from->item[i].data, whole->data, sdx_element_size(whole->dtype), true);
        at += length;
    }
    return sdx_run_keep_strings(run, whole->dtype, whole->data, sdx_tensor_count(whole));
}

/* ---- SequenceMap ----------------------------------------------------------------------------------------- */

static sdx_status infer_map(sdx_infer *x)
{
    sdx_graph *g = sdx_node_body(x->node, "body");
    if (!x->body || !g) return SDX_OK;
    sdx_type *in, *out;
    ARENA_NEW(x->arena, in, (size_t)g->n_input, x->err);
    ARENA_NEW(x->arena, out, (size_t)g->n_output, x->err);
    for (int i = 0; i < g->n_input; i++) in[i] = (sdx_type){.shape = SDX_SHAPE_UNKNOWN};
    return x->body(x, g, in, out);
}

static sdx_status prepare_map(sdx_prepare *p)
{
    sdx_graph *body;
    TRY(sdx_prepare_body(p, "body", p->n_in, p->node->n_out, &body));
    p->state = body;
    return SDX_OK;
}

static sdx_status append_copy(sdx_run *run, sdx_tensor_list *list, const sdx_tensor *t)
{
    size_t bytes;
    if (!sdx_value_size(t, &bytes)) return sdx_fail_memory(run->err, SIZE_MAX);
    void *block = sdx_arena_alloc(run->scratch, bytes < SDX_ALIGN ? SDX_ALIGN : bytes);
    if (!block) return sdx_fail_memory(run->err, bytes);
    sdx_tensor copy = sdx_value_copy(t, block);
    return append(run, list, &copy);
}

/* Item `at` of every sequence; a tensor is the same every time. */
static sdx_status map_item(sdx_run *run, const sdx_graph *body, size_t at, sdx_tensor *in, sdx_tensor *out,
                           sdx_tensor_list *lists)
{
    for (int i = 0; i < run->n_in; i++) {
        const sdx_tensor_list *from = sdx_tensor_sequence(&run->in[i]);
        in[i] = run->in[i].dtype == SDX_TENSOR_LIST ? from->item[at] : run->in[i];
    }
    TRY(run->run_body(run, body, 0, in, out));
    for (int o = 0; o < run->n_out; o++) TRY(append_copy(run, &lists[o], &out[o]));
    return SDX_OK;
}

static sdx_status run_map(sdx_run *run)
{
    const sdx_graph *body = run->state;
    const sdx_tensor_list *first, *other;
    sdx_tensor *in, *out;
    sdx_tensor_list *lists;
    TRY(take_sequence(run, 0, &first));
    for (int i = 1; i < run->n_in; i++) {
        if (run->in[i].dtype != SDX_TENSOR_LIST) continue;
        TRY(take_sequence(run, i, &other));
        if (other->count != first->count)
            return sdx_fail(run->err, SDX_ERR_USAGE, "sequences of %zu and %zu", first->count, other->count);
    }
    ARENA_NEW(run->scratch, in, (size_t)run->n_in, run->err);
    ARENA_NEW(run->scratch, out, (size_t)body->n_output, run->err);
    ARENA_NEW(run->scratch, lists, (size_t)run->n_out, run->err);
    for (int o = 0; o < run->n_out; o++) TRY(new_sequence(run, SDX_UNDEFINED, first->count, &lists[o]));
    for (size_t at = 0; at < first->count; at++) TRY(map_item(run, body, at, in, out, lists));
    for (int o = 0; o < run->n_out; o++) TRY(give_sequence(run, o, &lists[o]));
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"", "SequenceEmpty", 11, 0, 0, 0, 1, 1, FLAGS, infer_nothing, NULL, NULL, run_empty},
    {"", "SequenceConstruct", 11, 0, 1, -1, 1, 1, FLAGS, infer_nothing, NULL, NULL, run_construct},
    {"", "SequenceInsert", 11, 0, 2, 3, 1, 1, FLAGS, infer_nothing, NULL, NULL, run_insert},
    {"", "SequenceErase", 11, 0, 1, 2, 1, 1, FLAGS, infer_nothing, NULL, NULL, run_erase},
    {"", "SequenceAt", 11, 0, 2, 2, 1, 1, FLAGS, infer_nothing, NULL, NULL, run_at},
    {"", "SequenceLength", 11, 0, 1, 1, 1, 1, FLAGS, infer_length, NULL, NULL, run_length},
    {"", "SplitToSequence", 11, 0, 1, 2, 1, 1, FLAGS, infer_nothing, NULL, NULL, run_split},
    {"", "ConcatFromSequence", 11, 0, 1, 1, 1, 1, FLAGS, infer_nothing, NULL, NULL, run_concat},
    {"", "SequenceMap", 17, 0, 1, -1, 1, -1, FLAGS | SDX_OP_NONDETERMINISTIC, infer_map, prepare_map, NULL, run_map},
};
SDX_OP_TABLE(sequence);
