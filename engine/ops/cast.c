/* cast.c: Cast and CastLike between all numeric types, bool and strings; BitCast. C leaves the conversion of a
 * float beyond an integer type's range undefined; here it gives the nearest value of that type (below 8 bits
 * the low bits, as in ONNX's tests), and NaN gives 0. Numbers are spelled as ONNX Runtime spells them. */
#include "contents.h"
#include "copy.h"
#include "lanes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- how: the attributes saturate and round_mode --------------------------------------------------------- */

static bool find_round(const sdx_node *node, sdx_coding *coding)
{
    static const char *const name[] = {
        [SDX_ROUND_UP] = "up", [SDX_ROUND_DOWN] = "down", [SDX_ROUND_NEAREST] = "nearest"};
    const char *round = sdx_node_string(node, "round_mode", "up");
    for (unsigned i = 0; i < sizeof name / sizeof *name; i++) {
        if (strcmp(round, name[i])) continue;
        coding->round = i;
        return true;
    }
    return false;
}

static sdx_status read_coding(const sdx_node *node, sdx_coding *coding, sdx_error *err)
{
    *coding = (sdx_coding){.overflow = !sdx_node_int(node, "saturate", 1)};
    if (find_round(node, coding)) return SDX_OK;
    return sdx_fail(err, SDX_ERR_FILE, "round_mode is \"%.40s\", but must be up, down or nearest",
                    sdx_node_string(node, "round_mode", ""));
}

/* ---- infer ----------------------------------------------------------------------------------------------- */

static bool is_castable(sdx_dtype t) { return t == SDX_STRING || sdx_dtype_lane(t) != SDX_LANE_NONE; }

static sdx_status check_types(sdx_dtype from, sdx_dtype to, sdx_error *err)
{
    if (from == to || (is_castable(to) && (from == SDX_UNDEFINED || is_castable(from)))) return SDX_OK;
    return sdx_fail(err, SDX_ERR_UNSUPPORTED, "casts from %s to %s (type %d) are not supported",
                    sdx_dtype_name(from), sdx_dtype_name(to), (int)to);
}

/* Numbers that the new type holds; sizes are taken to fit any type that is meant for them. */
static sdx_element cast_element(sdx_element e, sdx_dtype to)
{
    bool wide = to == SDX_I64 || to == SDX_I32;
    if (!sdx_element_is_number(e)) return wide ? e : SDX_ELEMENT_NONE;
    if (to == SDX_BOOL) return sdx_element_number(e.number != 0);
    return to == SDX_I64 || (wide && e.number == (int32_t)e.number) ? e : SDX_ELEMENT_NONE;
}

static sdx_status infer_to(sdx_infer *x, sdx_dtype to)
{
    sdx_coding coding;
    TRY(read_coding(x->node, &coding, x->err));
    sdx_infer_set(x, 0, to, &x->in[0].shape);
    if (to == SDX_UNDEFINED) return SDX_OK;
    TRY(check_types(x->in[0].dtype, to, x->err));
    int n;
    const sdx_element *from = sdx_infer_contents(x, 0, &n);
    sdx_element *e = from && sdx_dtype_lane(to) == SDX_LANE_I ? sdx_infer_new_contents(x, n) : NULL;
    for (int i = 0; e && i < n; i++) e[i] = cast_element(from[i], to);
    sdx_infer_set_contents(x, 0, e, n);
    return SDX_OK;
}

static sdx_status read_to(const sdx_infer *x, sdx_dtype *out)
{
    const sdx_attr *to = sdx_node_attr(x->node, "to");
    if (!to) return sdx_fail(x->err, SDX_ERR_FILE, "it lacks the attribute \"to\"");
    if (!sdx_dtype_is_known(to->i))
        return sdx_fail(x->err, SDX_ERR_UNSUPPORTED, "casts to type %lld are not supported", (long long)to->i);
    *out = (sdx_dtype)to->i;
    return SDX_OK;
}

static sdx_status infer_cast(sdx_infer *x)
{
    sdx_dtype to;
    TRY(read_to(x, &to));
    return infer_to(x, to);
}

static sdx_status infer_cast_like(sdx_infer *x) { return infer_to(x, x->in[1].dtype); }

/* ---- run ------------------------------------------------------------------------------------------------- */

typedef struct cast_call {
    const sdx_run *run;
    const void *x;
    void *y;
    sdx_dtype from, to;
    sdx_coding coding;
} cast_call;

static void store(const cast_call *c, const sdx_lane *lane, int64_t n, int64_t at)
{
    uint8_t *codes = (uint8_t *)c->y + at;
    if (!sdx_dtype_is_coded(c->to))
        sdx_lanes_store(c->to, lane, n, c->y, at);
    else
        for (int64_t i = 0; i < n; i++) codes[i] = sdx_f64_to_code(c->to, lane[i].f, c->coding);
}

static void cast_range(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const cast_call *c = context;
    if (c->from == SDX_F16 && c->to == SDX_F32) {
        c->run->kernels->element.f16_to_f32(end - begin, (const uint16_t *)c->x + begin, (float *)c->y + begin);
        return;
    }
    sdx_lane lane[SDX_LANES];
    for (int64_t at = begin; at < end; at += SDX_LANES) {
        int64_t n = end - at < SDX_LANES ? end - at : SDX_LANES;
        sdx_lanes_load(c->from, c->x, at, 1, n, lane);
        sdx_lanes_convert(sdx_dtype_lane(c->from), c->to, n, lane);
        store(c, lane, n, at);
    }
}

/* The number that a text begins with; false when there is none. */
static bool parse(const char *text, sdx_lane_kind kind, sdx_lane *lane)
{
    char *end;
    if (kind == SDX_LANE_F) lane->f = strtod(text, &end);
    else if (kind == SDX_LANE_U) lane->u = strtoull(text, &end, 10);
    else lane->i = strtoll(text, &end, 10);
    return end != text;
}

static sdx_status cast_from_strings(const cast_call *c)
{
    const char *const *x = c->x;
    for (int64_t i = 0, n = sdx_tensor_count(&c->run->in[0]); i < n; i++) {
        sdx_lane lane;
        const char *text = x[i] ? x[i] : "";
        if (!parse(text, sdx_dtype_lane(c->to), &lane))
            return sdx_fail(c->run->err, SDX_ERR_USAGE, "element %lld is \"%.60s\", not a number", (long long)i,
                            text);
        store(c, &lane, 1, i);
    }
    return SDX_OK;
}

static const char *spell(sdx_arena *arena, sdx_lane_kind kind, sdx_lane lane)
{
    if (kind == SDX_LANE_I) return sdx_arena_printf(arena, "%lld", (long long)lane.i);
    if (kind == SDX_LANE_U) return sdx_arena_printf(arena, "%llu", (unsigned long long)lane.u);
    if (isnan(lane.f)) return "NaN";
    if (isinf(lane.f)) return lane.f > 0 ? "INF" : "-INF";
    return sdx_arena_printf(arena, "%.8g", lane.f);
}

static sdx_status cast_to_strings(const cast_call *c)
{
    const char **y = c->y;
    for (int64_t i = 0, n = sdx_tensor_count(&c->run->in[0]); i < n; i++) {
        sdx_lane lane;
        sdx_lanes_load(c->from, c->x, i, 1, 1, &lane);
        y[i] = spell(c->run->strings, sdx_dtype_lane(c->from), lane);
        if (!y[i]) return sdx_fail_memory(c->run->err, 32);
    }
    return SDX_OK;
}

static sdx_status run_cast(sdx_run *r)
{
    cast_call c = {r, r->in[0].data, r->out[0].data, r->in[0].dtype, r->out[0].dtype, {0}};
    if (c.from == c.to) return sdx_run_copy(r);
    TRY(read_coding(r->node, &c.coding, r->err));
    if (c.from == SDX_STRING) return cast_from_strings(&c);
    if (c.to == SDX_STRING) return cast_to_strings(&c);
    sdx_parallel_for(r->threads, sdx_tensor_count(&r->in[0]), SDX_WALK_GRAIN, cast_range, &c);
    return SDX_OK;
}

/* ---- BitCast --------------------------------------------------------------------------------------------- */

static sdx_status infer_bit_cast(sdx_infer *x)
{
    sdx_dtype from = x->in[0].dtype, to;
    TRY(read_to(x, &to));
    if (from == SDX_STRING || to == SDX_STRING || (from && sdx_dtype_bits(from) != sdx_dtype_bits(to)))
        return sdx_fail(x->err, SDX_ERR_FILE,
                        "%s has %d bits and %s %d, but both must be of one size, not strings",
                        sdx_dtype_name(from), sdx_dtype_bits(from), sdx_dtype_name(to), sdx_dtype_bits(to));
    sdx_infer_set(x, 0, to, &x->in[0].shape);
    return SDX_OK;
}

static sdx_status run_bit_cast(sdx_run *r)
{
    TRY(sdx_run_copy(r));
    uint8_t *y = r->out[0].data;
    if (sdx_dtype_is_small(r->out[0].dtype))
        for (int64_t i = 0, n = sdx_tensor_count(&r->out[0]); i < n; i++)
            y[i] = sdx_small_byte(r->out[0].dtype, y[i]);
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"", "Cast", 6, 0, 1, 1, 1, 1, 0, infer_cast, NULL, NULL, run_cast},
    {"", "CastLike", 15, 0, 2, 2, 1, 1, 0, infer_cast_like, NULL, NULL, run_cast},
    {"", "BitCast", 26, 0, 1, 1, 1, 1, 0, infer_bit_cast, NULL, NULL, run_bit_cast},
};

SDX_OP_TABLE(cast);
