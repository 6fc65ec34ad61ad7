"""What two papers found, asked again of edgeq's own exports; for docs/findings.md.

    python -m bench.studies.findings --data DIR --work DIR [--networks ...] [--write]

DIR of --data holds imagenet_sample, imagenet_val10, cifar10 and weights; exports and figures stay in --work and are not
made again. Nothing is tuned: the defaults of `edgeq export` for each scheme, the hypotheses as the papers state them,
and the same rule for every verdict.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import edgeq
from bench.studies.tables import replace_table
from edgeq import zoo
from edgeq.data import ArrayDataset, Dataset, open_dataset
from edgeq.outputs import write_text
from edgeq.verification.blame import blame
from edgeq.verification.several import verify_several
from edgeq.zoo.registry import architecture

PAGE = Path(__file__).parents[2] / "docs" / "findings.md"
SCHEMES = ("w8a8", "w4a8", "w4a4")
NETWORKS = ("efficientnet_lite0", "resnet20_cifar10", "demo")
SHIFTS = {"efficientnet_lite0": "imagenet-c::1,3,5", "resnet20_cifar10": "cifar10-c::1,3,5"}
"""The demo's digits have 8 pixels a side, too few to be corrupted."""
SHIFTED = 400
CIFAR_IMAGES = 2000
SPARED = 3


def evaluation(data: Path, network: str) -> Dataset:
    """The labelled images that a network is judged on, in an order drawn once so that their first ones are a sample."""
    if network == "demo":
        return open_dataset("digits:test")
    if network == "resnet20_cifar10":
        parts = [(data / "cifar10" / "test.npz", CIFAR_IMAGES)]
    else:
        sources = ("imagenet_sample/images_224.zip:eval", "imagenet_val10/images_224.zip")
        parts = [(data / source, None) for source in sources]
    images, labels = [], []
    for source, count in parts:
        found = open_dataset(str(source))
        chosen = range(min(count or len(found), len(found)))
        images += found.images(chosen)
        assert found.labels is not None
        labels.append(found.labels[: len(chosen)])
    order = np.random.default_rng(0).permutation(len(images))
    # Photographs of several sizes: resized and cropped as the network's preprocessing does, which then leaves them so.
    pixels = architecture(network).preprocessing.arrange(images)
    return ArrayDataset(pixels[order], np.concatenate(labels)[order], source=f"{network} evaluation")


def exported(data: Path, work: Path, network: str, scheme: str, **options: Any) -> Path:
    """The folder of an export with the defaults of its scheme, made where it is not there yet."""
    out = work / "-".join([network, scheme, *(str(value) for value in options.values())])
    if not (out / "manifest.json").is_file():
        if network == "demo":
            model, calibration, preprocessing = None, "digits:calib", None
        else:
            weights = data / "weights" / f"{network}.npz"
            given = (weights,) if network.endswith("cifar10") else ()
            model = zoo.load_pretrained(network, *given)
            preprocessing = architecture(network).preprocessing
            source = "cifar10/train.npz" if network.endswith("cifar10") else "imagenet_sample/images_224.zip:calib"
            calibration = str(data / source)
        edgeq.export(
            model, bits=scheme, calibration=calibration, preprocessing=preprocessing, calib_samples=1024, out=out,
            to="edgeq", **options,
        )
    return out


def study(data: Path, work: Path, network: str) -> dict[str, Any]:
    """The figures of one network at every scheme; read from --work where they are there."""
    kept = work / f"{network}.json"
    if not kept.is_file():
        folders = [exported(data, work, network, scheme) for scheme in SCHEMES]
        found = verify_several(
            folders, data=evaluation(data, network), timed=False, threads=2, shift=SHIFTS.get(network),
            shift_samples=SHIFTED if network in SHIFTS else None, progress=True,
        )
        write_text(work / f"{network}.html", found.html())
        write_text(kept, json.dumps(found.to_json(), indent=1))
    result: dict[str, Any] = json.loads(kept.read_text())
    return result


def spare(data: Path, work: Path, network: str = "efficientnet_lite0") -> dict[str, Any]:
    """Blames the layers of the w4a8 export on calibration images, keeps the three worst at 8 bits, and compares."""
    kept = work / f"{network}-blame.json"
    if not kept.is_file():
        plain = exported(data, work, network, "w4a8")
        found = blame(plain, data=str(data / "imagenet_sample/images_224.zip:calib"), samples=100)
        worst = [one.layer for one in found.ranked() if one.win_8bit_db is not None][:SPARED]
        spared = exported(data, work, network, "w4a8", keep_8bit=",".join(["first", *worst]))
        auto = exported(data, work, network, "w4a8", keep_8bit=f"auto:{SPARED}")
        several = verify_several(
            [plain, spared, auto], data=evaluation(data, network), timed=False, threads=2, progress=True
        )
        values = {"blame": found.to_json(), "worst": worst, "compared": several.to_json()}
        write_text(kept, json.dumps(values, indent=1))
    result: dict[str, Any] = json.loads(kept.read_text())
    return result


def _models(found: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return list(zip(SCHEMES, found["models"], strict=True))


def _interval(value: float, bounds: Sequence[float], form: str = ".4f") -> str:
    return f"{value:{form}} ({bounds[0]:{form}} to {bounds[1]:{form}})"


def _verdict(bounds: Sequence[float]) -> str:
    """Of a change that the paper says is positive: by its 95 % interval."""
    return "agrees" if bounds[0] > 0 else "does not agree" if bounds[1] < 0 else "cannot be told"


def calibration_table(networks: Mapping[str, Mapping[str, Any]]) -> str:
    """Does ECE rise as bits fall?"""
    lines = [
        "| network | bits | n | ECE (95 %) | change against FP32 (95 %) | rises |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in networks.items():
        first = found["models"][0]["reference"]
        lines.append(f"| {name} | FP32 | {found['n']} | {_interval(first['ece'], first['intervals']['ece'])} | | |")
        for scheme, one in _models(found):
            quality, change = one["quantized"], one["change"]
            lines.append(
                f"| {name} | {scheme} | {found['n']} | {_interval(quality['ece'], quality['intervals']['ece'])} | "
                f"{_interval(change['ece'], change['ece_interval'], '+.4f')} | {_verdict(change['ece_interval'])} |"
            )
    return "\n".join(lines)


def shift_table(networks: Mapping[str, Mapping[str, Any]]) -> str:
    """Does disagreement rise under shift?"""
    lines = [
        "| network | bits | unshifted (95 %) | severity 1 | severity 3 | severity 5 | errors to FP32's | rises |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in networks.items():
        for scheme, one in _models(found):
            if not one["shifts"]:
                continue
            clean = one["disagreement"]
            rates = {
                severity: [cell["disagreement"] for cell in one["shifts"]["cells"] if cell["severity"] == severity]
                for severity in (1, 3, 5)
            }
            [mean] = one["shifts"]["means"]
            # Types are the sample here: the interval of their mean, at severity 3, against that of the clean images.
            low, high = _of_types(rates[3])
            verdict = "agrees" if low > clean["interval"][1] else (
                "does not agree" if high < clean["interval"][0] else "cannot be told"
            )
            first, third, fifth = (100 * float(np.mean(rates[severity])) for severity in (1, 3, 5))
            cells = f"{first:.1f} % | {third:.1f} ({100 * low:.1f} to {100 * high:.1f}) % | {fifth:.1f} %"
            bounds = clean["interval"]
            lines.append(
                f"| {name} | {scheme} | {100 * clean['rate']:.1f} ({100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}) % | "
                f"{cells} | {mean['error_ratio']:.3f} | {verdict} |"
            )
    return "\n".join(lines)


def _of_types(rates: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean over corruption types."""
    values = np.asarray(rates)
    reach = 1.96 * float(values.std(ddof=1)) / np.sqrt(len(values))
    return float(values.mean()) - reach, float(values.mean()) + reach


def margin_table(networks: Mapping[str, Mapping[str, Any]]) -> str:
    """Is margin the best of the four scores?"""
    scores = ("margin", "entropy", "gini", "least confidence")
    lines = [
        f"| network | bits | base rate | {' | '.join(f'AUROC, {score}' for score in scores)} | margin is best |",
        "|---|---|---|" + "---|" * (len(scores) + 1),
    ]
    for name, found in networks.items():
        for scheme, one in _models(found):
            prediction = one["prediction"]
            areas = {score: prediction["quantized"][score] for score in scores}
            if areas["margin"]["auroc"] is None:
                row = (name, scheme, f"{prediction['base_rate']:.1%}", *["n/a"] * len(scores), "nothing disagrees")
                lines.append(f"| {' | '.join(row)} |")
                continue
            best = max(scores, key=lambda score: areas[score]["auroc"])
            margin, rival = areas["margin"], max(areas[score]["auroc"] for score in scores[1:])
            if best != "margin":
                verdict = "does not agree" if areas[best]["auroc"] > margin["auroc_interval"][1] else "cannot be told"
            else:
                verdict = "agrees" if rival < margin["auroc_interval"][0] else "highest, within its interval"
            pairs = ((areas[score]["auroc"], areas[score]["auroc_interval"]) for score in scores)
            shown = " | ".join(_interval(*pair, ".3f") for pair in pairs)
            lines.append(f"| {name} | {scheme} | {prediction['base_rate']:.1%} | {shown} | {verdict} |")
    return "\n".join(lines)


def temperature_table(networks: Mapping[str, Mapping[str, Any]]) -> str:
    """Does temperature scaling help?"""
    lines = [
        "| network | bits | T | ECE (95 %) | ECE scaled (95 %) | with FP32's T | NLL | NLL scaled | helps |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in networks.items():
        for index, (scheme, one) in enumerate([("FP32", found["models"][0]), *_models(found)]):
            rows = one["scaling"]["rows"]
            who = "FP32" if index == 0 else "quantized"
            before, after = rows[who], rows[f"{who}, scaled"]
            other = "" if index == 0 else f"{rows[who + ', FP32' + chr(39) + 's temperature']['ece']:.4f}"
            apart = after["ece_interval"][1] < before["ece_interval"][0]
            worse = after["ece_interval"][0] > before["ece_interval"][1]
            better = after["nll"] < before["nll"]
            verdict = "agrees" if apart and better else "does not agree" if worse or not better else (
                "NLL falls, ECE cannot be told"
            )
            errors = [_interval(row["ece"], row["ece_interval"]) for row in (before, after)]
            losses = [f"{row['nll']:.4f}" for row in (before, after)]
            cells = (name, scheme, f"{after['temperature']:.3f}", *errors, other, *losses, verdict)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def blame_tables(found: Mapping[str, Any]) -> str:
    """The worst layers, and what sparing them does."""
    layers = sorted(
        (one for one in found["blame"]["layers"] if one["win_8bit_db"] is not None),
        key=lambda one: -one["win_8bit_db"],
    )
    lines = ["| layer | operator | MACs | alone | gathered | SQNR won at 8 bits |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {one['layer']} | {one['op']} | {one['macs_share']:.1%} | {one['alone_sqnr_db']:.1f} dB | "
        f"{one['gathered_sqnr_db']:.1f} dB | {one['win_8bit_db']:+.2f} dB |"
        for one in layers[:6]
    ]
    lines += ["", "| kept at 8 bits | .edgeq bytes | top-1 | ECE | disagreement (95 %) | logit SQNR |"]
    lines += ["|---|---|---|---|---|---|"]
    names = ("the first layer (default)", f"and the {SPARED} worst by `edgeq blame`", f"and `auto:{SPARED}`")
    for name, one in zip(names, found["compared"]["models"], strict=True):
        rate = one["disagreement"]
        bounds = ", ".join(f"{100 * bound:.1f}" for bound in rate["interval"]).replace(", ", " to ")
        lines.append(
            f"| {name} | {one['bytes']:,} | {one['quantized']['top1']:.1%} | {one['quantized']['ece']:.4f} | "
            f"{100 * rate['rate']:.1f} ({bounds}) % | {one['logit_sqnr_db']:.1f} dB |"
        )
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    """Runs the study and prints or writes its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where exports and figures stay")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/findings.md")
    given = parser.parse_args(words)
    given.work.mkdir(parents=True, exist_ok=True)
    networks = {name: study(given.data, given.work, name) for name in given.networks}
    tables = {
        "calibration": calibration_table(networks),
        "shift": shift_table(networks),
        "margin": margin_table(networks),
        "temperature": temperature_table(networks),
    }
    if "efficientnet_lite0" in networks:
        tables["blame"] = blame_tables(spare(given.data, given.work))
    for name, content in tables.items():
        print(f"{name}\n\n{content}\n")
        if given.write:
            replace_table(PAGE, name, content)


if __name__ == "__main__":
    main()
