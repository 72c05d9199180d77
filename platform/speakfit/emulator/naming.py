"""Resource names: what they must look like, and new ids like Google's."""

from __future__ import annotations

import re
import secrets

from speakfit.errors import InvalidArgument, Unimplemented

_PROJECT = re.compile(r"projects/([^/]+)")


def project_of(name: str, *, field: str = "name") -> str:
    """The project id of a `projects/ID` name."""
    if name.startswith(("organizations/", "folders/")):
        raise Unimplemented("Organizations and folders exist in Cloud Monitoring but not here.")
    match = _PROJECT.fullmatch(name)
    if match is None:
        raise InvalidArgument.of_field(field, name, 'the name must have the form "projects/ID".')
    return match.group(1)


def check_name(name: str, collection: str, *, field: str = "name") -> str:
    """The project id of `projects/ID/COLLECTION/ID`, or InvalidArgument."""
    match = re.fullmatch(rf"projects/([^/]+)/{collection}/[^/]+", name)
    if match is None:
        raise InvalidArgument.of_field(
            field, name, f'the name must have the form "projects/ID/{collection}/ID".'
        )
    return match.group(1)


def new_number() -> str:
    """A numeric id of up to 20 digits, as policies, conditions and channels have."""
    return str(secrets.randbelow(9 * 10**18) + 10**18)


def new_incident_id() -> str:
    """An incident id like Google's `0.mp9ojt5e6800`."""
    alphabet = "0123456789abcdefghijklmnopqrstuvwxyz"
    return "0." + "".join(secrets.choice(alphabet) for _ in range(12))
