"""Time and losses of a training step, beside those of the network as the paper describes it.

    python benchmarks/training.py --architectures fln rln --batches 32 --threads 1 2

The straightforward network does what the table of layers says: contiguous float32, a periodic padding before each 3³
convolution, every layer on the whole padded cell. Its weights at the start and its step are the same otherwise. On a
shared machine, whose speed changes by the minute, the contestants take turns, a step each, and what counts is the ratio
of their times in one turn; the table shows medians over the turns, and each one's losses in the first steps.

The operations of a step, forward and backward, are those of its convolutions as PyTorch counts them where they are
called. Their ceiling is what a large product of matrices reaches in the same turn, on the same device or threads and in
the same precision.
"""

import argparse
import os
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from itertools import product
from statistics import median
from time import perf_counter

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils import clip_grad_norm_
from torch.utils.flop_counter import FlopCounterMode

import lspipe
from lspipe.cell.physics import ELASTICITY
from lspipe.machine import cores
from lspipe.models.architectures import build
from lspipe.models.network import loss_of
from lspipe.models.rln import RLN

MATERIALS = [lspipe.Isotropic(120, 0.3), lspipe.Isotropic(1200, 0.3)]
STRAIN = [1e-3, 0, 0, 0, 0, 0]


class Layer(nn.Module):
    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv, self.activ = conv, nn.PReLU(conv.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.activ(self.conv(x))


class Straightforward(nn.Module):
    def __init__(self, channels_in: int = 6, d1: int = 16, d2: int = 32) -> None:
        super().__init__()
        periodic = {"kernel_size": 3, "padding": 1, "padding_mode": "circular"}
        self.begin_1 = Layer(nn.Conv3d(channels_in, d1, **periodic))
        self.begin_2 = Layer(nn.Conv3d(d1, d1, **periodic))
        self.down = Layer(nn.Conv3d(d1, d2, 2, stride=2))
        self.down_1 = Layer(nn.Conv3d(d2, d2, **periodic))
        self.down_2 = Layer(nn.Conv3d(d2, d2, **periodic))
        self.up = Layer(nn.ConvTranspose3d(d2, d2, 2, stride=2))
        self.end_1 = Layer(nn.Conv3d(d1 + d2, d2, **periodic))
        self.end_2 = nn.Conv3d(d2, d1, **periodic)
        self.flat = nn.Conv3d(d1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[-1]
        m = -(-(n + 4) // 4) * 4 - n
        skip = self.begin_2(self.begin_1(pad(x, (m // 2, m - m // 2) * 3, mode="circular")))
        coarse = self.up(self.down_2(self.down_1(self.down(skip))))
        y = self.flat(self.end_2(self.end_1(torch.cat([coarse, skip], dim=1))))
        return y[(..., *[slice(m // 2, m // 2 + n)] * 3)]


def straightforward(network: RLN) -> RLN:
    copy = deepcopy(network)
    copy.nets = nn.ModuleList([Straightforward() for _ in network.nets])
    copy.load_state_dict(network.state_dict())
    return copy.to(memory_format=torch.contiguous_format)


def contestant(code: str, network: RLN, phase: Tensor, y: Tensor) -> tuple[Callable[[], float], int]:
    """A step of training, which returns the loss before it, and its floating-point operations."""
    network = straightforward(network) if code == "straightforward" else deepcopy(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    apply = torch.compile(network) if "compile" in code else network
    bf16 = torch.autocast(phase.device.type, torch.bfloat16) if "bf16" in code else nullcontext()

    def learn(apply: Callable[[Tensor], list[Tensor]]) -> Tensor:
        torch.backends.cudnn.allow_tf32 = "tf32" in code
        with bf16:
            iterates = apply(phase, torch.ones(1, 1, 1, 1, device=phase.device))
        loss = loss_of([i.float() for i in iterates], y, ELASTICITY)
        optimizer.zero_grad()
        loss.backward()
        return loss

    def step() -> float:
        loss = learn(apply)
        clip_grad_norm_(network.parameters(), 2.0 * network.passes)
        optimizer.step()
        return loss.item()

    with FlopCounterMode(display=False) as counter:
        learn(network)  # compiled, it could not be seen
    return step, counter.get_total_flops()


def ceiling(code: str, device: str) -> float:
    """Floating-point operations a second of a product of matrices, in the precision of ``code``: the best of three."""
    n = 2048 if device == "cpu" else 8192
    torch.backends.cuda.matmul.allow_tf32 = "tf32" in code
    a = torch.rand(n, n, device=device, dtype=torch.bfloat16 if "bf16" in code else torch.float32)
    seconds = []
    for _ in range(3):
        start = perf_counter()
        (a @ a)[0, 0].item()  # waits for a CUDA device
        seconds.append(perf_counter() - start)
    return 2 * n**3 / min(seconds)


def measure(args: argparse.Namespace, architecture: str, batch: int, threads: int) -> list[dict]:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    cells = lspipe.generate(batch, args.n, 0, "train").phase
    strain = lspipe.solve(cells, MATERIALS, STRAIN, scheme="bbar").strain[:, :1]
    phase = torch.from_numpy(cells).to(args.device)
    y = torch.from_numpy(strain / STRAIN[0]).float().to(args.device)
    network = build(architecture, len(MATERIALS)).to(args.device).train()
    codes = ["straightforward", "lspipe", *(f"lspipe {v}" for v in args.variants)]
    steps, operations = zip(*(contestant(code, network, phase, y) for code in codes), strict=True)
    losses, seconds, ceilings = ({code: [] for code in codes} for _ in range(3))
    for _, (code, step) in product(range(args.turns + 1), zip(codes, steps, strict=True)):
        start = perf_counter()
        losses[code].append(step())
        if args.device != "cpu":
            torch.cuda.synchronize()
        seconds[code].append(perf_counter() - start)
        ceilings[code].append(ceiling(code, args.device))
    return [
        {
            "network": architecture,
            "batch": batch,
            "threads": threads if args.device == "cpu" else args.device,
            "code": code,
            "s a step": f"{median(seconds[code][1:]):.3g}",
            "samples a s": f"{batch / median(seconds[code][1:]):.3g}",
            "straightforward time / its time": f"{median(np.divide(seconds[codes[0]], seconds[code])[1:]):.2f}",
            "GFLOP a step": f"{flops / 1e9:.3g}",
            "of the ceiling": f"{median(flops / np.multiply(seconds[code], ceilings[code])[1:]):.0%}",
            "losses": " ".join(f"{loss:.4f}" for loss in losses[code][:4]),
        }
        for code, flops in zip(codes, operations, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=31, help="voxels along an edge")
    parser.add_argument("--architectures", nargs="+", default=["fln", "rln-t", "rln"])
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 32])
    parser.add_argument("--threads", type=int, nargs="+", default=[cores()])
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--variants", nargs="*", default=[], help="compile, bf16, tf32 (on CUDA) or several joined by +"
    )
    parser.add_argument("--turns", type=int, default=5, help="of the contestants, a step each, after a first one")
    args = parser.parse_args()
    print(f"{cores()} cores, torch {torch.__version__}, {args.n}³, load {os.getloadavg()[0]:.1f} before", end="")
    rows = []
    for case in product(args.architectures, args.batches, args.threads):
        rows += measure(args, *case)
    print(f", {os.getloadavg()[0]:.1f} after\n")
    print(tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
