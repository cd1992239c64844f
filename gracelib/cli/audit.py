"""`make audit`: what is known to be vulnerable among the installed packages, and whether anybody could be asked.

pip-audit ends with the same status for an advisory and for a network that is down, and with success where the index
that it asked knows none of the packages (a mirror). Neither may look like a clean bill of health.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig


def main(program: str) -> int:
    """Run pip-audit over this environment. Exit status: 0 no advisory, 1 advisories, 2 it could not be told."""
    place = sysconfig.get_path("purelib")
    command = [program, "--progress-spinner", "off", "--format", "json", "--path", place]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
        packages = json.loads(done.stdout)["dependencies"]
        asked = [one for one in packages if "vulns" in one]
        found = [(one, advisory) for one in asked for advisory in one["vulns"]]
        skipped = [f"{one['name']}: {one['skip_reason']}" for one in packages if "skip_reason" in one]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
        said = getattr(error, "strerror", None) or (done.stderr.strip().splitlines() or [str(error)])[-1]
        return _unknown(said[:200])
    if len(asked) <= len(skipped):
        return _unknown(f"it knows {len(asked)} of {len(packages)} packages; {next(iter(skipped), 'there are none')}")
    for one, advisory in found:
        mended = ", ".join(advisory.get("fix_versions") or []) or "no version yet"
        print(f"{one['name']} {one['version']}: {advisory['id']}, mended in {mended}")
    for line in skipped:
        print(f"not asked about: {line}", file=sys.stderr)
    print(f"audit: {len(found)} known vulnerabilities in {len(asked)} packages")
    return 1 if found else 0


def _unknown(reason: str) -> int:
    print(
        f"audit: the advisory service could not be asked, so nothing is known ({reason}); try again with a "
        "network that reaches pypi.org",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
