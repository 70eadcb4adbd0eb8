#!/bin/sh
# Writes docker/.env with new secrets. Run again, it changes nothing: the database is locked with the old ones.
set -eu
umask 077
file="$(dirname "$0")/.env"
if [ -e "$file" ]; then
    echo "$file exists and is kept."
    exit 0
fi

# Random bytes in URL-safe base64, which needs no quoting in a URL or here. Fernet wants exactly 32 of them;
# 48 give the 64 characters that the tokens' HMAC-SHA512 should have.
secret() { head -c "$1" /dev/urandom | base64 | tr -d '\n' | tr '+/' '-_'; }

admin="$(secret 18)"
new="$(mktemp "$file.XXXXXX")"
trap 'rm -f "$new"' EXIT
cat >"$new" <<SECRETS
POSTGRES_PASSWORD=$(secret 48)
RESULTS_PASSWORD=$(secret 48)
REDIS_PASSWORD=$(secret 48)
S3_ACCESS_KEY=$(secret 15)
S3_SECRET_KEY=$(secret 48)
AIRFLOW_FERNET_KEY=$(secret 32)
AIRFLOW_JWT_SECRET=$(secret 48)
AIRFLOW_API_SECRET_KEY=$(secret 48)
AIRFLOW_ADMIN_PASSWORD=$admin
# The store beside the other services. Without this line, and with NIGHTSHIFT_S3_ENDPOINT, it is another one.
COMPOSE_PROFILES=s3
SECRETS
ln "$new" "$file" # whole or not at all, and never over a file that came in between
echo "$file written; keep it as safe as the database."
echo "First user: admin, password: $admin (shown this once; kept in that file)"
