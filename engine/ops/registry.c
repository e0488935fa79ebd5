/* registry.c: the list of operator families; see ops.h. */
#include "ops.h"

#define TABLE(family) &sdx_ops_##family,

static const sdx_op_table *const tables[] = {SDX_OP_FAMILIES(TABLE)};

const sdx_op_registry sdx_operators = {tables, sizeof tables / sizeof *tables};
