"""Full-shape models with random weights, saved as the released files are: what the hub would give."""

from __future__ import annotations

import warnings
from pathlib import Path


def save_random_backbone(folder: Path, size: str = "tiny", seed: int = 0) -> Path:
    """State dict of TerraMind with the embeddings of every released modality, under the hub's file name."""
    import torch
    from terratorch.models.backbones.terramind.model.modality_info import MODALITY_INFO

    from terramind_xr.model.weights import build_backbone

    raw = [key for key in MODALITY_INFO if key.startswith("untok_")]
    tokens = [f"tok_{name}@224" for name in ("sen2l2a", "sen1grd", "sen1rtc", "dem", "lulc", "ndvi")]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_backbone(f"terramind_v1_{size}", (*raw, *tokens), tuple(tokens))
    path = Path(folder) / f"TerraMind_v1_{size}.pt"
    torch.save(model.state_dict(), path)
    return path


def save_random_tokenizer(folder: Path, modality: str, seed: int = 0) -> Path:
    """State dict of a tokenizer; layers that start at zero get random numbers, or nothing would be tested."""
    import torch
    from terratorch.models.backbones.terramind.tokenizer import tokenizer_register

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = getattr(tokenizer_register, f"terramind_v1_tokenizer_{modality.lower()}")(pretrained=False)
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    path = Path(folder) / f"TerraMind_Tokenizer_{modality}.pt"
    torch.save(model.state_dict(), path)
    return path


def build_upstream(folder: Path, inputs: list[str], outputs: list[str], size: str = "tiny", **options):
    """terratorch's own generation model with the weights of a folder."""
    import torch
    from terratorch.registry import FULL_MODEL_REGISTRY

    from terramind_xr.model.quiet import without_draws

    with warnings.catch_warnings(), without_draws():  # all weights are read
        warnings.simplefilter("ignore")
        model = FULL_MODEL_REGISTRY.build(
            f"terramind_v1_{size}_generate",
            modalities=inputs,
            output_modalities=outputs,
            standardize=True,
            temps=0.0,
            **options,
        )
    state = torch.load(Path(folder) / f"TerraMind_v1_{size}.pt", weights_only=True, mmap=True)
    backbone = model.sampler.model
    backbone.load_state_dict({key: state[key] for key in backbone.state_dict()})
    for key, tokenizer in model.tokenizer.items():
        name = {"lulc": "LULC", "ndvi": "NDVI", "dem": "DEM"}[key.removeprefix("tok_").removesuffix("@224")]
        path = Path(folder) / f"TerraMind_Tokenizer_{name}.pt"
        tokenizer.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def wrap_upstream(sampler, tokenizers, inputs: list[str], outputs: list[str]):
    """terratorch's own generation model around a sampler and tokenizers of other sizes than its presets."""
    import torch
    from terratorch.models.backbones.terramind.model import terramind_generation as generation
    from terratorch.models.backbones.terramind.model import terramind_register as register

    info, model = (
        generation.MODALITY_INFO,
        generation.TerraMindGeneration.__new__(generation.TerraMindGeneration),
    )
    torch.nn.Module.__init__(model)
    size = {"img_size": 224, "dim": 8, "patch_size": 16}
    _, read = generation.build_modality_embeddings(info, inputs, cond_modalities=outputs[:-1], **size)
    _, written = generation.build_output_modality_embeddings(info, outputs, **size)
    model.modalities, model.mod_name_mapping = list(read), written | read
    model.output_modalities = list(written.values())
    model.output_mod_name_mapping = {key: name for name, key in written.items()}
    model.sampler, model.tokenizer = sampler, torch.nn.ModuleDict(tokenizers)
    model.encoder_embeddings = sampler.model.encoder_embeddings
    model.decoder_embeddings = sampler.model.decoder_embeddings
    model.image_modalities, model.output_image_modalities = (
        list(model.encoder_embeddings),
        list(written.values()),
    )
    model.top_p, model.top_k, model.temps, model.timesteps, model.decoding_steps = 0.8, 0, 0.0, 1, 1
    model.standardize = True
    model.pretraining_mean, model.pretraining_std = (
        {key: torch.tensor(value, dtype=torch.float32)[None, :, None, None] for key, value in table.items()}
        for table in (register.v1_pretraining_mean, register.v1_pretraining_std)
    )
    return model.eval()


def generated_tokens(sampler, pixels, outputs, steps=1):
    """Tokens by upstream's own loop, driven as ``TerraMindGeneration.forward`` does, at temperature 0."""
    import torch
    from terratorch.models.backbones.terramind.model.generate import (
        build_chained_generation_schedules,
        init_empty_target_modality,
        init_full_input_modality,
    )
    from terratorch.models.backbones.terramind.model.modality_info import MODALITY_INFO

    from terramind_xr.facts import modalities

    inputs, batch = {}, 0
    for name, values in pixels.items():
        key, batch = modalities[name].raw_key, len(values)
        masks = {
            "input_mask": torch.zeros(batch, 196, dtype=torch.bool),
            "target_mask": torch.ones(batch, 196, dtype=torch.bool),
            "decoder_attention_mask": torch.zeros(batch, 196, dtype=torch.bool),
        }
        value = {"tensor": torch.from_numpy(values.copy()), **masks}
        inputs[key] = init_full_input_modality(value, MODALITY_INFO, key, "cpu")
    conditions = list(inputs)
    for key in outputs:
        inputs[key] = init_empty_target_modality(MODALITY_INFO, key, batch, 196, "cpu")
    count = len(outputs)
    schedule = build_chained_generation_schedules(
        cond_domains=conditions,
        target_domains=outputs,
        tokens_per_target=[196] * count,
        autoregression_schemes=["roar"] * count,
        decoding_steps=[steps] * count,
        token_decoding_schedules=["linear"] * count,
        temps=[0.0] * count,
        temp_schedules=["constant"] * count,
        cfg_scales=[1.0] * count,
        cfg_schedules=["constant"] * count,
        cfg_grow_conditioning=True,
    )
    at_once = 196 * count if steps == 1 else None  # else as many as the schedule says
    result = sampler.generate(inputs, schedule, seed=3, top_p=0.8, top_k=0, num_tokens=at_once)
    return {key: result[key]["tensor"] for key in outputs}
