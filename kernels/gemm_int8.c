/* gemm_int8.c: products of byte matrices, exact in int32 on every instruction set.
 *
 * With a dot product of bytes (VNNI) k goes by fours: A as u8 (a signed A plus 128) times B as s8; Armv8.2 has
 * s8 times s8 only, so an unsigned A gets minus 128. With a matrix product of bytes (I8MM) k goes by eights.
 * With neither, k goes by twos: both widen to int16, whose pairwise products cannot overflow int32, unlike
 * vpmaddubsw, whose int16 sums saturate. What was added to A or B to fit, and the zero points, come off at the
 * end (arithmetic modulo 2^32):
 *     sum (a - za)(b - zb) = sum a b - za colsum(b) - zb (rowsum(a) - k za)
 *
 * packed: panels [ceil(k/GROUP)][TILE_COLS][GROUP] of int8, then colsum int32[panels * TILE_COLS], then an
 * int32: what was subtracted from B. workspace: rowsum int32[m], then the rows of A as A_TYPE. Tiling as in
 * tile_f32.h. */
#include "tile.h"

#if defined(V_MATMUL)
#define GROUP 8
#elif defined(V_DOT4)
#define GROUP 4
#else
#define GROUP 2
#endif

#if defined(V_DOT4_SIGNED)
enum { A_SIGNED = true };
typedef int8_t a_type;
#elif GROUP > 2
enum { A_SIGNED = false };
typedef uint8_t a_type;
#else
typedef int16_t a_type;
#endif

#if VLEN == 16 && GROUP == 4
#define TILE_ROWS 14
#define TILE_COLS 32
#elif VLEN == 16
#define TILE_ROWS 12
#define TILE_COLS 32
#elif VLEN == 8
#define TILE_ROWS 6
#define TILE_COLS 16
#elif VLEN == 4 && GROUP == 4 /* 24 accumulators, 3 of B and 1 of A, of NEON's 32 */
#define TILE_ROWS 8
#define TILE_COLS 12
#elif VLEN == 4 && GROUP == 8 /* 16, 4 of B and 1 of A */
#define TILE_ROWS 8
#define TILE_COLS 8
#elif VLEN == 4
#define TILE_ROWS 6
#define TILE_COLS 8
#else
#define TILE_ROWS 4
#define TILE_COLS 4
#endif

enum { TILE_VECS = TILE_COLS / VLEN, STEP_BYTES = TILE_COLS * GROUP, BLOCK_TILES = 144 / TILE_ROWS };

#if GROUP == 4
V_INLINE vi load_b(const int8_t *p) { return vi_load(p); }
V_INLINE vi dot(vi acc, vi a, vi b) { return vi_dot4(acc, a, b); }
#elif GROUP == 2
V_INLINE vi load_b(const int8_t *p) { return vi_load_s8_pairs(p); }
V_INLINE vi dot(vi acc, vi a, vi b) { return vi_dot2(acc, a, b); }
#endif

/* ---- B ------------------------------------------------------------------------------------------ */
static int64_t panel_count(int64_t n) { return (n + TILE_COLS - 1) / TILE_COLS; }
static int64_t panel_bytes(int64_t k) { return (k + GROUP - 1) / GROUP * STEP_BYTES; }

static size_t packed_bytes(int64_t k, int64_t n)
{
    const size_t sums = (size_t)panel_count(n) * TILE_COLS * sizeof(int32_t);
    return (size_t)panel_count(n) * (size_t)panel_bytes(k) + sums + sizeof(int32_t);
}

V_INLINE void pack_panel(int64_t k, int64_t cols, const uint8_t *b, int64_t row_stride, int64_t col_stride,
                       uint8_t flip, int8_t *panel, int32_t *sum)
{
    memset(panel, 0, (size_t)panel_bytes(k));
    memset(sum, 0, TILE_COLS * sizeof *sum);
    for (int64_t p = 0; p < k; p++)
        for (int64_t j = 0; j < cols; j++) {
            const int8_t x = (int8_t)(b[p * row_stride + j * col_stride] ^ flip);
            panel[p / GROUP * STEP_BYTES + j * GROUP + p % GROUP] = x;
            sum[j] += x;
        }
}

static void pack_b(int64_t k, int64_t n, const void *b, int64_t row_stride, int64_t col_stride, bool b_signed,
                   int64_t panel_begin, int64_t panel_end, void *packed)
{
    const int64_t panels = panel_count(n);
    int8_t *panel = (int8_t *)packed + panel_begin * panel_bytes(k);
    char *sums = (char *)packed + panels * panel_bytes(k);
    const int32_t offset = b_signed ? 0 : 128;
    for (int64_t q = panel_begin; q < panel_end; q++, panel += panel_bytes(k)) {
        const int64_t first = q * TILE_COLS, cols = n - first < TILE_COLS ? n - first : TILE_COLS;
        int32_t sum[TILE_COLS];
        const uint8_t *from = (const uint8_t *)b + first * col_stride, flip = b_signed ? 0 : 0x80;
        if (col_stride == 1 && cols == TILE_COLS)
            pack_panel(k, TILE_COLS, from, row_stride, 1, flip, panel, sum);
        else
            pack_panel(k, cols, from, row_stride, col_stride, flip, panel, sum);
        memcpy(sums + first * (int64_t)sizeof(int32_t), sum, sizeof sum);
    }
    if (panel_end == panels) memcpy(sums + panels * TILE_COLS * (int64_t)sizeof(int32_t), &offset, sizeof offset);
}

/* ---- A ------------------------------------------------------------------------------------------ */
/* A cache line more than needed: rows a power of two apart would share one set of L1. */
static int64_t a_stride(int64_t k) { return round_up(k * (int64_t)sizeof(a_type), CACHE_LINE) + CACHE_LINE; }
static int64_t sums_bytes(int64_t m) { return round_up(m * (int64_t)sizeof(int32_t), CACHE_LINE); }

static size_t packed_a_bytes(int64_t m, int64_t k) { return (size_t)(sums_bytes(m) + m * a_stride(k)); }

#if GROUP > 2
static bool fits(bool a_signed) { return a_signed == A_SIGNED; }
static int32_t added(bool a_signed) { return fits(a_signed) ? 0 : A_SIGNED ? -128 : 128; }
#else
static bool fits(bool a_signed) { return (void)a_signed, false; }
static int32_t added(bool a_signed) { return (void)a_signed, 0; }
#endif

/* A row as a_type, zeros up to a whole group. Flipping the top bit takes a byte to the other sign. */
static void pack_a_row(int64_t k, const uint8_t *a, bool a_signed, a_type *out)
{
    const int64_t padded = round_up(k, GROUP);
#if GROUP > 2
    const uint8_t flip = fits(a_signed) ? 0 : 0x80;
    for (int64_t p = 0; p < k; p++) out[p] = (a_type)(a[p] ^ flip);
#else
    if (a_signed)
        for (int64_t p = 0; p < k; p++) out[p] = (int8_t)a[p];
    else
        for (int64_t p = 0; p < k; p++) out[p] = a[p];
#endif
    for (int64_t p = k; p < padded; p++) out[p] = 0;
}

static int32_t row_sum(int64_t k, const a_type *a)
{
    int32_t sum = 0;
    for (int64_t p = 0; p < k; p++) sum += a[p];
    return sum;
}

typedef struct left {
    const char *data; /* rows of a_type, `stride` bytes apart */
    int64_t stride;
    int32_t *sum;   /* [m], or NULL when no zero point of B asks for it */
    int32_t offset; /* what was added to A */
} left;

static left pack_a(int64_t m, int64_t k, const uint8_t *a, int64_t lda, bool a_signed, bool want_sums,
                   void *workspace)
{
    char *rows = (char *)workspace + sums_bytes(m);
    const bool as_is = fits(a_signed) && k % GROUP == 0;
    const left l = {as_is ? (const char *)a : rows, as_is ? lda : a_stride(k), want_sums ? workspace : NULL,
                    added(a_signed)};
    for (int64_t i = 0; i < m; i++) {
        if (!as_is) pack_a_row(k, a + i * lda, a_signed, (a_type *)(void *)(rows + i * l.stride));
        if (want_sums) l.sum[i] = row_sum(k, (const a_type *)(const void *)(l.data + i * l.stride));
    }
    return l;
}

/* ---- the tile ------------------------------------------------------------------------------------ */
#if GROUP == 8
/* out[rows, TILE_COLS] of int32 over `steps` groups of k. Rows and columns go by twos, an accumulator holding
 * 2 x 2 of C; an odd last row is its own partner. */
V_INLINE void tile_rows(const int rows, int64_t steps, const char *a, int64_t row, const int8_t *panel,
                        const char *next, int64_t stride, int32_t *out)
{
    const int pairs = (rows + 1) / 2;
    vi acc[TILE_ROWS / 2][TILE_COLS / 2];

    V_UNROLL
    for (int i = 0; i < pairs; i++) {
        V_UNROLL
        for (int j = 0; j < TILE_COLS / 2; j++) acc[i][j] = vi_set1(0);
    }
    for (int64_t p = 0; p < steps; p++) {
        vi b[TILE_COLS / 2];
        V_UNROLL
        for (int j = 0; j < TILE_COLS / 2; j++) b[j] = vi_load(panel + 2 * j * GROUP);
        tile_prefetch((const char *)panel, STEP_BYTES, next);
        next += stride;
        panel += STEP_BYTES;
        V_UNROLL
        for (int i = 0; i < pairs; i++) {
            const char *first = a + 2 * i * row, *second = 2 * i + 1 < rows ? first + row : first;
            vi x = vi_load_rows(first, second);
            V_UNROLL
            for (int j = 0; j < TILE_COLS / 2; j++) acc[i][j] = vi_matmul(acc[i][j], x, b[j]);
        }
        a += GROUP;
    }
    V_UNROLL
    for (int i = 0; i < pairs; i++) {
        V_UNROLL
        for (int j = 0; j < TILE_COLS / 2; j += 2) {
            int32_t *to = out + 2 * i * TILE_COLS + 2 * j; /* TILE_ROWS is even: a partner has room */
            vi_store(to, vi_low_halves(acc[i][j], acc[i][j + 1]));
            vi_store(to + TILE_COLS, vi_high_halves(acc[i][j], acc[i][j + 1]));
        }
    }
}
#else
V_INLINE int32_t load_group(const char *p)
{
    int32_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

/* out[rows, TILE_COLS] of int32 over `steps` groups of k. */
V_INLINE void tile_rows(const int rows, int64_t steps, const char *a, int64_t row, const int8_t *panel,
                        const char *next, int64_t stride, int32_t *out)
{
    const int groups = (rows + 2) / 3;
    const char *base[(TILE_ROWS + 2) / 3];
    vi acc[TILE_ROWS][TILE_VECS];

    V_UNROLL
    for (int g = 0; g < groups; g++) base[g] = a + 3 * g * row;
    V_UNROLL
    for (int i = 0; i < rows; i++) {
        V_UNROLL
        for (int j = 0; j < TILE_VECS; j++) acc[i][j] = vi_set1(0);
    }

    for (int64_t p = 0; p < steps; p++) {
        vi b[TILE_VECS];
        V_UNROLL
        for (int j = 0; j < TILE_VECS; j++) b[j] = load_b(panel + j * VLEN * GROUP);
        tile_prefetch((const char *)panel, STEP_BYTES, next);
        next += stride;
        panel += STEP_BYTES;
        V_UNROLL
        for (int i = 0; i < rows; i++) {
            vi x = vi_set1(load_group(base[i / 3] + i % 3 * row));
            V_UNROLL
            for (int j = 0; j < TILE_VECS; j++) acc[i][j] = dot(acc[i][j], x, b[j]);
        }
        V_UNROLL
        for (int g = 0; g < groups; g++) {
            base[g] += sizeof(int32_t);
            OPAQUE(base[g]);
        }
    }
    V_UNROLL
    for (int i = 0; i < rows; i++) {
        V_UNROLL
        for (int j = 0; j < TILE_VECS; j++) vi_store(out + i * TILE_COLS + j * VLEN, acc[i][j]);
    }
}
#endif

typedef void (*tile_fn)(int64_t steps, const char *a, int64_t row, const int8_t *panel, const char *next,
                        int64_t stride, int32_t *out);

#define TILE(rows)                                                                                             \
    static void tile_##rows(int64_t steps, const char *a, int64_t row, const int8_t *panel, const char *next,  \
                            int64_t stride, int32_t *out)                                                      \
    {                                                                                                          \
        tile_rows(rows, steps, a, row, panel, next, stride, out);                                              \
    }
TILE_LIST(TILE_ROWS, TILE)
#undef TILE

#define TILE(rows) tile_##rows,
static const tile_fn tile_table[TILE_ROWS + 1] = {NULL, TILE_LIST(TILE_ROWS, TILE)};
#undef TILE

/* ---- zero points --------------------------------------------------------------------------------- */
typedef struct correction {
    const char *colsum;    /* int32 of the panel's first column, any alignment */
    const int32_t *rowsum; /* of the tile's first row, or NULL */
    const int32_t *a_zero, *b_zero;
    int32_t a_offset, b_offset, k;
} correction;

/* The true sums at [i, j...] of a tile. zb: the zero points of these columns. */
V_INLINE vi corrected(const correction *z, const int32_t *tile, int i, int64_t j, vi colsum, vi zb)
{
    const vi za = vi_set1(z->a_offset + (z->a_zero ? z->a_zero[i] : 0));
    vi x = vi_sub(vi_load(tile + i * TILE_COLS + j), vi_mul(za, colsum));
    if (!z->rowsum) return x;
    vi rest = vi_sub(vi_set1(z->rowsum[i]), vi_mul(vi_set1(z->k), za));
    return vi_sub(x, vi_mul(zb, rest));
}

V_INLINE vi column_zeros(const correction *z, int64_t j, int lanes)
{
    const vi zb = vi_set1(-z->b_offset);
    return z->b_zero ? vi_add(zb, vi_load_n(z->b_zero + j, lanes)) : zb;
}

/* C[rows, cols] as floats. e: pointers at the tile's first row and column. */
V_INLINE void finish(sdx_activation activation, const correction *z, const sdx_int8_epilogue *e,
                     const int32_t *tile, int rows, int64_t cols, float *c, int64_t ldc)
{
    for (int64_t j = 0; j < cols; j += VLEN) {
        const int lanes = v_lanes(j, cols);
        const vi colsum = vi_load(z->colsum + j * (int64_t)sizeof(int32_t)), zb = column_zeros(z, j, lanes);
        const vf scale = e->scale_step ? v_load_n(e->scale + j, lanes) : v_set1(*e->scale);
        const vf bias = e->bias ? v_load_n(e->bias + j, lanes) : v_zero();
        for (int i = 0; i < rows; i++) {
            vf x = v_cvt_f(corrected(z, tile, i, j, colsum, zb));
            if (e->row_scale) {
                const vf s = v_mul(v_set1(e->row_scale[i]), scale);
                x = activate(activation, v_add(v_mul(x, s), bias));
            } else {
                x = v_fma(x, scale, bias);
            }
            v_store_n(c + i * ldc + j, x, lanes);
        }
    }
}

static void finish_sums(const correction *z, const int32_t *tile, int rows, int64_t cols, int32_t *c, int64_t ldc)
{
    for (int64_t j = 0; j < cols; j += VLEN) {
        const int lanes = v_lanes(j, cols);
        const vi colsum = vi_load(z->colsum + j * (int64_t)sizeof(int32_t)), zb = column_zeros(z, j, lanes);
        for (int i = 0; i < rows; i++)
            vi_store_n(c + i * ldc + j, corrected(z, tile, i, j, colsum, zb), lanes);
    }
}

/* The tile of C that starts at [row, column]; c: where it goes. */
static void finish_tile(const correction *z, const sdx_int8_epilogue *epilogue, int64_t row, int64_t column,
                        const int32_t *tile, int rows, int64_t cols, void *c, int64_t ldc)
{
    if (!epilogue) {
        finish_sums(z, tile, rows, cols, c, ldc);
        return;
    }
    sdx_int8_epilogue e = *epilogue;
    float *out = c;
    e.scale += column * e.scale_step;
    if (e.row_scale) e.row_scale += row;
    if (e.bias) e.bias += column;
    switch (e.activation) {
    case SDX_ACT_NONE: finish(SDX_ACT_NONE, z, &e, tile, rows, cols, out, ldc); break;
    case SDX_ACT_RELU: finish(SDX_ACT_RELU, z, &e, tile, rows, cols, out, ldc); break;
    case SDX_ACT_GELU: finish(SDX_ACT_GELU, z, &e, tile, rows, cols, out, ldc); break;
    case SDX_ACT_TANH: finish(SDX_ACT_TANH, z, &e, tile, rows, cols, out, ldc); break;
    }
}

/* The lines of C that a tile will write, fetched while its sums run: a large C is in no near cache. */
V_INLINE void prefetch_c(int rows, const char *c, int64_t row_bytes)
{
    for (int i = 0; i < rows; i++)
        for (int line = 0; line < TILE_COLS * (int)sizeof(int32_t); line += CACHE_LINE)
            __builtin_prefetch(c + i * row_bytes + line, 1, 3);
}

static void run(int64_t m, int64_t n, int64_t k, const void *a, int64_t lda, bool a_signed, const void *packed,
                int64_t panel_begin, int64_t panel_end, const int32_t *a_zero, const int32_t *b_zero,
                const sdx_int8_epilogue *epilogue, void *workspace, void *c, int64_t ldc)
{
    _Alignas(64) int32_t tile[TILE_ROWS * TILE_COLS];
    const int64_t tiles = (m + TILE_ROWS - 1) / TILE_ROWS;
    const int64_t size = panel_bytes(k), steps = (k + GROUP - 1) / GROUP;
    const char *sums = (const char *)packed + panel_count(n) * size;
    int32_t b_offset;
    memcpy(&b_offset, sums + panel_count(n) * TILE_COLS * (int64_t)sizeof(int32_t), sizeof b_offset);
    const left l = pack_a(m, k, a, lda, a_signed, b_zero || b_offset, workspace);

    for (int64_t t0 = 0, row0 = 0; t0 < tiles; t0 += BLOCK_TILES) {
        const int64_t t1 = t0 + BLOCK_TILES < tiles ? t0 + BLOCK_TILES : tiles, stride = STEP_BYTES / (t1 - t0);
        int64_t row = row0;
        for (int64_t q = panel_begin; q < panel_end; q++) {
            const int8_t *panel = (const int8_t *)packed + q * size;
            const char *next = (const char *)(panel + size);
            const int64_t first = q * TILE_COLS, cols = n - first < TILE_COLS ? n - first : TILE_COLS;
            row = row0;
            for (int64_t t = t0; t < t1; t++) {
                const int rows = tile_height(m, tiles, t);
                const correction z = {.colsum = sums + first * (int64_t)sizeof(int32_t),
                                      .rowsum = l.sum ? l.sum + row : NULL,
                                      .a_zero = a_zero ? a_zero + row : NULL,
                                      .b_zero = b_zero ? b_zero + first : NULL,
                                      .a_offset = l.offset,
                                      .b_offset = b_offset,
                                      .k = (int32_t)k};
                char *to = (char *)c + (row * ldc + (q - panel_begin) * TILE_COLS) * (int64_t)sizeof(int32_t);
                prefetch_c(rows, to, ldc * (int64_t)sizeof(int32_t));
                tile_table[rows](steps, l.data + row * l.stride, l.stride, panel,
                                 next + (t - t0) * steps * stride, stride, tile);
                finish_tile(&z, epilogue, row, first, tile, rows, cols, to, ldc);
                row += rows;
            }
        }
        row0 = row;
    }
}

KERNEL_INIT(gemm_int8)
{
    table->gemm_int8 = (sdx_gemm_int8_kernels){.name = TILE_NAME(TILE_ROWS, TILE_COLS),
                                               .mr = TILE_ROWS,
                                               .nr = TILE_COLS,
                                               .packed_bytes = packed_bytes,
                                               .packed_a_bytes = packed_a_bytes,
                                               .pack_b = pack_b,
                                               .run = run};
}
