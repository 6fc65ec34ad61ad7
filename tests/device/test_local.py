"""This machine and emulated CPUs as devices: the commands, and what happens when a device computes something else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from edgeq import Session
from edgeq.cli import main
from edgeq.device import device as device_module
from edgeq.device.backend import DeviceBackend
from edgeq.device.device import open_device
from edgeq.errors import DeviceError, UsageError


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Runs the command line in this process: exit status, output, messages with the line breaks taken out."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in arguments])
    done = capsys.readouterr()
    return int(ended.value.code or 0), done.out, " ".join(done.err.split())


@pytest.mark.parametrize("cpu, isa", [("cortex-a53", "neon"), ("cortex-a72", "neon"), ("cortex-a76", "neondot")])
def test_an_emulated_cpu_computes_what_the_host_computes(
    demo: Path, aarch64_runner: Path, rng: np.random.Generator, cpu: str, isa: str
) -> None:
    session = Session(demo / "model.edgeq")
    x = rng.standard_normal((5, *session.inputs[0].shape[1:])).astype(np.float32)
    with open_device(f"qemu://{cpu}", runner=aarch64_runner) as device:
        backend = DeviceBackend(device, demo / "model.edgeq")
        assert backend.isa == isa
        assert backend.name.startswith(f"qemu://{cpu} (")
        np.testing.assert_array_equal(backend.run(x).view(np.uint32), session.run(x).view(np.uint32))
        scratch = Path(device._scratch)
        assert scratch.is_dir()
    assert not scratch.exists()


def test_verify_on_this_machine(
    demo: Path, native_runner: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "figures.json"
    status, text, _ = run(
        capsys, "verify", demo, "--data", "digits", "--device", "local", "--runner", native_runner, "--json", figures
    )
    assert status == 0
    assert "device  local computes exactly what the host computes: 540 of 540 inputs, bit for bit" in text
    found = json.loads(figures.read_text())
    assert found["device"]["first_differing"] is None
    assert found["provenance"]["backend"].startswith("local (")
    assert found["provenance"]["command"].endswith("--data digits:test --device local")


def test_a_device_that_computes_something_else_fails_the_check(
    demo: Path, native_runner: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    right = DeviceBackend.run
    seen = [0]

    def wrong(self: DeviceBackend, x: np.ndarray) -> np.ndarray:
        logits = right(self, x)
        for number in (70, 133):
            at = number - seen[0]
            if 0 <= at < len(x):
                logits[at, 3] += 0.25
        seen[0] += len(x)
        return logits

    monkeypatch.setattr(DeviceBackend, "run", wrong)
    figures, report = tmp_path / "figures.json", tmp_path / "report.html"
    status, text, said = run(
        capsys, "verify", demo, "--data", "digits", "--samples", 200, "--device", "local", "--runner", native_runner,
        "--json", figures, "--report", report,
    )  # fmt: skip
    assert status == 3
    assert "DIFFERS from the host on 2 of 200 inputs, first on input 70; logits by 0.25 at most" in text
    assert "local does not compute what the host computes: 2 of 200 inputs differ, the first is input 70" in said
    assert json.loads(figures.read_text())["device"] == {
        "device": "local",
        "cpu": json.loads(figures.read_text())["device"]["cpu"],
        "isa": Session(demo / "model.edgeq").isa,
        "differing": 2,
        "first_differing": 70,
        "largest_difference": 0.25,
        "exact": False,
    }
    assert "DIFFERS from the host" in report.read_text()


def test_bench_shows_what_failed_beside_what_did_not(
    demo: Path, native_runner: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.delenv("EDGEQ_RUNNERS", raising=False)
    figures = tmp_path / "figures.json"
    status, text, said = run(
        capsys, "bench", demo, "--device", "local", "--device", "qemu://cortex-a15", "--runner", native_runner,
        "--seconds", 0.05, "--json", figures,
    )  # fmt: skip
    assert status == 1
    local, emulated = json.loads(figures.read_text())["devices"]
    assert local["latency"]["runs"] >= 20
    assert not local["emulated"]
    assert set(emulated) == {"device", "error"}
    assert "failed" in text
    assert f"runs on {os.uname().machine}, but the device is armv7" in said


@pytest.mark.parametrize(
    "words, message",
    [
        (("bench", "MODEL", "--device", "local", "--tune"), "--tune and --beside measure on this machine"),
        (("bench", "MODEL", "--cpus", "0"), "add --device local for this machine"),
        (("bench", "MODEL", "--device", "board"), "names no device"),
        (("verify", "MODEL", "--data", "digits", "--timeout", "5"), "--runner and --timeout need a device"),
        (("verify", "MODEL", "--data", "digits", "--device", "local", "--backend", "simulate"), "leave out backend"),
        (("devices", "--clean"), "need a DEVICE"),
    ],
)
def test_wrong_usage(demo: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str) -> None:
    status, _, said = run(capsys, *(demo if word == "MODEL" else word for word in words))
    assert status == 2
    assert message in said


def test_selftest_says_passed(
    demo: Path, aarch64_runner: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    whole = device_module.Device.run_runner

    def one_family(self: device_module.Device, words: list[str], **options: object) -> object:
        return whole(self, [words[0], "--family", "pool", *words[1:]], **options)

    monkeypatch.setattr(device_module.Device, "run_runner", one_family)
    status, text, _ = run(capsys, "selftest", demo, "--device", "qemu://a53", "--runner", aarch64_runner)
    assert status == 0
    assert "PASSED" in text


def test_devices_shows_what_a_device_is(
    aarch64_runner: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "facts.json"
    status, text, _ = run(capsys, "devices", "qemu://a76", "--runner", aarch64_runner, "--json", figures)
    assert status == 0
    assert "programs for aarch64" in text
    (found,) = json.loads(figures.read_text())["devices"]
    assert found["info"]["in_use"] == "neondot"
    assert found["facts"]["abi"] == "aarch64"


def test_a_device_without_a_runner_still_says_what_it_is(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.delenv("EDGEQ_RUNNERS", raising=False)
    status, text, _ = run(capsys, "devices", "qemu://a7")
    assert status == 0
    assert "programs for armv7" in text
    assert "edgeq cross --target linux-armv7" in text


@pytest.mark.parametrize(
    "status, said, words",
    [
        (1, "edgeq-runner: x.npy cannot be written (No space left on device)", "the disk that holds .* is full"),
        (126, "sh: runner: Permission denied", "Allow the user to write and run programs"),
        (1, "mkdir: /x: Read-only file system", "Allow the user to write and run programs"),
        (127, "sh: runner: not found", "take a static one: edgeq cross builds it"),
        (
            132,
            "Illegal instruction",
            r"ended by signal 4: the CPU lacks an instruction.*edgeq selftest --device 'local'",
        ),
        (137, "Killed", "memory ran out; use a smaller batch"),
        (2, "edgeq-runner: --cpus takes CPU numbers", "failed: --cpus takes CPU numbers$"),
        (1, "", "failed: exit status 1$"),
    ],
)
def test_causes_and_cures(status: int, said: str, words: str) -> None:
    from edgeq.device.transport import Done

    with open_device("local") as device:
        error = device._refused(Done(status, b"", said), "edgeq-runner run failed")
    assert isinstance(error, DeviceError)
    import re

    assert re.search(words, str(error)), str(error)


def test_a_model_of_several_inputs_is_refused(native_runner: Path, tmp_path: Path) -> None:
    from quantized_graphs import CASES, build

    from edgeq.exporters.edgeq_file import encode
    from edgeq.passes import channels_last, lower

    case = next(one for one in CASES if "two inputs" in one.name)
    path = tmp_path / "model.edgeq"
    path.write_bytes(encode(lower(channels_last(build(case, "w8a8", 0)))))
    with open_device("local", runner=native_runner) as device, pytest.raises(UsageError, match="with one input"):
        DeviceBackend(device, path)


def test_a_device_that_is_not_open() -> None:
    with pytest.raises(DeviceError, match="is not connected; open it with a with statement"):
        _ = open_device("local").facts


def test_devices_stand_side_by_side() -> None:
    from edgeq.cli.bench import format_devices

    def figures(device: str, median: float, layers: list[tuple[str, float]], **machine: object) -> dict[str, object]:
        return {
            "device": device,
            "emulated": False,
            "latency": {"median_ms": median, "p10_ms": median - 1, "p90_ms": median + 1, "runs": 20},
            "isa": "neon",
            "gmac_per_s": 12.3,
            "batch": 1,
            "threads": 2,
            "machine_after": {"cpu": "Cortex-A72", "cpus": [0, 1, 2, 3], **machine},
            "warnings": ["the CPU's frequency fell from 1500 to 600 MHz while it was timed"] if median > 50 else [],
            "layers": [{"name": name, "op": "conv", "ms": ms} for name, ms in layers],
        }

    text = format_devices(
        [
            figures("ssh://pi4", 60.5, [("a", 20.0), ("b", 40.5)], mhz=600.0, governor="ondemand", temperature=81.6),
            {"device": "ssh://away", "error": "it does not answer"},
            figures("ssh://pi5", 11.25, [("a", 0.0), ("b", 11.25)]),
        ]
    )
    lines = [line.split() for line in text.splitlines()]
    assert ["ssh://pi4", "Cortex-A72", "neon", "60.500", "59.500", "61.500", "12.3", "600", "ondemand", "82"] in lines
    assert ["ssh://away", "failed"] in lines
    assert ["ssh://pi5", "Cortex-A72", "neon", "11.250", "10.250", "12.250", "12.3"] in lines
    assert "batch 1, 2 threads" in text
    assert "warning: ssh://pi4: the CPU's frequency fell from 1500 to 600 MHz" in text
    assert text.count("warning") == 1
    # A layer that a device runs together with another has no time of its own there.
    assert ["a", "conv", "20.0000"] in lines
    assert ["b", "conv", "40.5000", "11.2500"] in lines
