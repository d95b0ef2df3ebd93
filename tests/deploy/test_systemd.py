"""Units for machines without containers."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path

import pytest

UNITS = ["attrib-worker@.service", "attrib-worker.service", "attrib-serve.service"]


def read(path: Path) -> ConfigParser:
    parser = ConfigParser(interpolation=None, delimiters=["="], strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text(encoding="utf-8"))
    return parser


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_starts_a_command_that_exists_and_starts_it_again(
    deploy: Path, name: str, fault: Callable[[list[str]], str | None]
) -> None:
    service = read(deploy / "systemd" / name)["Service"]
    program, *words = shlex.split(service["ExecStart"].replace("%i", "1"))
    assert program == "/opt/attrib/bin/attrib"
    assert fault(words) is None
    assert service["Restart"] == "always"
    assert service["User"] == "attrib"


def test_the_service_has_its_data_folder_where_it_may_write(deploy: Path) -> None:
    service = read(deploy / "systemd" / "attrib-serve.service")["Service"]
    words = shlex.split(service["ExecStart"])
    data = words[words.index("--data") + 1]
    assert data.startswith(f"/var/lib/{service['StateDirectory']}/")


def test_each_gpu_has_a_port_of_its_own(deploy: Path) -> None:
    command = read(deploy / "systemd" / UNITS[0])["Service"]["ExecStart"]
    assert "--device cuda:%i" in command
    ports = {command.replace("%i", str(gpu)).split()[-1] for gpu in range(10)}
    assert ports == {str(port) for port in range(9470, 9480)}


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_may_do_little_and_may_write_where_its_settings_send_it(
    deploy: Path, name: str
) -> None:
    service = read(deploy / "systemd" / name)["Service"]
    for setting in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "RestrictNamespaces"):
        assert service[setting] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    allowed = (f"/var/lib/{service['StateDirectory']}", f"/var/cache/{service['CacheDirectory']}")
    example = (deploy / "systemd" / "attrib.env.example").read_text(encoding="utf-8")
    folders = re.findall(r"^(?:ATTRIB|HF)_\w+=(/.*)$", example, re.MULTILINE)
    assert len(folders) == 2
    assert all(folder.startswith(allowed) for folder in folders)


def test_the_example_sets_what_attrib_reads_and_units_read_it(
    deploy: Path, variables: set[str], page: str
) -> None:
    example = (deploy / "systemd" / "attrib.env.example").read_text(encoding="utf-8")
    named = set(re.findall(r"^(ATTRIB_[A-Z_]+)=", example, re.MULTILINE))
    assert {"ATTRIB_REDIS", "ATTRIB_QDRANT_API_KEY", "ATTRIB_READ_KEYS"} <= named <= variables
    for name in UNITS:
        file = read(deploy / "systemd" / name)["Service"]["EnvironmentFile"]
        assert f"deploy/systemd/attrib.env.example {file}" in page


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_has_nothing_to_say_against_it(deploy: Path, tmp_path: Path, name: str) -> None:
    text = (deploy / "systemd" / name).read_text(encoding="utf-8")
    unit = tmp_path / name
    unit.write_text(text.replace("/opt/attrib/bin/attrib", "/bin/true"), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(text.replace("/opt/attrib/bin/attrib", "/no/such"), encoding="utf-8")
    wrong = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True
    )
    assert "not executable" in wrong.stderr
