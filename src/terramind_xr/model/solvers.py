"""Solvers of the diffusion decoders: how few steps lead from noise to pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from terramind_xr.model.sampling import Sampling

if TYPE_CHECKING:
    import torch

# diffusers puts 2**-24 in place of a last alpha_bar of zero, of which log(signal / noise) would be −inf. But
# TerraMind's schedule has less than that one step before. With this the first step is DDIM's to the last
# bits, while the square of its inverse is still a float32.
_NO_SIGNAL = 2.0**-100


def scheduler(own: Any, sampling: Sampling) -> Any:
    """A scheduler with its steps set, one for each image: it remembers what it has done.

    `own` is the tokenizer's: its schedule, its kind of prediction and its thresholds hold for every solver.
    """
    clamp = sampling.clamp is not None
    if sampling.solver == "ddim":
        # Spaced "trailing" as upstream does; a number that does not divide 1000 takes one step more.
        ddim = type(own).from_config(
            own.config, **({} if clamp else {"thresholding": False, "clip_sample": False})
        )
        ddim.set_timesteps(sampling.diffusion_steps, mode="trailing")
        return ddim
    import diffusers

    solvers = {"dpm++": diffusers.DPMSolverMultistepScheduler, "unipc": diffusers.UniPCMultistepScheduler}
    config = own.config
    multistep = solvers[sampling.solver](
        num_train_timesteps=config.num_train_timesteps,
        prediction_type=config.prediction_type,
        # These know no plain clipping, which thresholding with a maximum of 1 is.
        thresholding=clamp and (config.thresholding or config.clip_sample),
        dynamic_thresholding_ratio=config.dynamic_thresholding_ratio,
        sample_max_value=config.sample_max_value if config.thresholding else 1.0,
        timestep_spacing="trailing",
    )
    multistep.alphas_cumprod = own.alphas_cumprod.clamp(min=_NO_SIGNAL)
    multistep.set_timesteps(sampling.diffusion_steps)
    # By rounding, some numbers (61, 103, …) get a step more, before the first of the training.
    kept = multistep.timesteps >= 0
    multistep.timesteps = multistep.timesteps[kept]
    multistep.sigmas = multistep.sigmas[[*kept.tolist(), True]]
    return multistep


def advance(scheduler: Any, estimate: torch.Tensor, step: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """The image one step later, in fp32 whatever the precision of the network."""
    import torch

    with torch.autocast(image.device.type, enabled=False):
        later: torch.Tensor = scheduler.step(estimate.float(), step, image).prev_sample
    return later
