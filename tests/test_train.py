"""Training: the paper's loss, the same weights again, nothing lost to an interruption."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import BIN, REPOSITORY, call, run
from safetensors.torch import load_file

from lspipe import Isotropic, generate, load_model, solve
from lspipe import train as training
from lspipe.cell.physics import ELASTICITY
from lspipe.dataset import create_fields, solve_fields, write_microstructures
from lspipe.figures import draw
from lspipe.interrupt import Unfinished, deadline
from lspipe.loader import Samples, load, mixed
from lspipe.models.architectures import build
from lspipe.models.domain import Domain, load_scale
from lspipe.models.errors import mase
from lspipe.models.network import loss_of
from lspipe.models.rln import RLN
from lspipe.train import summarize_losses, train

DOMAIN = Domain((Isotropic(120, 0.3), Isotropic(1200, 0.3)), (1e-3, 0.0, 0.0, 0.0, 0.0, 0.0))
RECIPE = {"architecture": "fln", "seed": 0, "epochs": 3, "batch": 4, "learning_rate": 2e-3, "device": "cpu"}


def samples(count, split, components=1, domain=DOMAIN):
    phase = generate(count, 8, 0, split).phase
    strain = solve(phase, domain.materials, domain.strain).strain[:, :components] / load_scale(domain)
    return Samples(torch.from_numpy(phase), torch.from_numpy(strain.astype(np.float32)))


@pytest.fixture(scope="module")
def sets():
    return samples(10, "train"), samples(5, "valid")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """The stores of a training and a validation set, in shards of 3."""
    folder = tmp_path_factory.mktemp("stores")
    for split, count in (("train", 10), ("valid", 5)):
        cells, fields = folder / f"{split}.zarr", folder / f"strain-{split}.zarr"
        write_microstructures(cells, count=count, n=8, seed=0, split=split, per_shard=3)
        create_fields(fields, cells, DOMAIN, tol=1e-4, per_shard=3)
        solve_fields(fields, cells)
    return [(folder / f"{split}.zarr", folder / f"strain-{split}.zarr") for split in ("train", "valid")]


def same(a, b):
    """Whether two folders hold the same model, weight for weight, and the same history but for the seconds."""
    weights = [load_file(folder / "model.safetensors") for folder in (a, b)]
    rows = [[row | {"seconds": "", "seconds_of_steps": ""} for row in history(folder)] for folder in (a, b)]
    return rows[0] == rows[1] and all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def of(domain, *sets):
    """Sets of one domain, as `train` takes them."""
    return [[(samples, domain)] for samples in sets]


def history(folder):
    with open(folder / "metrics.csv") as file:
        return list(csv.DictReader(file))


def test_loss_is_the_papers():
    y, *iterates = (torch.tensor(values).reshape(1, 1, 2, 1, 1) for values in ([1.0, 3.0], [1.0, 1.0], [2.0, 4.0]))
    assert loss_of(iterates, y, ELASTICITY).item() == pytest.approx(100 * (np.sqrt(2) / 2 + 1 / 2) / 2)


@pytest.fixture(scope="module")
def learned(sets, tmp_path_factory):
    """A training of eight epochs."""
    folder = tmp_path_factory.mktemp("learned")
    train(folder, *of(DOMAIN, *sets), **RECIPE | {"epochs": 8})
    return folder


def test_training_learns_and_describes_itself(sets, learned):
    rows = history(learned)
    assert [(r["epoch"], r["step"]) for r in rows] == [(f"{e + 1}.0", str(3 * (e + 1))) for e in range(8)]
    assert float(rows[-1]["train_loss"]) < 0.7 * float(rows[0]["train_loss"])
    assert float(rows[-1]["learning_rate"]) == pytest.approx(1e-8)
    description = json.loads((learned / "model.json").read_text())
    best = min(float(r["valid_mase"]) for r in rows)
    assert description["valid_mase"] == best
    valid = sets[1]
    field = load_model(learned).predict(valid.phase.numpy(), DOMAIN.materials, DOMAIN.strain).strain[:, 0] / 1e-3
    assert 100 * np.abs(field - valid.y[:, 0].numpy()).mean() == pytest.approx(best, rel=1e-4)
    assert not (learned / "checkpoint.pt").exists()


def test_a_model_states_the_error_that_most_validation_cells_stay_below(tmp_path):
    """For nine cells it is the largest; four are too few. Each load has its own."""
    shear = replace(DOMAIN, strain=(0.0, 0.0, 0.0, 0.0, 0.0, 2e-3))
    many, few = samples(9, "valid", 6, shear), samples(4, "valid", 6)
    learn = [(samples(2, "train", 6), DOMAIN), (samples(2, "train", 6, shear), shear)]
    train(tmp_path, learn, [(many, shear), (few, DOMAIN)], **RECIPE | {"epochs": 1})
    model, truth = load_model(tmp_path), 2e-3 * many.y.numpy()
    found = model.predict(many.phase.numpy(), DOMAIN.materials, shear.strain)
    weights = np.array([1, 1, 1, 2, 2, 2]).reshape(6, 1, 1, 1)
    norms = np.sqrt(((found.strain - truth) ** 2 * weights).sum(axis=1)).mean(axis=(1, 2, 3))
    assert found.mase_90 == pytest.approx(np.full(9, 100 * norms.max() / (2e-3 * np.sqrt(2))), rel=1e-4)
    assert model.predict(few.phase.numpy(), DOMAIN.materials, DOMAIN.strain).mase_90 is None
    assert model.valid_grids == [many.phase.shape[1:]]
    assert model.training_seconds == sum(float(row["seconds"]) for row in history(tmp_path))


def test_weights_trained_at_one_n_predict_at_another(learned):
    """Better than the macroscopic strain does, on microstructures of odd and even n that it has not seen."""
    for n in (11, 14):
        phase = generate(4, n, 0, "test").phase
        truth = solve(phase, DOMAIN.materials, DOMAIN.strain).strain[:, 0]
        errors = [
            np.abs(
                load_model(model).predict(phase, DOMAIN.materials, DOMAIN.strain, passes=passes).strain[:, 0] - truth
            )
            for model, passes in ((learned, 1), ("cg", 0))
        ]
        assert errors[0].mean() < 0.8 * errors[1].mean()


def test_a_seed_gives_the_same_weights(sets, tmp_path):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tmp_path / folder, *of(DOMAIN, *sets), **RECIPE | {"seed": seed, "epochs": 1})
    a, b, c = (load_file(tmp_path / f / "model.safetensors") for f in "abc")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


KILLED = """
import sys, torch
from pathlib import Path
from lspipe import train
from tests.test_train import DOMAIN, RECIPE, of
torch.set_num_threads(1)
train.CHECKPOINT_INTERVAL = 0
sets = torch.load(sys.argv[1], weights_only=False)
train.train(Path(sys.argv[2]), *of(DOMAIN, *sets), **RECIPE | {"epochs": 10})
"""


def test_killed_and_resumed_equals_undisturbed(sets, tmp_path):
    """SIGKILL within an epoch; the rest is done by the same call."""
    torch.save(sets, tmp_path / "sets.pt")
    out, checkpoint = tmp_path / "killed", tmp_path / "killed/checkpoint.pt"
    command = [sys.executable, "-c", KILLED, tmp_path / "sets.pt", out]
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests"), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": path})
    while not checkpoint.exists() or len(torch.load(checkpoint, weights_only=True)["history"]) < 2:
        assert process.poll() is None, "training ended before it was killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = torch.load(checkpoint, weights_only=True)
    assert 2 <= len(done["history"]) < 10
    assert 1 <= len(done["losses"]) <= 3  # steps of the epoch that it was killed in
    assert not (out / "model.json").exists()
    shutil.copytree(out, tmp_path / "kept")

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train(out, *of(DOMAIN, *sets), **RECIPE | {"epochs": 10})
    train(tmp_path / "undisturbed", *of(DOMAIN, *sets), **RECIPE | {"epochs": 10})
    # A checkpoint of more epochs than asked for is put aside.
    (tmp_path / f"kept/.checkpoint.pt.{'0' * 32}").write_bytes(b"left half written by a killed training")
    with pytest.warns(UserWarning, match=r"kept/checkpoint\.pt: belongs to another training; it was renamed to"):
        train(tmp_path / "kept", *of(DOMAIN, *sets), **RECIPE | {"epochs": 1})
    assert len(list((tmp_path / "kept").glob("checkpoint-*.pt"))) == 1
    torch.set_num_threads(threads)
    assert same(out, tmp_path / "undisturbed")
    assert len(history(tmp_path / "kept")) == 1
    assert not [*tmp_path.glob("*/.*")]


@pytest.mark.parametrize(
    ("memory", "components", "settings"),
    [
        (np.inf, "first", {}),
        (0, "first", {}),
        (0, "all", {}),
        (np.inf, "first", {"precision": "bf16"}),
        (np.inf, "first", {"optimizer": "soap"}),
    ],
    ids=["memory", "disk", "all", "bf16", "soap"],
)
def test_stopped_anywhere_and_resumed_equals_undisturbed(stores, tmp_path, monkeypatch, memory, components, settings):
    """Every third time that it may, training stops: within an epoch, after its last step, while it validates."""
    monkeypatch.setattr("lspipe.optimizer.EVERY", 5)
    monkeypatch.setattr("lspipe.train.has_bf16", lambda device: True)
    sets = [[load(*paths, memory, components)] for paths in stores]
    recipe = RECIPE | {"epochs": 2} | settings
    train(tmp_path / "undisturbed", *sets, **recipe)
    places, said = [], []
    for _ in range(20):
        may = iter([False, False, True, *[False] * 100] if len(places) < 5 else [False] * 100)
        try:
            train(tmp_path / "stopped", *sets, **recipe, stop=lambda may=may: next(may))
            break
        except Unfinished as stopped:
            done = torch.load(tmp_path / "stopped/checkpoint.pt", weights_only=True)
            places.append((len(done["history"]), len(done["losses"])))
            said.append(f"{3 * places[-1][0] + places[-1][1]} of 6 steps are done" in str(stopped))
            said.append(not list((tmp_path / "stopped").glob("m*")))
    assert {(0, 3), (1, 1)} <= set(places)
    assert all(said)
    assert same(tmp_path / "stopped", tmp_path / "undisturbed")


def test_time_and_memory_add_up_over_jobs(sets, tmp_path, monkeypatch):
    """By a clock on which a batch takes 1 s to learn and 10 s to validate; the last job needs the least memory."""
    clock, memory, learn = [0.0], iter([1.0, 3.0, *[2.0] * 100]), RLN.learn

    def slow(*batch):
        clock[0] += 1.0 if torch.is_grad_enabled() else 10.0
        return learn(*batch)

    monkeypatch.setattr(RLN, "learn", slow)
    monkeypatch.setattr("lspipe.train.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("lspipe.train.peak", lambda device: next(memory))
    for _ in range(4):  # they end after step 3, after step 4, in the second validation, and at the end
        assert not (tmp_path / "model.json").exists()
        may = iter([False, False, True])
        with suppress(Unfinished):
            train(tmp_path, *of(DOMAIN, *sets), **RECIPE | {"epochs": 2}, stop=lambda may=may: next(may))
        clock[0] += 1000.0  # in the queue
    described = json.loads((tmp_path / "model.json").read_text())
    assert described["samples_per_second"] == 20 / 6
    assert described["seconds"] == sum(float(row["seconds"]) for row in history(tmp_path)) == 46
    assert described["gpu_gb"] == 3.0
    assert "thread" in described["device"]


def command(stores, *options):
    sets = [
        word
        for split, pair in zip(("train", "valid"), stores, strict=True)
        for word in (f"--{split}", ",".join(map(str, pair)))
    ]
    return [BIN / "lspipe", "train", "fln", *sets, "--architecture", "fln", "--threads", "1", *options]


def test_a_signal_saves_and_says_that_it_is_not_finished(stores, sets, tmp_path):
    """The training is halted at its first step, which a second one into the folder sees. The same command finishes."""
    train = command(stores, "--epochs", "10")
    process = subprocess.Popen(train, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert "0/30" in process.stderr.readline()
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(ValueError, match="fln: another process is writing here"):
        training.train(tmp_path / "fln", *of(DOMAIN, *sets), **RECIPE)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    (line,) = (line for line in process.communicate()[1].splitlines() if line.startswith("lspipe: "))
    assert re.fullmatch(r"lspipe: fln: not finished, \d+ of 30 steps are .* the same command continues", line)
    assert process.returncode == 75
    assert [file.name for file in (tmp_path / "fln").iterdir()] == ["checkpoint.pt"]
    call(*train[1:], cwd=tmp_path)
    assert len(history(tmp_path / "fln")) == 10
    assert not (tmp_path / "fln/checkpoint.pt").exists()


def test_the_time_of_a_job_is_kept(stores, tmp_path):
    stopped = run(*command(stores, "--epochs", 1, "--minutes", 1e-9), cwd=tmp_path, check=False)
    assert "1 of 3 steps are done" in stopped.stderr
    assert stopped.returncode == 75


def test_a_job_shorter_than_a_validation_gets_on(sets, tmp_path):
    """Each call does one step, or one batch of validation, and saves it."""
    recipe, messages = RECIPE | {"epochs": 1, "batch": 2}, []
    with suppress(StopIteration):
        while True:
            try:
                train(tmp_path / "short", *of(DOMAIN, *sets), **recipe, stop=lambda: True)
                break
            except Unfinished as stopped:
                messages.append(str(stopped))
                assert len(messages) <= 8
    assert messages[5].endswith(
        "5 of 5 steps are done and saved, and 1 of 3 batches of the validation; the same command continues"
    )
    assert len(set(messages)) == 8
    train(tmp_path / "undisturbed", *of(DOMAIN, *sets), **recipe)
    assert same(tmp_path / "short", tmp_path / "undisturbed")


@pytest.mark.parametrize(("minutes", "at"), [(1, 54), (10, 540), (240, 238 * 60), (0, np.inf)])
def test_a_job_stops_before_its_time_is_up(monkeypatch, minutes, at):
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    assert deadline(minutes) == pytest.approx(1000 + at)


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source")
def test_snakemake_stopped_in_training_goes_on(pipeline, tmp_path):
    """A queue or a terminal sends its signal to Snakemake, its shells and all that they run. The training had finished
    and was given more epochs: it goes on from its end, and from where it was stopped."""
    folder = shutil.copytree(pipeline.folder, tmp_path / "copy")
    model, log = folder / "results/test/models/fln/seed0", folder / "results/test/logs/train/fln/seed0.log"
    before = history(model)
    snakefile = ("--snakefile", REPOSITORY / "Snakefile", "--configfile", REPOSITORY / "config/test.yaml")
    command = ["snakemake", *snakefile, "--cores", "1", "--config", "training={epochs: 30}", "--", model / "model.json"]
    command[-1] = command[-1].relative_to(folder)
    env = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    checkpoint = model / "checkpoint.pt"

    def saved():
        """The steps in the checkpoint, three an epoch, and the batches that its epoch has validated."""
        if not checkpoint.exists():
            return 0, 0
        state = torch.load(checkpoint, weights_only=True)
        epochs = len([row for row in state["history"] if "valid_mase" in row])
        return 3 * epochs + len(state["losses"]), len(state["scores"])

    done = 3 * len(before), 0
    for number in (signal.SIGTERM, signal.SIGINT):
        log.unlink()
        with open(tmp_path / "said", "w") as said:
            process = subprocess.Popen(
                command, cwd=folder, env=env, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
            )
            while not (log.exists() and f" {done[0]}/90" in log.read_text()):
                assert process.poll() is None, (tmp_path / "said").read_text()
                time.sleep(0.01)
            os.killpg(process.pid, number)
            assert process.wait() != 0
        patience = time.monotonic() + 60  # Snakemake need not wait for training's last step
        while saved() <= done and time.monotonic() < patience:
            time.sleep(0.01)
        assert sorted(file.name for file in model.iterdir()) == ["checkpoint.pt", "finished.pt"]
        assert done < saved() < (90, 0)
        done = saved()
    run(*command, cwd=folder)
    assert len(history(model)) == 30
    assert history(model)[: len(before)] == before
    assert re.search(r"\d+/90", log.read_text())[0] == f"{done[0]}/90"  # It began where it was stopped.


def test_a_step_that_is_not_finite_stops_with_the_state_before_it_kept(sets, tmp_path, monkeypatch):
    """A loss that overflows, in a step or in validation; and a gradient, of a loss of 0."""
    huge = Samples(sets[1].phase, 1e25 * sets[1].y)
    for folder, valid, change in (("loss", sets[1], {"learning_rate": 1.0, "batch": 1}), ("validation loss", huge, {})):
        said = rf"/{folder}: {folder} \S+, (gradient norm|MASE) .* in epoch \d+; lower learning_rate"
        for _ in range(2):  # the second call stops at once
            with pytest.raises(FloatingPointError, match=said):
                train(tmp_path / folder, *of(DOMAIN, sets[0], valid), **RECIPE | change)

    def silent(*arguments):
        network = build(*arguments)
        for parameter in network.nets[0].flat.parameters():
            torch.nn.init.zeros_(parameter)
        return network

    monkeypatch.setattr(training, "build", silent)
    even = Samples(sets[0].phase, torch.ones_like(sets[0].y))
    with pytest.raises(FloatingPointError, match=r"loss 0.0, gradient norm nan in epoch 1; lower learning_rate"):
        train(tmp_path / "gradient", *of(DOMAIN, even, sets[1]), **RECIPE)
    for folder, steps in (("loss", 1), ("validation loss", 3), ("gradient", 0)):
        assert [file.name for file in (tmp_path / folder).iterdir()] == ["checkpoint.pt"]
        done = torch.load(tmp_path / folder / "checkpoint.pt", weights_only=True)
        assert 3 * len(done["history"]) + len(done["losses"]) >= steps
        assert all(weight.isfinite().all() for weight in done["network"].values())


def test_losses_that_are_read_late_change_nothing(sets, finished, tmp_path, monkeypatch):
    """As on a GPU: the same weights, also after a stop. What is not finite is found before the next checkpoint."""
    monkeypatch.setattr(training, "steps_at_once", lambda device: 20)
    recipe, may = RECIPE | {"epochs": 2}, iter([False, True])
    with pytest.raises(Unfinished, match="2 of 6 steps"):
        train(tmp_path / "late", *of(DOMAIN, *sets), **recipe, stop=lambda: next(may))
    train(tmp_path / "late", *of(DOMAIN, *sets), **recipe)
    assert same(tmp_path / "late", finished)
    huge, may = Samples(sets[0].phase, 1e25 * sets[0].y), iter([False, True])
    with pytest.raises(FloatingPointError, match=r"gradient norm nan in epoch 1"):
        train(tmp_path / "nan", *of(DOMAIN, huge, sets[1]), **recipe, stop=lambda: next(may))
    assert not list((tmp_path / "nan").iterdir())


def test_errors_of_all_components_count_each_shear_twice():
    """The Frobenius norm of the tensor, mean strain (1, 0, 0, 0, 0, ½)."""
    rng = np.random.default_rng(0)
    mean = np.array([1, 0, 0, 0, 0, 0.5]).reshape(6, 1, 1, 1)
    y, iterate = (rng.normal(size=(2, 6, 3, 4, 5)) for _ in range(2))
    y, iterate = (a - a.mean(axis=(2, 3, 4), keepdims=True) + mean for a in (y, iterate))
    tensor = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
    norm = np.linalg.norm((iterate - y)[:, tensor], axis=(1, 2)) / np.linalg.norm(mean[tensor, 0, 0, 0])
    iterate, y = map(torch.from_numpy, (iterate, y))
    sheared = replace(DOMAIN, strain=(1.0, 0.0, 0.0, 0.0, 0.0, 0.5))
    assert loss_of([iterate], y, ELASTICITY).item() == pytest.approx(100 * np.sqrt((norm**2).mean()))
    np.testing.assert_allclose(mase(iterate, y, sheared, load_scale(sheared)), 100 * norm.mean(axis=(1, 2, 3)))


def test_all_components_are_learned_under_several_loads(tmp_path):
    """The network beats the macroscopic strain under two loads, one of them pure shear, and refuses a third load."""
    loads = (1e-3, -5e-4, 0.0, 0.0, 0.0, 5e-4), (0.0, 0.0, 0.0, 0.0, -1e-3, 0.0)
    phase = {split: generate(count, 8, 0, split).phase for split, count in (("train", 8), ("valid", 4), ("test", 8))}
    truth = {(s, e): solve(p, DOMAIN.materials, e).strain for s, p in phase.items() for e in loads}

    def sets(split):
        for strain, size in zip(loads, (1e-3, -1e-3), strict=True):
            y = torch.from_numpy(np.float32(truth[split, strain] / size))
            yield Samples(torch.from_numpy(phase[split]), y), Domain(DOMAIN.materials, strain)

    train(tmp_path, [*sets("train")], [*sets("valid")], **RECIPE | {"epochs": 8})
    assert json.loads((tmp_path / "model.json").read_text())["components"] == list(ELASTICITY.components)
    model = load_model(tmp_path)
    for strain in loads:
        solution = model.predict(phase["test"], DOMAIN.materials, [-2 * e for e in strain])
        assert solution.components == ELASTICITY.components
        np.testing.assert_allclose(solution.strain.mean(axis=(2, 3, 4)), -2 * np.tile(strain, (8, 1)), atol=1e-8)
        constant, exact = np.array(strain).reshape(6, 1, 1, 1), truth["test", strain]
        learned, trivial = (np.abs(a - exact).mean() for a in (solution.strain / -2, constant))
        assert learned < 0.9 * trivial
    with pytest.raises(ValueError, match=r"strain = .*: this model was trained for multiples of .* or of \[0\.0, .*\]"):
        model.predict(phase["test"], DOMAIN.materials, (0.0, 0.0, 0.0, 1e-3, 0.0, 0.0))


def test_bf16_is_for_the_convolutions_alone(sets, tmp_path, monkeypatch):
    """Other weights than float32 gives, which are float32, as are the checkpoint and the mean of a prediction."""
    monkeypatch.setattr("lspipe.train.has_bf16", lambda device: True)  # Without it, bf16 is slow.
    for precision in ("float32", "bf16"):
        train(tmp_path / precision, *of(DOMAIN, *sets), **RECIPE | {"precision": precision, "epochs": 1})
    single, half = (load_file(tmp_path / p / "model.safetensors") for p in ("float32", "bf16"))
    assert all(weight.dtype == torch.float32 for weight in half.values())
    assert not all(torch.equal(single[name], half[name]) for name in single)
    assert json.loads((tmp_path / "bf16/model.json").read_text())["training"]["precision"] == "bf16"
    errors = [float(history(tmp_path / p)[0]["valid_mase"]) for p in ("float32", "bf16")]
    assert errors[1] == pytest.approx(errors[0], rel=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        (iterate,) = build("fln", 2)(sets[0].phase, torch.ones(1, 1, 1, 1))
    assert iterate.dtype == torch.float32
    torch.testing.assert_close(iterate.mean(dim=(2, 3, 4)), torch.ones(10, 1), rtol=0, atol=1e-6)


def test_a_processor_without_bf16_takes_float32(sets, tmp_path, monkeypatch):
    monkeypatch.setattr("lspipe.train.has_bf16", lambda device: False)
    with pytest.warns(UserWarning, match=r"^precision = 'bf16': cpu has no instructions for it; float32 is used$"):
        train(tmp_path / "bf16", *of(DOMAIN, *sets), **RECIPE | {"precision": "bf16", "epochs": 1})
    assert json.loads((tmp_path / "bf16/model.json").read_text())["training"]["precision"] == "float32"
    train(tmp_path / "float32", *of(DOMAIN, *sets), **RECIPE | {"precision": "float32", "epochs": 1})
    single, half = (load_file(tmp_path / p / "model.safetensors") for p in ("float32", "bf16"))
    assert all(torch.equal(single[name], half[name]) for name in single)


def test_a_batch_of_several_sets_is_of_one(sets):
    """All batches of all sets, each once, in an order that the seed decides, with the domain of its set."""
    other = Domain((Isotropic(1, 0.2), Isotropic(5, 0.2)), DOMAIN.strain)
    both = [(sets[0], DOMAIN), (Samples(sets[1].phase, 2 * sets[1].y), other)]
    drawn = [
        [(round(batch.y.mean().item()), domain, batch.phase.tolist()) for batch, domain in mixed(both, 4, order)]
        for order in ([0, 0], [0, 1], [0, 0], None)
    ]
    assert drawn[0] == drawn[2] != drawn[1]
    for batches in drawn:
        sizes = sorted((which, domain == other, len(phase)) for which, domain, phase in batches)
        assert sizes == [(1, False, 2), (1, False, 4), (1, False, 4), (2, True, 1), (2, True, 4)]
    assert [which for which, *_ in drawn[3]] == [1, 1, 1, 2, 2]
    assert len({str([domain for _, domain in mixed(both, 4, [seed, 0])]) for seed in range(10)}) > 1


def test_networks_that_do_not_see_the_moduli_refuse_a_second_material(sets, tmp_path):
    other = Domain((Isotropic(1, 0.2), Isotropic(5, 0.2)), DOMAIN.strain)
    with pytest.raises(
        ValueError, match=r"architecture = 'fln': learns one list of materials, .*; use rln-cg to learn several"
    ):
        train(tmp_path, [(sets[0], DOMAIN), (sets[0], other)], [(sets[1], DOMAIN)], **RECIPE)
    train(tmp_path, [(sets[0], DOMAIN), (sets[1], DOMAIN)], [(sets[1], DOMAIN)], **RECIPE | {"epochs": 1})
    assert len(json.loads((tmp_path / "model.json").read_text())["domains"]) == 2


@pytest.fixture(scope="module")
def finished(sets, tmp_path_factory):
    """A training of two epochs."""
    folder = tmp_path_factory.mktemp("finished")
    train(folder, *of(DOMAIN, *sets), **RECIPE | {"epochs": 2})
    return folder


def test_a_damaged_checkpoint_is_named(sets, finished, tmp_path):
    """A bit is flipped, at random; and other files."""
    whole, damaged, rng = (finished / "finished.pt").read_bytes(), tmp_path / "checkpoint.pt", np.random.default_rng(0)
    files = [b"PK cut short", b"", bytes(32), whole[:-1]]
    for _ in range(40):
        files.append(bytearray(whole))
        files[-1][rng.integers(len(whole))] ^= 1 << rng.integers(8)
    for data in files:
        damaged.write_bytes(data)
        with pytest.raises(ValueError, match=r"checkpoint\.pt: is damaged or has an earlier version; remove it"):
            train(tmp_path, *of(DOMAIN, *sets), **RECIPE)


def test_more_epochs_extend_a_finished_training(sets, finished, tmp_path):
    """Adam goes on with its moments, over the same batches, at the learning rates of the new cosine."""
    out = shutil.copytree(finished, tmp_path / "out")
    again = iter([False] * 5)  # a stop in the middle changes nothing
    with pytest.raises(Unfinished, match=r"10 of 12 steps"):
        train(out, *of(DOMAIN, *sets), **RECIPE | {"epochs": 4}, stop=lambda: next(again, True))
    train(out, *of(DOMAIN, *sets), **RECIPE | {"epochs": 4})
    rows = history(out)
    assert rows[:2] == history(finished)
    settings = json.loads((out / "model.json").read_text())["training"]
    assert (settings["epochs"], settings["extended"]) == (4, [[6, 2]])

    torch.manual_seed(RECIPE["seed"])
    network = build("fln", 2)
    optimizer = torch.optim.Adam(network.parameters())
    for step, total in enumerate([6] * 6 + [12] * 6):
        if step % 3 == 0:
            batches = mixed([(sets[0], DOMAIN)], 4, [0, step // 3])
        batch, _ = next(batches)
        loss, _ = network.learn(batch.phase, batch.y, DOMAIN)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.param_groups[0]["lr"] = 1e-8 + (2e-3 - 1e-8) * (1 + np.cos(np.pi * step / total)) / 2
        optimizer.step()
    with torch.no_grad():
        _, iterate = network.learn(sets[1].phase, sets[1].y, DOMAIN)
        error = mase(iterate, sets[1].y, DOMAIN, load_scale(DOMAIN)).mean().item()
    assert float(rows[3]["valid_mase"]) == pytest.approx(error, rel=1e-5)

    train(out, *of(DOMAIN, *sets), **RECIPE | {"epochs": 3})  # as many or fewer epochs are a new training
    assert len(history(out)) == 3
    assert float(history(out)[0]["learning_rate"]) > float(rows[0]["learning_rate"])


def test_a_death_between_the_files_of_a_model_loses_nothing(sets, finished, tmp_path):
    """The description cannot be written. With an older one the new weights are refused; the same call writes it."""
    recipe, described = RECIPE | {"epochs": 1}, tmp_path / "model.json"
    described.mkdir()
    with pytest.raises(OSError, match=r"model\.json"):
        train(tmp_path, *of(DOMAIN, *sets), **recipe)
    described.rmdir()
    shutil.copy(finished / "model.json", described)
    for read in (load_model, lambda folder: draw("learning_curves", [], {"fln": folder / "metrics.csv"})):
        with pytest.raises(ValueError, match=r"model\.json: does not belong to model\.safetensors"):
            read(tmp_path)
    train(tmp_path, *of(DOMAIN, *sets), **recipe, stop=lambda: pytest.fail("all steps were done"))
    load_model(tmp_path)
    shutil.copy(finished / "metrics.csv", tmp_path)
    with pytest.raises(ValueError, match=r"metrics\.csv: does not belong to model\.json"):
        draw("learning_curves", [], {"fln": tmp_path / "metrics.csv"})


SHEAR = Domain(DOMAIN.materials, (0.0, 0.0, 0.0, 0.0, 0.0, 1e-3))


@pytest.mark.parametrize(
    ("architecture", "channels", "domains", "said"),
    [
        ("fln", 1, [SHEAR], r"strain = \[0\.0, .*: xx must not be 0, .* for fln to predict it alone"),
        ("fln", 1, [DOMAIN, replace(DOMAIN, strain=(1e-3, 0, 0, 0, 0, 1e-3))], "must predict all .* to learn 2 loads"),
        ("fln", 6, [replace(DOMAIN, strain=(0.0,) * 6)], "not all 0, for this network; rln-cg takes any load"),
        (
            "fln",
            6,
            [replace(DOMAIN, strain=(1e-3, *[None] * 5), stress=(None, *[0] * 5))],
            "strain = .* all components must be prescribed",
        ),
        ("fln", 6, [replace(DOMAIN, temperature=10.0)], "temperature = 10: must be 0 for this network"),
        ("fln", 6, [SHEAR, replace(SHEAR, scheme="full")], "one element"),
    ],
)
def test_what_a_network_cannot_learn_is_refused(sets, tmp_path, architecture, channels, domains, said):
    samples = Samples(sets[0].phase, sets[0].y.expand(-1, channels, -1, -1, -1))
    with pytest.raises(ValueError, match=said) as caught:
        train(tmp_path / "out", [(samples, d) for d in domains], [], **RECIPE | {"architecture": architecture})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"architecture": "unet"}, "architecture = 'unet'"),
        ({"epochs": 0}, "epochs = 0"),
        ({"batch": 0}, "batch = 0"),
        ({"seed": -1}, "seed = -1: must be at least 0"),
        ({"learning_rate": -1.0}, r"learning_rate = -1\.0: must be a number > 0, at most 1"),
        ({"learning_rate": 1e300}, r"learning_rate = 1e\+300: must be a number > 0, at most 1"),
        ({"learning_rate": np.nan}, r"learning_rate = nan: must be a number > 0, at most 1"),
        ({"device": "gpu"}, "device = 'gpu': must be cpu or a CUDA device"),
        ({"precision": "fp8"}, "precision = 'fp8': must be one of float32, bf16, tf32"),
        ({"precision": "tf32"}, "precision = 'tf32': needs a CUDA device, not cpu"),
    ],
)
def test_bad_arguments_are_named(sets, tmp_path, changed, said):
    with pytest.raises(ValueError, match=said):
        train(tmp_path / "out", *of(DOMAIN, *sets), **RECIPE | changed)
    assert not (tmp_path / "out").exists()


CLASS = """
from torch import nn

class Net(nn.Module):
    def __init__(self, phases, channels):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv3d(phases, 4, 1), nn.BatchNorm3d(4), nn.Conv3d(4, channels, 1))

    def forward(self, indicators):
        return self.layers(indicators)
"""


def test_a_checkpoint_of_another_training_does_not_hide_a_finished_one(sets, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "out")
    with pytest.raises(Unfinished):
        train(out, *of(DOMAIN, *sets), **RECIPE | {"learning_rate": 1e-3}, stop=lambda: True)
    with pytest.warns(UserWarning, match="belongs to another training"):
        train(out, *of(DOMAIN, *sets), **RECIPE | {"epochs": 3})
    assert history(out)[:2] == history(finished)
    assert json.loads((out / "model.json").read_text())["training"]["extended"] == [[6, 2]]


@pytest.mark.parametrize(("steps", "rows"), [(1, 1), (63, 1), (64, 2), (100, 3), (320, 10), (8192, 10)])
def test_a_row_describes_at_least_32_steps_and_an_epoch_has_at_most_ten(steps, rows):
    losses = np.random.default_rng(0).random(steps)
    found = summarize_losses(losses, 2, 1.0, 4)
    ends = [2 * steps, *(row["step"] for row in found)]
    assert len(found) == rows
    assert ends[-1] == 3 * steps
    assert np.average([row["train_loss"] for row in found], weights=np.diff(ends)) == pytest.approx(losses.mean())
    assert found[-1]["epoch"] == 3
    assert found[-1]["learning_rate"] == pytest.approx((1 + np.cos(0.75 * np.pi)) / 2, abs=1e-7)


def test_rows_within_an_epoch_average_to_the_row_of_the_epoch(sets, tmp_path, monkeypatch):
    """The mean loss of an epoch of three steps, and the loss of each step, from two trainings with one seed."""
    train(tmp_path / "one", *of(DOMAIN, *sets), **RECIPE | {"epochs": 2})
    monkeypatch.setattr("lspipe.train.ROW_STEPS", 1)
    train(tmp_path / "three", *of(DOMAIN, *sets), **RECIPE | {"epochs": 2})
    whole, rows = history(tmp_path / "one"), history(tmp_path / "three")
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert [float(row["epoch"]) for row in rows] == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])
    for epoch, row in enumerate(whole):
        parts = rows[3 * epoch : 3 * epoch + 3]
        losses = [float(part["train_loss"]) for part in parts]
        assert len(set(losses)) == 3
        assert float(row["train_loss"]) == pytest.approx(np.mean(losses))
        assert [part["valid_mase"] for part in parts] == ["", "", row["valid_mase"]]
        assert [part["seconds"] == "" for part in parts] == [True, True, False]
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates == sorted(rates, reverse=True)
    assert rates[2::3] == [float(row["learning_rate"]) for row in whole]


def test_a_users_class_is_trained_and_a_changed_class_begins_anew(sets, tmp_path, monkeypatch):
    """Validation is in the mode of evaluation: batch normalization then uses the means that the model keeps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "own_network.py").write_text(CLASS)
    own = RECIPE | {"architecture": "own_network:Net", "epochs": 2}
    train(tmp_path / "model", *of(DOMAIN, *sets), **own)
    rows, valid = history(tmp_path / "model"), sets[1]
    field = load_model(tmp_path / "model").predict(valid.phase.numpy(), DOMAIN.materials, DOMAIN.strain).strain / 1e-3
    best = min(float(row["valid_mase"]) for row in rows)
    assert 100 * np.abs(field - valid.y.numpy()).mean() == pytest.approx(best, rel=1e-4)

    with pytest.raises(Unfinished, match="1 of 6 steps"):
        train(tmp_path / "stopped", *of(DOMAIN, *sets), **own, stop=lambda: True)
    (tmp_path / "own_network.py").write_text(CLASS.replace("4, 1)", "4, 1, bias=False)"))
    with pytest.warns(UserWarning, match="belongs to another training"), pytest.raises(Unfinished, match="1 of 6"):
        train(tmp_path / "stopped", *of(DOMAIN, *sets), **own, stop=lambda: True)
