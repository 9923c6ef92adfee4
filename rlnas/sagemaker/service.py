"""Connections to AWS, whose errors become ours. The only place that makes them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rlnas.errors import CloudError, MissingDependencyError, first_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from botocore.client import BaseClient

_FORBIDDEN = frozenset({"403", "AccessDenied"})
_ABSENT = frozenset(
    {"404", "NoSuchKey", "NoSuchBucket", "NotFound", "ResourceNotFound", "ResourceNotFoundException"}
)


def connect(service: str, region: str | None = None) -> BaseClient:
    """A client of a service, with the credentials that AWS's own tools would take.

    Args:
        service: ``"s3"``, ``"sagemaker"`` or ``"logs"``.
        region: Where; None for the one that is configured.

    Raises:
        MissingDependencyError: If boto3 is not installed.
        CloudError: If no region is configured and none is named.
    """
    try:
        import boto3
    except ImportError as error:
        raise MissingDependencyError(
            "SageMaker jobs need boto3; install with: pip install 'rlnas[sagemaker]'"
        ) from error
    from botocore.exceptions import BotoCoreError, NoRegionError

    try:
        return boto3.client(service, region_name=region)
    except NoRegionError as error:
        raise CloudError("no AWS region is configured; name one (--region)") from error
    except (BotoCoreError, ValueError) as error:  # e.g. a profile or an endpoint that cannot be
        raise CloudError(f"cannot connect to {service}: {first_line(error)}") from error


@contextmanager
def answered(what: str) -> Iterator[None]:
    """Say of a request that failed what it was for.

    Args:
        what: E.g. ``"stop the job demo"``.

    Raises:
        CloudError: If the service refuses or cannot be reached.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except NoCredentialsError as error:
        raise CloudError(
            f"cannot {what}: there are no AWS credentials; configure them as for AWS's own command line"
        ) from error
    except ClientError as error:
        found = error.response.get("Error", {})
        raise CloudError(f"cannot {what}: {found.get('Code')}: {found.get('Message')}") from error
    except (BotoCoreError, Boto3Error) as error:
        raise CloudError(f"cannot {what}: {first_line(error)}") from error


def is_absent(error: CloudError) -> bool:
    """Whether a request failed because what it asked for is not there."""
    found = _refusal(error)
    if found.get("Code") == "ValidationException":  # as SageMaker says it
        return "not found" in str(found.get("Message"))
    return found.get("Code") in _ABSENT


def is_forbidden(error: CloudError) -> bool:
    """Whether a request failed for want of permission.

    S3 says so of a file that is not there too, to whoever may list some prefixes of the bucket only.
    """
    return _refusal(error).get("Code") in _FORBIDDEN


def _refusal(error: CloudError) -> Mapping[str, str]:
    found: Mapping[str, str] = getattr(error.__cause__, "response", {}).get("Error", {})
    return found
