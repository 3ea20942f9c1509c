"""`reconstruct`: a modality through its tokens."""

from __future__ import annotations

from typing import Literal

import xarray as xr

from terramind_xr.api.detokenize import detokenize
from terramind_xr.api.options import ModelName
from terramind_xr.api.tokenize import tokenize
from terramind_xr.data import Mask, Offset
from terramind_xr.model.sampling import Solver
from terramind_xr.options import Precision


def reconstruct(
    obj: xr.Dataset | xr.DataArray,
    modality: str,
    *,
    model: ModelName = None,
    seed: int = 0,
    offset: str | Offset = "auto",
    mask: Mask = None,
    diffusion_steps: int = 10,
    solver: Solver = "ddim",
    overlap: int = 32,
    batch_size: int = 8,
    device: str | None = None,
    precision: Precision | None = None,
    probabilities: bool = False,
    clamp: Literal["upstream"] | None = "upstream",
) -> xr.DataArray:
    """Tokenize a modality and decode the tokens again: what the tokenizer keeps of it.

    The same as ``detokenize(tokenize(obj, modality))``, to the byte.

    Parameters
    ----------
    obj
        Holds the modality, as for `generate`.
    modality
        S2L2A, S1GRD, S1RTC, DEM, LULC or NDVI.
    model
        As for `tokenize`, and so are the others that it has.
    seed
        As for `detokenize`, and so are the others that it has.
    offset
        Radiometric offset within Sentinel-2 numbers.
    mask
        True where pixels are not to be used, as for `generate`.
    diffusion_steps
        Steps of a diffusion decoder.
    solver
        How these steps go: ``"ddim"``, ``"dpm++"`` or ``"unipc"``.
    overlap
        Pixels that neighbouring tiles share.
    batch_size
        Tiles to one run of the model.
    device
        torch device.
    precision
        Of the decoder; tokens are made in fp32 always.
    probabilities
        LULC as class probabilities.
    clamp
        ``"upstream"`` or None.

    Returns
    -------
    xarray.DataArray
        As `detokenize` gives it, on the grid of the data.

    Raises
    ------
    InputError, OptionError, WeightsError
        As `tokenize` and `detokenize` do.

    Examples
    --------
    >>> import terramind_xr
    >>> ds = terramind_xr.synthetic.scene(250, modalities=("DEM",))
    >>> back = ds.terramind.reconstruct("DEM", model="demo", diffusion_steps=1)
    >>> back.dims == ds.DEM.dims, back.attrs["units"]
    (True, 'm')
    """
    tokens = tokenize(
        obj, modality, model=model, offset=offset, mask=mask, overlap=overlap, batch_size=batch_size,
        device=device,
    )  # fmt: skip
    return detokenize(
        tokens, model=model, seed=seed, diffusion_steps=diffusion_steps, solver=solver,
        overlap=overlap, batch_size=batch_size, device=device, precision=precision,
        probabilities=probabilities, clamp=clamp,
    )  # fmt: skip
