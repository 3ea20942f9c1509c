"""The demo's networks: terratorch's own classes at widths that its presets cannot express.

Sizes come from a plain config dict (``demo/config.json``). torch and terratorch are imported late.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from terramind_xr.errors import OptionError
from terramind_xr.facts import PATCH, TILE, modalities

if TYPE_CHECKING:
    from terratorch.models.backbones.terramind.model.terramind import TerraMind
    from terratorch.models.backbones.terramind.tokenizer.vqvae import VQVAE, DiVAE

Config = Mapping[str, Any]

_BY_TOKEN_KEY = {modality.token_key: name for name, modality in modalities.items()}


def build_backbone(config: Config) -> TerraMind:
    """Build the demo's encoder and decoder, with random weights.

    Parameters
    ----------
    config
        ``config["backbone"]`` holds ``dim``, ``encoder_depth``, ``decoder_depth``, ``num_heads``, and the
        keys of terratorch's ``MODALITY_INFO`` that the encoder reads (``inputs``) and the decoder writes
        (``outputs``); vocabularies follow the codebooks in ``config["tokenizers"]``.

    Returns
    -------
    TerraMind
        In evaluation mode, on the CPU. Pixels in standardised units, tiles of 224.
    """
    from functools import partial

    from terratorch.models.backbones.terramind.model.decoder_embeddings import ImageTokenDecoderEmbedding
    from terratorch.models.backbones.terramind.model.encoder_embeddings import (
        ImageEncoderEmbedding,
        ImageTokenEncoderEmbedding,
    )
    from terratorch.models.backbones.terramind.model.modality_info import MODALITY_INFO
    from terratorch.models.backbones.terramind.model.terramind import TerraMind
    from terratorch.models.backbones.terramind.model.tm_utils import LayerNorm

    size: Config = config["backbone"]
    grid = {"patch_size": PATCH, "image_size": TILE}

    def encoder_embedding(key: str) -> Any:
        if key in _BY_TOKEN_KEY:
            return ImageTokenEncoderEmbedding(vocab_size=_vocabulary(config, key), **grid)
        return ImageEncoderEmbedding(num_channels=MODALITY_INFO[key]["num_channels"], **grid)

    model = TerraMind(
        encoder_embeddings={key: encoder_embedding(key) for key in size["inputs"]},
        decoder_embeddings={
            key: ImageTokenDecoderEmbedding(vocab_size=_vocabulary(config, key), **grid)
            for key in size["outputs"]
        },
        modality_info={key: MODALITY_INFO[key] for key in {*size["inputs"], *size["outputs"]}},
        dim=size["dim"],
        encoder_depth=size["encoder_depth"],
        decoder_depth=size["decoder_depth"],
        num_heads=size["num_heads"],
        norm_layer=partial(LayerNorm, eps=1e-6, bias=False),  # as terramind_v1_tiny
    )
    return model.eval()


def build_tokenizer(config: Config, modality: str) -> VQVAE | DiVAE:
    """Build the demo's tokenizer of a modality, with random weights.

    Parameters
    ----------
    config
        ``config["tokenizers"][modality]`` holds the ``codebook`` (levels of the finite scalar quantizer)
        and the arguments of the ``encoder`` and the ``decoder`` networks.
    modality
        ``"LULC"`` gives a VQ-VAE (one-hot of 10 channels in, logits of 10 classes out), any other a DiVAE
        (standardised units in and out).

    Returns
    -------
    VQVAE or DiVAE
        In evaluation mode, on the CPU.

    Raises
    ------
    OptionError
        If the demo has no tokenizer of that modality.
    """
    import torch
    from terratorch.models.backbones.terramind.tokenizer.vqvae import VQVAE, DiVAE

    if modality not in config["tokenizers"]:
        available = ", ".join(config["tokenizers"])
        raise OptionError(f"The demo model has no tokenizer of {modality!r}; it has {available}.")
    size: Config = config["tokenizers"][modality]
    # The constructors would build full-size networks first: they are left out, and what the inherited
    # methods read is set here.
    kind = VQVAE if modality == "LULC" else DiVAE
    model = kind.__new__(kind)
    torch.nn.Module.__init__(model)
    _add_encoder(model, size, channels=10 if modality == "LULC" else len(modalities[modality].bands))
    if modality == "LULC":
        _add_transformer_decoder(model, size)
    else:
        _add_diffusion_decoder(model, size)
    result: VQVAE | DiVAE = model.eval()
    return result


def built(model: Any) -> dict[str, str]:
    """Entries of a state dict that files leave out, by the entry that says them again.

    Embeddings of tokens serve as input and as output, and come twice. Constants (position embeddings,
    bases of the quantizer) name themselves: a model is built with them. `model` is as it was built: of one
    that was frozen since, all would be constants.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    learned = {key: parameter for key, parameter in parameters.items() if parameter.requires_grad}
    first: dict[int, str] = {}
    for key, parameter in learned.items():
        first.setdefault(id(parameter), key)
    source = {key: first[id(learned[key])] if key in learned else key for key in model.state_dict()}
    return {key: said for key, said in source.items() if key not in learned or said != key}


def _vocabulary(config: Config, token_key: str) -> int:
    return math.prod(config["tokenizers"][_BY_TOKEN_KEY[token_key]]["codebook"])


def _add_encoder(model: Any, size: Config, channels: int) -> None:
    import torch
    from terratorch.models.backbones.terramind.tokenizer.models.vit_models import ViTEncoder
    from terratorch.models.backbones.terramind.tokenizer.quantizers import FiniteScalarQuantizer

    model.image_size, model.patch_size, model.n_channels = TILE, PATCH, channels
    model.n_labels = model.cls_emb = None
    model.undo_std = model.freeze_enc = False
    model.quant_type, model.codebook_size = "fsq", "-".join(map(str, size["codebook"]))
    model.latent_dim = len(size["codebook"])
    model.encoder = ViTEncoder(in_channels=channels, patch_size=PATCH, resolution=TILE, **size["encoder"])
    model.enc_dim = model.encoder.dim_tokens
    model.quant_proj = torch.nn.Conv2d(model.enc_dim, model.latent_dim, 1)
    model.quantize = FiniteScalarQuantizer(codebook_size=model.codebook_size)


def _add_transformer_decoder(model: Any, size: Config) -> None:
    import torch
    from terratorch.models.backbones.terramind.tokenizer.models.vit_models import ViTDecoder

    model.decoder = ViTDecoder(
        out_channels=model.n_channels, patch_size=PATCH, resolution=TILE, **size["decoder"]
    )
    model.dec_dim = model.decoder.dim_tokens
    model.post_quant_proj = torch.nn.Conv2d(model.latent_dim, model.dec_dim, 1)


def _add_diffusion_decoder(model: Any, size: Config) -> None:
    from terratorch.models.backbones.terramind.tokenizer.models.unet.unet import PatchedUNetCondCat
    from terratorch.models.backbones.terramind.tokenizer.scheduling import DDIMScheduler, PipelineCond

    model.decoder = PatchedUNetCondCat(
        in_channels=model.n_channels,
        out_channels=model.n_channels,
        cond_channels=model.latent_dim,
        image_size=TILE,
        **size["decoder"],
    )
    # As upstream's tokenizers: the settings of terramind_v1_tokenizer_ndvi in tokenizer_register.py
    settings = {
        "num_train_timesteps": 1000,
        "beta_schedule": "linear",
        "prediction_type": "sample",
        "clip_sample": True,
        "thresholding": True,
        "zero_terminal_snr": True,
    }
    for name, value in settings.items():
        setattr(model, name, value)
    model.cfg_dist, model.masked_cfg = None, False
    model.noise_scheduler = DDIMScheduler(**settings)
    model.pipeline = PipelineCond(
        model=model.decoder, scheduler=model.noise_scheduler, n_channels=model.n_channels
    )
