/* audio.h: sound files in, samples at the rate a model wants out. */
#ifndef SDX_TASKS_AUDIO_H
#define SDX_TASKS_AUDIO_H

#include "../base/status.h"

/* Samples at another rate, in new memory (free). Both rates are above 0. */
sdx_status sdx_audio_resample(const float *in, size_t count, int from, int to, float **out, size_t *out_count,
                              sdx_error *err);
/* A whole WAV file in memory; path is for messages. As sdx_audio_read_wav. */
sdx_status sdx_audio_parse_wav(const char *path, const unsigned char *bytes, size_t size, float **samples,
                               size_t *count, int *rate, sdx_error *err);

#endif
