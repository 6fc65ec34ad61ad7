"""Trains the demo network and writes edgeq/zoo/demo.onnx.

    python -m edgeq.zoo.train_demo [--out FILE] [--seed N] [--epochs N] [--threads N]

Trains on the `train` split of the digits (edgeq.data.digits) with small shifts, rotations and zooms, prints
the accuracy on the three splits and writes the float model, batch norm not folded, batch axis free, opset 18.
Nothing is chosen by the `calib` or the `test` split. Needs the extras `torch` and `export`; takes about
half a minute. With the same seed, thread count, torch version and CPU the same file comes out;
elsewhere the accuracy differs by a few images.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from edgeq.data import digits
from edgeq.outputs import whole_file
from edgeq.zoo.architectures.demo import DemoNet
from edgeq.zoo.demo import DEMO_DATA, DEMO_LABELS, DEMO_NAME, DEMO_PREPROCESSING, demo_path

if TYPE_CHECKING:
    import onnx

OPSET = 18


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What decides the trained weights.

    Attributes:
        seed: Seeds the initial weights, the order of the images and their augmentation.
        epochs: Passes over the training split.
        batch_size: Images a step; a last smaller batch is dropped.
        learning_rate: Peak of the one-cycle schedule.
        weight_decay: Decoupled (AdamW), on every parameter.
        label_smoothing: Probability spread over all classes.
    """

    seed: int = 0
    epochs: int = 80
    batch_size: int = 64
    learning_rate: float = 1e-2
    weight_decay: float = 2e-2
    label_smoothing: float = 0.05


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Rotates by up to 12 degrees, scales by 0.9 to 1.1, shifts by up to 0.75 pixels, each image by its own.

    Args:
        images: Shape (n, 1, 8, 8).
        generator: The source of randomness.

    Returns:
        Same shape; bilinear samples, zero outside.
    """
    n, _, height, width = images.shape
    draw = torch.rand((n, 4), generator=generator) * 2 - 1
    angle = draw[:, 0] * math.radians(12.0)
    zoom = 1 + 0.1 * draw[:, 1]
    shift = (
        draw[:, 2:] * 0.75 * 2 / torch.tensor([width, height])
    )  # affine_grid spans [-1, 1] over the image.
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    theta = torch.stack(
        [torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], dim=1
    )
    grid = nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, align_corners=False)


def train(plan: TrainingPlan) -> DemoNet:
    """Trains a network on the `train` split.

    Args:
        plan: The hyperparameters and the seed.

    Returns:
        The network in evaluation mode.
    """
    images_numpy, labels_numpy = digits.load_digits("train")
    images, labels = torch.from_numpy(images_numpy), torch.from_numpy(labels_numpy)
    generator = torch.Generator().manual_seed(plan.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        model = DemoNet(len(DEMO_LABELS))
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay)
    steps = len(images) // plan.batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=plan.learning_rate, total_steps=steps * plan.epochs
    )
    loss_of = nn.CrossEntropyLoss(label_smoothing=plan.label_smoothing)
    model.train()
    for _ in range(plan.epochs):
        order = torch.randperm(len(images), generator=generator)
        for step in range(steps):
            chosen = order[step * plan.batch_size : (step + 1) * plan.batch_size]
            loss = loss_of(model(augment(images[chosen], generator)), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    return model


def accuracy(model: nn.Module, split: digits.Split) -> float:
    """Top-1 accuracy on a split, between 0 and 1."""
    images, labels = digits.load_digits(split)
    with torch.inference_mode():
        predicted = model(torch.from_numpy(images)).argmax(1).numpy()
    return float(np.mean(predicted == labels))


def float_onnx(model: nn.Module) -> onnx.ModelProto:
    """The float ONNX model.

    Its batch axis is free and named `batch`, batch norm a node of its own; no notes about the source.

    Args:
        model: In evaluation mode.

    Returns:
        The checked model, weights inside.
    """
    import onnx
    import onnxscript.optimizer

    program = torch.onnx.export(
        model,
        (torch.zeros(2, *digits.IMAGE_SHAPE),),  # A batch of 1 would be written into the graph as a constant.
        dynamo=True,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        optimize=False,  # The exporter's own optimization folds batch norm.
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    onnxscript.optimizer.fold_constants(program.model)
    onnxscript.optimizer.remove_unused_nodes(program.model)
    proto: onnx.ModelProto = program.model_proto
    graph = proto.graph
    # The exporter notes stack traces, which hold paths of the machine.
    for entry in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del entry.metadata_props[:]
        entry.doc_string = ""
    del graph.value_info[:]  # Shapes that any reader infers.
    onnx.checker.check_model(proto, full_check=True)
    return proto


def write_demo(model: nn.Module, path: Path, facts: dict[str, str]) -> None:
    """Writes the ONNX file with its metadata, whole or not at all.

    Args:
        model: The trained network, in evaluation mode.
        path: The file to write.
        facts: Further metadata entries.
    """
    proto = float_onnx(model)
    metadata = {
        "name": DEMO_NAME,
        "labels": json.dumps(list(DEMO_LABELS)),
        "data": DEMO_DATA,
        "preprocessing": json.dumps(
            {
                "mean": list(DEMO_PREPROCESSING.mean),
                "std": list(DEMO_PREPROCESSING.std),
                "channels": DEMO_PREPROCESSING.channels,
            }
        ),
        **facts,
    }
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    with whole_file(path) as scratch:
        scratch.write_bytes(proto.SerializeToString(deterministic=True))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Trains the demo network and writes its ONNX file.")
    parser.add_argument(
        "--out", type=Path, default=demo_path(), help="the file to write (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=TrainingPlan().seed)
    parser.add_argument("--epochs", type=int, default=TrainingPlan().epochs)
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    plan = TrainingPlan(seed=arguments.seed, epochs=arguments.epochs)
    model = train(plan)
    results = {split: accuracy(model, split) for split in ("train", "calib", "test")}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    facts = {
        "training": json.dumps({"seed": plan.seed, "epochs": plan.epochs, "torch": torch.__version__}),
        "accuracy": json.dumps({split: round(value, 4) for split, value in results.items()}),
    }
    write_demo(model, arguments.out, facts)
    print(
        f"{parameters:,} parameters; top-1 " + ", ".join(f"{s} {100 * a:.2f} %" for s, a in results.items())
    )
    print(f"wrote {arguments.out} ({arguments.out.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
