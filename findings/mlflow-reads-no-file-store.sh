#!/usr/bin/env bash
# mlflow-skinny 3.17.2: the runs of a folder of files, such as ./mlruns of years past, are refused also when they are read.
#
# Guess before the run: the file store is in maintenance mode, so that a new run in one gives a warning; the runs that
# are there are read as ever.
# Seen: without MLFLOW_ALLOW_FILE_STORE=true each call on a file store raises MlflowException, reading among them, in any
# process that has not opened that store before. With it, the same run is read. A script that collects the losses of old
# runs stops at its first one after an update of mlflow.
#
# Output:
#   written with MLFLOW_ALLOW_FILE_STORE=true: {'loss': 1.5}
#   read without it: MlflowException, in maintenance mode
#   written to without it: MlflowException, in maintenance mode
#   read with it: {'loss': 1.5}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q mlflow-skinny==3.17.2
cd "$folder"
cat > store.py <<'PY'
import sys

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

STORE = "file:mlruns"


def write():
    client = MlflowClient(STORE)
    run = client.create_run(client.create_experiment("losses")).info.run_id
    client.log_metric(run, "loss", 1.5, step=0)
    with open("run", "w") as file:
        file.write(run)
    return client.get_run(run).data.metrics


def read():
    with open("run") as file:
        return MlflowClient(STORE).get_run(file.read()).data.metrics


def add():
    with open("run") as file:
        return MlflowClient(STORE).log_metric(file.read(), "loss", 1.0, step=1)


try:
    print({"write": write, "read": read, "add": add}[sys.argv[1]]())
except MlflowException as error:
    print(f"MlflowException{', in maintenance mode' if 'maintenance mode' in str(error) else ''}")
PY
answers=$(
    echo "written with MLFLOW_ALLOW_FILE_STORE=true: $(MLFLOW_ALLOW_FILE_STORE=true venv/bin/python store.py write)"
    echo "read without it: $(venv/bin/python store.py read)"
    echo "written to without it: $(venv/bin/python store.py add)"
    echo "read with it: $(MLFLOW_ALLOW_FILE_STORE=true venv/bin/python store.py read)"
)
echo "$answers"
diff <(echo "$answers") - <<'SEEN'
written with MLFLOW_ALLOW_FILE_STORE=true: {'loss': 1.5}
read without it: MlflowException, in maintenance mode
written to without it: MlflowException, in maintenance mode
read with it: {'loss': 1.5}
SEEN
