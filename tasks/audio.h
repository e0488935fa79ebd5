/* audio.h: sound files in, samples at the rate a model wants out. */
#ifndef SDX_TASKS_AUDIO_H
#define SDX_TASKS_AUDIO_H

#include "../base/status.h"

/* Rates, in Hz, that are taken for a sound's: below them a small file would grow to gigabytes at the model's rate. */
enum { SDX_AUDIO_MIN_RATE = 1000, SDX_AUDIO_MAX_RATE = 768000 };

/* Samples at another rate, in new memory (free). Both rates are in the range above. */
sdx_status sdx_audio_resample(const float *in, size_t count, int from, int to, float **out, size_t *out_count,
                              sdx_error *err);
/* A WAV file (PCM of 8, 16, 24 or 32 bits, or float), as sdx_audio_read. */
sdx_status sdx_audio_read_wav(const char *path, float **samples, size_t *count, int *rate, sdx_error *err);
/* The same of a whole file in memory; path is for messages. */
sdx_status sdx_audio_parse_wav(const char *path, const unsigned char *bytes, size_t size, float **samples,
                               size_t *count, int *rate, sdx_error *err);

#endif
