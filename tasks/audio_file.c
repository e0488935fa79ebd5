/* audio_file.c: sound files by libsndfile (WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF and more), or, in a build without
 * it (SNDFILE=0, make static: Debian has no static libsndfile), WAV by our own reader. */
#include <string.h>

#include "../base/file.h"
#include "../base/memory.h"
#include "audio.h"

#ifdef SDX_WITH_SNDFILE
#include <sndfile.h>
#include <stdlib.h>

enum { BLOCK_SAMPLES = 1 << 16, MAX_CHANNELS = 1024 };

typedef struct sound { /* what was read so far, mixed to one channel */
    float *sample;
    size_t count, room;
} sound;

static sdx_status add_block(sound *s, const float *frames, size_t n, int channels, sdx_error *err)
{
    if (s->count + n > s->room) {
        size_t room = 2 * (s->count + n);
        float *bigger = sdx_realloc(s->sample, room * sizeof *bigger);
        if (!bigger) return sdx_fail_memory(err, room * sizeof *bigger);
        s->sample = bigger;
        s->room = room;
    }
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (int c = 0; c < channels; c++) sum += frames[i * (size_t)channels + (size_t)c];
        s->sample[s->count++] = (float)(sum / channels);
    }
    return SDX_OK;
}

/* FLAC says how long it is; of the others some estimate it, and a recorder that writes WAV to a pipe cannot know. */
static sdx_status check_end(SNDFILE *file, const SF_INFO *info, const char *path, size_t count, sdx_error *err)
{
    bool exact = (info->format & SF_FORMAT_TYPEMASK) == SF_FORMAT_FLAC && info->frames < SF_COUNT_MAX;
    if (count == 0 && sf_error(file) != SF_ERR_NO_ERROR)
        return sdx_fail(err, SDX_ERR_FILE, "%s: %s", path, sf_strerror(file));
    if (exact && (sf_count_t)count < info->frames)
        return sdx_fail(err, SDX_ERR_FILE, "%s: is cut off or damaged: %zu of its %lld frames can be read", path, count,
                        (long long)info->frames);
    return SDX_OK;
}

/* The header may lie about the length: only what can be read counts. */
static sdx_status read_all(SNDFILE *file, const SF_INFO *info, const char *path, sound *s, sdx_error *err)
{
    if (info->channels < 1 || info->channels > MAX_CHANNELS || info->samplerate < SDX_AUDIO_MIN_RATE ||
        info->samplerate > SDX_AUDIO_MAX_RATE)
        return sdx_fail(err, SDX_ERR_FILE, "%s: %d channels, %d Hz: not a sound", path, info->channels,
                        info->samplerate);
    sdx_status status = SDX_OK;
    sf_count_t room = BLOCK_SAMPLES / info->channels, got;
    float *block = sdx_malloc((size_t)(room * info->channels) * sizeof *block);
    if (!block) return sdx_fail_memory(err, BLOCK_SAMPLES * sizeof *block);
    while (status == SDX_OK && (got = sf_readf_float(file, block, room)) > 0)
        status = add_block(s, block, (size_t)got, info->channels, err);
    if (status == SDX_OK) status = check_end(file, info, path, s->count, err);
    free(block);
    return status;
}

sdx_status sdx_audio_read(const char *path, float **samples, size_t *count, int *rate, sdx_error *err)
{
    SF_INFO info = {0};
    sound s = {0};
    if (!sdx_file_exists(path)) return sdx_fail(err, SDX_ERR_FILE, "%s: no such file, or not readable", path);
    SNDFILE *file = sf_open(path, SFM_READ, &info);
    if (!file)
        return sdx_fail(err, SDX_ERR_FILE, "%s: not a sound file that libsndfile knows: %s", path, sf_strerror(NULL));
    sdx_status status = read_all(file, &info, path, &s, err);
    sf_close(file);
    if (status != SDX_OK) {
        free(s.sample);
        return status;
    }
    *samples = s.sample;
    *count = s.count;
    *rate = info.samplerate;
    return SDX_OK;
}

#else

sdx_status sdx_audio_read(const char *path, float **samples, size_t *count, int *rate, sdx_error *err)
{
    sdx_status status = sdx_audio_read_wav(path, samples, count, rate, err);
    if (status != SDX_OK) sdx_error_context(err, "this build reads WAV only");
    return status;
}

#endif
