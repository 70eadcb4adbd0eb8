"""What a URI may hold."""


def holds_credentials(uri: str) -> bool:
    """Whether there is a user or a password in it, as in ``s3://key:secret@bucket``; such a URI is never shown."""
    scheme, separator, rest = uri.partition("://")
    return bool(separator) and scheme.isalnum() and "@" in rest.partition("/")[0]
