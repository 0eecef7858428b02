"""Make a virtual environment with the lowest versions that pyproject.toml states, and run the tests in it.

    python benchmarks/lowest_versions.py FOLDER [--extra NAME] [--keep] [-- PYTEST ARGUMENTS]

Each direct requirement is installed at the version after its `>=`; what these need in turn is chosen by pip. The
package itself is installed from a wheel of this tree. The exit code is that of pytest, or 3 if pip finds no such set: a
bound that does not hold is raised in pyproject.toml. It needs an index and, with the default build of torch for Linux,
8 GB in FOLDER. docs/reliability.md has what came out.
"""

import argparse
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("cpu", "tensorboard", "parquet", "inception", "fidelity", "test")
_BOUND = re.compile(r"\s*([A-Za-z0-9._-]+)\s*>=\s*([0-9][0-9.]*)\s*(?:;(.*))?")


def lowest(extras: list[str]) -> list[str]:
    """Return the direct requirements of the package and its extras as `name==version`, markers kept."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    found = {}
    for text in [*project["dependencies"], *(text for extra in extras for text in optional[extra])]:
        match = _BOUND.fullmatch(text)
        if match is None:
            raise SystemExit(f"pyproject.toml: {text!r} has no lower bound")
        name, version, marker = match.groups()
        found[name] = f"{name}=={version}" + (f";{marker}" if marker else "")
    return list(found.values())


def main() -> int:
    """Make the environment, install, and run pytest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the environment is made")
    parser.add_argument("--extra", action="append", choices=EXTRAS, help="one extra (default: all); may be repeated")
    parser.add_argument("--keep", action="store_true", help="take the environment that is in FOLDER as it is")
    parser.add_argument("--list", action="store_true", help="print the requirements, and stop")
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args, tests = parser.parse_args(sys.argv[1:at]), sys.argv[at + 1 :]
    requirements = lowest(args.extra or list(EXTRAS))
    if args.list:
        print("\n".join(requirements))
        return 0
    folder = args.folder.resolve()
    python = folder / "bin" / "python"
    if not args.keep:
        venv.create(folder, with_pip=True, clear=True)
        pip = [python, "-m", "pip", "install", "--quiet"]
        if subprocess.run([*pip, *requirements], check=False).returncode:
            return 3
        if subprocess.run([*pip, "--no-deps", ROOT], check=False).returncode:
            return 3
    # pytest as a command, not -m: the source folder must not be on the path
    environment = {**os.environ, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run([folder / "bin" / "pytest", *tests], cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
