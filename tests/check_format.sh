#!/usr/bin/env bash
# Every C++ file is as clang-format leaves it: prints each place that is not, exits 1 if there is one. Exits 77 (skipped)
# where clang-format is not installed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v clang-format >/dev/null || exit 77
git ls-files -z '*.h' '*.cpp' '*.cu' | xargs -0r clang-format --dry-run -Werror
