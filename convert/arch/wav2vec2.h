/* wav2vec2.h: what wav2vec 2.0 and HuBERT are made of, for wav2vec2.c (settings, tensors, graph) and
 * wav2vec2_reference.c (plain arithmetic). */
#ifndef SDX_CONVERT_WAV2VEC2_H
#define SDX_CONVERT_WAV2VEC2_H

#include "../encoder.h"

enum {
    CTC = SDX_OWN_PART,
    GROUP_NORM = CTC << 1,
    LAYER_NORMS = CTC << 2,
    CONV_BIAS = CTC << 3,
    PROJECTION_NORM = CTC << 4,
    NEW_NAMES = CTC << 5, /* of the weight norm's two tensors: PyTorch 2.1 renamed them */
    OLD_NAMES = CTC << 6,
    BATCH_NORM = CTC << 7,      /* in front of the positions' convolution, whose weight then is as it stands */
    PROJECTOR = CTC << 8,       /* and the classifier of whole sounds behind it */
    FRAMES = CTC << 9,          /* the classifier of frames */
    LAYER_SUM = CTC << 10,      /* classifiers read a weighted sum of all layers */
    LAYER_ADAPTERS = CTC << 11, /* of MMS: a narrow pair of layers behind each layer */
    ADAPTER = CTC << 12,        /* convolutions behind the last layer that leave fewer frames */
    ADAPTER_PROJECTION = CTC << 13,
    ADAPTER_PAD = 1, /* frames in front and behind; config.json has no say */
    MOST_LAYERS = 1 << 10,
};
/* PyTorch's default: config.json does not reach the norms of convolutions and adapters */
#define PLAIN_NORM_EPSILON 1e-5

#define CONV         "feature_extractor.conv_layers."
#define POSITION     "encoder.pos_conv_embed.conv"
#define BATCH        "encoder.pos_conv_embed.batch_norm"
#define ADAPTER_CONV "adapter.layers."

extern const sdx_layer_names sdx_wav2vec2_layer;

/* The weight norm's magnitude g [1, 1, K] and direction v [H, D, K] by their names, new or old. */
const char *sdx_wav2vec2_norm_name(unsigned parts, bool magnitude);

const double *sdx_wav2vec2_forward_model(sdx_forward *f, const sdx_settings *s);
const double *sdx_wav2vec2_forward_ctc(sdx_forward *f, const sdx_settings *s);
const double *sdx_wav2vec2_forward_sound_classifier(sdx_forward *f, const sdx_settings *s);
const double *sdx_wav2vec2_forward_frame_classifier(sdx_forward *f, const sdx_settings *s);

#endif
