#!/usr/bin/env python3
"""make_goldens.py OUTDIR [NAME...]: the tiny-* folders of tests/data/zoo, made with PyTorch and transformers 4.57.

Each is a checkpoint of random weights with what PyTorch computes from it: checkpoint/config.json and model.safetensors;
case_K/input_NAME.npy and output_NAME.npy, the second case a batch with padding. Names tell family and head; together
they take every branch of convert/arch. Three heads of eight, so that no size is a power of two by accident.
"""
import os
import shutil
import sys

import numpy as np
import torch
import transformers as tf

VOCAB, LENGTH = 64, 36
SIZES = dict(vocab_size=VOCAB, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
             max_position_embeddings=LENGTH + 4)
NARROW = dict(SIZES, embedding_size=16)
ROBERTA = dict(SIZES, type_vocab_size=1, pad_token_id=1)
DISTIL = dict(vocab_size=VOCAB, dim=24, n_layers=2, n_heads=3, hidden_dim=40, max_position_embeddings=LENGTH + 4)
DEBERTA = dict(SIZES, relative_attention=True, position_buckets=12, norm_rel_ebd="layer_norm", share_att_key=True,
               pos_att_type=["p2c", "c2p"], position_biased_input=False, type_vocab_size=0)
MODERN = dict(SIZES, num_hidden_layers=4, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1,
              sep_token_id=2, local_attention=8, reference_compile=False)
SMALL = dict(SIZES, hidden_size=12, num_hidden_layers=1, intermediate_size=10, max_position_embeddings=LENGTH)
BART = dict(vocab_size=VOCAB, d_model=12, encoder_layers=1, decoder_layers=1, encoder_attention_heads=3,
            decoder_attention_heads=2, encoder_ffn_dim=10, decoder_ffn_dim=8, max_position_embeddings=LENGTH,
            pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2, num_labels=3)
GPT = dict(vocab_size=VOCAB, n_embd=12, n_layer=1, n_head=3, n_positions=LENGTH, pad_token_id=1, num_labels=3)
TYPED, PLAIN = ["input_ids", "attention_mask", "token_type_ids"], ["input_ids", "attention_mask"]
HIDDEN, POOLED = ["last_hidden_state"], ["last_hidden_state", "pooler_output"]
LOGITS, SPANS, SPARSE = ["logits"], ["start_logits", "end_logits"], ["output_idx", "output_weights"]

MODELS = {
    "bert-tokens": (tf.BertForTokenClassification, tf.BertConfig(**SIZES, num_labels=5), TYPED, LOGITS),
    "bert-spans": (tf.BertForQuestionAnswering, tf.BertConfig(**SIZES, hidden_act="silu"), TYPED, SPANS),
    "distilbert-mlm": (tf.DistilBertForMaskedLM, tf.DistilBertConfig(**DISTIL), PLAIN, LOGITS),
    "distilbert-splade": (tf.DistilBertForMaskedLM, tf.DistilBertConfig(**DISTIL), TYPED, SPARSE),
    "distilbert-classify": (tf.DistilBertForSequenceClassification, tf.DistilBertConfig(**DISTIL), PLAIN, LOGITS),
    "roberta-splade": (tf.RobertaForMaskedLM, tf.RobertaConfig(**ROBERTA), TYPED, SPARSE),
    "xlm-roberta-model": (tf.XLMRobertaModel, tf.XLMRobertaConfig(**ROBERTA), PLAIN, POOLED),
    "xlm-roberta-untied": (tf.XLMRobertaForMaskedLM, tf.XLMRobertaConfig(**ROBERTA, tie_word_embeddings=False), PLAIN,
                           LOGITS),
    "camembert-classify": (tf.CamembertForSequenceClassification, tf.CamembertConfig(**ROBERTA, num_labels=3), PLAIN,
                           LOGITS),
    "mpnet-model": (tf.MPNetModel, tf.MPNetConfig(**SIZES), PLAIN, POOLED),
    "mpnet-mlm": (tf.MPNetForMaskedLM, tf.MPNetConfig(**SIZES), PLAIN, LOGITS),
    "electra-mlm": (tf.ElectraForMaskedLM, tf.ElectraConfig(**NARROW), TYPED, LOGITS),
    "electra-replaced": (tf.ElectraForPreTraining, tf.ElectraConfig(**NARROW), TYPED, LOGITS),
    "electra-classify": (tf.ElectraForSequenceClassification, tf.ElectraConfig(**NARROW), TYPED, LOGITS),
    "albert-groups": (tf.AlbertModel, tf.AlbertConfig(**dict(NARROW, num_hidden_layers=4, num_hidden_groups=2,
                                                             inner_group_num=2)), TYPED, POOLED),
    "albert-mlm": (tf.AlbertForMaskedLM, tf.AlbertConfig(**NARROW), TYPED, LOGITS),
    "deberta-v3-mlm": (tf.DebertaV2ForMaskedLM, tf.DebertaV2Config(**DEBERTA), PLAIN, LOGITS),
    "deberta-v3-classify": (tf.DebertaV2ForSequenceClassification, tf.DebertaV2Config(**DEBERTA), PLAIN, LOGITS),
    "deberta-v2-convolution": (tf.DebertaV2Model, tf.DebertaV2Config(**dict(
        DEBERTA, conv_kernel_size=3, conv_groups=2, type_vocab_size=2, position_biased_input=True)), TYPED, HIDDEN),
    "deberta-v2-own-keys": (tf.DebertaV2Model, tf.DebertaV2Config(**dict(
        DEBERTA, share_att_key=False, position_buckets=-1, max_relative_positions=10, norm_rel_ebd="none",
        pos_att_type="c2p|p2c")), PLAIN, HIDDEN),
    "modernbert-mlm": (tf.ModernBertForMaskedLM, tf.ModernBertConfig(**MODERN), PLAIN, LOGITS),
    "modernbert-mean": (tf.ModernBertForSequenceClassification, tf.ModernBertConfig(
        **MODERN, classifier_pooling="mean", norm_bias=True, attention_bias=True, mlp_bias=True, classifier_bias=True,
        hidden_activation="gelu_pytorch_tanh"), PLAIN, LOGITS),
    "bert-relative": (tf.BertModel, tf.BertConfig(**SMALL, position_embedding_type="relative_key_query"), TYPED, POOLED),
    "albert-relative": (tf.AlbertModel, tf.AlbertConfig(**SMALL, embedding_size=8, position_embedding_type="relative_key"),
                        TYPED, POOLED),
    "bert-choice": (tf.BertForMultipleChoice, tf.BertConfig(**SMALL), TYPED, LOGITS),
    "gpt2-classify": (tf.GPT2ForSequenceClassification, tf.GPT2Config(**GPT), PLAIN, LOGITS),
    "bart-classify": (tf.BartForSequenceClassification, tf.BartConfig(**BART), PLAIN, LOGITS),
}


def strengthen(model):
    """Fresh weights are small, and outputs then hardly depend on half the graph."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 1:
                p.add_(torch.randn(p.shape, generator=generator) * 0.1)
            elif "rel_embed" in name or "distance" in name:
                p.mul_(10.0)
            elif "embed" not in name:
                p.mul_(6.0)
    return model.eval()


def make_batch(rows, length, pad, types, generator):
    ids, mask = torch.randint(5, VOCAB, (rows, length), generator=generator), torch.ones(rows, length, dtype=torch.long)
    for row in range(1, rows):
        mask[row, length * (rows - row) // rows:] = 0
    second = torch.arange(length).ge(length // 2).long().expand(rows, -1)
    return {"input_ids": torch.where(mask.bool(), ids, pad), "attention_mask": mask,
            "token_type_ids": second if types else torch.zeros_like(mask)}


def run(model, feed, outputs):
    if outputs != SPARSE:
        return model(**feed, return_dict=True)
    mask = feed["attention_mask"]
    logits = model(input_ids=feed["input_ids"], attention_mask=mask).logits
    vector = torch.max(torch.log1p(torch.relu(logits)) * mask.unsqueeze(-1), dim=1).values
    places = vector.nonzero(as_tuple=True)
    return {"output_idx": places[1], "output_weights": vector[places]}


def make(folder, kind, config, inputs, outputs):
    torch.manual_seed(1)
    model = strengthen(kind._from_config(config, attn_implementation="eager"))
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(f"{folder}/checkpoint", safe_serialization=True)
    generator = torch.Generator().manual_seed(5)
    types = "token_type_ids" in inputs and getattr(config, "type_vocab_size", 0) > 1 and outputs != SPARSE
    for k, (rows, length) in enumerate([(1, 7), (1 if outputs == SPARSE else 3, LENGTH)]):
        batch = make_batch(rows, length, config.pad_token_id, types, generator)
        if kind is tf.BartForSequenceClassification:  # reads what stands over the last token that ends a text
            last = batch["attention_mask"].sum(1) - 1
            batch["input_ids"][torch.arange(rows), last] = config.eos_token_id
        feed = {name: batch[name] for name in inputs}
        if kind is tf.BertForMultipleChoice:
            feed = {name: torch.stack([feed[name], feed[name].flip(0)], 1) for name in inputs}
        with torch.no_grad():
            made = run(model, feed, outputs)
        os.makedirs(f"{folder}/case_{k}")
        for name, tensor in feed.items():
            np.save(f"{folder}/case_{k}/input_{name}.npy", tensor.numpy())
        for name in outputs:
            np.save(f"{folder}/case_{k}/output_{name}.npy", made[name].numpy())


def main(out, names):
    torch.set_num_threads(1)
    for name in names or MODELS:
        make(f"{out}/tiny-{name}", *MODELS[name])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
