#!/usr/bin/env bash
# trackio 0.43.0: run.finish() leaves the run in place, and leaving Python finishes it once more, on stdout.
#
# Guess before the run: what trackio prints goes to stderr, or stops with run.finish(); what a script prints after that is
# the end of its stdout, so that a result can be piped on.
# Seen: all that trackio says is on stdout, and after run.finish() its atexit hook finishes the run a second time and says
# so below the script's last line. trackio.finish() does not: it forgets the run.
#
# Output:
#   run.finish(): finished 2 times, last line on stdout is trackio's
#   trackio.finish(): finished 1 time, last line on stdout is the script's
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q trackio==0.43.0
cd "$folder"
export TRACKIO_DIR="$folder/store" HF_HUB_OFFLINE=1
cat > log.py <<'PY'
import sys

import trackio

run = trackio.init(project="p", name="a", config={"lr": 0.1})
run.log({"loss": 1.0})
run.finish() if sys.argv[1] == "run.finish()" else trackio.finish()
print('{"loss": 1.0}', flush=True)
PY
told() {
    venv/bin/python log.py "$1" > stdout
    count=$(grep -c 'Run finished' stdout)
    last=$(tail -n 1 stdout | grep -q '^{"loss": 1.0}$' && echo "the script's" || echo "trackio's")
    echo "$1: finished $count time$( ((count == 1)) || echo s), last line on stdout is $last"
}
answers=$(told 'run.finish()'; told 'trackio.finish()')
echo "$answers"
diff <(echo "$answers") - <<'SEEN'
run.finish(): finished 2 times, last line on stdout is trackio's
trackio.finish(): finished 1 time, last line on stdout is the script's
SEEN
