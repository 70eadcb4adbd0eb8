#!/bin/sh
# Prints the Secret `nightshift-servers` with new keys, for `kubectl create`, which never overwrites one that is there.
# The database is given in the environment: arguments can be read by everybody on the host.
set -eu
: "${NIGHTSHIFT_DATABASE:?expected postgresql+psycopg2://USER:PASSWORD@HOST:5432/DATABASE}"
case "$NIGHTSHIFT_DATABASE" in
    *sslmode=*) echo "NIGHTSHIFT_DATABASE: received sslmode, expected it as PGSSLMODE in values.yaml" >&2; exit 2 ;;
    *[\'[:space:]]*) echo "NIGHTSHIFT_DATABASE: received a quote or white space, expected them percent-encoded" >&2; exit 2 ;;
esac

# Random bytes in URL-safe base64. Fernet wants exactly 32 of them; 48 give the 64 characters that the tokens'
# HMAC-SHA512 should have.
secret() { head -c "$1" /dev/urandom | base64 | tr -d '\n' | tr '+/' '-_'; }

cat <<SECRET
apiVersion: v1
kind: Secret
metadata:
  name: nightshift-servers
type: Opaque
stringData:
  connection: '$NIGHTSHIFT_DATABASE'
  fernet-key: '$(secret 32)'
  api-secret-key: '$(secret 48)'
  jwt-secret: '$(secret 48)'
SECRET
