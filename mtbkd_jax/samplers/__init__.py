"""Samplers: pairs of pure functions ``init`` and ``step`` over pytrees of parameters."""

from mtbkd_jax.samplers.base import Sampler, SamplerInfo
from mtbkd_jax.samplers.chees import chees
from mtbkd_jax.samplers.hmc import hmc
from mtbkd_jax.samplers.nuts import nuts
from mtbkd_jax.samplers.sghmc import sghmc
from mtbkd_jax.samplers.sgld import sgld
from mtbkd_jax.samplers.warm_up import warm_up

__all__ = ["Sampler", "SamplerInfo", "chees", "hmc", "nuts", "sghmc", "sgld", "warm_up"]
