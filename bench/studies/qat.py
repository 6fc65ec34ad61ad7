"""Quantization-aware training of ResNet-20 at W4A4 on CIFAR-10, for docs/results.md: a worked example.

    python -m bench.studies.qat --data DIR [--epochs 3] [--seeds 0 1] [--write]

DIR holds cifar10 (train.npz, test.npz) and weights (resnet20_cifar10.npz). The fine-tune starts from the post-training
quantized network and sees nothing but the training images; the test images are only evaluated. `fine_tune` is an
ordinary training loop: copy it.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import edgeq
from bench.studies.tables import replace_table
from edgeq import zoo
from edgeq.data import open_dataset
from edgeq.ir.tensor import Array
from edgeq.zoo.registry import architecture

NETWORKS = ("resnet20_cifar10", "resnet20_cifar100")
RESULTS = Path(__file__).parents[2] / "docs" / "results.md"
CALIBRATION = 1024


def fine_tune(
    module: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: float,
    batch: int,
    lr: float,
    scale_lr: float,
    distillation: float,
    seed: int,
) -> None:
    """Trains a module of `edgeq.prepare_qat` against the labels and the float network's answers.

    Args:
        module: Changed in place, left in evaluation mode.
        teacher: The float network.
        images: Network inputs, shape (n, 3, h, w).
        labels: Class indices, shape (n,).
        epochs: How often each image is seen; a fraction is allowed.
        batch: Images a step.
        lr: Largest learning rate of weights and biases; it rises over the first twentieth of the steps and falls as a
            cosine.
        scale_lr: The same of the scales, which are learned as ratios.
        distillation: Share of the loss that is the Kullback-Leibler divergence from the teacher (Hinton et al. 2015).
        seed: Of order and augmentation.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = math.ceil(epochs * len(images) / batch)
    optimizer = torch.optim.Adam(module.parameter_groups(lr, scale_lr=scale_lr))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (0.05 * steps), 0.5 + 0.5 * math.cos(math.pi * step / steps))
    )
    module.train()
    teacher.eval()
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < batch:
            order = torch.randperm(len(images), generator=generator)
        chosen, order = order[:batch], order[batch:]
        x = augmented(images[chosen], generator)
        logits = module(x)
        loss = nn.functional.cross_entropy(logits, labels[chosen])
        if distillation:
            with torch.no_grad():
                wanted = teacher(x).log_softmax(1)
            divergence = nn.functional.kl_div(logits.log_softmax(1), wanted, reduction="batchmean", log_target=True)
            loss = (1 - distillation) * loss + distillation * divergence
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    module.eval()


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Moves each image by up to 4 pixels over a border of zeros, and mirrors half of them."""
    size = images.shape[-1]
    padded = nn.functional.pad(images, (4, 4, 4, 4))
    draws = torch.randint(0, 9, (len(images), 2), generator=generator).tolist()
    parts = [padded[i, :, dy : dy + size, dx : dx + size] for i, (dy, dx) in enumerate(draws)]
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    moved = torch.stack(parts)
    return torch.where(mirrored[:, None, None, None], moved.flip(3), moved)


def read(path: Path, network: str) -> tuple[Array, Array]:
    """Returns the network inputs and the labels of a .npz file."""
    dataset = open_dataset(str(path))
    assert dataset.labels is not None
    batches = dataset.batches(500, architecture(network).preprocessing)
    return np.concatenate([batch.inputs for batch in batches]), np.asarray(dataset.labels)


def logits_of(module: nn.Module, inputs: Array) -> Array:
    """Returns the logits of a module in evaluation mode, float32 (n, classes)."""
    module.eval()
    with torch.no_grad():
        parts = [module(torch.from_numpy(inputs[i : i + 100])) for i in range(0, len(inputs), 100)]
    return np.asarray(torch.cat(parts).numpy())


def study(data: Path, network: str, scheme: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Quantizes post training, trains from there, exports both and verifies both; returns a row of the table."""
    folder = network.rpartition("_")[2]
    images, labels = read(data / folder / "train.npz", network)
    test = read(data / folder / "test.npz", network)
    teacher = zoo.load_pretrained(network, data / "weights" / f"{network}.npz")
    calibration = images[np.random.default_rng(seed).permutation(len(images))[:CALIBRATION]]
    with tempfile.TemporaryDirectory() as scratch:
        ptq, qat = Path(scratch) / "ptq", Path(scratch) / "qat"
        edgeq.export(teacher, bits=scheme, calibration=calibration, out=ptq, to="edgeq")
        started = time.perf_counter()
        module = edgeq.prepare_qat(
            teacher, images[:1], scheme, calibration=calibration, batch_norm=arguments.batch_norm
        )
        fine_tune(
            module,
            teacher,
            torch.from_numpy(images),
            torch.from_numpy(labels),
            epochs=arguments.epochs,
            batch=arguments.batch,
            lr=arguments.lr,
            scale_lr=arguments.scale_lr,
            distillation=arguments.distillation,
            seed=seed,
        )
        edgeq.export(module, out=qat, to="edgeq")
        minutes = (time.perf_counter() - started) / 60
        before, after = (edgeq.verify(path, data=test, threads=arguments.threads).to_json() for path in (ptq, qat))
        native = np.concatenate(
            [edgeq.Session(qat / "model.edgeq").run(test[0][i : i + 100]) for i in range(0, len(test[0]), 100)]
        )
    trained = logits_of(module, test[0])
    return {
        "network": network,
        "scheme": scheme,
        "seed": seed,
        "ptq": before,
        "qat": after,
        "minutes": minutes,
        "same_top1": float((trained.argmax(1) == native.argmax(1)).mean()),
        "same_logits": float((trained == native).all(axis=1).mean()),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table."""
    lines = [
        "| network | scheme | seed | n | FP32 top-1 | PTQ top-1 | QAT top-1 | FP32 ECE | PTQ ECE | QAT ECE "
        "| PTQ disagreement | QAT disagreement | minutes | module = native (top-1) | (logits) |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        reference, before, after = row["qat"]["reference"], row["ptq"], row["qat"]
        lines.append(
            f"| {row['network']} | {row['scheme']} | {row['seed']} | {after['n']:,} | {reference['top1']:.2%} | "
            f"{before['quantized']['top1']:.2%} | {after['quantized']['top1']:.2%} | {reference['ece']:.3f} | "
            f"{before['quantized']['ece']:.3f} | {after['quantized']['ece']:.3f} | "
            f"{before['disagreement']['rate']:.1%} | {after['disagreement']['rate']:.1%} | {row['minutes']:.1f} | "
            f"{row['same_top1']:.2%} | {row['same_logits']:.1%} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Runs the study and writes its table into docs/results.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=NETWORKS[:1], choices=NETWORKS)
    parser.add_argument("--schemes", nargs="+", default=["w4a4"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--scale-lr", type=float, default=1e-3)
    parser.add_argument("--distillation", type=float, default=0.9)
    parser.add_argument("--batch-norm", default="fold", choices=("fold", "train"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="put the table into docs/results.md")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for network in arguments.networks:
        for scheme in arguments.schemes:
            for seed in arguments.seeds:
                rows.append(study(arguments.data, network, scheme, seed, arguments))
                print(table(rows), flush=True)
    if arguments.write:
        replace_table(RESULTS, "qat", table(rows))


if __name__ == "__main__":
    main()
