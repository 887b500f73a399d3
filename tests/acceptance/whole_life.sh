#!/bin/sh
# Everything that Headstart does with a server, once: whole_life.sh PYTHON STUDY ARTIFACTS
# A run with a server of its own, the UI, a run that reports to it, a schedule that fires, and the UI's end.
set -eu
python=$1 study=$2 artifacts=$3
headstart() { "$python" -m flows "$@" --artifacts "$artifacts"; }
headstart run "$study"
headstart ui --port "$PORT"
headstart run "$study"
"$python" -m flows serve "$study" --interval 10s --artifacts "$artifacts" 2>"$artifacts/serve.log" &
serving=$!
tries=0
until grep -q "^  publish " "$artifacts/serve.log"; do # its run ends with that
    tries=$((tries + 1))
    [ $tries -lt 300 ] || { cat "$artifacts/serve.log" >&2; exit 1; }
    sleep 1
done
kill -TERM "$serving"
wait "$serving"
headstart ui --stop
