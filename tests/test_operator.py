"""The maps of every engine against a finite-element system that is assembled and inverted."""

import numpy as np
import pytest
from maps import WAYS, Maps
from numpy.testing import assert_allclose
from problems import (
    GRIDS,
    MATERIALS,
    MULTIPLICITY,
    SCHEMES,
    SPACING,
    anisotropic,
    direct,
    from_moduli,
    random_cell,
    reference,
)

from lspipe import Isotropic
from lspipe.cell.element import hexahedron, inverse_symbol, uniform_displacements
from lspipe.cell.physics import CONDUCTION
from lspipe.cell.transform import bases, is_dense


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def vector(field):
    """As problems.Direct has it."""
    return field.T.ravel()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("grid", GRIDS)
class TestMaps:
    @pytest.fixture
    def maps(self, way, grid, scheme):
        return Maps(way, MATERIALS, grid, SPACING, scheme)

    def test_stiffness(self, maps, grid, scheme, rng):
        """Forces and stress of a periodic displacement and a uniform strain, which is the same in both parts."""
        phase, fe = direct(grid, scheme)
        u, e = rng.normal(size=(3, *grid)), rng.normal(size=6)
        force, stress = maps.stiffness(phase, u, MULTIPLICITY * e)
        exact = fe.A @ np.concatenate([vector(u), e])
        assert_allclose(vector(force), exact[:-6], atol=1e-12)
        assert_allclose(MULTIPLICITY * stress, exact[-6:], atol=1e-12)

    def test_stiffness_of_multiples(self, way, grid, scheme, rng):
        """Phases with the same Poisson's ratio have one element matrix up to a factor; a void has the factor 0."""
        materials = (Isotropic(0.5, 0.2), Isotropic(8.0, 0.2), Isotropic(0.0, 0.4))
        phase, fe = direct(grid, scheme, materials)
        u, e = rng.normal(size=(3, *grid)), rng.normal(size=6)
        force, stress = Maps(way, materials, grid, SPACING, scheme).stiffness(phase, u, MULTIPLICITY * e)
        exact = fe.A @ np.concatenate([vector(u), e])
        assert_allclose(vector(force), exact[:-6], atol=1e-12)
        assert_allclose(MULTIPLICITY * stress, exact[-6:], atol=1e-12)

    def test_integral_of_a_stress(self, maps, grid, scheme, rng):
        """The forces of a stress that is uniform in each phase do on any displacement the work of the stress."""
        phase, stress = random_cell(grid, 3), rng.normal(size=(3, 6))
        u, e = rng.normal(size=(3, *grid)), rng.normal(size=6)
        strain, _ = maps.fields(phase, u, e)
        force, total = maps.integrate(phase, stress)
        work = np.prod(SPACING) * np.einsum("xyzs,sxyz", stress[phase], strain)
        assert np.vdot(force, u) + total @ e == pytest.approx(work)

    def test_green(self, maps, grid, scheme, rng):
        medium, *_ = reference(MATERIALS)
        _, fe = direct(grid, scheme, (medium,))
        nodal = np.arange(len(fe.A)) < len(fe.A) - 6
        r, mean, compliance = rng.normal(size=(3, *grid)), rng.normal(size=6), rng.normal(size=(6, 6))
        compliance += compliance.T
        u, strain = maps.green(r, mean, compliance)
        assert_allclose(vector(u), fe.inverse(nodal) @ vector(r), atol=1e-10)
        assert_allclose(strain, compliance @ mean)

    def test_fields(self, maps, grid, scheme, rng):
        phase, fe = direct(grid, scheme)
        u, e = rng.normal(size=(3, *grid)), rng.normal(size=6)
        strain, stress = maps.fields(phase, u, MULTIPLICITY * e)
        exact = fe.answer(np.concatenate([vector(u), e]))
        assert_allclose(strain, MULTIPLICITY[:, None, None, None] * exact.strain, atol=1e-12)
        assert_allclose(stress, exact.stress, atol=1e-12)

    def test_symmetry(self, maps, grid, scheme, rng):
        op, voxels = maps.op, maps.voxels(random_cell(grid, 3))
        x, y = (maps.vector(rng.normal(size=(3, *grid)), rng.normal(size=6)) for _ in range(2))
        Kx, Ky = (op.apply_stiffness(voxels, v, op.empty(1, np.float64)) for v in (x, y))
        assert op.numpy(op.inner(x, Ky)) == pytest.approx(op.numpy(op.inner(y, Kx)))
        zx, zy = (maps.apply_green(v, np.eye(6)) for v in (Kx, Ky))
        assert op.numpy(op.inner(zx, Ky)) == pytest.approx(op.numpy(op.inner(zy, Kx)), rel=1e-12, abs=1e-12)

    def test_work(self, maps, grid, scheme, rng):
        """An inner product counts each node once."""
        u, e, f, s = rng.normal(size=(3, *grid)), rng.normal(size=6), rng.normal(size=(3, *grid)), rng.normal(size=6)
        work = maps.op.inner(maps.vector(u, e), maps.force(f, s))
        assert maps.op.numpy(work) == pytest.approx(np.vdot(u, f) + e @ s)

    def test_green_inverts_stiffness_of_the_reference_medium(self, way, grid, scheme, rng):
        maps = Maps(way, [Isotropic(2.0, 0.3)], grid, SPACING, scheme)
        u, phase = rng.normal(size=(3, *grid)), np.zeros(grid)
        back, _ = maps.green(maps.stiffness(phase, u)[0])
        assert_allclose(maps.fields(phase, back)[0], maps.fields(phase, u)[0], atol=1e-12)
        assert_allclose(back.mean(axis=(1, 2, 3)), 0, atol=1e-12)
        if scheme != "reduced" or sum(n % 2 == 0 for n in grid) < 2:
            assert_allclose(back, u - u.mean(axis=(1, 2, 3), keepdims=True), atol=1e-12)

    def test_single_precision(self, maps, way, grid, scheme, rng):
        single = Maps(way, MATERIALS, grid, SPACING, scheme, np.float32)
        phase, u, e = random_cell(grid, 3), rng.normal(size=(3, *grid)), rng.normal(size=6)
        for a, b in zip(maps.stiffness(phase, u, e), single.stiffness(phase, u, e), strict=True):
            assert_allclose(a, b, rtol=1e-5, atol=1e-4)
        for a, b in zip(maps.green(u, e, np.eye(6)), single.green(u, e, np.eye(6)), strict=True):
            assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", ["numba", "torch"])
@pytest.mark.parametrize("grid", [(2, 40, 39), (3, 31, 33), (1, 2, 700)])
@pytest.mark.parametrize("materials", [[*map(anisotropic, range(3))], MATERIALS], ids=["anisotropic", "isotropic"])
def test_planes_of_several_strips(way, grid, materials, rng):
    """Planes that are longer than what is worked on at a time."""
    phase, u, e = random_cell(grid, 3), rng.normal(size=(3, *grid)), rng.normal(size=6)
    maps = Maps(way, materials, grid, SPACING, "bbar")
    force, stress = maps.stiffness(phase, u, e)
    strain, local = maps.fields(phase, u, e)
    C = np.stack([m.stiffness for m in materials])[phase]
    assert_allclose(local, np.einsum("xyzst,txyz->sxyz", C, strain), atol=1e-10)
    assert_allclose(stress, np.prod(SPACING) * local.sum(axis=(1, 2, 3)), rtol=1e-10)
    f = rng.normal(size=(3, *grid))
    assert maps.op.numpy(maps.op.inner(maps.vector(u), maps.force(f))) == pytest.approx(np.vdot(u, f))
    shift = (1, 5, 7)
    moved, _ = maps.stiffness(np.roll(phase, shift, (0, 1, 2)), np.roll(u, shift, (1, 2, 3)), e)
    assert_allclose(moved, np.roll(force, shift, (1, 2, 3)), atol=1e-10)


def test_bbar_integrates_the_volume_change_at_one_point(rng):
    """Selective reduced integration: bulk modulus as in ``reduced``, shear modulus as in ``full``."""
    grid, u = (4, 3, 2), rng.normal(size=(3, 4, 3, 2))

    def force(scheme, bulk, shear):
        return Maps("numba", [from_moduli(bulk, shear)], grid, SPACING, scheme).stiffness(np.zeros(grid), u)[0]

    bulk, shear = (force("bbar", *moduli) - force("bbar", 1, 1) for moduli in ((2, 1), (1, 2)))
    assert_allclose(bulk, force("reduced", 2, 1) - force("reduced", 1, 1), atol=1e-12)
    assert_allclose(shear, force("full", 1, 2) - force("full", 1, 1), atol=1e-12)


def test_reduced_is_the_rotated_scheme():
    """Gradient of a plane wave: i/4 tan(ξ_j/2) Π (1 + exp iξ) (Willot 2015)."""
    grid = (5, 4, 6)
    maps, phase = Maps("numba", MATERIALS, grid, (1.0, 1.0, 1.0), "reduced"), np.zeros(grid)
    xi = 2 * np.pi * np.array([1, -1, 2]) / grid
    wave = np.exp(1j * np.einsum("i,ixyz->xyz", xi, np.indices(grid)))
    for i, k in enumerate(1j / 4 * np.tan(xi / 2) * np.prod(1 + np.exp(1j * xi))):
        u = np.multiply.outer(np.eye(3)[i], wave)
        strain = maps.fields(phase, u.real)[0] + 1j * maps.fields(phase, u.imag)[0]
        assert_allclose(strain[i], k * wave, atol=1e-12)


def test_scalar_element_is_the_trilinear_laplacian():
    """One unknown a node: Σ_i (2 − 2 cos θ_i) Π_{j≠i} (4 + 2 cos θ_j)/6, with the bilinear mass along the others."""
    angles = np.array([0.3, -1.1, 2.5])
    stiff, mass = 2 - 2 * np.cos(angles), (4 + 2 * np.cos(angles)) / 6
    exact = sum(stiff[i] * np.delete(mass, i).prod() for i in range(3))
    inverse = inverse_symbol(hexahedron("full", physics=CONDUCTION), np.eye(3), tuple(np.array([a]) for a in angles))
    assert inverse.shape == (1, 1, 1, 1, 1)
    assert inverse.item() == pytest.approx(1 / exact)
    gradient = np.array([0.2, -1.0, 3.0])
    corners = uniform_displacements((1.0, 2.0, 0.5), CONDUCTION.strain_operator) @ gradient
    assert_allclose(hexahedron("full", (1.0, 2.0, 0.5), CONDUCTION).B @ corners, np.tile(gradient, (8, 1)))


@pytest.mark.parametrize("grid", [(21, 48, 50), (100, 5, 22), (2, 50, 192), (40, 40, 1)])
def test_folded_products_invert_the_stiffness_of_the_reference_medium(grid, rng):
    maps = Maps("numba", [Isotropic(2.0, 0.3)], grid, SPACING, "full")
    u = rng.normal(size=(3, *grid))
    back, _ = maps.green(maps.stiffness(np.zeros(grid), u)[0])
    assert_allclose(back, u - u.mean(axis=(1, 2, 3), keepdims=True), atol=1e-10)


def test_the_transform_is_chosen_by_cost():
    assert all(is_dense((n, n, n)) for n in (1, 12, 47, 64, 97, 127, 128))
    assert not is_dense((375, 375, 375))


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_real_bases_are_orthonormal(n):
    for basis in np.concatenate(bases((n, n, n), 3)):
        assert_allclose(basis.T @ basis, np.eye(n), atol=1e-14)
