/* numpy.h: .npy headers and sparse .npz files. */
#ifndef SDX_CLI_NUMPY_H
#define SDX_CLI_NUMPY_H

#include <stdint.h>
#include <stdio.h>

enum { CLI_NPY_HEADER = 128 }; /* bytes, whatever the shape */
void cli_npy_header(char out[CLI_NPY_HEADER], const char *dtype, int rank, const uint64_t *dim);

/* A row of a sparse matrix, as cli_sparse_rows_to_npz reads it back. */
void cli_sparse_row_write(FILE *out, const char *id, size_t n, const int32_t *index, const float *weight);
/* The .npz of `count` rows of that kind in file `rows`; width: columns. */
int cli_sparse_rows_to_npz(const char *rows, uint64_t count, uint64_t width, const char *path);

#endif
