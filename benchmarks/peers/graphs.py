"""T5 as two ONNX graphs, an encoder and one step of its decoder, of the modules of transformers.

B rows, P prompts, S source tokens, T tokens so far, H heads, D of a head, M width, V vocabulary,
K of the top.

The step gets the keys and values of the tokens before it, and gives those of its own token, which
the caller writes behind them: nothing that grows is copied in the graph. Draws, too, are the
caller's: the step takes the best of the top k after it has added the caller's Gumbel noise.
"""

import os
import pathlib
import warnings

import torch
import transformers

from benchmarks.peers.loop import TOP_K


class Encoder(torch.nn.Module):
    """Keys and values of the cross-attention of all layers, each PxHxSxD."""

    def __init__(self, model: transformers.T5ForConditionalGeneration) -> None:
        super().__init__()
        self.encoder, self.layers = model.encoder, model.decoder.block

    def forward(self, ids_PxS: torch.Tensor, mask_PxS: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Of each layer the keys, then the values."""
        encoded = self.encoder(input_ids=ids_PxS, attention_mask=mask_PxS).last_hidden_state
        cross = [layer.layer[1].EncDecAttention for layer in self.layers]
        return tuple(split(of(encoded), a.n_heads) for a in cross for of in (a.k, a.v))


class Step(torch.nn.Module):
    """One token of each row."""

    def __init__(self, model: transformers.T5ForConditionalGeneration) -> None:
        super().__init__()
        self.decoder, self.head = model.decoder, model.lm_head

    def forward(
        self,
        tokens_B: torch.Tensor,
        self_bias_1xHx1xT: torch.Tensor,
        cross_bias_Bx1x1xS: torch.Tensor,
        noise_BxK: torch.Tensor,
        *caches: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """The next tokens, and the keys and values of these ones.

        Args:
            tokens_B: the last ones.
            self_bias_1xHx1xT: relative positions of the cached tokens and, last, of this one; far
                below zero where the cache holds nothing.
            cross_bias_Bx1x1xS: far below zero at padding.
            noise_BxK: Gumbel noise.
            *caches: of each layer: own keys and values, those of the source.
        """
        x_Bx1xM = self.decoder.embed_tokens(tokens_B)[:, None]
        made = []
        for i, block in enumerate(self.decoder.block):
            own, cross, feed_forward = block.layer
            old_k, old_v, source_k, source_v = caches[4 * i : 4 * i + 4]
            a, y = own.SelfAttention, own.layer_norm(x_Bx1xM)
            q, k, v = (split(of(y), a.n_heads) for of in (a.q, a.k, a.v))
            scores = torch.cat([q @ old_k.transpose(2, 3), (q * k).sum(-1, keepdim=True)], -1)
            p = (scores + self_bias_1xHx1xT).softmax(-1)
            x_Bx1xM = x_Bx1xM + a.o(join(p[..., :-1] @ old_v + p[..., -1:] * v))
            a, y = cross.EncDecAttention, cross.layer_norm(x_Bx1xM)
            scores = split(a.q(y), a.n_heads) @ source_k.transpose(2, 3)
            p = (scores + cross_bias_Bx1x1xS).softmax(-1)
            x_Bx1xM = feed_forward(x_Bx1xM + a.o(join(p @ source_v)))
            made += [k, v]
        logits_BxV = self.head(self.decoder.final_layer_norm(x_Bx1xM))[:, 0]
        top_BxK, ids_BxK = logits_BxV.topk(noise_BxK.shape[-1])
        best_Bx1 = (top_BxK + noise_BxK).argmax(-1, keepdim=True)
        return ids_BxK.gather(-1, best_Bx1)[:, 0], *made


def split(x_BxTxM: torch.Tensor, heads: int) -> torch.Tensor:
    """BxHxTxD."""
    batch, length, width = x_BxTxM.shape
    return x_BxTxM.view(batch, length, heads, width // heads).transpose(1, 2)


def join(x_BxHx1xD: torch.Tensor) -> torch.Tensor:
    """Bx1xM."""
    return x_BxHx1xD.transpose(1, 2).flatten(2)


def names(kind: str, layers: int) -> list[str]:
    """Of the keys and values of all layers, in their order."""
    return [f"{kind}_{part}{layer}" for layer in range(layers) for part in "kv"]


def own_bias(model: transformers.T5ForConditionalGeneration, length: int) -> torch.Tensor:
    """HxT: the bias of a token so far back."""
    attention = model.decoder.block[0].layer[0].SelfAttention
    with torch.inference_mode():
        return attention.compute_bias(length, length)[0, :, -1].flip(-1)


def export(folder: str) -> tuple[pathlib.Path, pathlib.Path, torch.Tensor]:
    """Files of encoder and step, written beside the model if need be, and `own_bias`."""
    model = transformers.T5ForConditionalGeneration.from_pretrained(
        folder, attn_implementation="eager"
    ).eval()
    encoder, step = (pathlib.Path(f"{folder}-{part}.onnx") for part in ("encoder", "step"))
    layers, heads, width = (
        model.config.num_decoder_layers,
        model.config.num_heads,
        model.config.d_kv,
    )
    new, own, source = (names(kind, layers) for kind in ("new", "own", "source"))
    if not encoder.exists():
        ids = torch.ones(2, 7, dtype=torch.long)
        axes = {name: {0: "P", 1: "S"} for name in ("ids", "mask")}
        axes |= {name: {0: "P", 2: "S"} for name in source}
        _export(Encoder(model), (ids, ids), encoder, ["ids", "mask"], source, axes)
    if not step.exists():
        inputs = ["tokens", "self_bias", "cross_bias", "noise"]
        examples = [
            torch.zeros(2, dtype=torch.long),
            torch.zeros(1, heads, 1, 6),
            torch.zeros(2, 1, 1, 7),
            torch.zeros(2, TOP_K),
        ]
        for layer in range(layers):
            inputs += [*own[2 * layer : 2 * layer + 2], *source[2 * layer : 2 * layer + 2]]
            examples += [torch.zeros(2, heads, length, width) for length in (5, 5, 7, 7)]
        axes = {name: {0: "B"} for name in ("tokens", "noise", "next", *new)}
        axes |= {"self_bias": {3: "T+1"}, "cross_bias": {0: "B", 3: "S"}}
        axes |= {name: {0: "B", 2: "T"} for name in own}
        axes |= {name: {0: "B", 2: "S"} for name in source}
        _export(Step(model), tuple(examples), step, inputs, ["next", *new], axes)
    return encoder, step, own_bias(model, 512)


def _export(
    module: torch.nn.Module,
    examples: tuple[torch.Tensor, ...],
    file: pathlib.Path,
    inputs: list[str],
    outputs: list[str],
    axes: dict[str, dict[int, str]],
) -> None:
    """By the exporter that traces, which needs nothing but `onnx`."""
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            examples,
            unfinished := file.with_suffix(".unfinished"),
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=axes,
            dynamo=False,
            opset_version=17,
        )
    os.replace(unfinished, file)
