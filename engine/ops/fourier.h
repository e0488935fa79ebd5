/* fourier.h: the discrete Fourier transform of any length n, in O(n log n): powers of two by the radix-2 FFT,
 * other lengths by Bluestein's chirp transform (L. I. Bluestein, "A linear filtering approach to the
 * computation of the discrete Fourier transform", 1970), which is a convolution and so three FFTs of a power of
 * two >= 2n - 1. */
#ifndef SDX_OPS_FOURIER_H
#define SDX_OPS_FOURIER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct sdx_complex {
    double re, im;
} sdx_complex;

typedef struct sdx_fourier {
    int64_t n, padded;     /* padded: length of the FFTs; n itself when that is a power of two */
    sdx_complex *root;     /* [padded/2]: e^(-2 pi i k / padded) */
    sdx_complex *chirp;    /* [n]: e^(-pi i k^2 / n); NULL when n is padded */
    sdx_complex *response; /* [padded]: FFT of the conjugate chirp */
} sdx_fourier;

/* Bytes for the tables, and for the scratch of one worker: enough for every length up to n. False: n is absurd.
 */
bool sdx_fourier_bytes(int64_t n, size_t *tables, size_t *scratch);
/* Fills the tables; memory is SDX_ALIGN-aligned. n >= 1. */
void sdx_fourier_init(sdx_fourier *f, int64_t n, void *memory);
/* x[n] becomes sum_k x[k] e^(-+2 pi i jk/n): minus, or plus when inverse; without the factor 1/n. */
void sdx_fourier_run(const sdx_fourier *f, bool inverse, sdx_complex *x, void *scratch);

#endif
