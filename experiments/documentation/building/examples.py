"""Examples: scripts that are run when the site is built; a page shows the script and what it printed.

A line ``{{ example NAME }}`` in a page is replaced by both, ``{{ source NAME }}`` by the script alone. Those named in
``extra.examples`` of ``mkdocs.yml`` are run in that order, in one directory where copies of all of them lie. A script
that fails ends the build. What they printed is kept beside ``mkdocs.yml`` under a digest of the scripts and of the
library, and they are run again when either changes.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File

_LOG = get_plugin_logger("examples")
_SHOWN = re.compile(r"^\{\{ (?P<what>example|source) (?P<name>[\w.]+) \}\}$", re.MULTILINE)
_LANGUAGES = {".py": "python", ".sh": "bash"}
_RUNNERS = {".py": [sys.executable], ".sh": ["bash", "-euo", "pipefail"]}
_LIMIT = 600
"""Seconds that a script may take."""


def _folder(config) -> Path:
    return Path(config.config_file_path).parent


def _digest(scripts: list[Path], repository: Path) -> str:
    digest = hashlib.sha256(sys.version.encode())
    for path in [*scripts, *sorted((repository / "mtbkd_jax").rglob("*.py"))]:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _run(name: str, workplace: Path, repository: Path) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    modules = os.pathsep.join([str(repository), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    # Wide enough that no table is cut, and no colours.
    environment = os.environ | {"PATH": path, "PYTHONPATH": modules, "COLUMNS": "110", "NO_COLOR": "1", "TERM": "dumb"}
    began = time.monotonic()
    done = subprocess.run(
        [*_RUNNERS[Path(name).suffix], name],
        cwd=workplace,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_LIMIT,
    )
    if done.returncode:
        raise PluginError(f"the example {name} failed:\n{done.stdout}\n{done.stderr}")
    _LOG.info("%s: %.0f s", name, time.monotonic() - began)
    return done.stdout


def on_pre_build(*, config, **_) -> None:
    folder = _folder(config)
    repository = folder.parent.parent
    scripts = sorted(path for path in (folder / "examples").iterdir() if path.is_file())
    names = config.extra["examples"]
    if missing := set(names) - {path.name for path in scripts}:
        raise PluginError(f"no such examples: {', '.join(sorted(missing))}")
    kept = folder / ".outputs"
    finished = kept / _digest(scripts, repository)
    if not finished.exists():
        shutil.rmtree(kept, ignore_errors=True)
        workplace = kept / "unfinished"
        shutil.copytree(folder / "examples", workplace)
        for name in names:
            (workplace / f"{name}.out").write_text(_run(name, workplace, repository))
        workplace.rename(finished)
    config.extra["workplace"] = finished


def on_files(files, *, config, **_):
    for path in sorted(config.extra["workplace"].glob("*.html")):
        files.append(File.generated(config, f"examples/{path.name}", content=path.read_bytes()))
    return files


def on_page_markdown(markdown: str, *, page, config, **_) -> str:
    def shown(found: re.Match) -> str:
        name, workplace = found["name"], config.extra["workplace"]
        if not (workplace / name).is_file():
            raise PluginError(f"{page.file.src_uri}: there is no example {name}")
        source = (workplace / name).read_text().rstrip()
        block = f'```{_LANGUAGES[Path(name).suffix]} title="{name}"\n{source}\n```'
        if found["what"] == "source":
            return block
        printed = (workplace / f"{name}.out").read_text().rstrip()
        return f'{block}\n\n```text title="prints"\n{printed}\n```'

    return _SHOWN.sub(shown, markdown)
