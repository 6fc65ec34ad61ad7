"""Devices behind a real SSH server on the loopback interface, with the 64-bit Arm runner under emulation."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from quantized_graphs import CASES, build

from edgeq import Session
from edgeq.device import ssh
from edgeq.device.device import Device, open_device
from edgeq.errors import DeviceError
from edgeq.exporters.edgeq_file import encode
from edgeq.passes import channels_last, lower

A72 = "qemu-aarch64 -cpu cortex-a72"


def edgeq(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "edgeq", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def inputs(rng: np.random.Generator, model: Path, count: int) -> np.ndarray:
    shape = Session(model).inputs[0].shape
    return rng.standard_normal((count, *shape[1:])).astype(np.float32)


def test_verify_on_the_whole_test_set(server, demo: Path, aarch64_runner: Path, tmp_path: Path) -> None:
    address = server.address(emulator=A72)
    figures, report = tmp_path / "figures.json", tmp_path / "report.html"
    done = edgeq(
        "verify", demo, "--data", "digits", "--device", address, "--runner", aarch64_runner, "--json", figures,
        "--report", report,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text())
    assert found["n"] == 540
    assert found["device"]["exact"] is True
    assert found["device"]["isa"] == "neon"
    assert found["provenance"]["command"].endswith(f"--device {shlex.quote(address)}")
    assert "computes exactly what the host computes: 540 of 540" in done.stdout
    assert "540 of 540" in report.read_text()
    here = tmp_path / "here.json"
    assert edgeq("verify", demo, "--data", "digits", "--json", here).returncode == 0
    own = json.loads(here.read_text())
    for key in ("reference", "quantized", "disagreement", "logit_sqnr_db"):
        assert found[key] == own[key]
    assert server.left() == []
    assert len(server.kept()) == 2


def test_bench_puts_devices_side_by_side(server, demo: Path, aarch64_runner: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = edgeq(
        "bench", demo, "--device", server.address(emulator=A72), "--device", "qemu://cortex-a76", "--runner",
        aarch64_runner, "--seconds", 0.05, "--layers", "--json", figures,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = json.loads(figures.read_text())["devices"]
    assert (first["isa"], second["isa"]) == ("neon", "neondot")
    for one in (first, second):
        assert one["emulated"]
        assert 0 < one["latency"]["min_ms"] <= one["latency"]["median_ms"]
        assert one["layers"]
    assert done.stdout.count("its times mean nothing") == 2
    assert server.left() == []


def test_files_are_sent_only_when_they_change(
    server, demo: Path, aarch64_runner: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    model = tmp_path / "model.edgeq"
    shutil.copy(demo / "model.edgeq", model)
    with opened(server, aarch64_runner) as device:
        device.info()
        device.outputs(model, inputs(rng, model, 2))
    first = {path.name: path.stat().st_ino for path in server.kept()}
    assert len(first) == 2
    with opened(server, aarch64_runner) as device:
        device.outputs(model, inputs(rng, model, 2))
        assert {path.name: path.stat().st_ino for path in server.kept()} == first
        model.write_bytes(encode(lower(channels_last(build(CASES[0], "w8a8", 0)))))
        x = inputs(rng, model, 3)
        (found,) = device.outputs(model, x)
        np.testing.assert_array_equal(found, Session(model).run(x))
    assert set(first) < {path.name for path in server.kept()}
    assert len(server.kept()) == 3


def test_a_damaged_copy_is_sent_again(server, demo: Path, aarch64_runner: Path, rng: np.random.Generator) -> None:
    model = demo / "model.edgeq"
    x = inputs(rng, model, 1)
    with opened(server, aarch64_runner) as device:
        device.outputs(model, x)
    (kept,) = (path for path in server.kept() if path.suffix == ".edgeq")
    kept.write_bytes(kept.read_bytes()[:-100] + bytes(100))
    with opened(server, aarch64_runner) as device:
        (found,) = device.outputs(model, x)
    np.testing.assert_array_equal(found, Session(model).run(x))
    assert kept.read_bytes() == model.read_bytes()


def test_clean_leaves_nothing(server, aarch64_runner: Path) -> None:
    with opened(server, aarch64_runner) as device:
        device.info()
    assert server.kept()
    assert edgeq("devices", "--clean", server.address(emulator=A72)).returncode == 0
    assert list((server.home / ".cache").rglob("*")) == []


def test_noise_of_the_login_shell_does_no_harm(
    server, demo: Path, aarch64_runner: Path, rng: np.random.Generator
) -> None:
    # bash reads .bashrc where sshd starts it, and some print there.
    (server.home / ".bashrc").write_text("echo welcome\nprintf 'edgeq-b'\n")
    x = inputs(rng, demo / "model.edgeq", 2)
    with opened(server, aarch64_runner) as device:
        (found,) = device.outputs(demo / "model.edgeq", x)
    np.testing.assert_array_equal(found, Session(demo / "model.edgeq").run(x))


@contextlib.contextmanager
def opened(server, runner: Path, said: list[str] | None = None, **options: object) -> Iterator[Device]:
    say = None if said is None else said.append
    with open_device(server.address(emulator=A72), runner=runner, say=say, **options) as device:
        yield device


def when_it_runs(server, action) -> threading.Thread:
    """Does something as soon as a runner is at work in a session's folder."""

    def watch() -> None:
        for _ in range(2000):
            if list((server.home / ".cache" / "edgeq").glob("run.*/pid")):
                time.sleep(0.3)
                action()
                return
            time.sleep(0.02)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def gone(server, seconds: float = 30) -> bool:
    """Whether the device removes what a session left, within that time."""
    for _ in range(int(seconds / 0.1)):
        if server.left() == []:
            return True
        time.sleep(0.1)
    return False


def test_a_broken_connection_is_made_again(server, demo: Path, aarch64_runner: Path) -> None:
    said: list[str] = []
    with opened(server, aarch64_runner, said) as device:
        device.info()
        device.place(demo / "model.edgeq")
        watcher = when_it_runs(server, server.cut)
        found = device.json(["bench", "{0}", "--seconds", "2", "--warm-up", "0"], files=[demo / "model.edgeq"])
        watcher.join()
    assert found["latency"]["runs"] >= 20
    assert len(said) == 1
    assert "connecting again" in said[0]
    assert gone(server)


def test_verify_goes_on_after_a_broken_connection(server, demo: Path, aarch64_runner: Path) -> None:
    watcher = when_it_runs(server, server.cut)
    done = edgeq(
        "verify", demo, "--data", "digits", "--device", server.address(emulator=A72), "--runner", aarch64_runner
    )
    watcher.join()
    assert done.returncode == 0, done.stderr
    assert "connecting again" in done.stderr
    assert "540 of 540 inputs, bit for bit" in done.stdout
    assert gone(server)


def test_a_device_that_stays_away_ends_the_run(server, demo: Path, aarch64_runner: Path, monkeypatch) -> None:
    monkeypatch.setattr("edgeq.device.device.PAUSES", (0.1, 0.2))

    def crash() -> None:
        connections = server.connections()
        server.stop()
        for pid in connections:
            os.kill(pid, 9)

    with opened(server, aarch64_runner) as device:
        device.info()
        watcher = when_it_runs(server, crash)
        with pytest.raises(DeviceError, match=r"nothing listens there; start its SSH server.*It broke 3 times"):
            device.json(["bench", "{0}", "--seconds", "20"], files=[demo / "model.edgeq"])
        watcher.join()
    assert gone(server)
    assert ended(server)


def ended(server) -> bool:
    """Whether nothing runs on the device any more; a process that was killed takes a moment to end."""
    for _ in range(100):
        if not emulators(server):
            return True
        time.sleep(0.1)
    return False


def emulators(server) -> list[str]:
    """What still runs on the device."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if words[0].endswith(b"qemu-aarch64") and any(str(server.home).encode() in word for word in words):
                    found.append(b" ".join(words).decode())
    return found


def test_a_line_that_falls_silent_is_given_up(server, demo: Path, aarch64_runner: Path, monkeypatch) -> None:
    options = [word.replace("Interval=5", "Interval=1").replace("Max=3", "Max=1") for word in ssh._OPTIONS]
    monkeypatch.setattr(ssh, "_OPTIONS", options)
    stopped: list[int] = []

    def silence() -> None:
        stopped.extend(server.connections())
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)

    said: list[str] = []
    try:
        with opened(server, aarch64_runner, said) as device:
            device.info()
            watcher = when_it_runs(server, silence)
            found = device.json(["bench", "{0}", "--seconds", "1", "--warm-up", "0"], files=[demo / "model.edgeq"])
            watcher.join()
            # The device still takes the first line for open, and yet nothing of it is left.
            assert len(list((server.home / ".cache" / "edgeq").glob("run.*"))) == 1
        assert found["latency"]["runs"] >= 20
        assert "connecting again" in said[0]
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert gone(server)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose name leaves room for that of a socket."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_device_cleans_up_when_this_side_ends(
    server, demo: Path, aarch64_runner: Path, short_folder: Path, monkeypatch, number: int
) -> None:
    monkeypatch.setenv("TMPDIR", str(short_folder))
    command = [sys.executable, "-m", "edgeq", "bench", str(demo), "--device", server.address(emulator=A72)]
    command += ["--runner", str(aarch64_runner), "--seconds", "60"]
    # What a shell runs in the background ignores SIGINT, and so would its children.
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    when_it_runs(server, lambda: process.send_signal(number)).join()
    assert process.wait() == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number]
    assert gone(server)
    assert ended(server)
    # Nobody can clean up after what ends without notice.
    assert number == signal.SIGKILL or list(short_folder.iterdir()) == []


def test_a_run_that_takes_too_long_is_ended(server, demo: Path, aarch64_runner: Path) -> None:
    with opened(server, aarch64_runner) as device:
        device.info()
        with pytest.raises(DeviceError, match=r"did not end within 1.5 s .*--timeout"):
            device.json(["bench", "{0}", "--seconds", "30"], files=[demo / "model.edgeq"], timeout=1.5)
        assert ended(server)
        assert device.info()["architecture"] == "aarch64"
    assert gone(server)


def test_what_a_dead_session_left_is_removed_by_the_next(server, aarch64_runner: Path) -> None:
    with opened(server, aarch64_runner):
        pass
    # Pids end below this one.
    left = server.home / ".cache" / "edgeq" / "run.99999999"
    left.mkdir(parents=True)
    (left / "in.npy").write_bytes(b"x")
    with opened(server, aarch64_runner):
        assert not left.exists()
    assert server.left() == []


@pytest.mark.parametrize(
    "address, words",
    [
        ("ssh://127.0.0.1:1", "nothing listens there"),
        ("ssh://nobody@no-such-host.invalid", "there is no host of that name"),
    ],
)
def test_an_absent_device(server, demo: Path, address: str, words: str) -> None:
    done = edgeq("bench", demo, "--device", address, "--seconds", 0.05)
    assert done.returncode == 1
    assert words in " ".join(done.stderr.split())
    assert "failed" in done.stdout


def test_a_key_that_the_device_does_not_know(server, demo: Path, monkeypatch) -> None:
    config = server.folder / "stranger_config"
    config.write_text((server.folder / "ssh_config").read_text().replace("/key\n", "/stranger\n"))
    monkeypatch.setenv("EDGEQ_SSH", f"ssh -F {config}")
    done = edgeq("verify", demo, "--data", "digits", "--device", server.address())
    assert done.returncode == 1
    assert "it accepts none of your keys; give it one, ssh-copy-id" in " ".join(done.stderr.split())


def test_a_host_that_is_not_known(server, demo: Path, monkeypatch) -> None:
    config = server.folder / "unknown_config"
    config.write_text((server.folder / "ssh_config").read_text().replace("known_hosts\n", "nothing\n"))
    monkeypatch.setenv("EDGEQ_SSH", f"ssh -F {config}")
    with (
        pytest.raises(DeviceError, match=r"its host key is not known here; connect by hand"),
        open_device(server.address()),
    ):
        pass


def test_a_file_in_the_place_of_the_folder(server, aarch64_runner: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    address = server.address(emulator=A72, folder=str(tmp_path / "file" / "below"))
    with pytest.raises(DeviceError, match=r"no place for files.*Not a directory"), open_device(address):
        pass


@pytest.fixture
def read_only_disk(server) -> Iterator[Path]:
    """A home in which nothing can be written, not even by root."""
    yield from mounted(server.home / ".cache", "ro")


def test_a_home_that_is_read_only(server, read_only_disk: Path, aarch64_runner: Path) -> None:
    said: list[str] = []
    with opened(server, aarch64_runner, said) as device:
        assert device.facts.folder.startswith(("/var/tmp/", "/tmp/"))
        assert device.info()["architecture"] == "aarch64"
        device.clean()
    assert "Read-only file system" in said[0]
    address = server.address(emulator=A72, folder=f"{read_only_disk}/edgeq")
    with pytest.raises(DeviceError, match=r"no place for files.*Read-only file system"), open_device(address):
        pass


def test_a_home_without_room_for_a_folder(server, aarch64_runner: Path) -> None:
    (server.home / ".cache").write_text("")
    said: list[str] = []
    with opened(server, aarch64_runner, said) as device:
        assert device.facts.folder.startswith(("/var/tmp/", "/tmp/"))
        assert device.info()["architecture"] == "aarch64"
        device.clean()
    assert ".cache" in said[0]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_home_that_may_not_be_written(server, aarch64_runner: Path) -> None:
    server.home.chmod(0o500)
    said: list[str] = []
    try:
        with opened(server, aarch64_runner, said) as device:
            assert device.facts.folder.startswith(("/var/tmp/", "/tmp/"))
            assert device.info()["architecture"] == "aarch64"
    finally:
        server.home.chmod(0o700)
    assert "Permission denied" in said[0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    yield from mounted(tmp_path / "disk", "size=2m")


@pytest.fixture
def noexec_disk(server) -> Iterator[Path]:
    """A home from which no program may run."""
    yield from mounted(server.home / ".cache", "size=16m,noexec")


def mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"mode=700,{options}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(server, small_disk: Path, demo: Path, aarch64_runner: Path, rng: np.random.Generator) -> None:
    address = server.address(emulator=A72, folder=f"{small_disk}/edgeq")
    filler = small_disk / "filler"
    filler.write_bytes(bytes(1 << 20))
    with open_device(address, runner=aarch64_runner) as device:
        with pytest.raises(DeviceError, match=r"edgeq-runner .* could not be written: the disk that holds .* is full"):
            device.info()
        # Half a runner is no runner.
        assert list((small_disk / "edgeq" / "files").iterdir()) == []
        filler.unlink()
        device.info()
        x = inputs(rng, demo / "model.edgeq", 1)
        (found,) = device.outputs(demo / "model.edgeq", x)
        np.testing.assert_array_equal(found, Session(demo / "model.edgeq").run(x))
        x = inputs(rng, demo / "model.edgeq", 8000)
        assert x.nbytes > 1 << 20
        with pytest.raises(DeviceError, match=r"the inputs .* could not be written: the disk that holds .* is full"):
            device.outputs(demo / "model.edgeq", x)
    assert sorted(path.name for path in (small_disk / "edgeq").iterdir()) == ["files"]


def test_old_files_make_room(server, small_disk: Path, aarch64_runner: Path) -> None:
    address = server.address(emulator=A72, folder=f"{small_disk}/edgeq")
    old = small_disk / "edgeq" / "files" / "of-another-model.edgeq"
    old.parent.mkdir(parents=True)
    old.write_bytes(bytes(1 << 20))
    with open_device(address, runner=aarch64_runner) as device:
        assert device.info()["architecture"] == "aarch64"
    assert not old.exists()


def test_a_disk_from_which_nothing_runs(server, noexec_disk: Path, native_runner: Path, demo: Path) -> None:
    said: list[str] = []
    with open_device(server.address(), runner=native_runner, say=said.append) as device:
        assert not device.facts.folder.startswith(str(server.home))
        assert device.info()["architecture"] == os.uname().machine
        device.clean()
    assert "mounted noexec" in said[0]
    done = edgeq("bench", demo, "--device", server.address(folder=f"{noexec_disk}/edgeq"), "--runner", native_runner)
    assert done.returncode == 1
    words = " ".join(done.stderr.split())
    assert "no place for files" in words
    assert "noexec" in words
    assert "name a folder that may be written and run from" in words
    assert [path for path in noexec_disk.rglob("*") if path.is_file()] == []


def test_a_runner_that_fails_says_why(server, aarch64_runner: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.edgeq"
    broken.write_bytes(b"EDGEQ" + bytes(200))
    with opened(server, aarch64_runner) as device:
        with pytest.raises(DeviceError, match="edgeq-runner info failed"):
            device.json(["info", "{0}"], files=[broken])
        # The device is still there for the next command.
        assert device.info()["architecture"] == "aarch64"


def test_selftest(server, demo: Path, aarch64_runner: Path) -> None:
    with opened(server, aarch64_runner) as device:
        done = device.run_runner(["selftest", "--family", "pool", "{0}"], files=[demo / "model.edgeq"])
    assert done.text.rstrip().endswith("computes what the plain loops compute")
