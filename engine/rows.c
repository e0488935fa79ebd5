/* rows.c: test builds only (SDX_ALLOC_FAILURE): which rows of the operator table a process has run. At its end they are
 * added to the file that the environment variable SDX_ROWS names; tests/onnx/rows.py compares with the table. */
#ifdef SDX_ALLOC_FAILURE

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "ops/ops.h"
#include "engine.h"

enum { MOST = 1024 };
static atomic_bool ran[MOST];
static atomic_bool registered;

static void write_rows(void)
{
    FILE *f = fopen(getenv("SDX_ROWS"), "a");
    for (size_t i = 0; f && i < sdx_operator_count() && i < MOST; i++) {
        sdx_op_info op = sdx_operator_at(i);
        if (ran[i]) fprintf(f, "%s %s %d\n", op.domain, op.name, op.since);
    }
    if (f) fclose(f);
}

void sdx_row_ran(const sdx_op_def *def)
{
    if (!getenv("SDX_ROWS")) return;
    if (!atomic_exchange(&registered, true)) atexit(write_rows);
    size_t at = 0;
    for (size_t t = 0; t < sdx_operators.count; at += sdx_operators.table[t++]->count) {
        const sdx_op_table *table = sdx_operators.table[t];
        if (def < table->row || def >= table->row + table->count) continue;
        at += (size_t)(def - table->row);
        if (at < MOST) ran[at] = true;
        return;
    }
}

#else
typedef int sdx_no_rows; /* a translation unit holds something */
#endif
