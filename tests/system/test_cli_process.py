"""The command as a process: quick help, a reader that goes away, no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from dropscribe.cli.main import COMMANDS
from support.scene import Scene

SOURCE = Path(__file__).parents[2] / "daemon"


def run(*arguments, **options) -> subprocess.CompletedProcess[str]:
    """The command, as it is installed, but from this source."""
    call = [sys.executable, "-m", "dropscribe", *map(str, arguments)]
    environment = {"PYTHONPATH": str(SOURCE), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    return subprocess.run(call, env=environment, capture_output=True, text=True, check=False, **options)


def test_help_loads_nothing_heavy():
    """Help costs argparse alone, that of each command too: none of what makes a start slow is imported."""
    script = (
        "import sys; from dropscribe.cli.main import main\n"
        "heavy = {'pydantic', 'httpx', 'httpx2', 'yaml', 'sqlite3', 'asyncio', 'structlog', 'watchdog', 'av'}"
        "\n"
        "for command in ['', *sys.argv[1:]]:\n"
        "    assert main([*command.split(), '--help']) == 0\n"
        "    assert not heavy & sys.modules.keys(), (command, heavy & sys.modules.keys())"
    )
    call = [sys.executable, "-c", script, *COMMANDS]
    ran = subprocess.run(call, env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("usage: dropscribe") == 1 + len(COMMANDS)


def test_schema_is_one_json_object():
    """For editors."""
    assert json.loads(run("schema").stdout)["$schema"].startswith("https://json-schema.org/")


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    """``dropscribe plan | head -1``."""
    scene = Scene(tmp_path)
    for number in range(2000):
        scene.drop(f"{'long' * 40}-{number}.pdf", b"")
    call = [sys.executable, "-m", "dropscribe", "plan", "-c", str(scene.config)]
    environment = {"PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(call, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as plan:
        plan.stdout.readline()
        plan.stdout.close()
        assert plan.wait(30) == 0
        assert plan.stderr.read() == b""


def test_a_mistake_of_usage_is_2():
    """No such command, and the commands there are."""
    ran = run("stauts")
    assert ran.returncode == 2
    assert "status" in ran.stderr


@pytest.mark.parametrize("is_module", [False, True])
def test_ctrl_c_while_the_program_is_loaded_is_130(is_module):
    """The installed command and ``python -m dropscribe``: no traceback during the imports either."""
    project = tomllib.loads((SOURCE.parent / "pyproject.toml").read_text("utf-8"))
    module, function = project["project"]["scripts"]["dropscribe"].split(":")
    installed = f"from {module} import {function}; sys.exit({function}())"
    start = "runpy.run_module('dropscribe', run_name='__main__')" if is_module else installed
    program = (
        "import runpy, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'argparse': raise KeyboardInterrupt\n"
        f"sys.meta_path.insert(0, Interrupt())\n{start}"
    )
    call = [sys.executable, "-c", program]
    ran = subprocess.run(call, env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (130, "")
