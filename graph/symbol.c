/* symbol.c: sizes that are not numbers yet. Sums and products are kept in one normal form, (symbols) * number and
 * (symbols) + number, and interned, so that equal sizes get equal ids by whatever way a graph computed them. */
#include <stdio.h>
#include <string.h>

#include "graph.h"

sdx_element sdx_element_number(int64_t n) { return (sdx_element){n, SDX_ELEMENT_NUMBER}; }

sdx_element sdx_element_from_dim(sdx_dim d)
{
    if (d >= 0) return sdx_element_number(d);
    return (sdx_element){0, sdx_dim_is_symbol(d) ? SDX_DIM_SYMBOL_ID(d) : SDX_ELEMENT_UNKNOWN};
}

sdx_dim sdx_element_to_dim(sdx_element e)
{
    if (e.symbol >= 0) return SDX_DIM_SYMBOL(e.symbol);
    return e.symbol == SDX_ELEMENT_NUMBER && e.number >= 0 ? e.number : SDX_DIM_UNKNOWN;
}

static int add_symbol(sdx_model *m, sdx_symbol s)
{
    if (m->n_symbol == m->cap_symbol) {
        int capacity = m->cap_symbol ? m->cap_symbol * 2 : 16;
        sdx_symbol *grown = sdx_arena_array(&m->arena, (size_t)capacity, sizeof *grown);
        if (!grown) return SDX_NONE;
        if (m->n_symbol) memcpy(grown, m->symbol, (size_t)m->n_symbol * sizeof *grown);
        m->symbol = grown;
        m->cap_symbol = capacity;
    }
    m->symbol[m->n_symbol] = s;
    return m->n_symbol++;
}

int sdx_model_symbol(sdx_model *m, const char *name)
{
    for (int i = 0; i < m->n_symbol; i++)
        if (!m->symbol[i].op && !strcmp(m->symbol[i].name, name)) return i;
    char *own = sdx_arena_strdup(&m->arena, name);
    return own ? add_symbol(m, (sdx_symbol){.name = own}) : SDX_NONE;
}

static bool is_number(sdx_element e) { return e.symbol == SDX_ELEMENT_NUMBER; }
static bool is_symbol(sdx_element e) { return e.symbol >= 0; }
static bool same(sdx_element a, sdx_element b)
{
    return a.symbol == b.symbol && (!is_number(a) || a.number == b.number);
}

static const sdx_element unknown = {0, SDX_ELEMENT_UNKNOWN};

static char *element_text(const sdx_model *m, sdx_element e, char *buf, size_t size)
{
    if (is_symbol(e)) snprintf(buf, size, m->symbol[e.symbol].op ? "(%.60s)" : "%.60s", m->symbol[e.symbol].name);
    else snprintf(buf, size, "%lld", (long long)e.number);
    return buf;
}

/* The interned symbol for an expression that is already in normal form. */
static sdx_element intern(sdx_model *m, char op, sdx_element a, sdx_element b)
{
    for (int i = 0; i < m->n_symbol; i++) {
        const sdx_symbol *s = &m->symbol[i];
        if (s->op == op && same(s->left, a) && same(s->right, b)) return (sdx_element){0, i};
    }
    char left[80], right[80];
    char *name = sdx_arena_printf(&m->arena, "%s %c %s", element_text(m, a, left, sizeof left), op,
                                  element_text(m, b, right, sizeof right));
    int id = name ? add_symbol(m, (sdx_symbol){name, op, a, b}) : SDX_NONE;
    return id >= 0 ? (sdx_element){0, id} : unknown;
}

/* Splits e into rest op number, number being the neutral element when there is none. */
static int64_t split(const sdx_model *m, char op, sdx_element e, sdx_element *rest)
{
    int64_t neutral = op == '*';
    if (is_number(e)) {
        *rest = sdx_element_number(neutral);
        return e.number;
    }
    const sdx_symbol *s = &m->symbol[e.symbol];
    *rest = e;
    if (s->op != op || !is_number(s->right)) return neutral;
    *rest = s->left;
    return s->right.number;
}

static sdx_element join(sdx_model *m, char op, sdx_element rest, int64_t number)
{
    if (number == (op == '*')) return rest;
    if (op == '*' && number == 0) return sdx_element_number(0);
    if (is_number(rest)) return sdx_element_number(number);
    return intern(m, op, rest, sdx_element_number(number));
}

/* a op b for op in {+, *} */
static sdx_element combine(sdx_model *m, char op, sdx_element a, sdx_element b)
{
    sdx_element ra, rb, rest;
    int64_t na = split(m, op, a, &ra), nb = split(m, op, b, &rb), number;
    bool overflow = op == '*' ? __builtin_mul_overflow(na, nb, &number) : __builtin_add_overflow(na, nb, &number);
    if (overflow) return unknown;
    if (is_number(ra)) rest = rb;
    else if (is_number(rb)) rest = ra;
    else rest = ra.symbol <= rb.symbol ? intern(m, op, ra, rb) : intern(m, op, rb, ra);
    return is_symbol(rest) || is_number(rest) ? join(m, op, rest, number) : unknown;
}

static sdx_element divide(sdx_model *m, sdx_element a, sdx_element b)
{
    if (is_number(b) && b.number == 0) return unknown;
    if (same(a, b)) return sdx_element_number(1);
    sdx_element ra, rb;
    int64_t na = split(m, '*', a, &ra), nb = split(m, '*', b, &rb);
    if (nb != 0 && na % nb == 0) { /* the numbers cancel; do the symbols? */
        if (is_number(rb)) return join(m, '*', ra, na / nb);
        if (same(ra, rb)) return sdx_element_number(na / nb);
        const sdx_symbol *s = is_symbol(ra) ? &m->symbol[ra.symbol] : NULL;
        if (s && s->op == '*' && same(s->right, rb)) return join(m, '*', s->left, na / nb);
        if (s && s->op == '*' && same(s->left, rb)) return join(m, '*', s->right, na / nb);
    }
    return intern(m, '/', a, b);
}

static sdx_element arith_numbers(char op, int64_t a, int64_t b)
{
    int64_t r;
    bool bad;
    switch (op) {
    case '+': bad = __builtin_add_overflow(a, b, &r); break;
    case '-': bad = __builtin_sub_overflow(a, b, &r); break;
    case '*': bad = __builtin_mul_overflow(a, b, &r); break;
    default:
        bad = b == 0 || (a == INT64_MIN && b == -1);
        r = bad ? 0 : a / b;
    }
    return bad ? unknown : sdx_element_number(r);
}

sdx_element sdx_model_arith(sdx_model *m, char op, sdx_element a, sdx_element b)
{
    if (a.symbol == SDX_ELEMENT_UNKNOWN || b.symbol == SDX_ELEMENT_UNKNOWN) return unknown;
    if (is_number(a) && is_number(b)) return arith_numbers(op, a.number, b.number);
    switch (op) {
    case '+':
    case '*': return combine(m, op, a, b);
    case '-':
        if (same(a, b)) return sdx_element_number(0);
        if (is_number(b) && b.number != INT64_MIN) return combine(m, '+', a, sdx_element_number(-b.number));
        return intern(m, '-', a, b);
    default: return divide(m, a, b);
    }
}
