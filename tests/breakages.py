"""Break the code in one line at a time, and see a test go red: `make breakages`, or `python tests/breakages.py [rows]`.

Each row is applied to a copy of the package, and its test runs against the copy. The program exits with 1 if a test
stays green, or if the text of a row is no longer in its file exactly once.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parent
MAPS, DIRECT, CELL = "test_operator.py", "test_cell_direct.py", "test_cell.py"
TRAIN, MODELS, LOADER, RLNCG = "test_train.py", "test_models.py", "test_loader.py", "test_rln_cg.py"
PIPELINE, EVALUATE = "test_pipeline.py", "test_evaluate.py"
FIGURES, PLAN = "test_figures.py", "test_plan.py"
PROBLEM = "test_problem.py"
WORKERS, ENVIRONMENT = "test_workers.py", "test_environment.py"
STORE = "test_store.py"
EXPORT, OPERATIONS, CONDUCTION = "test_export.py", "test_operations.py", "test_conduction.py"
IMAGES, PUBLISHED = "test_images.py", "test_published.py"
SAMPLES, VORONOI, INCLUSIONS = "test_microstructure.py", "test_voronoi.py", "test_inclusions.py"

# file of lspipe.cell, text, its replacement, test file, tests (pytest -k)
TABLE = [
    ("physics", "(0, 2), (0, 1)", "(0, 2), (0, 0)", MAPS, "numba and test_fields"),
    ("element", "/ np.sqrt(3)", "/ np.sqrt(2)", MAPS, "numba and test_stiffness"),
    ("element", "trace / 3, vol", "trace / 2, vol", MAPS, "test_bbar_integrates"),
    ("element", 'if scheme == "bbar"', 'if scheme == "never"', MAPS, "test_bbar_integrates"),
    ("element", "volumetric.mean(axis=0) - volumetric", "volumetric - volumetric.mean(axis=0)", MAPS, "test_bbar"),
    ("element", "[(0.5, 0.5, 0.5)] if", "[(0.5, 0.5, 0.4)] if", MAPS, "test_reduced_is"),
    ("element", "1.0, -1.0) / spacing", "1.0, -1.0)", MAPS, "numba and test_fields"),
    ("element", "self.volume / len(self.B)", "1.0 / len(self.B)", MAPS, "numba and test_stiffness"),
    ("element", "(2.0 * c - 1) ** m", "(1 - 2.0 * c) ** m", MAPS, "numba and test_fields"),
    ("element", ".reshape(matrix.shape) / 8", ".reshape(matrix.shape) / 4", MAPS, "numba and test_fields"),
    ("element", '"ai,i,ics->acs", CORNERS, spacing', '"ai,ics->acs", CORNERS', MAPS, "torch and test_stiffness"),
    ("element", 'np.einsum("isc,itc->st", L, L)', "np.eye(6)", MAPS, "torch and test_fields"),
    ("element", "CORNERS[b] - CORNERS[a] + 1", "CORNERS[b] - CORNERS[a][::-1] + 1", MAPS, "numba and test_green"),
    ("element", "(angle, [-1, 0, 1])", "(angle, [-1, 0, 2])", MAPS, "numba and test_green"),
    ("element", "symbol[:, :, vanishing] = 0.0", "", MAPS, "numba and test_green"),
    ("element", "column[:, None] * column / pivot", "column[:, None] * column", MAPS, "numba and test_green"),
    ("transform", "np.pi / 2, 0.0)", "np.pi, 0.0)", MAPS, "numba and test_green"),
    ("transform", "np.where(alone, lag, lag - np.pi / 2)", "lag - np.pi / 2", MAPS, "orthonormal"),
    ("transform", "np.where(alone, 1, 2) / n", "2 / n", MAPS, "orthonormal"),
    ("transform", "np.where(alone, lag, lag - np.pi / 2)", "lag", MAPS, "numba and test_green"),
    ("transform", "[basis.mT for basis in bases]", "bases", MAPS, "torch and test_green"),
    ("kernels", "Gy[c].T, v.reshape", "Gy[c], v.reshape", MAPS, "numba and test_green"),
    ("kernels", "= out[:, :nx, 0]", "= out[:, :nx, 1]", DIRECT, "test_fields and strain"),
    ("transform", "c == axis", "c == 0", MAPS, "numba and test_green"),
    ("transform", "= out[..., :-1, 0, :]", "= out[..., :-1, 1, :]", MAPS, "numba and test_stiffness"),
    ("kernels", "ds0 + ds1\n", "ds0 - ds1\n", MAPS, "numba and test_fields"),
    ("kernels", "(corner >> 1 & 1) * row", "(corner >> 1 & 1)", MAPS, "numba and test_stiffness"),
    ("kernels", "s00 - d00", "s00 + d00", MAPS, "numba and test_stiffness"),
    ("operator_numba", "SLACK, len(self.constants.C),", "SLACK, 0,", MAPS, "numba and test_stiffness"),
    ("kernels", "b * x[j + k])", "b * x[i + k])", MAPS, "numba and test_stiffness"),
    ("kernels", "c03 * p + c13 * q", "c13 * p + c03 * q", DIRECT, "anisotropic_phases"),
    ("element", "self.B, 1)[:-1] / 8", "self.B, 1)[:-2] / 8", DIRECT, "anisotropic_phases"),
    ("kernels", "moments[r] += total", "moments[r] = total", MAPS, "several_strips"),
    ("kernels", "face += opposite", "face += 0 * opposite", MAPS, "numba and test_stiffness"),
    ("kernels", "opposite[:] = 0", "opposite[:] *= 1", MAPS, "numba and test_symmetry"),
    ("kernels", "mode[k] += shift", "mode[k] -= shift", MAPS, "numba and test_stiffness"),
    ("kernels", "line * row + nz)", "line * row + nz - 1)", MAPS, "numba and test_fields"),
    ("kernels", "xy[k] * a + yy[k] * b", "yy[k] * b", MAPS, "numba and test_green"),
    ("operator_numba", "symbol.repeat(2, axis=1)", "np.tile(symbol, 2)", MAPS, "fft and test_green"),
    ("operator_numba", "s=self.constants.grid, axes", "axes", MAPS, "fft and test_green"),
    ("kernels", "total += part", "total = part", MAPS, "several_strips"),
    ("kernels", "y[k] = a * x[k] + b * y[k]", "y[k] = a * x[k] + y[k]", DIRECT, "test_fields and strain"),
    ("operator_torch", "c : c + nz]", "0:nz]", MAPS, "torch and test_fields"),
    (
        "operator_torch",
        "coefficient[voxels]",
        "coefficient[voxels[:, :1]].expand(voxels.shape)",
        MAPS,
        "torch and test_stiff",
    ),
    ("operator_torch", "face += opposite", "face += 0 * opposite", MAPS, "torch and test_stiffness"),
    ("operator_torch", "(row * z).sum(dim=1)", "(row[0] * z[:, 0])", MAPS, "torch and test_green"),
    ("operator_torch", "_per_sample(b, target)", "1", DIRECT, "other_devices"),
    ("operator_torch", "(voxels == p)", "(voxels >= p)", MAPS, "torch and test_fields"),
    (
        "operator",
        "inverse_symbol(hexahedron, np.array(C0),",
        "inverse_symbol(hexahedron, 2 * np.array(C0),",
        MAPS,
        "numba and test_green",
    ),
    ("physics", "[1.0, 1.0, 1.0, 0.5, 0.5, 0.5]", "[1.0, 1.0, 1.0, 0.5, 0.5, 1.0]", DIRECT, "test_fields and strain"),
    ("physics", "2.0, 1.0, 1.0, 1.0]", "2.0, 2.0, 2.0, 2.0]", MAPS, "numba and test_stiffness"),
    ("material", "(3 * (1 - 2 * self.poisson))", "(3 * (1 - self.poisson))", MAPS, "numba and test_stiffness"),
    ("medium", "(L @ C @ L.T)[:, 0]", "(L @ C @ L.T)[:, -1]", DIRECT, "test_certificate"),
    ("medium", "moduli(C).T @", "moduli(C)[::-1].T @", MAPS, "numba and test_stiffness"),
    (
        "conjugate_gradients",
        "rho / previous, beta)\n                green",
        "0, beta)\n                green",
        DIRECT,
        "test_fields",
    ),
    ("conjugate_gradients", "rho / scale**2 / curv", "rho / scale / curv", DIRECT, "test_fields and strain"),
    ("conjugate_gradients", "op.axpby(scale, dx, 1, x)", "op.axpby(1, dx, 1, x)", DIRECT, "test_fields and strain"),
    ("conjugate_gradients", "xp.where(active, beta, 1)", "beta", DIRECT, "other_devices"),
    ("conjugate_gradients", "1.0 * active, zs", "1.0, zs", DIRECT, "other_devices"),
    ("conjugate_gradients", "op.scale(0, zs, dx)", "pass", DIRECT, "test_fields and strain"),
    ("conjugate_gradients", "1, op.axpby(1, x, 0, spare))", "1, x)", EVALUATE, "one_run"),
    (
        "conjugate_gradients",
        "rho / previous, beta)\n                history",
        "0, beta)\n                history",
        EVALUATE,
        "wait",
    ),
    ("conjugate_gradients", "len(stops) == 1 or exceeds(target).any()", "len(stops) == 1", EVALUATE, "wait"),
    ("solver", "result = count, seconds + clock() - began,", "result = count, seconds,", EVALUATE, "seconds"),
    ("../models/rln_cg", "if k in counts:", "if k >= counts[0]:", EVALUATE, "one_run"),
    ("conjugate_gradients", "previous, rho = rho, system", "previous, _ = rho, system", DIRECT, "certificate"),
    (
        "conjugate_gradients",
        "last := active & (iterations <",
        "last := active & (iterations <=",
        CELL,
        "one_iteration_short",
    ),
    (
        "batch",
        "self.op.constants.volume * self.phase[0].size",
        "1.0 * self.phase[0].size",
        DIRECT,
        "test_fields and mixed",
    ),
    ("batch", "tile(batch.volume * batch.stress", "tile(-batch.volume * batch.stress", DIRECT, "test_fields and mixed"),
    ("batch", "inverse(batch.volume * op.constants.C0", "inverse(op.constants.C0", DIRECT, "test_certificate"),
    ("batch", "np.outer(free, free)", "np.outer(free, ~free)", DIRECT, "test_fields and mixed"),
    ("batch", "system.load) - op.inner", "system.load) + op.inner", DIRECT, "test_certificate"),
    ("batch", "(alpha * np.maximum(energy, 0))", "np.maximum(energy, 0)", DIRECT, "test_certificate"),
    (
        "batch",
        "np.where(occurs, op.constants.alpha, np.inf).min",
        "op.constants.alpha[None].max",
        DIRECT,
        "certificate",
    ),
    ("batch", "np.sqrt(rho / reference)", "rho / reference", DIRECT, "test_certificate or test_residual"),
    ("batch", "self.tol**2 *", "self.tol *", CELL, "test_tolerance"),
    ("batch", "ROUNDING = 1e-13", "ROUNDING = 1e-5", CELL, "test_tolerance"),
    ("batch", "self.load > self.rounding, self.load", "self.load >= 0, self.load", CELL, "homogeneous_cell_is_not"),
    ("batch", "rho <= target,", "rho <= 100 * target,", CELL, "one_iteration_short"),
    ("batch", "mean += np.einsum", "mean += 0 * np.einsum", CELL, "least_energy"),
    (
        "solver",
        "load * problem.physics.tensor_factors[:, None, None, None]",
        "load",
        DIRECT,
        "test_fields and strain",
    ),
    (
        "operator",
        "hexahedron(problem.scheme,",
        'hexahedron("bbar",',
        DIRECT,
        "test_fields and strain",
    ),
    ("arguments", 'values["strain"] / physics.tensor_factors', 'values["strain"]', DIRECT, "test_fields and strain"),
    ("../train", "len(state.losses), None)", "0, None)", TRAIN, "stopped_anywhere and memory"),
    ("../train", "pause()  #", "#", TRAIN, "stopped_anywhere and memory"),
    (
        "../models/errors",
        "(strain.square() / shear(physics, strain))",
        "strain.square()",
        TRAIN,
        "count_each_shear_twice",
    ),
    ("../train", '"gradient norm": norm.item()', "", TRAIN, "not_finite"),
    ("../train", "                keep()\n                named", "                named", TRAIN, "not_finite"),
    ("../train", 'check_finite({"validation', 'dict({"validation', TRAIN, "not_finite"),
    ("../train", "len(state.scores), None)", "0, None)", TRAIN, "shorter_than"),
    ("../train", "< epochs:", "> epochs:", TRAIN, "more_epochs"),
    ("../train", "optimizer.load_state_dict(saved.pop", "dict(saved.pop", TRAIN, "more_epochs"),
    ("../train", "data[:-32]).digest() != data[-32:]", "data).digest() == b''", TRAIN, "damaged"),
    ("../train", "keep()  # more", "# more", TRAIN, "between_the_files"),
    ("../models/files", "weights + json", "json", MODELS, "another_model"),
    ("../models/files", '"model_version", "sha256"', '"sha256"', MODELS, "edited"),
    ("../models/files", "if not tensor.isfinite().all()", "if False", MODELS, "not_finite"),
    ("../models/files", "with locked(folder):", "if True:", MODELS, "one_writer"),
    ("../models/files", "file.unlink()", "pass", MODELS, "one_writer"),
    ("../models/baseline", "warn=tol is not None", "warn=True", MODELS, "concurrent"),
    ("../interrupt", "signals.append(number)", "None", TRAIN, "a_signal_saves"),
    ("../interrupt", "max(minutes - 2,", "max(minutes,", TRAIN, "before_its_time"),
    ("../cli", "os.EX_TEMPFAIL", "0", TRAIN, "a_signal_saves"),
    ("../models/rln", ".to(y.dtype)", "", TRAIN, "bf16_is_for"),
    ("../models/network", "field.mean(dim=(2, 3, 4)", "field.mean(dim=(1, 2, 3, 4)", MODELS, "all_components_follow"),
    ("../loader", "4.0 * channels", "4.0", LOADER, "test_all_components"),
    ("autograd", "None, *ctx.map(nodal, mean)", "None, nodal, mean", RLNCG, "maps_are"),
    ("../models/rln_cg", "b = -dot(p, Kq) / qKq", "b = 0 * dot(p, Kq)", RLNCG, "is_cg"),
    ("../models/rln_cg", "where(used, p), where(used, Kp)", "p, Kp", RLNCG, "is_cg"),
    ("../models/rln_cg", "torch.maximum(size(r), forces)", "size(r)", RLNCG, "leave_it_be"),
    ("../models/rln_cg", "a = dot(p, r) / pKp", "a = 3 * dot(p, r) / pKp", RLNCG, "energy_falls"),
    ("../models/rln_cg", "least = EXHAUSTED * torch", "least = 0 * torch", RLNCG, "leave_it_be"),
    (
        "../models/rln_cg",
        "return per_sample(scale, x[0]) * x[0], per_sample(scale, x[1]) * x[1]",
        "return x",
        RLNCG,
        "each_cell_for_itself",
    ),
    ("../models/rln_cg", "rho = size(r) * dot(z, r)", "rho = dot(z, r)", RLNCG, "each_cell_for_itself"),
    ("../models/rln_cg", ".clamp(min=EXHAUSTED**2)", "", RLNCG, "one_material"),
    ("../models/rln_cg", "free * (load - s)", "free * s", RLNCG, "leave_it_be"),
    ("../models/periodic", "x.narrow(axis, 0, after % n)", "0 * x.narrow(axis, 0, after % n)", RLNCG, "shifted"),
    ("../models/rln_cg", "if propose == cells.apply_green", "if k == 0", RLNCG, "each_cell_for_itself"),
    ("../models/rln_cg", "used = active &", "used =", RLNCG, "stays_as_it_is"),
    ("../models/rln_cg", "(rho > torch", "(rho > 1e4 * torch", RLNCG, "each_cell_for_itself"),
    (
        "../models/rln_cg",
        "else (learned, cells.apply_green, learned)",
        "else (cells.apply_green, learned)",
        RLNCG,
        "is_cg or with_the_package",
    ),
    ("../train", "sets[turn][1]", "sets[0][1]", TRAIN, "several_sets"),
    ("../train", "rng(order).permutation(turns)", "rng(0).permutation(turns)", TRAIN, "several_sets"),
    ("../models/domain", "problem.without_load != first.without_load", "False", TRAIN, "second_material"),
    ("../models/localization", "[iterates[-1] for", "[iterates[0] for", MODELS, "any_of_its_passes"),
    ("../models/operations", "GATHER, SCATTER = 24", "GATHER, SCATTER = 0", OPERATIONS, "an_iteration"),
    ("../models/operations", "2 * sum(grid) if", "sum(grid) if", OPERATIONS, "an_iteration"),
    ("../models/operations", "2.5 * math", "5 * math", OPERATIONS, "large_grids"),
    ("../models/operations", "torch.ops.aten.mkldnn_convolution: convolution", "", OPERATIONS, "both_operators"),
    ("../models/operations", "steps = 2 * k + 1", "steps = k", OPERATIONS, "both_operators"),
    ("../models/operations", "k * total / model.passes", "total / model.passes", OPERATIONS, "every_pass"),
    ("../models/localization", "// math.prod(grid)", "// 128", MODELS, "as_many"),
    ("../models/localization", "enumerate(fields, 1)", "enumerate(fields[::-1], 1)", EVALUATE, "each_pass"),
    ("../train", "perf_counter() - state.seconds_of_steps", "perf_counter()", TRAIN, "add_up"),
    ("../train", "max(state.memory, peak(device))", "peak(device)", TRAIN, "add_up"),
    ("../train", "[f.name for f in fields(State)], recipe, code,", "recipe,", TRAIN, "changed_class"),
    ("../train", "network.eval()", "network.train()", TRAIN, "changed_class"),
    ("../models/user_network", "given != [shape] * self.passes", "False", MODELS, "cannot_serve"),
    ("../models/user_network", "fields[:passes]", "fields", MODELS, "users_file"),
    ("../models/architectures", "*sys.path, os.getcwd()", "*sys.path", MODELS, "users_file"),
    ("../models/published", "pickle.BUILD[0]: ignore_attributes,", "", PUBLISHED, "views_and_attributes"),
    ("../evaluate", "for shift in (j, -j):", "for shift in (j,):", PIPELINE, "counted_by_hand"),
    ("../evaluate", "same = np.roll(phase, shift, axis) == phase", "same = True", EVALUATE, "distance"),
    ("../evaluate", "if j**2 >= within.max():", "if j**2 >= within.min():", EVALUATE, "distance"),
    ("../evaluate", ".astype(np.float32))", ")", EVALUATE, "few_solutions"),
    ("../evaluate", "for k in {*chosen.values()} - kept.keys():", "for k in ():", EVALUATE, "fewer_examples"),
    ("../evaluate", "np.max(peaks, axis=0)", "peaks[-1]", EVALUATE, "fewer_examples"),
    ("../statistics", "1.96 *", "1.9 *", FIGURES, "confidence"),
    ("../statistics", "1e3 * groups", "groups", FIGURES, "confidence"),
    ("../statistics", '["error"][-1].values', '["error"][0].values', FIGURES, "worst_voxel"),
    ("../statistics", '"distance": 0', '"distance": 1', FIGURES, "by_distance"),
    ("../statistics", "groups.size() >= LEAST", "groups.size() >= 1", FIGURES, "by_distance"),
    ("../statistics", 'examples["iterates"] / mean\n', 'examples["iterates"]\n', FIGURES, "pass_by_pass"),
    ("../figures/fields", "1 / inside.sum()", "1 / inside.size", FIGURES, "distributions"),
    ("../plan", "+ 140", "+ 14", PLAN, "memory"),
    ("../plan", "if is_solver else 2.4e-3", "if is_solver else 1.1e-3", PLAN, "images"),
    ("../plan", 'trained=figure.shows == "trained"', "trained=False", PLAN, "figures_of_the_report"),
    ("../plan", 'csv.writer(row, lineterminator="").writerow(entries)', "row.write(','.join(entries))", PLAN, "words"),
    ("../products", "if seal(kind, attributes, arrays) != attributes:", "if False:", EVALUATE, "names_it"),
    ("../products", '!= kind or "sha256"', '== "" or "sha256"', EVALUATE, "names_it"),
    ("../products", "error.filename = error.filename or str(path)", "pass", EVALUATE, "full_disk"),
    ("problem", "_like(products, 1 / factors)", "_like(products, factors)", PROBLEM, "energy"),
    ("problem", "strain) / _like(strain, factors)", "strain) * _like(strain, factors)", PROBLEM, "energy"),
    ("material", 'parameters.pop("kind",', 'parameters.pop("kin",', PROBLEM, "kind"),
    ("../store/shards", "without_old_kind(m) for", "m for", PROBLEM, "are_kept"),
    ("arguments", "dtype=np.uint16", "dtype=np.uint8", CELL, "many_phases"),
    (
        "../export",
        "field.T.reshape(-1, *field.shape[:-3])",
        "field.reshape(*field.shape[:-3], -1).T",
        EXPORT,
        "image_is",
    ),
    ("../export", "field.T.reshape(-1, *field.shape[:-3])", "field.reshape(*field.shape[:-3], -1).T", EXPORT, "table"),
    ("../export", '"xy", "yz", "xz")', '"yz", "xz", "xy")', EXPORT, "image_is"),
    ("../export", "reorder_components(field, VTK)", "field", EXPORT, "image_is"),
    ("../export", "shape[-3:])", "shape[:-4:-1])", EXPORT, "image_is"),
    ("../export", "map(str, spacing)", "map(str, spacing[::-1])", EXPORT, "image_is"),
    ("../export", '"Float32", "<f4"', '"Float32", "<f8"', EXPORT, "image_is"),
    ("../export", '"xy", "xz", "yz")', '"xy", "yz", "xz")', EXPORT, "stores_as"),
    ("../export", "ABAQUS, shear=2", "ABAQUS, shear=1", EXPORT, "table"),
    ("../export", "reorder_components(stress, ABAQUS)", "reorder_components(stress, ABAQUS, shear=2)", EXPORT, "table"),
    ("../export", "3 * sum", "6 * sum", EXPORT, "stores_as"),
    ("../export", "np.abs(strain - prediction)", "strain - prediction", EXPORT, "networks_of"),
    (
        "../export",
        "add_stress(phase, problem, prediction)",
        "add_stress(phase, problem, strain)",
        EXPORT,
        "networks_of",
    ),
    ("../export", 'arrays["strain"][i]', 'arrays["strain"][0]', EXPORT, "stores_as"),
    ("../export", "enumerate(files, 1)", "enumerate(files)", EXPORT, "its_passes"),
    ("../export", "vti_parts(image))\n        if", "vti_parts(truth))\n        if", EXPORT, "its_passes"),
    ("../export", "compare(phase, problem, strain, solution)", "{}", EXPORT, "its_passes"),
    ("../export", "data[i : i + 3 * 2**20]", "data[i : i + 2**20]", EXPORT, "millions"),
    ("../export", ".assign(k=k)", "", EXPORT, "stores_as"),
    ("../export", "i not in range(cells.count)", "i >= cells.count", EXPORT, "bad_input"),
    ("../export", "for store in cells, data:", "for store in ():", EXPORT, "bad_input"),
    (
        "../export",
        'model.check_labels(cells.attributes.get("labels"))',
        "model",
        EXPORT,
        "bad_input",
    ),
    ("kernels", "i, j = min(a, b), max(a, b)", "i, j = min(a, b), b", CONDUCTION, "third"),
    ("effective", "gamma.mean(axis=0)", "gamma[0]", CONDUCTION, "bounds"),
    ("arguments", "for m in checked}) > 1", "for m in checked}) > 2", CONDUCTION, "one_physics"),
    ("../microstructure/gaussian", "g // 2)", "(g - 1) / 2)", SAMPLES, "filter or published"),
    ("../microstructure/gaussian", "np.sort(u[:, 3:])", "u[:, 3:]", SAMPLES, "likely"),
    ("../microstructure/generator", "np.cumsum(fractions)", "fractions", SAMPLES, "given_fractions"),
    ("../microstructure/generator", "if self.shape[a] > 1", "if True", VORONOI, "nearest"),
    ("../microstructure/generator", "self.spacing[a] * (np", "1.0 * (np", VORONOI, "nearest"),
    (
        "../microstructure/samples",
        "_hypercube(generator, grid, seed, key, b)",
        "_hypercube(generator, grid, seed, key, b + first)",
        SAMPLES,
        "range",
    ),
    ("../microstructure/polycrystal", ", boxsize=box)", ")", VORONOI, "nearest"),
    ("../microstructure/polycrystal", "if not empty.any()", "if True", VORONOI, "every_grain"),
    (
        "../microstructure/polycrystal",
        "Rotation.random(self.grains, rng=rng)",
        "Rotation.from_euler('ZXZ', 360 * rng.random((self.grains, 3)), degrees=True)",
        VORONOI,
        "uniform",
    ),
    ("../microstructure/polycrystal", ", degrees=True)", ")", VORONOI, "spread_is"),
    ("../microstructure/polycrystal", "scalar_first=True", "scalar_first=False", VORONOI, "one_crystal"),
    (
        "../microstructure/packing",
        "d.min(initial=np.inf) >= distance",
        "d.min(initial=np.inf) >= 0.95 * distance",
        INCLUSIONS,
        "distance",
    ),
    ("../microstructure/packing", "2 * np.sqrt(_dot(halves, halves).max())", "0", INCLUSIONS, "distance"),
    ("../microstructure/packing", '| (pairs["v"] > 0)', "", INCLUSIONS, "its_images"),
    ("../microstructure/packing", "t = _clipped_ratio(pq * s + qw, qq)", "t = 0 * s", INCLUSIONS, "shortest"),
    ("../microstructure/packing", "s = _clipped_ratio(pq * t - pw, pp)", "", INCLUSIONS, "shortest"),
    ("../microstructure/inclusions", "radius * (2 + self.gap)", "radius * 2", INCLUSIONS, "distance or apart"),
    ("../microstructure/inclusions", "+ 2 * (self.aspect - 1) * _ball(d - 1)", "", INCLUSIONS, "fill"),
    ("../microstructure/packing", "np.where(crosses[:, None], 1e-9 * w, gap)", "gap", INCLUSIONS, "distance"),
    ("../microstructure/inclusions", "indices % n", "np.clip(indices, 0, n - 1)", INCLUSIONS, "shift or within"),
    ("../microstructure/inclusions", "w - t[..., None] * h", "w", INCLUSIONS, "within"),
    ("../microstructure/inclusions", "w = spacing * (", "w = (", INCLUSIONS, "within"),
    ("numbers", "np.frexp(largest)[1] - 1)", "0)", CELL, "any_size"),
    ("solver", "else find_scale(u)", "else 1.0", CELL, "without_a_load"),
    ("numbers", "if count := sum(", "if count := 0 * sum(", CELL, "messages_name"),
    ("../models/rln_cg", "constants.physics.name != self.physics.name", "False", CONDUCTION, "one_physics"),
    ("../models/domain", "C.shape != C0.shape or", "", CONDUCTION, "keep"),
    ("material", "tuple(map(tuple, k.tolist()))", "k", CONDUCTION, "assembled and any"),
    ("../export", '("GRADT", "HFL"), -1', '("GRADT", "HFL"), 1', CONDUCTION, "paraview"),
    ("../models/rln_cg", "2 * len(physics.isotropic)", "4", CONDUCTION, "rln_cg_learns"),
    ("../workers", "security=Security.temporary(),", "", WORKERS, "credentials"),
    ("../workers", '"distributed.worker.http.routes": [],', "", WORKERS, "credentials"),
    ("../workers", "            if idle:", "            if False:", WORKERS, "lost_its_workers"),
    ("../workers", "        hidden_main(),\n", "", WORKERS, "guard"),
    ("../workers", "signal.SIG_BLOCK", "signal.SIG_UNBLOCK", WORKERS, "signal and 2-2"),
    ("../machine", "min(CPU_COUNT, int(granted))", "CPU_COUNT", ENVIRONMENT, "each_core"),
    ("../cli", '("PYTHONIOENCODING", "PYTHONWARNINGS")', "()", ENVIRONMENT, "text_is"),
    ("compiled", "        except Exception:", "        except LookupError:", ENVIRONMENT, "damaged_kernel"),
    ("../images", "math.prod(shape) * dtype.itemsize != length - head.tell()", "False", IMAGES, "damaged"),
    ("../images", "or min(shape) < 0", "", IMAGES, "damaged"),
    ("../images", "size > limit", "False", IMAGES, "damaged"),
    ("../images", "min(shape[-3:]) < LEAST", "False", IMAGES, "refused"),
    ("../images", "enumerate(labels)}", "enumerate(sorted(labels))}", IMAGES, "those_of_the_problem"),
    ("../images", "not set(integers) <= set(labels)", "False", IMAGES, "stray"),
    ("../images", "first + int(np.argmax(count))", "first", IMAGES, "stray"),
    ("../dataset", 'digests != cells.attributes["images"][first:last]', "False", IMAGES, "made_again"),
    ("../store/shards", "any(a != b for a, b in", "any(False for _ in", IMAGES, "unchanged"),
    ("../loader", "labels[path] != labels[stated[0]]", "False", IMAGES, "different_labels"),
    ("../models/domain", "tuple(labels) != self.labels", "False", IMAGES, "different_labels"),
    ("../store/creation", "with locked(path):", "if True:", STORE, "one_process"),
    ("../store/shards", "        path = Path(path).resolve()\n", "", STORE, "a_link"),
    ("../store/shards", "file.resolve(), path.resolve())", "file, path)", STORE, "true_place"),
    ("../store/shards", "(self.receipts / MARK).exists() or", "True or", STORE, "moved_alone"),
    ("../store/layout", "if metadata.get(key) != expected[key]", "if False", STORE, "damaged_metadata"),
    (
        "../store/shards",
        "self.find_fault(shard)) in (OTHER, OTHER_IMAGES)",
        "self.find_fault(shard)) == 0",
        STORE,
        "another_store",
    ),
    ("../store/creation", "in layout else FIELDS:", "in layout else {**PHASE, **FIELDS}:", STORE, "user_adds"),
    ("../store/creation", "attributes=encode_attributes(values)", "attributes=values", STORE, "netcdf"),
    ("../store/shards", "file.suffix and file.parent", "False and file.parent", STORE, "with_its_receipts"),
]


def broken_source(row):
    """The file of a row, and its text after the breakage."""
    name, text, replacement, _, _ = row
    file = TESTS.parent / f"src/lspipe/cell/{name}.py"
    source = file.read_text()
    if (count := source.count(text)) != 1:
        raise ValueError(f"tests/breakages.py: {text!r} is {count} times in {name}.py; it must be there once")
    return file.resolve().relative_to(TESTS.parent), source.replace(text, replacement)


def goes_red(row, folder):
    *_, files, tests = row
    broken, source = broken_source(row)
    # Time stamps are kept, and with them the compiled kernels of the files that stay as they are.
    shutil.copytree(TESTS.parent / "src", folder / "src")
    (folder / broken).write_text(source)
    command = ["-m", "pytest", "-q", "-x", "--tb=no", "-p", "no:cacheprovider", "-k", tests]
    env = os.environ | {"PYTHONPATH": str(folder / "src"), "NUMBA_NUM_THREADS": "1"}
    where = [str(TESTS / file) for file in files.split()]
    done = subprocess.run([sys.executable, *command, *where], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout
    return done.returncode == 1


def main(rows):
    green = 0
    for i in rows or range(len(TABLE)):
        with tempfile.TemporaryDirectory() as folder:
            red = goes_red(TABLE[i], Path(folder))
        green += not red
        print(f"{i:3} {'red  ' if red else 'GREEN'} {TABLE[i][0]}: {TABLE[i][1]!r} → {TABLE[i][2]!r}", flush=True)
    sys.exit(f"{green} breakages go unnoticed" if green else 0)


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]])
