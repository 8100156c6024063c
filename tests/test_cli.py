"""The commands as a user types them: what they make, and what they say of bad input."""

import shlex

import pandas as pd
import pytest
from conftest import call

from lspipe import open_dataset


def test_the_stages_by_hand(tmp_path):
    """The README's commands without Snakemake."""
    for split, count in (("train", 6), ("valid", 3)):
        call("generate", f"{split}.zarr", "--count", count, "--n", 8, "--split", split, cwd=tmp_path)
        materials = ("--material", "120,0.3", "--material", "1200,0.3")
        call("allocate", f"strain-{split}.zarr", f"{split}.zarr", *materials, cwd=tmp_path)
        call("solve", f"{split}.zarr", f"strain-{split}.zarr", "--workers", 1, cwd=tmp_path)
    sets = ("--train", "train.zarr,strain-train.zarr", "--valid", "valid.zarr,strain-valid.zarr")
    done = call("train", "fln", *sets, "--architecture", "fln", "--epochs", 1, cwd=tmp_path)
    assert "step/s" in done.stderr
    outputs = ("--errors", "errors.parquet", "--examples", "examples.zarr")
    call("evaluate", "fln", "valid.zarr", "strain-valid.zarr", *outputs, cwd=tmp_path)
    assert len(pd.read_parquet(tmp_path / "errors.parquet")) == 3
    assert open_dataset(tmp_path / "examples.zarr").sizes["example"] == 3


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("generate x.zarr --count 4 --n 8 --split dev", "split = 'dev': must be one of train, valid, test"),
        ("import x.zarr none.npy --count 4 --split dev", "split = 'dev': must be one of train, valid, test"),
        ("allocate x.zarr none.zarr --material 1,0.3", "none.zarr: is no store; lspipe generate"),
        ("allocate x.zarr none.zarr --material -1,0.3", "young = -1.0: must be a number ≥ 0"),
        ("allocate x.zarr none.zarr --material 1,0.5", "poisson = 0.5: must lie between -1 and 0.5"),
        ("allocate x.zarr none.zarr --material 1,2,3", "--material 1,2,3: must be 1 or 2 numbers separated by commas"),
        ("allocate x.zarr none.zarr --material soft", "--material soft: must be 1 or 2 numbers separated by commas"),
        (
            "allocate x.zarr none.zarr --material 1 --strain 1,0",
            "strain = (1.0, 0.0): must have 3 components (x, y, z)",
        ),
        (
            "allocate x.zarr none.zarr --material 1",
            "strain = (0.001, 0.0, 0.0, 0.0, 0.0, 0.0): must have 3 components (x, y, z)",
        ),
        (
            "allocate x.zarr none.zarr --material 1,0.3 --material 1 --strain 1,0,0",
            "must be of one physics, not elasticity and conduction",
        ),
        (
            "allocate x.zarr none.zarr --material 0 --strain 1,0,0",
            "materials: are all voids; at least one must carry stress",
        ),
        (
            "allocate x.zarr none.zarr --material 1 --strain 1,soft,",
            "--strain 1,soft,: must be numbers separated by commas",
        ),
        (
            "allocate x.zarr none.zarr --material '{kind: cubic, c11: 1, c12: 2, c44: 1}'",
            "--material {kind: cubic, c11: 1, c12: 2, c44: 1}: c11 = 1, c12 = 2, c44 = 1: must have c11 > |c12|",
        ),
        (
            "allocate x.zarr none.zarr --material '{steel}'",
            "--material {steel}: kind is missing: must be given where no key is one of young, stiffness, conductivity;",
        ),
        (
            "allocate x.zarr none.zarr --material 1,0.3 --stress 1,0,0",
            "strain = (None, None, None): must have 6 components",
        ),
        ("generate x.zarr --count 1 --n 8,8", "--n 8,8: must be 1 or 3 positive integers separated by commas"),
        ("generate x.zarr --count 1 --n 8 --spacing 1,1", "--spacing 1,1: must be 3 numbers separated by commas"),
        (
            "generate x.zarr --count 1 --n 8 --generator '{kind: foam}'",
            "--generator {kind: foam}: kind = 'foam': must be one of gaussian",
        ),
        ("generate x.zarr --count 1 --n 8 --generator foam", "--generator foam: must be a mapping in braces"),
        (
            "generate x.zarr --count 1 --n 8 --generator '{kind: spheres, count: 2, fraction: 0.9}'",
            "fraction = 0.9",
        ),
        ("solve a.zarr b.zarr --device cuda:99", "device = 'cuda:99': must be cpu or a CUDA device that PyTorch finds"),
        ("evaluate none a b --errors e --examples f", "none: must be a folder with a model.json, or one of"),
        ("config none.yaml", "none.yaml"),
        ("table a.csv --of=c10,fln,x", "--of=c10,fln,x is now called --input"),
        ("import-checkpoint x.pth out --contrast 10", "import-checkpoint is now called import-published"),
        ("config", "config: name a file"),
        ("table a.pdf --input c10,fln,x", "a.pdf: must end in .csv, .md, .html, .txt"),
        ("table a.csv --input c10,fln", "--input c10,fln: must be CASE,NAME,FILE; write "),
        (
            "table a.csv --input c10,fln,a,b",
            '--input c10,fln,a,b: must be CASE,NAME,FILE; write "a,b" for a name with',
        ),
        ("table a.csv --input 'c10,fln,\"a'", '--input c10,fln,"a: must be CASE,NAME,FILE'),
    ],
)
def test_bad_input_gets_one_line_and_writes_nothing(tmp_path, command, said):
    done = call(*shlex.split(command), cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
