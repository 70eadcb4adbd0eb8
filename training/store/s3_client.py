"""How boto3 is set up and spoken to; the only module that imports it.

Settings come from boto3's own places; where it has none, from the environment:

    NIGHTSHIFT_S3_CONNECT_TIMEOUT   seconds until a connection must stand, 10
    NIGHTSHIFT_S3_READ_TIMEOUT      seconds for which a server may be silent, 60
    NIGHTSHIFT_S3_ADDRESSING_STYLE  path, virtual or auto
    NIGHTSHIFT_S3_KMS_KEY_ID        key under which the server encrypts what is written (SSE-KMS)

A request takes at most AWS_MAX_ATTEMPTS (5) times these seconds and the waits between, of at most 20 seconds each.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from training.errors import ConfigError, StoreError, received
from training.store.face import NotFound

_ATTEMPTS = 5
_STYLES = ("auto", "path", "virtual")
_REMEDY = "Check endpoint and credentials."


class AlreadyThere(StoreError):
    """The key exists, or somebody else is making it."""


class Passing(StoreError):
    """A failure that another attempt may mend."""


@cache
def client() -> Any:
    """The one client of this process; it may be used by many threads."""
    import boto3
    from botocore.config import Config

    session = boto3.Session()
    found = session.client(
        "s3",
        config=Config(
            # The mode is boto3's own: standard, or AWS_RETRY_MODE.
            retries={"total_max_attempts": session._session.get_config_variable("max_attempts") or _ATTEMPTS},
            connect_timeout=_seconds("NIGHTSHIFT_S3_CONNECT_TIMEOUT", 10),
            read_timeout=_seconds("NIGHTSHIFT_S3_READ_TIMEOUT", 60),
            max_pool_connections=32,
            # Checksum trailers by default are refused by many S3-compatible servers.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            **_addressing(),
        ),
    )
    for operation in ("PutObject", "UploadPart"):
        found.meta.events.register(f"before-call.s3.{operation}", _with_md5)
    return found


@cache
def several_parts() -> Any:
    """From which size on an upload goes in parts, how large these are, and how many go at a time."""
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(multipart_threshold=2**23, multipart_chunksize=2**23, max_concurrency=8)


def attempts() -> int:
    with translated("s3"):
        return int(client().meta.config.retries["total_max_attempts"])


def encryption() -> dict[str, str]:
    """What to say with an upload so that the server encrypts it under the key in the environment."""
    key = os.environ.get("NIGHTSHIFT_S3_KMS_KEY_ID")
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key} if key else {}


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Turns what boto3 and the libraries below it raise into one line without credentials."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        raise _client_error(error, uri) from None
    except ResponseParserError:
        raise Passing(f"{uri}: the answer was damaged") from None
    except HTTPError as error:  # of an error's body, which boto3 reads with no word of its own
        raise Passing(f"{uri}: the answer broke off ({type(error).__name__})") from None
    except BotoCoreError as error:
        raise StoreError(f"{uri}: {type(error).__name__}", remedy=_REMEDY) from None


def whole_body(body: Any, uri: str) -> bytes:
    """All of an answer's body; raises Passing when it breaks off or stops, which boto3 leaves to its caller."""
    from s3transfer.utils import S3_RETRYABLE_DOWNLOAD_ERRORS

    try:
        return bytes(body.read())
    except S3_RETRYABLE_DOWNLOAD_ERRORS as error:
        raise Passing(f"{uri}: the answer broke off ({type(error).__name__})") from None


def _client_error(error: Any, uri: str) -> StoreError:
    code = error.response.get("Error", {}).get("Code", "unknown")
    if code in {"404", "NoSuchKey", "NotFound", "NoSuchBucket", "KeyTooLongError"}:
        return NotFound(received("key", uri, "a stored object"))
    if code in {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}:
        return AlreadyThere(received("key", uri, "no such object yet"))
    if code in {"BadDigest", "InvalidDigest", "NoSuchUpload", "IncompleteBody"}:
        return Passing(f"{uri}: what was sent did not arrive whole ({code})")
    return StoreError(f"{uri}: the object store answered {code}", remedy="Check the bucket's policy and credentials.")


def _with_md5(params: dict[str, Any], **_: object) -> None:
    from botocore.utils import calculate_md5

    params["headers"]["Content-MD5"] = calculate_md5(params["body"])


def _addressing() -> dict[str, Any]:
    style = os.environ.get("NIGHTSHIFT_S3_ADDRESSING_STYLE")
    if not style:
        return {}
    if style not in _STYLES:
        raise ConfigError(received("NIGHTSHIFT_S3_ADDRESSING_STYLE", style, f"one of {', '.join(_STYLES)}"))
    return {"s3": {"addressing_style": style}}


def _seconds(name: str, usual: float) -> float:
    text = os.environ.get(name, str(usual))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        raise ConfigError(received(name, text, "a number of seconds above 0"))
    return seconds
