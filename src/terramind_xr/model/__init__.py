"""Batches of tiles through terratorch's modules: numpy in, numpy out, no dask and no xarray.

A thin loop of our own drives them, because upstream's own draws from global random state and lets a
tile's result depend on its batch. With the same weights and greedy sampling, tokens and logits are
terratorch's own. Random numbers belong to places of the scene (see `terramind_xr.noise`).

Three stages, each of use alone, and `chain` to join them: `tokens` encodes what is known, `drawing` draws
the tokens of a target from it, `decoding` makes pixels of tokens. A stage that takes a `device` works on
tensors and runs in a session of `execution`; one that takes an `Execution` works on arrays and opens it.

Below them: `recipe` says which models there are, `files` finds their weights, `weights` loads them once,
`miniature` builds the demo's networks, `quiet` keeps what all that does to the process from the user.
"""
