#!/bin/sh
# trim.sh VENV PAGES (an absolute path): makes the image's environment small. What only Airflow's API server shows is moved
# to PAGES, under the same paths; what nothing here runs is removed.
set -eu
venv=$1 pages=$2
cd "$venv"
packages=$(echo lib/python3.*/site-packages)

find "$packages" -type d -name tests -prune -exec rm -rf {} +
find "$packages" -name '*.a' -delete
# For building against them; and libclang, which TensorFlow's metadata names and no module imports.
rm -rf "$packages/tensorflow/include" "$packages/pyarrow/include" "$packages/clang"
# Symbols that only a debugger reads, a quarter of TensorFlow's libraries. Others' wheels are stripped or repaired already;
# a repaired one may not survive it.
find "$packages/tensorflow" -type f -name '*.so*' -exec strip --strip-unneeded {} +
# The root file system is read-only: what is not compiled now would be compiled at each start. Files of an image do not
# change, so Python need not look whether they did.
bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash "$packages"

cd "$packages"
for part in airflow/ui airflow/api_fastapi/auth/managers/simple/ui airflow/providers/fab apache_airflow_providers_fab-*.dist-info \
    flask_appbuilder flask_appbuilder-*.dist-info plotly plotly-*.dist-info; do
    beside="$pages/$packages/$(dirname "$part")"
    mkdir -p "$beside"
    mv "$part" "$beside"
done
