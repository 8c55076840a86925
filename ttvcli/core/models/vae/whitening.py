"""Latents whose directions have like variances: a linear map folded into a trained VAE.

A VAE is free in the scale of its latents. Trained with a weak pull to the unit Gaussian it gives
most of their variance to brightness and colour; what tells a star from a disc sits in directions
of a hundredth of that, which the diffusion model's noise covers first and its loss hardly sees.
The channels are therefore mixed by the inverse square root of their second moment (ZCA). It is
regularised: directions far below the mean hold little that a viewer sees, and at full variance they
would take most of the diffusion loss. Pixels stay what they were: the decoder undoes the map.

Shape legend: Z latent channels, C other channels.
"""

import torch
from torch import Tensor

from ttvcli.core.models.vae.causal3d import CausalVAE
from ttvcli.core.models.vae.layers import SpatialNorm

# Added to each direction's second moment before the inverse root, as a share of their mean.
REGULARISATION = 1 / 3


def second_moment(means: Tensor) -> Tensor:
    """Mean of z z^T over all places of posterior means `[B, Z, T, H, W]`; float64 `[Z, Z]`.

    Not centred: zero padding inside the decoder has to stay zero.
    """
    rows = means.movedim(1, -1).flatten(0, -2).double()
    return rows.mT @ rows / len(rows)


def whitening_matrix(moment: Tensor) -> Tensor:
    """The symmetric W that evens out the directions of W moment W, of mean 1; float64 `[Z, Z]`.

    A direction of second moment m, with mean m' over all, gets one in proportion to
    m / (m + m' / 3): nearly equal ones above the mean, small ones below it.

    Raises:
        ValueError: a direction has no variance.
    """
    values, vectors = torch.linalg.eigh(moment)
    if not values[0] > 1e-8 * values[-1]:
        raise ValueError(f"latents are flat in a direction: second moments {values.tolist()}")
    damped = values + REGULARISATION * values.mean()
    factors = (damped * (values / damped).mean()).rsqrt()
    return vectors @ torch.diag(factors) @ vectors.mT


@torch.no_grad()
def whiten(vae: CausalVAE, means: Tensor, logvars: Tensor) -> Tensor:
    """Fold the whitening of sampled posteriors `[B, Z, T, H, W]` into the VAE's weights, in place.

    Log-variances cannot be mixed exactly by a linear layer; theirs is the first-order expansion of
    log(W^2 exp(logvar)) around the mean variance.

    Returns:
        The matrix W, float64 `[Z, Z]`: new latents are W times old ones.
    """
    matrix = whitening_matrix(second_moment(means))
    variance = logvars.double().exp().mean(dim=(0, 2, 3, 4))
    mixed = matrix.square() * variance
    shares = mixed / mixed.sum(dim=1, keepdim=True)
    shift = mixed.sum(dim=1).log() - shares @ variance.log()

    last = vae.encoder.conv_out.conv
    mean_weight, spread_weight = last.weight.double().chunk(2)
    mean_bias, spread_bias = last.bias.double().chunk(2)  # type: ignore[union-attr]
    last.weight.copy_(torch.cat([_mix(matrix, mean_weight), _mix(shares, spread_weight)]))
    last.bias.copy_(torch.cat([matrix @ mean_bias, shares @ spread_bias + shift]))  # type: ignore

    back = torch.linalg.inv(matrix)
    readers = [vae.decoder.conv_in]
    for module in vae.decoder.modules():
        if isinstance(module, SpatialNorm):
            readers += [module.conv_y, module.conv_b]
    for reader in readers:
        weight = reader.conv.weight
        weight.copy_(torch.einsum("czthw,zy->cythw", weight.double(), back))
    return matrix


def _mix(matrix: Tensor, weight: Tensor) -> Tensor:
    """Combine output channels of a convolution weight `[Z, C, ...]`."""
    return torch.einsum("yz,zcthw->ycthw", matrix, weight)
