"""The posterior of a line through brackets, by quadrature.

Seed j of size i lies at y_ij = x_i . c + u_i + e_ij with u_i ~ N(0, size_scatter^2), which all seeds of a size share,
and e_ij ~ N(0, cell_scatter^2); what is observed is that y_ij lies in its bracket (interval censoring; Turnbull 1976).
For each pair of scatters the size effects are integrated out on a grid of levels, by a product of Fourier
transforms; what is left, a log-concave density of the coefficients c, is summed over a grid that is laid around its
own mass. Nothing is random: the same brackets give the same draws.

Shapes: S cell scatters, T size scatters, N = S T pairs (or those that matter), I sizes, K brackets,
G levels, Q grid points, P coefficients, D draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stresstest.experiments.scale.law.normal import Array, cdf, log_between, log_density
from stresstest.experiments.scale.law.observed import Observed

STEP = 1.0 / 48.0  # octaves between levels
LEAST_SCATTER = 2.0 * STEP
MOST_SCATTER = 2.0
SCATTERS = np.geomspace(LEAST_SCATTER, MOST_SCATTER, 15)
SCATTER_PRIOR = 0.5  # octaves: scale of the half-normal priors
LEVEL_PRIOR = 4.0  # octaves, around the rough line: wide
NUM_DRAWS = 4096
_MARGIN = round(3.0 / STEP)  # levels beyond the brackets
_FACTOR = 64  # of the transform's length, which makes it fast
_NOTHING = 1e-14  # of the largest likelihood of a size: below is rounding of the transform
_NEGLIGIBLE = -10.0  # log share of a pair of scatters that is left out of the fine grid


@dataclass(frozen=True, eq=False)
class Draws:
    """Equally likely draws: coefficients_DP in octaves, and both scatters in octaves."""

    coefficients_DP: Array
    size_scatter_D: Array
    cell_scatter_D: Array


@dataclass(frozen=True, eq=False)
class _Table:
    """log likelihood of a size's level, size effects integrated out; levels begin at `first`, STEP apart."""

    first: float
    log_NIG: Array
    mean_NI: Array  # of the level, as the seeds of the size alone tell it
    variance_NI: Array
    log_prior_N: Array
    cell_N: Array
    size_N: Array

    def kept(self, keep: Array) -> _Table:
        """Of some pairs of scatters."""
        pairs = (self.log_NIG, self.mean_NI, self.variance_NI, self.log_prior_N, self.cell_N, self.size_N)
        return _Table(self.first, *(each[keep] for each in pairs))


def posterior(observed: Observed, design_IP: Array, prior_P: Array) -> Draws:
    """Draws of the coefficients and scatters.

    The first column of `design_IP` is 1 and the second the size, in octaves from the mean; `prior_P` are the standard
    deviations of the normal priors, around the rough line for the first and 0 for the others.
    """
    level, slope = observed.rough_line()
    rough_P = np.zeros(design_IP.shape[1])
    rough_P[:2] = level, slope
    middle_P = -rough_P * (np.arange(len(rough_P)) > 0)  # of the priors, seen from the rough line
    table = _table(observed, design_IP @ rough_P)
    centre_NP, root_NPP = _first_guess(table, design_IP, middle_P, prior_P)
    coarse_QP, fine_QP = _GRIDS[design_IP.shape[1]]
    wide = (3.0 + math.sqrt(len(design_IP))) / 4.0  # brackets that lock are wider than normal ones
    log_NQ, at_NQP = _evaluate(table, design_IP, (middle_P, prior_P), centre_NP, root_NPP, wide * coarse_QP)
    share_N = _log_sum(log_NQ) + _log_volume(root_NPP)
    keep = share_N > share_N.max() + _NEGLIGIBLE
    table = table.kept(keep)
    centre_NP, root_NPP = _moments(log_NQ[keep], at_NQP[keep], root_NPP[keep] * wide * _spacing(coarse_QP))
    log_NQ, at_NQP = _evaluate(table, design_IP, (middle_P, prior_P), centre_NP, root_NPP, fine_QP)
    log_NQ += _log_volume(root_NPP)[:, None]
    return _draws(table, log_NQ, at_NQP + rough_P, root_NPP * _spacing(fine_QP))


def _cube(points: int, dimensions: int) -> Array:
    """Points of a cube from -4 to 4, Q x P."""
    axis = np.linspace(-4.0, 4.0, points)
    return np.stack(np.meshgrid(*[axis] * dimensions, indexing="ij"), axis=-1).reshape(-1, dimensions)


_GRIDS = {2: (_cube(13, 2), _cube(25, 2)), 3: (_cube(9, 3), _cube(13, 3))}


def _spacing(cube_QP: Array) -> float:
    return float(cube_QP[1, -1] - cube_QP[0, -1])


def _table(observed: Observed, rough_I: Array) -> _Table:
    """The likelihood of every size's level around the rough line, for every pair of scatters."""
    rough_K = rough_I @ (observed.count_IK > 0.0)
    low_K, high_K = observed.low_K - rough_K, observed.high_K - rough_K
    finite = np.concatenate([low_K[np.isfinite(low_K)], high_K[np.isfinite(high_K)]])
    first = float(finite.min()) - _MARGIN * STEP
    level_G = first + STEP * np.arange(math.ceil((finite.max() - first) / STEP) + _MARGIN + 1)
    log_SIG = observed.count_IK @ _log_cells(low_K, high_K, level_G)
    peak_SI = log_SIG.max(axis=2)
    alone_SIG = np.exp(log_SIG - peak_SI[:, :, None])
    share_SIG = alone_SIG / alone_SIG.sum(axis=2, keepdims=True)
    mean_SI = share_SIG @ level_G
    variance_SI = share_SIG @ level_G**2 - mean_SI**2
    log_STIG = _log_smoothed(alone_SIG) + peak_SI[:, None, :, None]
    number, log_weight = len(SCATTERS), np.log(_prior_mass())
    return _Table(
        first,
        log_STIG.reshape(number * number, *log_STIG.shape[2:]),
        np.repeat(mean_SI, number, axis=0),
        (variance_SI[:, None, :] + SCATTERS[None, :, None] ** 2).reshape(number * number, -1),
        (log_weight[:, None] + log_weight).ravel(),
        np.repeat(SCATTERS, number),
        np.tile(SCATTERS, number),
    )


def _log_cells(low_K: Array, high_K: Array, level_G: Array) -> Array:
    """log P(a seed lies in its bracket | the level of its size), S x K x G; of an exact value its density."""
    exact_K = low_K == high_K
    log_SKG = np.empty((len(SCATTERS), len(low_K), len(level_G)))
    scatter_S = SCATTERS[:, None, None]
    low_SKG, high_SKG = ((side[~exact_K, None] - level_G) / scatter_S for side in (low_K, high_K))
    log_SKG[:, ~exact_K] = log_between(low_SKG, high_SKG)
    log_SKG[:, exact_K] = log_density((low_K[exact_K, None] - level_G) / scatter_S) - np.log(scatter_S)
    return log_SKG


def _log_smoothed(alone_SIG: Array) -> Array:
    """log of the likelihood under a normal effect of the size, S x T x I x G, by convolution."""
    levels = alone_SIG.shape[2]
    padded = np.pad(alone_SIG, ((0, 0), (0, 0), (_MARGIN, _MARGIN)), mode="edge")
    length = math.ceil(padded.shape[2] / _FACTOR) * _FACTOR
    spectrum_SIF = np.fft.rfft(padded, n=length)
    frequency_F = 2.0 * math.pi * np.fft.rfftfreq(length, STEP)
    kernel_TF = np.exp(-0.5 * (SCATTERS[:, None] * frequency_F) ** 2)
    smooth = np.fft.irfft(spectrum_SIF[:, None] * kernel_TF[:, None, :], n=length)
    return np.asarray(np.log(np.maximum(smooth[..., _MARGIN : _MARGIN + levels], _NOTHING)))


def _prior_mass() -> Array:
    """What the half-normal prior gives to each scatter's share of the axis; the first takes all below it."""
    edges = np.concatenate([[0.0], np.sqrt(SCATTERS[1:] * SCATTERS[:-1]), [np.inf]])
    return np.asarray(2.0 * np.diff(cdf(edges / SCATTER_PRIOR)))


def _first_guess(table: _Table, design_IP: Array, middle_P: Array, prior_P: Array) -> tuple[Array, Array]:
    """Centre and root of the covariance of the coefficients, as if each size's level were normal."""
    weight_NI = 1.0 / table.variance_NI
    precision_NPP = np.einsum("ip,ni,iq->npq", design_IP, weight_NI, design_IP) + np.diag(prior_P**-2.0)
    pull_NP = (weight_NI * table.mean_NI) @ design_IP + middle_P * prior_P**-2.0
    covariance_NPP = np.linalg.inv(precision_NPP)
    return np.einsum("npq,nq->np", covariance_NPP, pull_NP), np.linalg.cholesky(covariance_NPP)


def _evaluate(
    table: _Table, design_IP: Array, prior: tuple[Array, Array], centre_NP: Array, root_NPP: Array, grid_QP: Array
) -> tuple[Array, Array]:
    """(log density at grid points, N x Q; the points, N x Q x P), for every pair of scatters."""
    at_NQP = centre_NP[:, None, :] + grid_QP @ root_NPP.transpose(0, 2, 1)
    log_NQ = -0.5 * (((at_NQP - prior[0]) / prior[1]) ** 2).sum(axis=2) + table.log_prior_N[:, None]
    pairs, sizes, levels = table.log_NIG.shape
    flat, start_N = table.log_NIG.ravel(), np.arange(pairs)[:, None] * sizes * levels
    for i in range(sizes):
        place_NQ = np.clip((at_NQP @ design_IP[i] - table.first) / STEP, 0.0, levels - 1.001)
        below_NQ = place_NQ.astype(np.int64)
        place_NQ -= below_NQ
        below_NQ += start_N + i * levels
        left_NQ = flat[below_NQ]
        log_NQ += left_NQ + place_NQ * (flat[below_NQ + 1] - left_NQ)
    return log_NQ, at_NQP


def _moments(log_NQ: Array, at_NQP: Array, cell_NPP: Array) -> tuple[Array, Array]:
    """Centre and root of the covariance of what was found on a grid, whose cells have a width of their own."""
    share_NQ = np.exp(log_NQ - log_NQ.max(axis=1, keepdims=True))
    share_NQ /= share_NQ.sum(axis=1, keepdims=True)
    centre_NP = np.einsum("nq,nqp->np", share_NQ, at_NQP)
    away_NQP = at_NQP - centre_NP[:, None, :]
    covariance_NPP = np.einsum("nqp,nqr->npr", share_NQ[:, :, None] * away_NQP, away_NQP)
    within_NPP = np.einsum("npr,nqr->npq", cell_NPP, cell_NPP) / 12.0
    return centre_NP, np.linalg.cholesky(covariance_NPP + within_NPP)


def _log_sum(log_NQ: Array) -> Array:
    peak_N = log_NQ.max(axis=1)
    return np.asarray(peak_N + np.log(np.exp(log_NQ - peak_N[:, None]).sum(axis=1)))


def _log_volume(root_NPP: Array) -> Array:
    return np.asarray(np.log(np.diagonal(root_NPP, axis1=1, axis2=2)).sum(axis=1))


def _draws(table: _Table, log_NQ: Array, at_NQP: Array, cell_NPP: Array) -> Draws:
    """Equally spaced draws of the grid's mass, spread evenly over the cells of the grid."""
    pairs, points = log_NQ.shape
    mass = np.cumsum(np.exp(log_NQ - log_NQ.max()).ravel())
    wanted_D = (np.arange(NUM_DRAWS) + 0.5) / NUM_DRAWS * mass[-1]
    pair_D, point_D = np.divmod(np.minimum(np.searchsorted(mass, wanted_D), pairs * points - 1), points)
    within_DX = _spread(at_NQP.shape[2] + 2) - 0.5
    coefficients_DP = at_NQP[pair_D, point_D] + np.einsum("dr,dpr->dp", within_DX[:, 2:], cell_NPP[pair_D])
    between_D2 = (SCATTERS[1] / SCATTERS[0]) ** within_DX[:, :2]
    return Draws(coefficients_DP, table.size_N[pair_D] * between_D2[:, 0], table.cell_N[pair_D] * between_D2[:, 1])


def _spread(dimensions: int) -> Array:
    """Points that fill the unit cube evenly, D x P.

    Multiples of powers of 1/z, the root of z^(P+1) = z + 1 (Roberts 2018, "The unreasonable effectiveness of
    quasirandom sequences").
    """
    root = 2.0
    for _ in range(60):
        root = (1.0 + root) ** (1.0 / (dimensions + 1))
    return (np.arange(1, NUM_DRAWS + 1)[:, None] * root ** -np.arange(1.0, dimensions + 1)) % 1.0
