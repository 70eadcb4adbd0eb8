"""A prefix of a bucket as a store, built on what every S3-compatible server honours.

A PUT is atomic and carries its MD5, so that damage on the way is refused; the SHA-256 of what was written is kept as
the object's metadata and holds for every later reading. Create-if-absent is ``If-None-Match: *`` alone.
"""

import hashlib
import io
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from tempfile import TemporaryFile
from typing import Any, TypeVar

from training.errors import StoreError, received
from training.store.face import Buffer, Entry, NotFound, mapping, refuse_large
from training.store.s3_client import (
    AlreadyThere,
    Passing,
    attempts,
    client,
    encryption,
    several_parts,
    translated,
    whole_body,
)

S3 = "s3://"
log = logging.getLogger(__name__)
Answer = TypeVar("Answer")
_SHA256 = "nightshift-sha256"
_WRITER = "nightshift-writer"


class S3Store:
    """A prefix of a bucket; credentials, region and endpoint come from boto3's own configuration."""

    readers = 16  # which mostly wait for the network

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket, self.prefix = bucket, prefix

    def read(self, key: str, at_most: int | None = None) -> bytes:
        return _patiently(lambda: self._read_once(key, at_most))

    def mapped(self, key: str) -> Buffer:
        with TemporaryFile() as file:
            file.write(self.read(key))
            file.flush()
            return mapping(file)

    def write(self, key: str, content: bytes) -> None:
        if len(content) < several_parts().multipart_threshold:
            self._call("put_object", key, Body=content, **_kept_with(content))
        else:
            _patiently(lambda: self._upload_once(key, content))

    def create(self, key: str, content: bytes) -> bool:
        writer = uuid.uuid4().hex
        return _patiently(lambda: self._create_once(key, content, writer))

    def exists(self, key: str) -> bool:
        try:
            self._call("head_object", key)
        except NotFound:
            return False
        return True

    def delete(self, key: str) -> None:
        self._call("delete_object", key)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        for page in self._pages(prefix):
            yield from self._entries(page)

    def folders(self) -> Iterator[str]:
        base = self._whole("")
        for page in self._pages("", Delimiter="/"):
            yield from (one["Prefix"].removeprefix(base).rstrip("/") for one in page.get("CommonPrefixes", []))

    def uri(self, key: str = "") -> str:
        return S3 + "/".join(part for part in (self.bucket, self.prefix, key) if part)

    def sweep(self) -> None:
        if not self.prefix:  # the bucket is not one writer's alone
            return
        try:
            for upload in self._listed("list_multipart_uploads", "", {}).get("Uploads", []):
                self._abort(upload["Key"], upload["UploadId"])
        except StoreError as error:  # listing uploads is a permission of its own, and leftovers do no harm
            log.info("unfinished uploads were not looked for: %s", error)

    def remove_empty_folders(self) -> None:
        """There are none."""

    def _read_once(self, key: str, at_most: int | None) -> bytes:
        with translated(self.uri(key)):
            found = client().get_object(Bucket=self.bucket, Key=self._whole(key))
            with closing(found["Body"]) as body:
                refuse_large(self.uri(key), found["ContentLength"], at_most)
                content = whole_body(body, self.uri(key))
        expected = found["Metadata"].get(_SHA256, "")
        if expected and _sha256(content) != expected:
            raise Passing(received(self.uri(key), "damaged content", f"SHA-256 {expected}"), cause="damaged")
        return content

    def _create_once(self, key: str, content: bytes, writer: str) -> bool:
        """A first try may have been done and its answer lost, so the object itself says who made it."""
        kept = _kept_with(content)
        kept["Metadata"][_WRITER] = writer
        try:
            self._once("put_object", key, Body=content, IfNoneMatch="*", **kept)
        except AlreadyThere:
            return self._writer_of(key) == writer
        return True

    def _writer_of(self, key: str) -> str | None:
        try:
            return self._once("head_object", key)["Metadata"].get(_WRITER)
        except NotFound:
            raise Passing(received("key", self.uri(key), "an object where one was just refused")) from None

    def _upload_once(self, key: str, content: bytes) -> None:
        """In parts, several at a time; what cannot be finished is aborted."""
        with translated(self.uri(key)):
            client().upload_fileobj(
                io.BytesIO(content),
                self.bucket,
                self._whole(key),
                ExtraArgs=_kept_with(content),
                Config=several_parts(),
            )

    def _call(self, operation: str, key: str, **arguments: Any) -> Any:
        return _patiently(lambda: self._once(operation, key, **arguments))

    def _once(self, operation: str, key: str, **arguments: Any) -> Any:
        with translated(self.uri(key)):
            return getattr(client(), operation)(Bucket=self.bucket, Key=self._whole(key), **arguments)

    def _pages(self, prefix: str, **asked: str) -> Iterator[Any]:
        more: dict[str, str] | None = {}
        while more is not None:
            page = self._listed("list_objects_v2", prefix, asked | more)
            yield page
            more = {"ContinuationToken": page["NextContinuationToken"]} if page.get("IsTruncated") else None

    def _listed(self, operation: str, prefix: str, more: dict[str, str]) -> Any:
        def page() -> Any:
            with translated(self.uri(prefix)):
                return getattr(client(), operation)(Bucket=self.bucket, Prefix=self._whole(prefix), **more)

        return _patiently(page)

    def _entries(self, page: Any) -> Iterator[Entry]:
        for item in page.get("Contents", []):
            key = item["Key"].removeprefix(self._whole(""))
            if key and not key.endswith("/"):
                yield Entry(key, item["Size"], item["ETag"].strip('"'))

    def _abort(self, whole: str, upload: str) -> None:
        base = self._whole("")
        if whole.startswith(base):  # some servers list the whole bucket
            self._call("abort_multipart_upload", whole.removeprefix(base), UploadId=upload)

    def _whole(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key


def _kept_with(content: bytes) -> dict[str, Any]:
    return {"Metadata": {_SHA256: _sha256(content)}, **encryption()}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _patiently(attempt: Callable[[], Answer]) -> Answer:
    """The attempt's answer. boto3 tries again up to an answer's head; this does when its body does not hold."""
    last = attempts() - 1
    for number in range(last):
        try:
            return attempt()
        except Passing as error:
            log.info("%s; trying again", error)
            time.sleep(min(0.1 * 2**number, 5))
    return attempt()
