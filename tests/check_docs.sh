#!/usr/bin/env bash
# usage: check_docs.sh BUILD. Every test that docs/adapters.md names exists: the whole names, and the cases in the cells under
# a column's test. Prints each that does not, exits 1 if there is one.
set -uo pipefail
tests=$(ctest --test-dir "$1" -N | sed -n 's/^ *Test *#[0-9]*: *//p' | sed 's/ *#.*//' | tr -d '"')
named=$(awk -F ' *[|] *' '
  /^\| \*test\*/ { for (i = 3; i < NF; ++i) test[i] = substr($i, 2, length($i) - 2); next }
  /^\|/ && 3 in test { for (i = 3; i < NF; ++i) if ($i != "no" && $i !~ /`/) print test[i] "/" $i }
  !/^\|/ { split("", test) }' "$(dirname "$0")/../docs/adapters.md"
  grep -o '`[A-Za-z0-9/]*[A-Z][A-Za-z]*\.[A-Z][A-Za-z0-9]*\(/[a-z0-9_]*\)\?`' "$(dirname "$0")/../docs/adapters.md" | tr -d '`')
# A column's own test stands for its cases.
missing=$(sort -u <<<"$named" | grep -vxF -f <(sed 's|/[a-z0-9_]*$||' <<<"$tests"; echo "$tests"))
[ -z "$missing" ] && [ "$(wc -l <<<"$named")" -gt 50 ] && exit 0
echo "docs/adapters.md names tests that do not exist:" && echo "$missing"
exit 1
