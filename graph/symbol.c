/* symbol.c: sizes that are not numbers yet. Sums, products and quotients are brought into one normal form, like
 * terms gathered and common factors cancelled, and interned, so that equal sizes get equal ids by whatever way
 * a graph computed them: (past + sequence) - past is sequence. */
#include <stdio.h>
#include <string.h>

#include "graph.h"

sdx_element sdx_element_number(int64_t n)
{
    return (sdx_element){n, SDX_ELEMENT_NUMBER};
}

sdx_element sdx_element_from_dim(sdx_dim d)
{
    if (d >= 0) return sdx_element_number(d);
    return (sdx_element){0, sdx_dim_is_symbol(d) ? SDX_DIM_SYMBOL_ID(d) : SDX_ELEMENT_UNKNOWN};
}

bool sdx_element_same(sdx_element a, sdx_element b)
{
    return a.symbol == b.symbol && a.symbol != SDX_ELEMENT_UNKNOWN &&
           (a.symbol != SDX_ELEMENT_NUMBER || a.number == b.number);
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
        if (!m->symbol[i].op && !strcmp(m->symbol[i].name, name))
            return sdx_model_resolve_element(m, (sdx_element){0, i}).symbol;
    char *own = sdx_arena_strdup(&m->arena, name);
    return own ? add_symbol(m, (sdx_symbol){.name = own}) : SDX_NONE;
}

void sdx_model_equate(sdx_model *m, int a, int b)
{
    a = sdx_model_resolve_element(m, (sdx_element){0, a}).symbol;
    b = sdx_model_resolve_element(m, (sdx_element){0, b}).symbol;
    if (a == b) return;
    sdx_symbol *s = &m->symbol[a > b ? a : b];
    s->replaced = true;
    s->instead = (sdx_element){0, a > b ? b : a};
}

sdx_element sdx_model_resolve_element(const sdx_model *m, sdx_element e)
{
    while (e.symbol >= 0 && m->symbol[e.symbol].replaced) e = m->symbol[e.symbol].instead;
    return e;
}

static bool is_number(sdx_element e)
{
    return e.symbol == SDX_ELEMENT_NUMBER;
}
static bool is_symbol(sdx_element e)
{
    return e.symbol >= 0;
}
static bool same(sdx_element a, sdx_element b)
{
    return a.symbol == b.symbol && (!is_number(a) || a.number == b.number);
}

static const sdx_element unknown = {0, SDX_ELEMENT_UNKNOWN};

static char *element_text(const sdx_model *m, sdx_element e, char *buf, size_t size)
{
    if (is_symbol(e))
        snprintf(buf, size, m->symbol[e.symbol].op ? "(%.60s)" : "%.60s", m->symbol[e.symbol].name);
    else
        snprintf(buf, size, "%lld", (long long)e.number);
    return buf;
}

/* The interned symbol for an expression that is already in normal form. */
static sdx_element intern(sdx_model *m, char op, sdx_element a, sdx_element b)
{
    for (int i = 0; i < m->n_symbol; i++) {
        const sdx_symbol *s = &m->symbol[i];
        if (s->op == op && same(s->left, a) && same(s->right, b))
            return sdx_model_resolve_element(m, (sdx_element){0, i});
    }
    char left[80], right[80];
    char *name = sdx_arena_printf(&m->arena, "%s %c %s", element_text(m, a, left, sizeof left), op,
                                  element_text(m, b, right, sizeof right));
    int id = name ? add_symbol(m, (sdx_symbol){.name = name, .op = op, .left = a, .right = b}) : SDX_NONE;
    return id >= 0 ? (sdx_element){0, id} : unknown;
}

/* ---- sums: n1 * a + n2 * b + ... + n, terms in the order of their ids -------------------------------------
 */

enum { MOST_PARTS = 16, DEEPEST = 32 };

typedef struct sum {
    struct {
        sdx_element of;
        int64_t times;
    } term[MOST_PARTS];
    int count;
    int64_t number;
} sum;

static bool add_term(sum *s, sdx_element of, int64_t times)
{
    int at = 0;
    while (at < s->count && s->term[at].of.symbol < of.symbol) at++;
    if (at < s->count && s->term[at].of.symbol == of.symbol)
        return !__builtin_add_overflow(s->term[at].times, times, &s->term[at].times);
    if (s->count == MOST_PARTS) return false;
    memmove(&s->term[at + 1], &s->term[at], (size_t)(s->count++ - at) * sizeof *s->term);
    s->term[at].of = of;
    s->term[at].times = times;
    return true;
}

/* Adds e * times. */
static bool read_sum(const sdx_model *m, sdx_element e, int64_t times, int depth, sum *s)
{
    int64_t product;
    if (is_number(e))
        return !__builtin_mul_overflow(e.number, times, &product) &&
               !__builtin_add_overflow(s->number, product, &s->number);
    const sdx_symbol *x = &m->symbol[e.symbol];
    if (depth == 0) return false;
    if (x->op == '+')
        return read_sum(m, x->left, times, depth - 1, s) && read_sum(m, x->right, times, depth - 1, s);
    if (x->op == '*' && is_number(x->right))
        return !__builtin_mul_overflow(times, x->right.number, &product) &&
               read_sum(m, x->left, product, depth - 1, s);
    return add_term(s, e, times);
}

/* x / n with a number n */
static bool is_quotient(const sdx_model *m, sdx_element e)
{
    return is_symbol(e) && m->symbol[e.symbol].op == '/' && is_number(m->symbol[e.symbol].right);
}

static sdx_element add(sdx_model *m, sdx_element a, sdx_element b, int64_t times);

/* x / n + k is (x + k n) / n: sizes are not negative, so division rounds down. With that, a chain of
 * convolutions is one quotient, however it was spelled. */
static sdx_element into_quotient(sdx_model *m, sdx_element e, int64_t k)
{
    sdx_element x = m->symbol[e.symbol].left, n = m->symbol[e.symbol].right;
    x = add(m, x, n, k);
    return is_symbol(x) ? intern(m, '/', x, n) : unknown;
}

static sdx_element write_sum(sdx_model *m, const sum *s)
{
    sdx_element e = sdx_element_number(0);
    for (int i = 0; i < s->count; i++) {
        if (s->term[i].times == 0) continue;
        sdx_element t = s->term[i].of;
        if (s->term[i].times != 1) t = intern(m, '*', t, sdx_element_number(s->term[i].times));
        e = is_number(e) ? t : intern(m, '+', e, t);
        if (!is_symbol(e)) return unknown;
    }
    if (is_number(e)) return sdx_element_number(s->number);
    if (s->number && is_quotient(m, e)) return into_quotient(m, e, s->number);
    return s->number ? intern(m, '+', e, sdx_element_number(s->number)) : e;
}

static sdx_element add(sdx_model *m, sdx_element a, sdx_element b, int64_t times)
{
    sum s = {.count = 0};
    return read_sum(m, a, 1, DEEPEST, &s) && read_sum(m, b, times, DEEPEST, &s) ? write_sum(m, &s) : unknown;
}

/* ---- products: a * b * ... * n, factors in the order of their ids; a factor may be a sum -------------------
 */

typedef struct product {
    sdx_element factor[MOST_PARTS];
    int count;
    int64_t number;
} product;

static bool read_product(const sdx_model *m, sdx_element e, int depth, product *p)
{
    if (is_number(e)) return !__builtin_mul_overflow(p->number, e.number, &p->number);
    const sdx_symbol *x = &m->symbol[e.symbol];
    if (depth == 0) return false;
    if (x->op == '*') return read_product(m, x->left, depth - 1, p) && read_product(m, x->right, depth - 1, p);
    if (p->count == MOST_PARTS) return false;
    int at = p->count++;
    for (; at > 0 && p->factor[at - 1].symbol > e.symbol; at--) p->factor[at] = p->factor[at - 1];
    p->factor[at] = e;
    return true;
}

static sdx_element write_product(sdx_model *m, const product *p)
{
    if (p->count == 0 || p->number == 0) return sdx_element_number(p->number);
    sdx_element e = p->factor[0];
    for (int i = 1; i < p->count && is_symbol(e); i++) e = intern(m, '*', e, p->factor[i]);
    return is_symbol(e) && p->number != 1 ? intern(m, '*', e, sdx_element_number(p->number)) : e;
}

static sdx_element multiply(sdx_model *m, sdx_element a, sdx_element b)
{
    product p = {.number = 1};
    return read_product(m, a, DEEPEST, &p) && read_product(m, b, DEEPEST, &p) ? write_product(m, &p) : unknown;
}

/* Removes the factors that stand in both. */
static void cancel(product *a, product *b)
{
    int left = 0;
    for (int i = 0; i < a->count; i++) {
        int k = 0;
        while (k < b->count && b->factor[k].symbol != a->factor[i].symbol) k++;
        if (k == b->count)
            a->factor[left++] = a->factor[i];
        else
            memmove(&b->factor[k], &b->factor[k + 1], (size_t)(--b->count - k) * sizeof *b->factor);
    }
    a->count = left;
}

static int64_t greatest_divisor(int64_t a, int64_t b)
{
    while (b != 0) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static sdx_element divide(sdx_model *m, sdx_element a, sdx_element b)
{
    product x = {.number = 1}, y = {.number = 1};
    if (!read_product(m, a, DEEPEST, &x) || !read_product(m, b, DEEPEST, &y) || y.number <= 0 || x.number < 0)
        return unknown;
    cancel(&x, &y);
    int64_t common = greatest_divisor(x.number, y.number);
    x.number /= common;
    y.number /= common;
    a = write_product(m, &x);
    b = write_product(m, &y);
    if (is_number(b) && b.number == 1) return a;
    int64_t all;
    if (is_number(b) && is_quotient(m, a) &&
        !__builtin_mul_overflow(m->symbol[a.symbol].right.number, b.number, &all))
        return divide(m, m->symbol[a.symbol].left, sdx_element_number(all));
    return a.symbol == SDX_ELEMENT_UNKNOWN || b.symbol == SDX_ELEMENT_UNKNOWN ? unknown : intern(m, '/', a, b);
}

static sdx_element arith_numbers(char op, int64_t a, int64_t b)
{
    int64_t r;
    bool bad;
    switch (op) {
    case '+': bad = __builtin_add_overflow(a, b, &r); break;
    case '-': bad = __builtin_sub_overflow(a, b, &r); break;
    case '*': bad = __builtin_mul_overflow(a, b, &r); break;
    case '<': return sdx_element_number(a < b ? a : b);
    default: bad = b == 0 || (a == INT64_MIN && b == -1); r = bad ? 0 : a / b;
    }
    return bad ? unknown : sdx_element_number(r);
}

sdx_element sdx_model_arith(sdx_model *m, char op, sdx_element a, sdx_element b)
{
    if (a.symbol == SDX_ELEMENT_UNKNOWN || b.symbol == SDX_ELEMENT_UNKNOWN) return unknown;
    a = sdx_model_resolve_element(m, a);
    b = sdx_model_resolve_element(m, b);
    if (is_number(a) && is_number(b)) return arith_numbers(op, a.number, b.number);
    switch (op) {
    case '+': return add(m, a, b, 1);
    case '-': return add(m, a, b, -1);
    case '*': return multiply(m, a, b);
    case '<':
        if (same(a, b)) return a;
        return is_number(b) || (is_symbol(a) && a.symbol < b.symbol) ? intern(m, op, a, b)
                                                                     : intern(m, op, b, a);
    default: return divide(m, a, b);
    }
}
