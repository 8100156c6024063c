"""What each part of RLN-CG is worth: variants trained alike on small cells, each beside plain conjugate gradients.

    python benchmarks/ablations.py

Error in energy norm in % (geometric mean over unseen microstructures) after that many Green applications.
"""

import argparse
import csv
import tempfile
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from study import unlearned
from tabulate import tabulate

import lspipe
from lspipe import train as training
from lspipe.loader import Samples
from lspipe.machine import cores
from lspipe.models import rln_cg
from lspipe.models.domain import Domain
from lspipe.models.errors import square
from lspipe.models.rln_cg import RLNCG, RLNCGModel

STRAIN = (1e-3, 0.0, 0.0, 0.0, 0.0, 0.0)
CONTRASTS = (10.0, 50.0, 1000.0)
GREEN = (2, 5, 10)


def constant_h() -> RLNCG:
    """W is learned, and what multiplies it is the same in all voxels."""
    network = RLNCG()
    for parameter in network.features.parameters():
        parameter.requires_grad_(False)
    network.h.weight.requires_grad_(False)
    return network


def diagonal() -> RLNCG:
    """h is learned, and W is the identity: S is a modulus a node."""
    network = RLNCG(width=3, reach=(1,))
    network.W.requires_grad_(False)
    return network


class StrainLoss(RLNCG):
    """Learns by the error of the strain, as the paper's networks do."""

    def learn(self, phase, y, domain):
        _, strain = super().learn(phase, y, domain)
        mean = square(y.mean(dim=(2, 3, 4), keepdim=True), domain.physics)
        return 100 * (square(strain - y, domain.physics) / mean).mean().sqrt(), strain


VARIANTS = {
    "all": RLNCG,
    "h constant": constant_h,
    "W the identity": diagonal,
    "W without dilation": lambda: RLNCG(reach=(1,)),
    "strain loss on the last pass": StrainLoss,
}


def samples(split: str, count: int, n: int, contrast: float) -> tuple[Samples, Domain]:
    domain = Domain((lspipe.Isotropic(1.0, 0.3), lspipe.Isotropic(contrast, 0.3)), STRAIN)
    phase = lspipe.generate(count, n, 0, split).phase
    y = lspipe.solve(phase, domain.materials, STRAIN, tol=1e-6).strain / STRAIN[0]
    return Samples(torch.from_numpy(phase), torch.from_numpy(y.astype(np.float32))), domain


def errors(model, tests) -> list[float]:
    """Of each contrast and number of Green applications."""
    found = []
    for set_, domain in tests:
        phase = set_.phase.long()
        for green in GREEN:
            strain = torch.from_numpy(model.predict(set_.phase.numpy(), domain.materials, STRAIN, passes=green).strain)
            y = set_.y.double()
            ratio = domain.compute_energy(phase, strain / STRAIN[0] - y) / domain.compute_energy(phase, y)
            found.append(100 * ratio.log().mean().div(2).exp().item())
    return found


def with_mean_h(model: RLNCGModel, tests) -> RLNCGModel:
    """The same with h replaced by its mean over all voxels of the tests."""
    seen, averaged = [], deepcopy(model)
    hook = model.network.h.register_forward_hook(lambda *call: seen.append(call[-1].mean(dim=(0, 2, 3, 4))))
    errors(model, tests)
    hook.remove()
    with torch.no_grad():
        averaged.network.h.weight.zero_()
        averaged.network.h.bias.copy_(torch.stack(seen).mean(dim=0))
    return averaged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--count", type=int, default=64, help="microstructures to train on, at each contrast")
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args()
    print(f"{cores()} cores; {args.count} microstructures of {args.n}³ at each contrast, {args.epochs} epochs")
    learn, choose, tests = (
        [samples(split, count, args.n, contrast) for contrast in CONTRASTS]
        for split, count in (("train", args.count), ("valid", 8), ("test", 32))
    )
    rows = [("cg", "", *errors(lspipe.load_model("cg"), tests)), ("S = D⁻¹", "", *errors(unlearned(), tests))]

    def trained(build, sets) -> tuple[RLNCGModel, float]:
        network = None

        def kept(*_):
            nonlocal network
            network = build()
            return network

        training.build = kept
        recipe = {"architecture": "rln-cg", "seed": 0, "batch": 4, "learning_rate": 3e-3, "device": "cpu"}
        with tempfile.TemporaryDirectory() as folder:
            training.train(Path(folder), sets, choose, epochs=args.epochs, **recipe)
            with open(Path(folder) / "metrics.csv") as file:
                seconds = sum(float(row["seconds"] or 0) for row in csv.DictReader(file))
        return RLNCGModel(network.eval()), seconds

    for name, build in VARIANTS.items():
        model, seconds = trained(build, learn)
        rows.append((name, seconds, *errors(model, tests)))
        if name == "all":
            for memory in (1, 3, 20):
                rln_cg.MEMORY, kept = memory, rln_cg.MEMORY
                rows.append((f"the same, {memory} directions kept", "", *errors(model, tests)))
                rln_cg.MEMORY = kept
    for contrast, set_ in zip(CONTRASTS, learn, strict=True):
        model, seconds = trained(RLNCG, [set_] * len(CONTRASTS))
        rows.append((f"trained at {contrast:g} alone", seconds, *errors(model, tests)))
    shipped = lspipe.load_model("rln-cg")
    rows.append(("weights of the package", "", *errors(shipped, tests)))
    rows.append(("the same, h its mean", "", *errors(with_mean_h(shipped, tests), tests)))
    head = ["", "training, s", *(f"contrast {c:g}: {green}" for c in CONTRASTS for green in GREEN)]
    print(tabulate(rows, head, tablefmt="github", floatfmt=".3g"))


if __name__ == "__main__":
    main()
